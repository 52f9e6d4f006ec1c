"""The test that failed goes along whole: found by what the logs and commands say, in the notation of each language."""

from __future__ import annotations

from pathlib import Path

import pytest

from delegated import failing as tests
from delegated import pricing
from delegated.context import Excerpt, SourceFile, choose
from delegated.failing import failing
from delegated.gather import Gatherer, Limits, Tokens
from delegated.prompt import Prompt
from delegated.request import Options, Request
from delegated.workspace import Workspace

PYTHON = """import pool


def test_full():
    assert pool.take([1]) == 1


class TestEmpty:
    @pytest.mark.slow
    async def test_none(
        self,
    ) -> None:
        # nothing there

        assert pool.take([]) is None

    def test_twice(self):
        pass
"""
SCRIPT = """describe("pool", () => {
  it("gives what is there", () => {
    expect(take([1])).toBe(1);
  });

  it.each([1, 2])('gives nothing when empty', async (n) => {
    expect(take([])).toBe(null);
  });
});
"""
GO = """package pool

// TestEmpty takes from nothing.
func TestEmpty(t *testing.T) {
	if Take(nil) != nil {
		t.Fatal("no")
	}
}

func TestFull(t *testing.T) {
}
"""
JAVA = """class PoolTest {
    @Test
    @DisplayName("empty")
    void emptyGivesNull() {
        assertNull(pool.take());
    }

    void helper() {
    }
}
"""
RUST = """#[cfg(test)]
mod tests {
    #[test]
    fn empty() {
        assert!(take(&[]).is_none());
    }

    fn helper() {}
}
"""


@pytest.mark.parametrize(
    ("path", "text", "said", "expected"),
    [
        ("test_pool.py", PYTHON, "FAILED test_pool.py::TestEmpty::test_none - x", [("test_none", 9, 15)]),
        ("test_pool.py", PYTHON, "pytest -k test_full", [("test_full", 4, 5)]),
        ("test_pool.py", PYTHON, "a.py::test_full PASSED\na.py::test_twice FAILED", [("test_twice", 17, 18)]),
        ("pool.test.ts", SCRIPT, "● pool \u203a gives nothing when empty", [("gives nothing when empty", 6, 8)]),
        ("pool_test.go", GO, "--- FAIL: TestEmpty (0.00s)\n--- PASS: TestFull", [("TestEmpty", 3, 8)]),
        ("PoolTest.java", JAVA, "PoolTest.emptyGivesNull:5 » helper()", [("emptyGivesNull", 2, 6)]),
        ("src/tests/pool.rs", RUST, "test tests::empty ... FAILED\nhelper", [("empty", 3, 6)]),
        ("test_pool.py", PYTHON, "test_nonesuch and test_fuller failed", []),
    ],
)
def test_a_test_is_found_by_its_name(path: str, text: str, said: str, expected: list[tuple[str, int, int]]) -> None:
    """With its decorators and to its last line; one that is said to have passed is not meant."""
    assert list(failing(path, text, lines=(), said=said)) == [tests.Test(*each) for each in expected]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("path", "head"),
    [("test_a.py", "def test_{}():\n    x\n"), ("a.test.ts", "  it('takes one {}', () => {{\n  }});\n")],
)
def test_names_that_almost_stand_there_cost_linear_time(path: str, head: str) -> None:
    """Two thousand tests, and as many words that each only begin with the name of one."""
    text = "".join(map(head.format, range(2_000)))
    said = " ".join(f"test_{n}x takes one {n}x" for n in range(2_000)) * 4
    assert failing(path, text, lines=(), said=said) == ()


def test_a_name_stands_there_as_a_whole() -> None:
    """Not as a part of a longer word on either side, and also where it begins or ends with another character."""
    text = "it('$take() twice', () => {});\nit('(empty)', () => {});\n"
    assert [test.name for test in failing("a.test.js", text, lines=(), said="\u2717 $take() twice")] == [
        "$take() twice"
    ]
    assert [test.name for test in failing("a.test.js", text, lines=(), said="\u2717 (empty)")] == ["(empty)"]
    assert failing("a.test.js", text, lines=(), said="a$take() twice, $take() twicely, (emptyish), a(empty)") == ()


def test_a_test_is_found_by_the_line_in_its_trace() -> None:
    """Before those that are only named."""
    found = failing("test_pool.py", PYTHON, lines=(15,), said="test_full")
    assert [test.name for test in found] == ["test_none", "test_full"]


