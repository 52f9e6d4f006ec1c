"""The parser under arbitrary input, and the round trip of everything that it can produce."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegated.errors import RequestError
from delegated.request import Embedded, Request, parse, render

SUFFIXES = (".md", ".yaml", ".json")

# Lines that mean something to one of the readers, alone and in the middle of others.
MARKS = st.sampled_from(
    [
        *(
            "# Title",
            "## Issue",
            "### Logs",
            "## File Contents",
            "## Files",
            "#### a.py",
            "### `a b.py`",
            "# `x`",
            "##",
        ),
        *("```", "````", "```python", "~~~", "   ```", "    ```", "- ```", "> ```", "`a.py`", "``a`b``", "**a.py**"),
        *("---", "***", "===", "--", "...", "- - -", "<!-- END -->", "<!--", "-->", "<pre>", "<!-- a -->", "<a b"),
        *(
            "- a",
            "* b",
            "1. c",
            "10) d",
            "-",
            "- - - a",
            "> a",
            ">>>> b",
            "> - c",
            "\t- e",
            "  - f",
            "-\ta",
            "1.      x",
        ),
        *("DELEGATE TO GPT-4O: x", "**delegate to gpt-4o: y**", "- Delegate to GPT-4o:", "> DELEGATE TO GPT-4O: z"),
        *("[a]: /b", "issue: x", "draft: true", "id: a", "files: [a, b]", "- a: b", "{", "{}", "&a b", "*a", "<<: b"),
        *("", " ", "    ", "\t", "\u2028", "\x0b", "\x85", "\ufeff", "\xa0# a", "none", "a, b", "**Timestamp**: 1"),
        *(
            ">" * 30,
            "- " * 12 + "x",
            " " * 40 + "- x",
            "\t\t\t- a",
            "a\\",
            "\\# b",
            "&amp;",
            "a  ",
            "a#",
            "# a #",
            "## Issue ##",
        ),
    ]
)
# Any character that a file may hold; lone surrogates cannot be encoded, and NUL is refused.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
LINES = st.lists(st.one_of(MARKS, MARKS, st.text(CHARACTERS, max_size=12)), max_size=14)
PAGES = LINES.map("\n".join)
TEXTS = st.one_of(PAGES, st.text(CHARACTERS, max_size=60))
# A path's characters; controls are refused.
PATHS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)
WRITTEN = st.fixed_dictionaries(
    {},
    optional={
        "issue": TEXTS,
        "context": TEXTS,
        "logs": TEXTS,
        "attempted_fixes": st.lists(TEXTS, max_size=4),
        "files": st.lists(PATHS, max_size=4),
        "questions": st.lists(TEXTS, max_size=4),
        "file_contents": st.dictionaries(PATHS.filter(lambda path: path.strip(" `\u2003")), TEXTS, max_size=4),
        "id": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", fullmatch=True),
        "draft": st.booleans(),
        "models": st.lists(NAMES, max_size=3),
        "compare": st.booleans(),
        "priority": st.integers(-1000, 1000),
        "max_cost_usd": st.floats(min_value=1e-6, max_value=1e6),
        "max_input_tokens": st.integers(1, 10**9),
        "deadline_s": st.floats(min_value=1, max_value=1e6),
        "repro": TEXTS,
        "test": TEXTS,
        "labels": st.lists(NAMES, max_size=3),
    },
)


def same(request: Request) -> Request:
    """Leave out what a round trip may change."""
    contents = tuple(dataclasses.replace(file, line=0) for file in request.contents)
    return dataclasses.replace(request, warnings=(), contents=contents)


def check_problems(error: RequestError, lines: int) -> None:
    assert error.problems
    for problem in error.problems:
        assert problem.line is None or 1 <= problem.line <= max(lines, 1), problem
        assert problem.found
        assert problem.expected
        assert str(problem).encode()


def check(data: bytes, suffix: str, lines: int) -> None:
    try:
        request = parse(data, suffix)
    except RequestError as error:
        check_problems(error, lines)
        return
    assert all(warning.encode() for warning in request.warnings)
    text = render(request)
    again = parse(text.encode(), ".md")
    assert same(again) == same(request), text
    assert same(parse(render(request, end_mark=True).encode(), ".md")) == same(request)
    assert render(again) == text


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(data=st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_bytes_raise_nothing_but_request_errors(suffix: str, data: bytes) -> None:
    """Whatever the bytes are, they are a request or a list of problems with lines that exist."""
    check(data, suffix, len(data.replace(b"\r", b"\n").split(b"\n")))


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(text=TEXTS)
@settings(max_examples=500, deadline=None)
def test_text_raises_nothing_but_request_errors(suffix: str, text: str) -> None:
    """Whatever the text is, it is a request that reads back the same, or a list of problems with lines that exist."""
    check(text.encode(), suffix, len(text.replace("\r", "\n").split("\n")))


@given(front=PAGES, body=PAGES)
@settings(max_examples=300, deadline=None)
def test_front_matter_raises_nothing_but_request_errors(front: str, body: str) -> None:
    """Front matter that cannot be read is told with its line; what can be read reads back the same."""
    text = f"---\n{front}\n---\n{body}"
    check(text.encode(), ".md", len(text.replace("\r", "\n").split("\n")))


@pytest.mark.slow
@given(values=WRITTEN)
@settings(max_examples=500, deadline=None)
def test_every_request_reads_back_from_what_is_written(values: dict[str, object]) -> None:
    """Any texts whatever, given as JSON, come out of the Markdown that they are written as."""
    check(json.dumps(values).encode(), ".json", 1)
    check(json.dumps({"issue": "it fails"} | values | {"draft": True}).encode(), ".json", 1)


@given(texts=st.lists(TEXTS, min_size=1, max_size=4), language=st.sampled_from(["", "python", "c++"]))
@settings(max_examples=300, deadline=None)
def test_embedded_files_read_back_exactly(texts: list[str], language: str) -> None:
    """A file that goes along arrives as it was, whatever fences and headings it holds."""
    files = tuple(
        Embedded(f"src/{number}.py", text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n", language)
        for number, text in enumerate(texts)
        if text.strip("\r\n")
    )
    request = Request("it fails", contents=files)
    assert same(parse(render(request).encode(), ".md")) == request


RAW = st.one_of(TEXTS, st.lists(MARKS, max_size=6).map("\r".join), st.text(max_size=40))


@pytest.mark.slow
@given(
    texts=st.tuples(RAW, RAW, RAW),
    lists=st.tuples(*[st.lists(RAW, max_size=3).map(tuple)] * 3),
    contents=st.lists(st.tuples(RAW, RAW, RAW), max_size=3),
)
@settings(max_examples=500, deadline=None)
def test_values_that_nobody_parsed_yet_are_written_safely(
    texts: tuple[str, str, str], lists: tuple[tuple[str, ...], ...], contents: list[tuple[str, str, str]]
) -> None:
    """A client may write any strings: each stays in its own part, and what is read then is written the same again."""
    files = tuple(Embedded(path, text, language) for path, text, language in contents)
    issue, context, logs = texts
    request = Request(f"it fails {issue}", context, logs, lists[0], lists[1], files, lists[2])
    written = render(request).encode("utf-8", "replace")
    again = parse(written, ".md")
    assert again.issue.startswith("it fails")
    assert len(again.attempted_fixes) <= len(lists[0])
    assert len(again.files) <= len(lists[1])
    assert len(again.contents) <= len(files)
    assert len(again.questions) <= len(lists[2])
    assert bool(again.context) == bool(context.replace("\0", "\ufffd").strip())
    assert same(parse(render(again).encode(), ".md")) == same(again)
