"""Text cut short where no secret is cut in two: half of one is known to no rule, and on no list of values.

What is cut here is searched for secrets later, and elsewhere. So a cut falls between lines where it can, else between
words, never within a private key or a quoted value, and never between a value and the name that tells what it is.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final

from delegated.pem import private_keys

_NEAR: Final = 300  # characters in which a name is sought before its value
_QUOTED: Final = 2_000  # characters of a quoted value that is looked through for its begin
# Behind a quote or a bracket a comma parts what JSON without white space says; scripts without spaces part anywhere.
_BREAK: Final = re.compile(r"\s|(?<=[\"'}\]]),|[\u3000-\U0010ffff]")
_LINE: Final = re.compile(r"\n")
_NAMES: Final = (
    r"(?i:pass(?:word|wd|phrase|code)?(?![a-z])|pwd|psk|secret|token|cred(?:ential)?s?(?![a-z])|bearer|salt|jwt|key"
    r"|auth(?:orization)?(?![a-z])|cookie|mnemonic|seed|phrase|identified|login|user|name|property|param|field|option)"
)
# A text that breaks off here would begin with the value: behind the name stand only signs, or two words on its line.
_NAMED: Final = re.compile(
    rf"{_NAMES}\w{{0,40}}(?:\W{{0,60}}(?:</?\w{{1,20}}>\W{{0,20}}){{0,3}}"
    r"|(?:[^\w\n]{1,60}\w{1,20}){1,2}[^\w\n]{1,60})\Z"
)
_SAID: Final = re.compile(rf"{_NAMES}(?![A-Za-z])\w{{0,40}}\s{{0,3}}(?:[:=]|\s(?:is|was)\s)[^\n\"'`;]{{0,240}}\Z")
_OPEN: Final = re.compile(r"[:=]>?\s{0,3}\\{0,8}([\"'`])(?:\\.|(?!\1)[^\\\n])*\Z")


def head(text: str, most: int) -> str:
    """Return the begin of a text, of at most `most` characters."""
    return text[: before(text, most)]


def short(text: str, most: int) -> str:
    """Return a text of at most `most` characters; one that is cut ends in an ellipsis."""
    return text if len(text) <= most else head(text, most - 1) + "…"


def tail(text: str, most: int) -> str:
    """Return the end of a text, of at most `most` characters."""
    return text[after(text, len(text) - most) :]


def before(text: str, at: int) -> int:
    """Return the last place up to `at` where a text may end."""
    if at >= len(text):
        return len(text)
    at = next((start for start, end in private_keys(text) if start < at < end), at)
    line = text.rfind("\n", 0, at) + 1
    if at == line or text[at] == "\n":
        return at
    if line > at // 2:
        return line
    breaks = [line, *(found.start() for found in _BREAK.finditer(text, line, at + 1))]
    while at > line:
        at = breaks[bisect_right(breaks, at) - 1]
        value = _value(text, at)
        if value is None:
            break
        at = max(line, value.start())
    return at


def after(text: str, at: int) -> int:
    """Return the first place from `at` on where a text may begin."""
    if at <= 0:
        return 0
    at = next((end for start, end in private_keys(text) if start < at < end), at)
    parting = _LINE if text.find("\n", at, (at + len(text)) // 2) >= 0 else _BREAK
    apart = parting.match(text, at - 1) is not None
    while at < len(text) and not (
        apart and _NAMED.search(text, max(0, at - _NEAR), at) is None and _value(text, at) is None
    ):
        found = parting.search(text, at)
        at, apart = found.end() if found else len(text), True
    return at


def _value(text: str, at: int) -> re.Match[str] | None:
    """Match the value, from its sign or name on, in whose midst a line would be cut at `at`."""
    return _OPEN.search(text, max(0, at - _QUOTED), at) or _SAID.search(text, max(0, at - _NEAR), at)
