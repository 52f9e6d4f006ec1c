"""Private keys in a text: whole, quoted in code, and cut off at either end as a log leaves them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_KEY_BEGIN: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}(?:PRIVATE KEY(?: BLOCK)?|OpenVPN Static key V1)-----")
_KEY_END: Final = re.compile(r"-----END [A-Z0-9 ]{0,40}(?:PRIVATE KEY(?: BLOCK)?|OpenVPN Static key V1)-----")
_KEY_HEADERS: Final = re.compile(
    r"(?:(?:\s|\\[nr]){0,8}(?:Proc-Type|DEK-Info|Version|Comment|Hash): [^\n\\]{0,200}){0,6}"
)
_KEY_BODY: Final = re.compile(  # what stands between the lines where a key is quoted in code: \n " + ' ,
    r"(?:(?:\\[nr]|[\s\"'+,|>#*.;\\-]){0,40}[A-Za-z0-9+/=]{16,2000})*"
    r"(?:(?:\\[nr]|[\s\"'+,|>]){0,40}[A-Za-z0-9+/]{1,200}={1,2})?"
)
_KEY_TAIL: Final = re.compile(r"[\s\"'+,|>#*;\\nr-]{0,40}[A-Za-z0-9+/=]{4,2000}[\s\"'+,|>#*;\\nr-]{0,40}")
_PUTTY: Final = re.compile(r"Private-Lines: [0-9]{1,4}\r?\n((?:[A-Za-z0-9+/=]{1,100}(?:\r?\n|$)){1,300})")
_KEY_LENGTH: Final = 20_000  # characters; the largest RSA key in use takes 13,000


def private_keys(text: str) -> Iterator[tuple[int, int]]:
    """Find private keys: whole ones, those cut off at their end (a log), and those cut off at their beginning."""
    done = 0
    for begin in _KEY_BEGIN.finditer(text) if "-----BEGIN" in text else ():
        if begin.start() < done:
            continue
        following = text.find("-----BEGIN", begin.end(), begin.end() + _KEY_LENGTH)
        limit = following if following >= 0 else begin.end() + _KEY_LENGTH
        end = _KEY_END.search(text, begin.end(), limit)
        if end is not None:
            done = end.end()
        else:
            headers = _KEY_HEADERS.match(text, begin.end())
            body = _KEY_BODY.match(text, headers.end() if headers else begin.end())
            done = body.end() if body else begin.end()
        yield begin.start(), done
    done = 0
    for end in _KEY_END.finditer(text) if "-----END" in text else ():
        start = max(done, text.rfind("\n", 0, end.start()) + 1)
        if text[start : end.start()].strip(" \t\"'+,|>#*;"):
            start = end.start()
        while start > done and end.start() - start < _KEY_LENGTH:
            line = text.rfind("\n", max(done, start - 2_100), start - 1) + 1
            if line >= start or not _KEY_TAIL.fullmatch(text, line, start):
                break
            start = line
        done = end.end()
        yield start, done
    if "Private-Lines: " in text:
        for match in _PUTTY.finditer(text):
            yield match.span(1)
