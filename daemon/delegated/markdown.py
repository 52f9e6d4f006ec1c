"""Text from anywhere, made harmless for a page, a table cell or a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

# An escape sequence goes as a whole, so that no `[31m` stays behind; one that is not ended loses only its opener,
# so that it cannot hide the words after it.
_ESCAPES: Final = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor moves, erasing
    # Titles, links. None holds an opener, or a run of them would be read to its end from each.
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\n\x80-\x9f]{0,4096}(?:\x07|\x1b\\\\|\x9c)"
    "|\x1b[ -/]*[0-~]?"
)
# Control characters but newline and tab, and every character that reorders, hides or joins text without showing itself.
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_NEWLINES: Final = re.compile("\r\n?|[\u2028\u2029\x85]")

_FENCE: Final = re.compile(
    r"^(?P<indent> *)(?:(?:[-*+]|\d{1,9}[.)]) +)?(?:(?P<mark>`{3,}) *+(?P<word>[^`]*)|(?P<tilde>~{3,}) *(?P<other>.*))$"
)
_ITEM: Final = re.compile(r"^( *)([-*+]|\d{1,4}[.)]) +(?=\S)")
_HEADING: Final = re.compile(r"^#{1,6}(?: +|$)")
# What would begin a rule, a setext heading, a table, a quote, a list or a fence at the start of a line.
_STARTS: Final = re.compile(r"^(?:=+ *$|[-|:][-|: ]*$|#|>|~|[-+](?= |$)|\|)")
_NUMBERED: Final = re.compile(r"^(\d{1,9})([.)])(?= |$)")
_INLINE: Final = re.compile(
    r"(?<!`)(?P<run>`+)(?!`)(?P<code>.+?)(?<!`)(?P=run)(?!`)"
    r"|!?\[(?P<text>[^\[\]]*)\]\((?P<to>[^()\s]++)[^()]*+\)"
    # An address is a link also right after a digit, an underscore or a letter that is not of ASCII.
    r"|(?P<url>(?:(?<![A-Za-z])[A-Za-z][A-Za-z0-9+.-]{1,20}://|(?<![A-Za-z])(?i:www)\.)"
    r"[^\s<>`|]*[^\s<>`|.,;:!?)\]}'\"*]"
    r"|[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9_-]++(?:\.[A-Za-z0-9_-]++)++)"
    r"|(?<![\w*])\*\*(?=[^\s*])(?P<bold>[^*`\[\]\\]+)(?<=[^\s*])\*\*(?![\w*])"
)
# A backslash that would take the meaning from, or give one to, what follows it; and all that opens something.
_SPECIAL: Final = re.compile(
    r"\\(?=[!-/:-@\[-`{-~]|$)|[`*]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])|(?<=~)~|~(?=~)"
)
_ENTITIES: Final = {"<": "&lt;", "&": "&amp;"}
# What pages do with other words (mermaid, plantuml, dot, math, geojson, stl and many more) is to draw, link or fetch.
_NAMES: Final = (
    "ada apache asm assembly awk bash basic bat batch bazel bicep bzl c c# c++ cc cfg clj clojure cmake cmd cobol "
    "coffee coffeescript conf console cpp crystal cs csharp css csv cts cuda cue cxx cython d dart diff docker "
    "dockerfile dotenv elisp elixir elm env erb erl erlang ex exs f# f90 fish fortran fs fsharp gitignore gleam glsl "
    "go golang gradle graphql groovy h haml handlebars haskell hbs hcl hpp hs html http hxx ini java javascript "
    "jinja jinja2 jl js json json5 jsonc jsonl jsx jsp julia just justfile kotlin kt kts less lisp log lua m make "
    "makefile markdown matlab md mjs mk ml mts nasm nginx nim nix none objc objective-c objectivec ocaml odin pascal "
    "patch perl php pl plain plaintext pm postgresql powershell prisma prolog properties proto protobuf ps1 pwsh py "
    "pyi pyx python python3 py3 r racket rake rb rs ruby rust sass scala scheme scss sh shell shell-session sol "
    "solidity sql sqlite starlark svelte swift sv systemverilog tcl terraform text tf tfvars thrift toml ts tsv tsx "
    "twig txt typescript v vala vb vbnet verilog vhdl vim vue wasm wat wgsl xml xsd xsl yaml yml zig zsh "
)
_LANGUAGES: Final = frozenset(_NAMES.split())


def clean(text: str) -> str:
    r"""Remove what a terminal would obey or an eye would not see: escape sequences, control and bidi characters.

    Newline and tab stay, every other line end becomes `\n`, a lone surrogate becomes U+FFFD.
    """
    text = _NEWLINES.sub("\n", _ESCAPES.sub("", text))
    return _SURROGATES.sub("\ufffd", _UNSEEN.sub("", text))


def line(text: str, limit: int = 0) -> str:
    """Clean `text` and put it on one line, cut to `limit` characters if that is not 0."""
    text = " ".join(clean(text).split())
    return text if not limit or len(text) <= limit else text[: limit - 1].rstrip() + "…"


def span(text: str) -> str:
    """Return `text` as a code span on one line that nothing in it can end."""
    text = line(text)
    if not text:
        return "(empty)"
    ticks = "`" * _unused_run(text, 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def fence(code: str, language: str = "") -> str:
    """Return `code` as a fenced block that nothing in it can end."""
    code = clean(code).removesuffix("\n")
    ticks = "`" * _unused_run(code, 3)
    return f"{ticks}{named(language)}\n{code}\n{ticks}"


def named(language: str) -> str:
    """Return the name of a language that code is in, in small letters; "" for what is no name that is known here."""
    word = re.match(r"\s*([A-Za-z0-9_+#.-]{0,20})", language)
    name = word[1].lower() if word else ""
    return name if name in _LANGUAGES else ""


def inline(text: str, limit: int = 0) -> str:
    """Return `text` as words on one line: code spans and bold stay, all else that Markdown would obey is plain text."""
    return _start(_words(line(text, limit)))


def cell(markdown: str) -> str:
    """Return harmless Markdown in the form that a table's cell needs."""
    return markdown.replace("\n", " ").replace("|", "\\|")


