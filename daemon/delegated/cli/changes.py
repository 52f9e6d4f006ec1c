"""What was changed, as a diff without the files that are never sent; and who made the commit that fails.

Git is run over a directory of ours that borrows the checkout's objects and refs: its configuration, hooks and
attributes are not read, so nothing that they name is run.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final

from delegated.cuts import before

from . import terminal
from .diffs import sections
from .place import Usage

DIFF: Final = 40_000  # characters of a diff that go along
_READ: Final = 8 << 20
_MOST_SPACES: Final = 40  # of a name, behind each of which a time may begin
_WAIT_S: Final = 60.0
_BORROWED: Final = ("objects", "refs", "packed-refs", "shallow")
_ALTERNATES: Final = ("alternates", "http-alternates")
_CONFIG: Final = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"
_SAFE: Final = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "protocol.allow=never")
_DIFF: Final = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--submodule=short")


@dataclass(frozen=True, slots=True)
class Diff:
    """A unified diff within the room that there is: `text`, which files were `left_out` of it, each with the reason."""

    text: str
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Commit:
    """What git says of the commit that fails: who wrote it, and the diff since the base; or why it says nothing."""

    author: str = ""
    diff: str = ""
    trouble: str = ""


def top(workspace: str, limit: str = "") -> str:
    """Return the root of the repository that a workspace lies in, looked for up to `limit`; "" when there is none."""
    at, last = os.path.realpath(workspace), os.path.realpath(limit) if limit else ""
    while not os.path.lexists(os.path.join(at, ".git")):
        if at == last or os.path.dirname(at) == at:
            return ""
        at = os.path.dirname(at)
    return at


def commit(root: str, base: str, env: Mapping[str, str]) -> Commit:
    """Read the commit of the repository at `root` and its diff since `base` ("": none is wanted).

    Raises `Usage` for a base that is no name of a commit.
    """
    if base.startswith("-"):
        raise Usage(f"--base {base}: this is no commit", "name a branch, a tag or a commit: --base HEAD^1")
    place = os.path.join(root, ".git")
    program = _git(root, env)
    if os.path.islink(place) or not os.path.isdir(place):
        return Commit(trouble=f"{root} is no git repository whose objects lie in it; --diff FILE brings a diff")
    if not program:
        return Commit(trouble="git is not installed")
    try:
        if away := _away(place):
            return Commit(trouble=f"{away} leads out of {place}, and nothing is read there; --diff FILE brings a diff")
        with _lent(place) as at:
            return _commit(_Git(program, at), base, merged=env.get("GITHUB_EVENT_NAME", "").startswith("pull_request"))
    except (OSError, subprocess.SubprocessError) as error:
        return Commit(trouble=f"git cannot be asked: {error}")


def _commit(git: _Git, base: str, *, merged: bool) -> Commit:
    head = git.resolve("HEAD")
    if not head:
        return Commit(trouble="git knows no commit here")
    # GitHub checks out the merge of a pull request with its target; what was pushed is its second parent.
    pushed = (git.resolve("HEAD^2") if merged else "") or head
    author = git.ask("log", "-1", "--no-show-signature", "--format=%an", pushed).strip()
    if merged and pushed == head:
        author = ""  # only the merge is here, and GitHub made that
    if not base:
        return Commit(author)
    since = git.resolve(base)
    if not since:
        return Commit(author, trouble=f"git does not know {base} here: check out more of its past (fetch-depth: 2)")
    since = git.ask("merge-base", since, head).strip() or since
    return Commit(author, git.ask("diff", *_DIFF, "--src-prefix=a/", "--dst-prefix=b/", since, head))


def read(path: str) -> str:
    """Read a diff that the user made. Raises `Usage`."""
    try:
        with open(path, "rb") as file:
            text = file.read(_READ).decode("utf-8", "replace")
            return text[: before(text, len(text) - 1)] if file.read(1) else text
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Usage(f"--diff {path}: cannot be read: {reason}", "git diff HEAD^1 > changes.diff makes one") from None


def fitted(diff: str, named: Collection[str] = (), room: int = DIFF) -> Diff:
    """Hold a diff to what may be sent and fits; changes in files that the traces have `named` go first."""
    left_out: list[str] = []
    kept: list[tuple[bool, str, str]] = []
    found = [each for each in sections(diff) if each.hunks or (each.by_git and each.paths)]
    for section in found:
        name = terminal.clean(next(iter(section.paths), "")).replace("\n", " ")
        reason = next(filter(None, map(_forbidden, [*section.paths, *section.words])), None)
        if reason is not None:
            left_out.append(f"{name or 'a file'}: {reason}")
        elif not section.paths:
            left_out.append("a change to a file whose name cannot be read")
        elif section.broken:
            left_out.append(f"{name}: it cannot be told where its changes end")
        else:
            kept.append((not any(_same(path, other) for path in section.paths for other in named), name, section.text))
    if left_out and not all(section.by_git for section in found):
        kept.clear()  # where such a file ends cannot be told for sure
        left_out.append("all other changes: only a diff that git made shows where a file's changes end")
    if not found and diff.strip():
        left_out.append("all of it: no change of a named file can be read there; `git diff` makes such a one")
    kept.sort(key=lambda each: each[0])  # stable: else in the diff's own order
    texts = []
    for _, name, section_text in kept:
        text = terminal.clean(section_text).rstrip("\n") + "\n"
        if len(text) <= room:
            texts.append(text)
            room -= len(text)
        else:
            left_out.append(f"{name}: there is no room for its change of {len(text):,} characters")
    return Diff("".join(texts), tuple(left_out))


def _forbidden(path: str) -> str | None:
    """Say why a file is never sent, whatever a diff puts before its path, and some programs behind its name."""
    from delegated.secrets import DROP_FOLDER, forbidden

    path = path.replace("\\", "/")
    inner = path.casefold().partition(f"{DROP_FOLDER}/")
    shorter = (path[: found.start()] for found in re.finditer(r"\s", path))
    return next(filter(None, map(forbidden, [path, "".join(inner[1:]), *islice(shorter, _MOST_SPACES)])), None)


def _same(path: str, other: str) -> bool:
    return path == other or f"/{path}".endswith(f"/{other}") or f"/{other}".endswith(f"/{path}")


def _git(root: str, env: Mapping[str, str]) -> str:
    """Find git on the PATH, never in the code that is looked at."""
    top = os.path.join(os.path.realpath(root), "")
    for folder in env.get("PATH", "").split(os.pathsep):
        name = "git.exe" if os.name == "nt" else "git"
        program = os.path.join(folder, name)
        if not os.path.isabs(folder) or not os.access(program, os.X_OK):
            continue
        places = (os.path.realpath(program), os.path.join(os.path.realpath(folder), name))  # be it a link
        if not any(place.startswith(top) for place in places):
            return program
    return ""


def _away(repository: str) -> str:
    """Return the first part of what is borrowed that leads elsewhere, a link or alternates; "" when none does."""
    waiting = [os.path.join(repository, name) for name in (*_BORROWED, "HEAD")]
    found = [path for path in waiting if os.path.islink(path)]
    found += filter(os.path.lexists, (os.path.join(repository, "objects", "info", name) for name in _ALTERNATES))
    while waiting and not found:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(waiting.pop()) as scan:
            for entry in scan:
                if entry.is_symlink():
                    found.append(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return os.path.relpath(found[0], repository) if found else ""


@contextmanager
def _lent(repository: str) -> Iterator[str]:
    """Make a directory that git takes for a repository: objects and refs of the checkout, a configuration of ours."""
    with tempfile.TemporaryDirectory(prefix="delegated-git-") as at:
        for name in _BORROWED:
            there = os.path.join(repository, name)
            if os.path.lexists(there):
                os.symlink(there, os.path.join(at, name))
        head = _small(os.path.join(repository, "HEAD"))
        for name, data in (("HEAD", head), ("config", _CONFIG.encode())):
            with open(os.path.join(at, name), "wb") as file:
                file.write(data)
        yield at


def _small(path: str) -> bytes:
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:  # a FIFO is not waited on
        return file.read(4096) or b""


class _Git:
    """Git, asked about the repository in a directory; an error is an empty answer."""

    def __init__(self, program: str, at: str) -> None:
        self._program = program
        self._at = at
        ours = {"GIT_DIR": at, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_OPTIONAL_LOCKS": "0"}
        kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TMPDIR", "LANG") if name in os.environ}
        self._env = {**kept, **ours, "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_ATTR_NOSYSTEM": "1"}
        self._env["GIT_NO_REPLACE_OBJECTS"] = "1"  # nor told another story than was committed

    def ask(self, *arguments: str) -> str:
        """Return what git says, its first 8 MiB; "" when it fails. Raises `OSError`, `SubprocessError`."""
        with tempfile.TemporaryFile() as out:
            done = subprocess.run(
                [self._program, "--no-pager", *(word for each in _SAFE for word in ("-c", each)), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.DEVNULL,
                env=self._env,
                cwd=self._at,
                timeout=_WAIT_S,
                check=False,
            )
            out.seek(0)
            return out.read(_READ).decode("utf-8", "replace") if done.returncode == 0 else ""

    def resolve(self, name: str) -> str:
        """Return the hash of the commit that a name means, "" when there is none."""
        return self.ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").strip()