LONG = "def helper_{n}():\n    return {n}\n\n\n"
FILE = (
    "".join(LONG.format(n=n) for n in range(400))
    + "def test_it():\n    first = 1\n    second = 2\n    assert first == second\n\n\n"
    + "".join(LONG.format(n=n) for n in range(400, 800))
)
AT = 4 * 400 + 1


def count(text: str) -> int:
    return len(text) // 4


def test_a_pinned_range_goes_along_where_its_file_does_not() -> None:
    """Also where nothing in the file is mentioned; and the receipt's reason names only what stayed."""
    file = SourceFile("test_it.py", FILE, "0" * 64, len(FILE), "x")
    found = choose([file], {}, 1_000, count, pinned={"test_it.py": [(AT, AT + 3)]}, pins=500)
    (excerpt,) = found.excerpts
    assert (excerpt.start_line, excerpt.end_line) == (AT, AT + 3)
    assert found.omitted[0].reason.startswith(f"lines 1-{AT - 1}, {AT + 4}-")


def test_a_pinned_range_that_does_not_fit_is_told() -> None:
    """The rest of the file is as it would be without."""
    file = SourceFile("test_it.py", FILE, "0" * 64, len(FILE), "x")
    found = choose([file], {"test_it.py": [5]}, 1_000, count, pinned={"test_it.py": [(1, 900)]}, pins=500)
    assert found.excerpts[0].start_line <= 5 <= found.excerpts[0].end_line
    assert found.omitted[0].reason.startswith("the failing test in lines 1-900 did not fit; lines ")


def test_a_file_that_fits_goes_whole_all_the_same() -> None:
    """A pin cuts nothing out."""
    file = SourceFile("test_pool.py", PYTHON, "0" * 64, len(PYTHON), "x")
    (excerpt,) = choose([file], {}, 10_000, count, pinned={"test_pool.py": [(4, 5)]}, pins=500).excerpts
    assert (excerpt.start_line, excerpt.end_line) == (1, excerpt.total_lines)


def gathered(root: Path, request: Request, **limits: int) -> Prompt:
    facts = pricing.facts("gpt-4o")
    assert facts is not None
    with Workspace(str(root)) as space:
        gatherer = Gatherer(space, tokens=lambda: Tokens(count, exact=False), limits=Limits(**limits))
        return gatherer.gather(request, facts, "k")


def sent(prompt: Prompt, path: str) -> list[Excerpt]:
    return [each for each in prompt.context.excerpts if each.path == path]


@pytest.mark.parametrize(
    "request_",
    [
        Request(issue="it fails", options=Options(test="pytest tests/test_it.py::test_it")),
        Request(issue="it fails", options=Options(repro="cd .. && pytest code/tests/test_it.py -k test_it")),
        Request(issue="it fails", logs="FAILED tests/test_it.py::test_it - assert 1 == 2\n"),
        Request(issue="it fails", logs="tests/test_it.py:1604: AssertionError\n"),
    ],
    ids=["test", "repro", "summary", "trace"],
)
def test_the_failing_test_is_sent_whole(tmp_path: Path, request_: Request) -> None:
    """Although its file is sent only in part, and although the files found without being named would fill the room."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_it.py").write_text(FILE)
    for number in range(8):
        (tmp_path / f"it_{number}.py").write_text(f"def it():\n    fails = {number}\n" * 400)
    made = gathered(tmp_path, request_, max_input_tokens=6_000)
    (excerpt,) = (each for each in sent(made, "tests/test_it.py") if each.start_line <= AT <= each.end_line)
    assert "def test_it():\n    first = 1\n    second = 2\n    assert first == second\n" in excerpt.text
    assert f"the failing test `test_it` in lines {AT}-{AT + 3}" in excerpt.why
    assert excerpt.end_line - excerpt.start_line < excerpt.total_lines - 1


def test_it_is_found_where_no_file_is_looked_for(tmp_path: Path) -> None:
    """`find_files: 0` finds nothing for a guess; what a command names is none."""
    (tmp_path / "test_it.py").write_text(FILE)
    made = gathered(tmp_path, Request(issue="x", options=Options(test="pytest test_it.py -k test_it")), find_files=0)
    assert [each.path for each in made.context.excerpts] == ["test_it.py"]


def test_a_test_that_must_not_be_sent_is_not(tmp_path: Path) -> None:
    """No command names a file into the prompt that no request could."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/test_it.py").write_text(FILE)
    (tmp_path / "outside").symlink_to("/")
    options = Options(test="pytest secrets/test_it.py::test_it outside/tmp/test_it.py ../test_it.py")
    assert gathered(tmp_path, Request(issue="x", options=options)).context.excerpts == ()
