"""Text from anywhere cannot break a page or a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from delegated.markdown import after, cell, clean, fence, indent, inline, line, prose, span

PARSER = MarkdownIt("commonmark", {"linkify": False}).enable(["table", "strikethrough"])
DRAWN = (
    "mermaid Mermaid plantuml puml math geojson topojson stl graphviz dot kroki d2 vega-lite chart abc svg dataviewjs "
    "suggestion latex {r} ${x} sk-proj-1234567890abcdef mermaid.js python-mermaid"
)
ALLOWED = {"paragraph", "inline", "bullet_list", "ordered_list", "list_item", "fence"}
ALLOWED_INLINE = {"text", "code_inline", "strong", "softbreak", "text_special"}
HOSTILE = st.text(
    st.sampled_from([*"#>-+*=_`~|[]()!<>&\\/:. \t\n\r0123ab@\"'", *"\x1b\u202e\u200b\x00\ud800\u2028"]),
    max_size=60,
) | st.lists(
    st.sampled_from(
        ["# h", "h\n===", "h\n---", "```", "~~~", "````py", "![a](http://x/y.png)", "[a](javascript:x)", "[a]: http://x",
         "[a]", "[a][a]", "<script>", "<!-- END -->", "<img src=x>", "<http://x>", "http://x/y", "- ", "1. ", "> ",
         "    ", "\t", "\n", "\n\n", " ", "|a|b|", "|-|-|", "a|b\n-|-", "**b**", "**", "__", "`", "``", "\\", "&lt;",
         "&#35;", "***", "- - #", "1) # x", "\x1b[31m", "\x1b]8;;http://x\x07", "\x9b2J", "\r", "www.x.y", "text"]
    ),
    max_size=14,
).map("".join)  # fmt: skip


def kinds(tokens: list[Token]) -> set[str]:
    return {token.type.removesuffix("_open").removesuffix("_close") for token in tokens}


def inline_kinds(tokens: list[Token]) -> set[str]:
    return {kind for token in tokens if token.children for kind in kinds(token.children)}


def words(tokens: list[Token]) -> str:
    return "".join(child.content for token in tokens for child in token.children or [])


@given(HOSTILE)
def test_prose_is_paragraphs_lists_and_code_and_nothing_else(text: str) -> None:
    """No heading, rule, quote, table, HTML, image or link survives, however it is written or nested."""
    tokens = PARSER.parse(prose(text))
    assert kinds(tokens) <= ALLOWED
    assert inline_kinds(tokens) <= ALLOWED_INLINE


@given(HOSTILE)
def test_prose_stays_inside_the_list_item_it_is_put_in(text: str) -> None:
    """What follows an item is not swallowed by a fence, a paragraph or a list that the item's text began."""
    tokens = PARSER.parse(f"- {indent(after('x', text), '  ')}\n\n## Next\n")
    heading = [token for token in tokens if token.type == "heading_open"]
    assert [token.level for token in heading] == [0]


@given(HOSTILE)
def test_inline_text_is_one_paragraph(text: str) -> None:
    """A title, a note or a cell is words on one line."""
    out = inline(text)
    tokens = PARSER.parse(out)
    assert "\n" not in out
    assert kinds(tokens) <= {"paragraph", "inline"}
    assert inline_kinds(tokens) <= ALLOWED_INLINE


@given(HOSTILE)
def test_a_code_span_holds_exactly_its_text(text: str) -> None:
    """Whatever backticks a path holds, it is one code span and shows itself."""
    tokens = PARSER.parse(f"x {span(text)} y")
    children = tokens[1].children or []
    if line(text):
        assert [child.type for child in children] == ["text", "code_inline", "text"]
        assert children[1].content == line(text)


@given(HOSTILE, HOSTILE)
def test_a_fence_holds_exactly_its_code(code: str, language: str) -> None:
    """Code that holds fences of its own stays in its block."""
    tokens = PARSER.parse(f"{fence(code, language)}\n\n## Next\n")
    assert tokens[0].type == "fence"
    assert tokens[1].type == "heading_open"
    assert tokens[0].content.removesuffix("\n") == clean(code).removesuffix("\n").replace("\x00", "\ufffd")


@pytest.mark.parametrize("word", DRAWN.split())
def test_a_fence_that_a_page_would_draw_is_only_text(word: str) -> None:
    """A diagram makes links and fetches images: a block bears the name of a language that is known, or none."""
    assert fence("x", word) == "```\nx\n```"
    assert fence("x", f" {word} python") == "```\nx\n```"
    for mark in ("```", "~~~", "- ```"):
        assert f"{word}\n" not in prose(f"See:\n{mark}{word}\ngraph TD; A\n{mark.removeprefix('- ')}\n")
    for known in ("python", "C++", "c#", "Dockerfile", "diff", "objective-c", "tsx"):
        assert fence("x", known) == f"```{known.lower()}\nx\n```"
    assert fence("x", "json:table") == "```json\nx\n```"