def prose(text: str) -> str:
    """Return `text` as paragraphs, lists, bold, code spans and fences, nothing else; a heading becomes a bold line."""
    rows = iter(clean(text).split("\n"))
    blocks: list[str] = []
    lists: list[tuple[int, int]] = []  # indentation in `text`, and the column where the item's words start in ours
    for raw in rows:
        row = raw.expandtabs(4).rstrip()
        opened = _FENCE.match(row)
        item = _ITEM.match(row)
        lazy = blocks and blocks[-1] and not opened  # a line right after an item's words belongs to the item
        column = lists[-1][1] if lists and (lazy or row[:1] == " ") else 0
        if not row:
            blocks.append("")
        elif opened:
            code = _fenced(rows, opened["mark"] or opened["tilde"], len(opened["indent"]))
            block = fence(code, (opened["word"] or opened["other"] or "").strip())
            blocks += ["", " " * column + indent(block, " " * column), ""]
        elif item:
            while lists and lists[-1][0] >= len(item[1]):
                lists.pop()
            column = lists[-1][1] if lists else 0
            marker = item[2] if item[2][0].isdigit() else "-"
            if len(lists) < 4:
                lists.append((len(item[1]), column + len(marker) + 1))
            blocks.append(f"{' ' * column}{marker} {_start(_words(row[item.end() :]))}")
        elif _HEADING.match(row):
            lists.clear()
            words = _words(row.strip("# ")).replace("**", "")
            blocks += ["", f"**{words}**" if words else "", ""]
        else:
            if not column:
                lists.clear()
            blocks.append(" " * column + _start(_words(row.strip())))
    kept = [block for place, block in enumerate(blocks) if block or (place and blocks[place - 1])]
    return "\n".join(kept).strip("\n")


def after(lead: str, text: str) -> str:
    """Return `lead` (Markdown) and the prose of `text` on its line, or below it where that begins with a block."""
    body = prose(text)
    return f"{lead}\n\n{body}" if re.match(r"`{3}|- |\d+[.)] ", body) else f"{lead} {body}"


def indent(block: str, by: str) -> str:
    """Indent every line but the first and the blank ones, so that `block` stays inside a list's item."""
    return re.sub(r"\n(?=[^\n])", "\n" + by, block)


def _fenced(rows: Iterator[str], mark: str, by: int) -> str:
    code = []
    for row in rows:
        bare = row.strip()
        if len(bare) >= len(mark) and set(bare) == {mark[0]}:
            break
        code.append(row[by:] if not row[:by].strip(" ") else row.lstrip(" "))
    return "\n".join(code)


def _unused_run(text: str, least: int) -> int:
    return max(least, *(len(run) + 1 for run in re.findall("`+", text)), least)


def _words(text: str) -> str:
    out = ""
    done = 0
    for found in _INLINE.finditer(text):
        before, done = text[done : found.start()], found.end()
        if before[-1:] in tuple("<]~&"):  # what comes instead of the match could give it a meaning
            out += _SPECIAL.sub(_escape, before[:-1]) + _ENTITIES.get(before[-1], "\\" + before[-1])
        else:
            out += _SPECIAL.sub(_escape, before)
        if found["code"] is not None:
            piece = span(found["code"])
        elif found["to"] is not None:
            piece = " ".join(filter(None, (_words(found["text"]), f"({span(found['to'])})")))
        elif found["url"] is not None:
            piece = span(found["url"])
        else:
            piece = f"**{_words(found['bold'])}**"
        out += " " + piece if out.endswith("`") and piece.startswith("`") else piece
    return out + _SPECIAL.sub(_escape, text[done:])


def _escape(found: re.Match[str]) -> str:
    return _ENTITIES.get(found[0], "\\" + found[0])


def _start(row: str) -> str:
    if _STARTS.match(row):
        return "\\" + row
    return _NUMBERED.sub(r"\1\\\2", row)
