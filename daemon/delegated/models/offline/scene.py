"""What the prompt shows of a failure: the exceptions in it, and the places in the sent code where they passed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from delegated.context import Excerpt
from delegated.models.offline.crash import Crash, Step, chains
from delegated.models.offline.source import MOST, Change, Edit, Function, Node, Place, Source, column
from delegated.prompt import Prompt

_ROOT: Final = re.compile(r"^(?:[A-Za-z]:)?/+")
TOLD: Final = 3  # exceptions of a chain that are explained
CHAINS: Final = 20  # the last ones of a log; the rest is history


@dataclass(frozen=True, slots=True)
class Spot:
    """A frame in sent code. `line` is where its text stands as sent; `note` says if that differs from the log.

    `sure` is false when the line in the log is not the line that was sent: then nothing may be edited.
    """

    source: Source
    line: int
    step: Step
    sure: bool = True
    note: str = ""

    @property
    def where(self) -> str:
        """The place in words."""
        place, inside = f"{self.source.path}:{self.line}", self.step.frame.function
        return f"`{inside}` ({place})" if inside and inside != "<module>" else place

    @property
    def text(self) -> str:
        """The line without its indent."""
        return self.source.line(self.line).strip()

    @property
    def place(self) -> Place:
        """The line, quoted."""
        return self.source.place(self.line)

    def at(self, kind: type[Node]) -> list[Node]:
        """Return the nodes of a kind in the failing statement."""
        return self.source.at(self.line, kind)

    def marked(self, nodes: list[Node]) -> list[Node]:
        """Keep the nodes that the log underlines, if it underlines one of them; else all."""
        if self.step.mark is None or not 1 < len(nodes) <= MOST:
            return nodes
        line = self.source.line(self.line)
        indent = len(line) - len(line.lstrip())
        start, end = (indent + edge for edge in self.step.mark)
        exact = [
            node
            for node in nodes
            if (getattr(node, "lineno", 0), getattr(node, "end_lineno", 0)) == (self.line, self.line)
            and (column(line, node.col_offset), column(line, node.end_col_offset or 0)) == (start, end)  # type: ignore[attr-defined]
        ]
        return exact or nodes

    def edit(self, *changes: Change | None) -> tuple[Edit, ...]:
        """Return the edits for these changes to this file; () when one is missing or the line is not for sure."""
        wanted = [change for change in changes if change is not None]
        return self.source.edit(wanted) if self.sure and len(wanted) == len(changes) else ()


class Scene:
    """One prompt, read. Syntax trees are made only of the files that a question leads to."""

    def __init__(self, prompt: Prompt) -> None:
        pieces: dict[str, list[Excerpt]] = {}
        for excerpt in prompt.context.excerpts:
            pieces.setdefault(excerpt.path, []).append(excerpt)
        self.sources = {path: Source(path, excerpts) for path, excerpts in pieces.items()}
        self.omitted = {omitted.path: omitted.reason for omitted in prompt.context.omitted}
        self._tails: dict[str, list[str]] = {}
        for path in self.sources:
            self._tails.setdefault(path.rpartition("/")[2], []).append(path)
        request = prompt.request
        parts = {"logs": request.logs, "context": request.context, "issue": request.issue}
        self.parts = {name: text for name, text in parts.items() if text}  # in the order in which a trace is looked for

    @cached_property
    def crashes(self) -> tuple[Crash, ...]:
        """The exceptions to explain: of the last chain that passed through sent code, else of the last there is."""
        best: tuple[Crash, ...] = ()
        for text in self.parts.values():
            found = chains(text)
            for chain in reversed(found[-CHAINS:]):
                if any(self.spots(crash) for crash in chain):
                    return chain[:TOLD]
            if found and (not best or not any(crash.steps for crash in best)):
                best = found[-1][:TOLD]
        return best

    def spots(self, crash: Crash) -> tuple[Spot, ...]:
        """Return the frames of a crash that lie in sent code, the innermost last."""
        return tuple(spot for step in crash.steps if (spot := self.spot(step)) is not None)

    def spot(self, step: Step) -> Spot | None:
        """Find the line of a frame in the sent code, None when its file or its line was not sent."""
        if step.frame.library:
            return None
        number, text = step.frame.line, step.text.strip()
        path = self.resolve(step.frame.path)
        if path is None and text:  # the name alone will do where the code is the same too
            path = self.resolve(step.frame.path, least=1)
            if path is not None and self.sources[path].line(number).strip() != text:
                path = None
        if path is None:
            return None
        source = self.sources[path]
        if not text or source.line(number).strip() == text:
            return Spot(source, number, step) if source.has(number) else None
        elsewhere = source.find(text)
        if len(elsewhere) == 1:
            note = f"The log names line {number}; in the file as sent this text stands on line {elsewhere[0]}."
            return Spot(source, elsewhere[0], step, note=note)
        if not source.has(number):
            return None
        note = (
            f"The log shows `{text}` for line {number}, which is not what was sent: the code has changed "
            "since the failure."
        )
        return Spot(source, number, step, sure=False, note=note)

    def resolve(self, path: str, *, least: int = 2) -> str | None:
        """Return the sent file that a path in a log means: the one that shares the most of its end, if it is only one.

        Fewer than `least` shared parts count only where that is the whole of either path.
        """
        parts = path.replace("\\", "/").split("/")
        best: list[str] = []
        most = 0
        for candidate in self._tails.get(parts[-1], ()):
            others = candidate.split("/")
            shared = _shared(parts, others)
            if shared < min(least, len(others), len(parts)):
                continue
            if shared > most:
                best, most = [candidate], shared
            elif shared == most:
                best.append(candidate)
        return best[0] if len(best) == 1 else None

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Files of the workspace that frames name and that were not sent, innermost first, by their path in it."""
        found: dict[str, None] = {}
        for crash in self.crashes:
            roots = self._roots(crash)
            for step in reversed(crash.steps):
                path = step.frame.path.replace("\\", "/")
                if step.frame.library or self.resolve(path) is not None or path.startswith("<") or ".." in path:
                    continue
                root = next((root for root in roots if path.startswith(root)), "")
                found.setdefault(_ROOT.sub("", path.removeprefix(root)))
        return tuple(found)[:8]

    def unsent(self, crash: Crash) -> Step | None:
        """Return the innermost frame outside libraries when its file was not sent."""
        for step in reversed(crash.steps):
            if not step.frame.library and not step.frame.path.startswith("<"):
                return step if self.spot(step) is None else None
        return None

    def _roots(self, crash: Crash) -> list[str]:
        """Return what stands before the workspace's own paths in the log, such as `/app/`."""
        roots = []
        for step in crash.steps:
            path, sent = step.frame.path.replace("\\", "/"), self.resolve(step.frame.path)
            if sent is not None and path != sent and path.endswith("/" + sent):
                roots.append(path.removesuffix(sent))
        return roots

    def python(self, word: str) -> Iterator[Source]:
        """Return the sent Python files in which a word occurs and which can be parsed."""
        pattern = re.compile(rf"\b{re.escape(word)}\b")
        for source in self.sources.values():
            if source.python and source.whole and pattern.search(source.text) and source.tree is not None:
                yield source

    def classes(self, name: str) -> list[tuple[Source, ast.ClassDef]]:
        """Return the classes of this name in the sent code, with their files."""
        return [
            (s, n) for s in self.python(name) for n in s.everything if isinstance(n, ast.ClassDef) and n.name == name
        ]

    def functions(self, name: str) -> list[tuple[Source, Function]]:
        """Return the functions and methods of this name in the sent code, with their files."""
        return [(s, n) for s in self.python(name) for n in s.everything if isinstance(n, Function) and n.name == name]

    def module(self, dotted: str) -> Source | None:
        """Return the sent file of a module, if exactly one could be it."""
        tail = dotted.replace(".", "/")
        names = {f"{tail}.py", f"{tail}/__init__.py"}
        found = [
            s for path, s in self.sources.items() if path in names or any(path.endswith("/" + name) for name in names)
        ]
        return found[0] if len(found) == 1 else None


def _shared(a: list[str], b: list[str]) -> int:
    count = 0
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if x != y:
            break
        count += 1
    return count