@given(HOSTILE)
def test_a_cell_is_one_cell(text: str) -> None:
    """A pipe or a newline in a value cannot shift the columns of a table."""
    for value in (span(text), inline(text)):
        tokens = PARSER.parse(f"| a | b |\n|---|---|\n| {cell(value)} | end |\n\nafter\n")
        cells = [token for token in tokens if token.type == "td_open"]
        assert len(cells) == 2
        assert [token.content for token in tokens if token.type == "inline"][-2:] == ["end", "after"]


@given(HOSTILE | st.text())
def test_clean_text_has_nothing_that_a_terminal_obeys_or_an_eye_misses(text: str) -> None:
    """Only newline and tab are left of the controls, nothing of the invisible; and cleaning twice changes nothing."""
    out = clean(text)
    for char in out:
        assert char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs")
        # The visible marks of Arabic, Syriac and Kaithi are formally format characters too.
        assert unicodedata.category(char) != "Cf" or "\u0600" <= char <= "\u08ff" or char in "\U000110bd\U000110cd"
    assert clean(out) == out
    out.encode()


@pytest.mark.parametrize(
    "address",
    [
        *("https://b.io/x", "ftp://b.io", "www.b.io", "WWW.b.io", "a@b.io"),
        f"a@{'b' * 70}.io",
        f"{'a' * 70}@b.{'c' * 70}.io",
    ],
)
@pytest.mark.parametrize("before", ["", " ", "1", "_", "a_", "\u00e9", "\u4e2d", "(", "*", "~", "9a.b-", "-", "+"])
def test_an_address_is_no_link_whatever_stands_before_it(before: str, address: str) -> None:
    """Pages make links of bare addresses, also right after a digit, an underscore or a letter that is not ASCII."""
    for page in (inline(before + address), prose(before + address)):
        tokens = PARSER.parse(page)
        plain = "".join(child.content for token in tokens for child in token.children or [] if child.type == "text")
        assert "b.io" not in plain
        assert "@b" not in plain


def test_every_invisible_format_character_is_removed() -> None:
    """The list of ranges is complete by Unicode's own table."""
    visible = {*range(0x0600, 0x0606), 0x06DD, 0x070F, 0x0890, 0x0891, 0x08E2, 0x110BD, 0x110CD}
    left = [
        hex(n) for n in range(0x110000) if unicodedata.category(chr(n)) == "Cf" and clean(chr(n)) and n not in visible
    ]
    assert left == []


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a\x1b[1;31mred\x1b[0m b", "ared b"),
        ("\x1b]0;new title\x07shown", "shown"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b31mred", "red"),
        ("\x1b]0;never ended, still shown", "0;never ended, still shown"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("pass\u202eword \u2066x\u2069 z\u200bero", "password x zero"),
        ("\ud83d half", "\ufffd half"),
        ("tab\tand émoji 🎉 stay", "tab\tand émoji 🎉 stay"),
        ("tag\U000e0041\U000e0042s", "tags"),
    ],
)
def test_clean_takes_whole_sequences(text: str, cleaned: str) -> None:
    """An escape sequence goes as a whole; one that is not ended does not take the words after it along."""
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("Use `x_y` and **never** `__init__`.", "Use `x_y` and **never** `__init__`."),
        ("snake_case, __init__, *args, **kwargs", r"snake_case, \_\_init\_\_, \*args, \*\*kwargs"),
        ("a < b and List<int> & c", "a < b and List&lt;int> & c"),
        ("see [the docs](https://x.y/z) or https://x.y/z.", "see the docs (`https://x.y/z`) or `https://x.y/z`."),
        ("![beacon](https://x.y/p.png?q=1)", "beacon (`https://x.y/p.png?q=1`)"),
        ("# Title\ntext", "**Title**\n\ntext"),
        ("1. one\n2. two\n   - sub", "1. one\n2. two\n   - sub"),
        ("* a\n* b", "- a\n- b"),
        ("~~~py\nx\n~~~\nend", "```py\nx\n```\n\nend"),
        ("```\nnot ended\n\n\nstill code", "```\nnot ended\n\n\nstill code\n```"),
        (r"C:\dev\x and \](y)", r"C:\dev\x and \\\](y)"),
        ("```go\n\tif x {\n```", "```go\n\tif x {\n```"),
    ],
)
def test_prose_keeps_what_helps_a_reader(text: str, markdown: str) -> None:
    """Paragraphs, lists, bold and code come through as a person would have written them."""
    assert prose(text) == markdown


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    ["`", "**a", "[", " ", "http://", "_", "``a`", "a ", "\x9d", "\x1b]"],
)
@pytest.mark.parametrize(("before", "after"), [("", ""), ("[a](", ""), ("``` ", "`"), ("\x1b[", ""), ("**", "*")])
def test_hostile_text_is_read_in_linear_time(before: str, piece: str, after: str) -> None:
    """No pattern backtracks: a quadratic one would need minutes for a text ten times as long as any that comes."""
    text = before + piece * (200_000 // len(piece)) + after
    assert prose(text) is not None
    assert inline(text) is not None
