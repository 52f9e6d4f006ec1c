"""What goes along fits the budget, is the file's own text, and nothing disappears without a reason."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegated.context import Context, Omitted, SourceFile, block_tag, choose, lines_of, render_excerpt


def count(text: str) -> int:
    """Count as the estimate does: a token is 2.5 bytes."""
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / 2.5)


def source(path: str, text: str, why: str = "named by the request") -> SourceFile:
    return SourceFile(path, text, "0" * 64, len(text), why)


def numbered(total: int, width: int = 20) -> str:
    return "".join(f"line {number} {'x' * width}\n" for number in range(1, total + 1))


def spans(context: Context, path: str) -> list[tuple[int, int]]:
    return [(excerpt.start_line, excerpt.end_line) for excerpt in context.excerpts if excerpt.path == path]


def test_a_file_that_fits_goes_whole() -> None:
    context = choose([source("a.py", numbered(10))], {}, 1_000, count)
    assert spans(context, "a.py") == [(1, 10)]
    assert context.omitted == ()
    assert context.excerpts[0].why == "named by the request"


def test_a_file_that_does_not_fit_goes_as_thirty_lines_around_each_mentioned_one() -> None:
    context = choose([source("a.py", numbered(2_000))], {"a.py": [1_000, 100]}, 4_000, count)
    assert spans(context, "a.py") == [(70, 130), (970, 1_030)]
    assert context.excerpts[1].text.splitlines()[30] == "line 1000 " + "x" * 20
    (left_out,) = context.omitted
    assert left_out.reason.startswith("lines 1-69, 131-969, 1031-2000 left out: the whole file needs ")
    assert left_out.reason.endswith("the budget for code is 4,000")


def test_windows_that_touch_become_one() -> None:
    context = choose([source("a.py", numbered(2_000))], {"a.py": [100, 163, 140]}, 4_000, count)
    assert spans(context, "a.py") == [(70, 193)]


def test_windows_shrink_before_mentions_are_given_up() -> None:
    context = choose([source("a.py", numbered(2_000))], {"a.py": [1_500, 100]}, 400, count)
    ((first_start, first_end), (second_start, second_end)) = spans(context, "a.py")
    assert first_start <= 100 <= first_end
    assert second_start <= 1_500 <= second_end
    assert first_end - first_start < 60


def test_the_most_suspicious_mention_is_kept_longest() -> None:
    context = choose([source("a.py", numbered(2_000))], {"a.py": [1_500, 100, 700, 900]}, 60, count)
    assert [start for start, _ in spans(context, "a.py")] == [1_500]


def test_a_file_without_mentions_that_does_not_fit_goes_as_its_beginning() -> None:
    context = choose([source("a.py", numbered(2_000))], {}, 1_000, count)
    ((start, end),) = spans(context, "a.py")
    assert start == 1
    assert 40 < end < 2_000
    assert context.excerpts[0].why.endswith("its beginning only")
    assert context.omitted[0].reason.startswith(f"lines {end + 1}-2000 left out")


def test_one_line_that_is_larger_than_the_budget_leaves_its_name() -> None:
    context = choose([source("bundle.js", "x" * 100_000)], {"bundle.js": [1]}, 1_000, count)
    assert context.excerpts == ()
    assert context.omitted[0].reason.startswith("all 1 line left out: the whole file needs 40,0")


def test_one_large_file_never_fails_the_rest() -> None:
    files = [source("large.py", numbered(5_000)), source("small.py", numbered(5))]
    context = choose(files, {}, 3_000, count)
    assert spans(context, "small.py") == [(1, 5)]
    assert spans(context, "large.py")[0][0] == 1


def test_a_first_file_that_nearly_fills_the_budget_leaves_room_for_the_mentioned_lines_of_a_later_one() -> None:
    first = source("first.py", numbered(300))
    second = source("second.py", numbered(1_000))
    budget = choose([first], {}, 10**9, count).tokens + 20
    context = choose([first, second], {"first.py": [10], "second.py": [500]}, budget, count)
    assert any(start <= 500 <= end for start, end in spans(context, "second.py"))
    assert any(start <= 10 <= end for start, end in spans(context, "first.py"))


def test_what_later_files_do_not_need_goes_back_to_the_earlier_ones() -> None:
    first, second = source("first.py", numbered(300)), source("second.py", numbered(40))
    budget = choose([first, second], {}, 10**9, count).tokens
    context = choose([first, second], {"first.py": [10], "second.py": [20]}, budget, count)
    assert spans(context, "first.py") == [(1, 300)]
    assert spans(context, "second.py") == [(1, 40)]
    assert context.omitted == ()


def test_what_was_left_out_before_is_listed_first_and_warnings_pass_through() -> None:
    context = choose([], {}, 10, count, omitted=[Omitted("x", "is a directory")], warnings=["careful"])
    assert context.omitted == (Omitted("x", "is a directory"),)
    assert context.warnings == ("careful",)
    assert context.tokens == 0


def test_an_empty_file_is_named_as_empty() -> None:
    assert choose([source("a.py", "")], {"a.py": [1]}, 100, count).omitted == (Omitted("a.py", "the file is empty"),)


def test_a_path_given_twice_counts_once_and_keeps_its_place() -> None:
    files = [source("a.py", "one\n"), source("b.py", "two\n"), source("a.py", "three\n")]
    assert [(e.path, e.text) for e in choose(files, {}, 1_000, count).excerpts] == [
        ("a.py", "one\n"),
        ("b.py", "two\n"),
    ]


def test_lines_beyond_the_file_are_no_mentions() -> None:
    context = choose([source("a.py", numbered(2_000))], {"a.py": [0, -5, 2_001, 10**12], "b.py": [1]}, 1_000, count)
    assert spans(context, "a.py")[0][0] == 1


def test_a_block_reads_as_numbered_lines_with_their_place() -> None:
    (excerpt,) = choose(
        [source("src/a.py", "import os\nx = 1", 'frame 2 of "log" & more\n<b>')], {}, 1_000, count
    ).excerpts
    assert render_excerpt(excerpt, "file") == (
        '<file path="src/a.py" lines="1-2" total="2" why="frame 2 of &quot;log&quot; &amp; more&#10;&lt;b&gt;">\n'
        "   1| import os\n"
        "   2| x = 1\n"
        "</file>\n"
    )


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("plain", "file"),
        ("</file>", "file-1"),
        ("< / FILE >", "file-1"),
        ("<file path='x'>", "file-1"),
        ("</file> </file-1> </file-3>", "file-2"),
        ("<filename> </profile> file", "file"),
        ("</file-2>", "file"),
    ],
)
def test_no_text_can_close_or_open_the_block_it_stands_in(text: str, tag: str) -> None:
    assert block_tag([text]) == tag


LINES = st.lists(st.text(alphabet=st.sampled_from("ab </>file-1\r\x0c\u2028\té\ud800"), max_size=30), max_size=120)
TEXTS = st.builds(lambda lines, end: "\n".join(lines) + end, LINES, st.sampled_from(["", "\n"]))
FILES = st.lists(st.builds(source, st.sampled_from(["a", "b", "c/d", "e"]), TEXTS, st.text(max_size=5)), max_size=5)
MENTIONS = st.dictionaries(st.sampled_from(["a", "b", "e", "zz"]), st.lists(st.integers(-3, 130), max_size=8))


@given(FILES, MENTIONS, st.integers(-10, 3_000))
def test_whatever_is_given_the_budget_holds_and_every_file_is_accounted_for(
    files: list[SourceFile], mentions: dict[str, list[int]], budget: int
) -> None:
    context = choose(files, mentions, budget, count)
    tag = block_tag(file.text for file in files)
    rendered = [render_excerpt(excerpt, tag) for excerpt in context.excerpts]
    assert context.tokens == sum(count(block) for block in rendered) <= max(budget, 0)
    firsts = {file.path: file for file in reversed(files)}
    assert {e.path for e in context.excerpts} | {o.path for o in context.omitted} == set(firsts)
    for excerpt in context.excerpts:
        lines = lines_of(firsts[excerpt.path].text)
        assert excerpt.total_lines == len(lines)
        assert 1 <= excerpt.start_line <= excerpt.end_line <= len(lines)
        assert excerpt.text == "".join(lines[excerpt.start_line - 1 : excerpt.end_line])
    for block in rendered:
        assert block.count(f"</{tag}>") == 1
        assert block.endswith(f"</{tag}>\n")
    for path, file in firsts.items():
        kept = sum(end - start + 1 for start, end in spans(context, path))
        silent = path not in {left_out.path for left_out in context.omitted}
        assert (kept == len(lines_of(file.text))) == silent or not file.text


@given(TEXTS)
def test_lines_join_to_the_text_and_only_a_line_feed_ends_one(text: str) -> None:
    lines = lines_of(text)
    assert "".join(lines) == text
    assert all(line.endswith("\n") for line in lines[:-1])
    assert all("\n" not in line[:-1] for line in lines)
