"""Which file somebody means: names that are refused, names that are nearly right, and paths from another machine."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

MAX_PATH: Final = 1_024
_MAX_COMPARED: Final = 5_000  # names that a typo is compared with
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_UNFIT: Final = {"Cc": "a control character", "Cf": "an invisible character", "Cs": "a lone surrogate"}
_EVERYWHERE: Final = frozenset(
    {"__init__.py", "__main__.py", "index.js", "index.ts", "mod.rs", "lib.rs", "conftest.py"}
)


def split(path: str) -> tuple[str, ...] | str:
    """Split a relative POSIX path into its names, `./` and doubled slashes dropped; or say why it cannot be used."""
    if not path.strip():
        return "the path is empty"
    if len(path) > MAX_PATH:
        return f"the path is longer than {MAX_PATH:,} characters"
    for char in path:
        if unfit := _UNFIT.get(unicodedata.category(char)) or ("a line separator" if char in "\u2028\u2029" else ""):
            return f"the path holds {unfit}"
    if path.startswith("~"):
        return "`~` is not expanded: paths are relative to the workspace root"
    if path.startswith(("/", "\\")) or _DRIVE.match(path):
        return "paths are relative to the workspace root"
    if "\\" in path:
        return "paths are written with `/` and relative to the workspace root"
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts:
        return "paths with `..` are refused: they are relative to the workspace root and stay below it"
    if not parts:
        return "this is the workspace root itself"
    return parts


def is_sound(name: str) -> bool:
    """Say whether one name, as found in a directory or in git's files, can be part of a path."""
    if name in ("", ".", ".."):  # no directory lists them, but a hostile tree of git may
        return False
    return (name.isascii() and name.isprintable() and "\\" not in name) or not isinstance(split(name), str)


def shown(path: str) -> str:
    """Write an untrusted path so that it is one harmless line of valid text, at most 200 characters."""
    clean = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in path[:200])
    return clean if len(clean) <= 200 else clean[:199] + "…"


def near(path: str, files: Sequence[str]) -> tuple[str, ...]:
    """Find up to three of `files` that were probably meant: by the end of the path, then by a name that is alike."""
    wanted = _names(path)
    if not wanted:
        return ()
    if found := _longest_tails(wanted, files):
        return tuple(sorted(found, key=lambda file: (file.count("/"), file))[:3])
    by_name: dict[str, list[str]] = {}
    for file in files:
        name = file.rpartition("/")[2]
        if abs(len(name) - len(wanted[-1])) <= 4 and len(by_name) < _MAX_COMPARED:
            by_name.setdefault(name.lower(), []).append(file)
    alike = difflib.get_close_matches(wanted[-1].lower()[:100], by_name, n=3, cutoff=0.75)
    return tuple(file for name in alike for file in sorted(by_name[name])[:2])[:3]


def did_you_mean(candidates: Sequence[str]) -> str:
    """Write the candidates as the end of a sentence; "" when there is none."""
    return f"; did you mean {' or '.join(f'`{shown(candidate)}`' for candidate in candidates)}?" if candidates else ""


def locate(path: str, files: Sequence[str]) -> str | None:
    """Find the one of `files` that a path from a log means, be it from another machine or a container; None if unsure.

    The longest common end decides. A lone file name must be unique, and none of those that every project has many of.
    """
    wanted = _names(path)
    best = _longest_tails(wanted, files) if wanted else []
    if not best:
        return None
    if best[0].endswith("/".join(wanted[-2:])) and len(wanted) > 1:
        return min(best, key=lambda file: (file.count("/"), file))
    return best[0] if len(best) == 1 and wanted[-1] not in _EVERYWHERE else None


def _names(path: str) -> list[str]:
    parts = _DRIVE.sub("", path.replace("\\", "/"), count=1) if _DRIVE.match(path) else path.replace("\\", "/")
    return [part for part in parts.split("/") if part not in ("", ".", "..", "~")]


def _longest_tails(wanted: Sequence[str], files: Iterable[str]) -> list[str]:
    """Return the files that share the most last names with the path, at least the file name; case must agree."""
    best: list[str] = []
    length = 1
    for file in files:
        if not file.endswith(wanted[-1]):
            continue
        parts = file.split("/")
        common = 0
        while common < min(len(parts), len(wanted)) and parts[-1 - common] == wanted[-1 - common]:
            common += 1
        if common > length:
            best, length = [file], common
        elif common == length:
            best.append(file)
    return best
