"""Row 8 of the fault matrix: the power fails."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from delegated.record import pack
from faults.crashes import Count, Model, Recording
from faults.power import SCENARIOS, Scenario, describe, judge, record

SEED = int(os.environ.get("FAULTS_SEED", "8"))


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_row_8_power_loss(tmp_path: Path, scenario: Scenario) -> None:
    """Whatever a power cut leaves of a job: nothing is lost, torn or billed twice. A sample; `power` recovers all."""
    recorded = record(scenario, tmp_path / "recorded")
    models: tuple[Model, ...] = ("ordered", "weak")
    for model in models:
        verdict = judge(recorded, model, tmp_path / "room", sample=5, seed=SEED)
        assert verdict.states > 25, "the record holds too little"
        assert not verdict.breaches, "\n".join(
            f"seed {SEED}, {model}: {breach}\n{describe(recorded, state)}" for breach, state in verdict.examples.items()
        )


def lines(*operations: dict[str, Any], ledger: bytes = b"", net: int = 0) -> Recording:
    import json

    return Recording(b"".join(json.dumps({"net": net, **each}).encode() + b"\n" for each in operations), ledger)


def left(recording: Recording, model: Model) -> set[tuple[tuple[str, bytes], ...]]:
    return {tuple(sorted(state.files.items())) for state in recording.states(model, Count())}


def made(path: str, data: bytes, fd: int = 5) -> tuple[dict[str, Any], ...]:
    text = base64.b64encode(data).decode()
    return (
        {"op": "open", "path": path, "fd": fd, "trunc": False},
        {"op": "write", "fd": fd, "data": text},
    )


OPENED = {"op": "open", "path": ".", "fd": 4, "trunc": False}
SYNCED = {"op": "fsync", "fd": 4}


@pytest.mark.parametrize("model", ["ordered", "weak"])
def test_unsynced_bytes_survive_as_none_half_or_all(model: Model) -> None:
    """A name that was synced may lead to any part of bytes that were not, and after their sync to all of them."""
    recording = lines(OPENED, *made("a", b"1234"), SYNCED)
    assert left(recording, model) == {(), (("a", b""),), (("a", b"12"),), (("a", b"1234"),)}
    synced = lines(OPENED, *made("a", b"1234"), {"op": "fsync", "fd": 5}, SYNCED, *made("b", b"", 6))
    after = [state for state in synced.states(model, Count()) if state.point > 5]
    assert {state.files["a"] for state in after} == {b"1234"}


def test_unsynced_names_survive_as_a_prefix_or_as_any_subset() -> None:
    """Two new names: ordered, the second is never there without the first; weak, it may be."""
    recording = lines({"op": "mkdir", "path": "x"}, *made("a", b""), *made("b", b"", 6))
    assert left(recording, "ordered") == {(), (("a", b""),), (("a", b""), ("b", b""))}
    assert left(recording, "weak") == left(recording, "ordered") | {(("b", b""),)}


def test_a_rename_survives_by_half_in_the_weak_model_only() -> None:
    """Weak: both names, or none. Ordered: one of them. What is reached through a lost directory is lost."""
    before = (OPENED, *made("a", b"1"), {"op": "fsync", "fd": 5}, {"op": "mkdir", "path": "d"}, SYNCED)
    recording = lines(*before, {"op": "rename", "path": "a", "to": "d/b"})
    both, new, old = (("a", b"1"), ("d/b", b"1")), (("d/b", b"1"),), (("a", b"1"),)
    earlier = {(), (("a", b""),)}
    assert left(recording, "ordered") == {*earlier, old, new}
    assert left(recording, "weak") == {*earlier, old, new, both}
    last = [state for state in recording.states("weak", Count()) if state.point == len(recording.events)]
    assert {tuple(state.files) for state in last} == {("d/b",), ("a", "d/b")}, "neither was a state before, too"
    unsynced = lines(OPENED, {"op": "mkdir", "path": "d"}, *made("d/b", b"1"), {"op": "fsync", "fd": 5})
    assert left(unsynced, "weak") == {(), (("d/b", b""),), (("d/b", b"1"),)}


def test_the_servers_memory_is_part_of_a_state() -> None:
    """A bill that came between two operations is there after the one and before the other."""
    log = lines({"op": "mkdir", "path": "a"}).events
    recording = lines({"op": "mkdir", "path": "a"}, ledger=b"{}\n{}\n")
    assert [event["op"] for event in log] == ["mkdir"]
    assert [event["op"] for event in recording.events] == ["mkdir", "net", "net"]
    assert {state.net for state in recording.states("ordered", Count())} == {0, 1, 2}


def test_states_that_read_alike_are_recovered_once() -> None:
    """A torn record is torn whatever its bytes are; a sound one is told apart by them."""
    place = ".delegated/jobs/aa/one/r1"
    parents = [{"op": "mkdir", "path": path} for path in (".delegated", ".delegated/jobs", ".delegated/jobs/aa")]
    parents += [{"op": "mkdir", "path": path} for path in (f"{place[:-3]}", place)]
    recording = lines(*parents, *made(f"{place}/claim", pack({"id": "one"}, b"x")))
    states = [state for state in recording.states("ordered", Count()) if f"{place}/claim" in state.files]
    assert len({state.exact() for state in states}) == 3, "none, half and all"
    assert len({state.seen() for state in states}) == 2, "torn and sound"
