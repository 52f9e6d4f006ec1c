"""Tokens are counted exactly where the tokenizer is installed, and never far too low where it is not."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegated.tokens import Counter, counter

exact = pytest.mark.skipif(not counter().exact, reason="needs toktok-rs")


@exact
@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("hello world", 2), ("def f(x):\n    return x\n", 8), ("日本語", 2)]
)
def test_the_models_own_vocabulary_is_used(text: str, tokens: int) -> None:
    assert counter()(text) == tokens


@exact
def test_what_looks_like_a_special_token_is_ordinary_text() -> None:
    assert counter()("<|endoftext|>") > 1


@exact
def test_a_lone_surrogate_counts_as_a_question_mark() -> None:
    assert counter()("a\ud800b") == counter()("a?b")


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("abc", 2), ("abcde", 2), ("日本語", 4), ("\ud800", 2)])
def test_the_estimate_is_two_and_a_half_bytes_a_token(text: str, tokens: int) -> None:
    assert Counter(exact=False)(text) == tokens


@given(st.text())
def test_any_text_can_be_counted(text: str) -> None:
    for count in (Counter(exact=False), counter()):
        assert 0 <= count(text) <= 4 * len(text)


def test_asking_for_a_counter_loads_nothing() -> None:
    script = "import sys; from delegated.tokens import counter; counter(); sys.exit('toktok' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0


def test_without_the_tokenizer_the_estimate_is_used() -> None:
    script = (
        "import sys, importlib.util as u; old = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'toktok' else old(name, *rest)\n"
        "from delegated.tokens import counter; c = counter(); print(c.exact, c('abcdef'))"
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=60, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "3"]
