"""The suite itself is tested: with a safeguard taken out, something must fail."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from faults.mutations import MUTATIONS, Mutation, caught, mutated, run

SEED = int(os.environ.get("FAULTS_SEED", "8"))
SAMPLE = random.Random(SEED).sample(MUTATIONS, 6)  # `python -m tests.faults mutations` takes all


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.name)
def test_a_mutation_still_fits_the_code(tmp_path: Path, mutation: Mutation) -> None:
    """The text that holds a safeguard is found exactly once, and what replaces it is a program."""
    place = mutated(mutation, tmp_path)
    for name in mutation.edits:
        compile((place / "delegated" / name).read_text(), name, "exec")


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("mutation", SAMPLE, ids=lambda each: each.name)
def test_a_safeguard_that_is_taken_out_is_missed(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, mutation: Mutation, as_it_is: dict[str, bool]
) -> None:
    """Its test passes on a copy of the package as it is and fails on the mutated copy."""
    if mutation.catcher not in as_it_is:
        sound = mutated(None, tmp_path_factory.mktemp("sound"))
        as_it_is[mutation.catcher], words = run(mutation.catcher, sound)
        assert as_it_is[mutation.catcher], words
    assert as_it_is[mutation.catcher], "fails without any mutation"
    found, words = caught(mutation, tmp_path)
    assert found, f"nobody misses this: {mutation.safeguard}"


@pytest.fixture(scope="module")
def as_it_is() -> dict[str, bool]:
    """What each catcher says of the copy without a mutation."""
    return {}
