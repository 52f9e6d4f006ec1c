"""What a prompt says when it delegates: the issue behind the magic phrase, and what stands before it."""

from __future__ import annotations

from delegated.cuts import head
from delegated.request.marks import fence, phrase

_MOST: int = 20_000


def delegated(prompt: str) -> tuple[str, str] | None:
    """Return (issue, words before it) of a prompt with a line `DELEGATE TO GPT-4O: …`; None when it has none.

    The line may be in any case, in bold or in a list; `GPT4O` and `GPT 4O` are the same. A line in a fenced block or
    behind `>` is a quotation. Whatever follows the phrase belongs to the issue, which is "" where nothing does.
    """
    lines = prompt.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    opening = None
    for number, line in enumerate(lines):
        if opening is not None:
            if opening.closed_by(line):
                opening = None
            continue
        opening = fence(line)
        if opening is not None or ">" in line.partition(":")[0]:
            continue
        said = phrase(line)
        if said is not None:
            issue = "\n".join([said, *lines[number + 1 :]]).strip()
            return head(issue, _MOST), head("\n".join(lines[:number]).strip(), _MOST)
    return None


def harmless(text: str) -> str:
    """Quote each line that would delegate again, were this text to come back as a prompt."""
    return "\n".join(f"> {line}" if phrase(line) is not None else line for line in text.split("\n"))
