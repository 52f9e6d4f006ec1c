"""The marks of a Markdown request, on which reading and writing must agree."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

RULE: Final = re.compile(r" {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$")
SETEXT: Final = re.compile(r" {0,3}(?:=+|-+)[ \t]*$")
END: Final = re.compile(r"\s*<!--\s*END\s*-->\s*$")
COMMENT: Final = re.compile(r"\s*<!--(?:(?!-->).)*-->\s*$")
CODE_SPAN: Final = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
LANGUAGE: Final = re.compile(r"[\w+#.-]{1,40}(?=\s|$)")
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_HEADING: Final = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
_FENCE: Final = re.compile(r"( {0,3})(?:(`{3,})([^`]*)|(~{3,})(.*))$")
_PHRASE: Final = re.compile(
    r"[\s>*_+#-]*?(?P<bold>\*\*|__)?delegate[ \t]+to[ \t]+gpt[ \t\u2010\u2011-]?4o"
    r"(?:\*\*|__)?[ \t]*:(?:\*\*|__)?",
    re.IGNORECASE,
)

MAX_PATH: Final = 4_096

# Every heading that is understood, as `section` spells it.
SECTIONS: Final[dict[str, str]] = {
    "issue": "issue",
    "issue description": "issue",
    "issues": "issue",
    "problem": "issue",
    "problem description": "issue",
    "problem statement": "issue",
    "bug": "issue",
    "context": "context",
    "full context": "context",
    "additional context": "context",
    "background": "context",
    "error logs": "logs",
    "error log": "logs",
    "logs": "logs",
    "log": "logs",
    "stack trace": "logs",
    "traceback": "logs",
    "attempted fixes": "attempted_fixes",
    "all attempted fixes": "attempted_fixes",
    "fixes attempted": "attempted_fixes",
    "previous attempts": "attempted_fixes",
    "files": "files",
    "file paths": "files",
    "file": "files",
    "relevant files": "files",
    "affected files": "files",
    "files to analyze": "files",
    "file contents": "contents",
    "file content": "contents",
    "complete file contents": "contents",
    "questions": "questions",
    "question": "questions",
    "specific questions": "questions",
}


class Fence(NamedTuple):
    """A line that opens or closes a fenced block; `info` is what follows the mark."""

    indent: int
    mark: str
    info: str

    def closed_by(self, line: str) -> bool:
        """Say whether `line` ends the block that this line opens."""
        other = fence(line)
        return other is not None and other.mark.startswith(self.mark) and not other.info


def fence(line: str) -> Fence | None:
    """Read a fence line, or None if it is none."""
    match = _FENCE.match(line)
    if match is None:
        return None
    return Fence(len(match[1]), match[2] or match[4], (match[3] or match[5] or "").strip(" \t"))


def heading(line: str) -> tuple[int, str] | None:
    """Read an ATX heading as its level and text, or None if the line is none."""
    match = _HEADING.match(line)
    if match is None:
        return None
    text = line[match.end() :].strip(" \t")
    open_end = text.rstrip("#")
    return len(match[1]), open_end.rstrip(" \t") if not open_end or open_end[-1] in " \t" else text


def section(title: str) -> str | None:
    """Name the field that a heading opens; None if it is not one of ours. A code span is a path, never a section."""
    if len(title) > 200 or title.lstrip().startswith("`"):
        return None
    name = " ".join(re.findall(r"\w+", title.casefold().replace("_", " ")))
    name = re.sub(r"^\d+ ", "", name)
    name = re.sub(r" for (?:openai|gpt ?4o|openai gpt ?4o|analysis|the model)$", "", name)
    return SECTIONS.get(name)


def phrase(line: str) -> str | None:
    """Return what follows `DELEGATE TO GPT-4O:` in a line that starts with it, or None."""
    bold, at = "", 0
    while (match := _PHRASE.match(line, at)) is not None:
        bold, at = match["bold"] or "", match.end()
    return line[at:].strip().removesuffix(bold).strip() if at else None


def clean(text: str) -> str:
    """Normalise line ends, drop blank lines in front and white space behind; indentation of the first line stays."""
    text = re.sub(r"\r\n?", "\n", text)
    return re.sub(r"\A(?:[^\S\n]*\n)+", "", text).rstrip()


def clean_issue(text: str) -> str:
    """`clean`, and without the magic phrase that may introduce it."""
    lines = clean(text).split("\n")
    for number, line in enumerate(lines):
        said = phrase(line)
        if said is None and line.strip():
            return clean("\n".join(lines[number:]))
        if said:
            return clean("\n".join([said, *lines[number + 1 :]]))
    return ""


def clean_path(text: str) -> str:
    """Strip white space and backticks around a path."""
    start, end = 0, len(text)
    while start < end and (text[start] == "`" or text[start].isspace()):
        start += 1
    while start < end and (text[end - 1] == "`" or text[end - 1].isspace()):
        end -= 1
    return text[start:end]


def unfence(text: str) -> str:
    """Return the code of a text that is exactly one fenced block, and any other text as it is."""
    lines = text.split("\n")
    opening = fence(lines[0])
    if opening is None:
        return text
    for number, line in enumerate(lines[1:], 1):
        if opening.closed_by(line):
            return code(lines[1:number], opening) if number == len(lines) - 1 else text
    return code(lines[1:], opening)


def code(lines: list[str], opening: Fence) -> str:
    """Join the lines inside a fenced block, less the indentation of the fence itself."""
    if opening.indent:
        lines = [line[min(opening.indent, len(line) - len(line.lstrip(" "))) :] for line in lines]
    return "\n".join(lines)


def dedent(lines: list[str], width: int) -> list[str]:
    """Take up to `width` columns of indentation from each line; a tab reaches to the next multiple of four."""
    shorter = []
    for line in lines:
        column = at = 0
        while at < len(line) and column < width and line[at] in " \t":
            column = column + 4 - column % 4 if line[at] == "\t" else column + 1
            at += 1
        shorter.append(" " * (column - width) + line[at:])
    return shorter
