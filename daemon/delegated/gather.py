"""From a request to the exact words that would be sent for it: the code chosen, the secrets hidden, the budget held.

What is sent and what is only shown beforehand come from here, so that they cannot differ.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from delegated import changes, history, paths
from delegated import prompt as prompts
from delegated.changes import PART_OF, History
from delegated.clues import clues
from delegated.context import Context, Extra, Omitted, SourceFile, choose
from delegated.failing import failing
from delegated.paths import locate
from delegated.pricing import ModelFacts, bound
from delegated.prompt import Prompt
from delegated.request import Request
from delegated.secrets import Redaction, forbidden, redact
from delegated.signals import is_test
from delegated.survey import Found, Survey
from delegated.tokens import at_most
from delegated.traces import frames
from delegated.workspace import Workspace

if TYPE_CHECKING:
    from delegated.sieve import Sieve

_MOST_WANTED: Final = 20  # files that one model may ask for
_FORMER: Final = "\0former/"  # begins the place of a text that is only compared; no path has it
_MOST_TESTS: Final = 2  # files with tests that failed
# Of the tokens that may be sent: what changes and commits may take, and the failing tests of one file.
_CHANGES_SHARE: Final = 10 / 110
_TEST_SHARE: Final = 8 / 110


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may use: tokens, USD, seconds, bytes a file."""

    model: str = "gpt-4o"
    max_input_tokens: int = 100_000
    max_output_tokens: int = 8192
    max_cost_usd: float | None = 1.0
    deadline_s: float | None = None  # for all of it, waiting included
    answer_s: float = 600.0  # for one call, not counting while the provider cannot be asked
    max_file_bytes: int = 1 << 20
    git_context: bool = True  # whether what changed goes along
    find_files: int = 8  # files that go along at most where some were found without being named
    repeat_window_s: float = 600.0
    max_repeats: int = 5
    compare_models: tuple[str, ...] = ()  # whom `compare: true` asks beside the request's models, or `model`
    retry_below: float = 0.0  # confidence, 0..1
    ladder: tuple[str, ...] = ("context", "critic")
    max_rounds: int = 2  # times that a model is asked at most, counting the first, when it names files that it needs


@dataclass(frozen=True, slots=True)
class Tokens:
    """How text is counted; `exact` when the model's own vocabulary is used."""

    count: Callable[[str], int]
    exact: bool


def asked(request: Request, limits: Limits) -> tuple[str, ...]:
    """Name the models that a request asks, each once: those that it names, else the configured one; more to compare."""
    named = request.options.models or (limits.model,)
    return tuple(dict.fromkeys((*named, *limits.compare_models))) if request.options.compare else named


class Gatherer:
    """Makes the prompts of one workspace's requests."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        tokens: Callable[[], Tokens],
        limits: Limits,
        survey: Survey | None = None,
        known_secrets: Callable[[], Iterable[str]] = tuple,
        sieve: Sieve | None = None,
    ) -> None:
        """`survey` is what is known of the workspace's files; it outlives a gatherer."""
        self._workspace = workspace
        self.tokens = tokens
        self.limits = limits
        self._survey = survey or Survey(workspace)
        self._known_secrets = known_secrets
        self.sieve = sieve

    def gather(
        self, request: Request, facts: ModelFacts, key: str, *, wanted: Sequence[str] = (), wider: bool = False
    ) -> Prompt:
        """Choose the code, hide the secrets, render. Reads the workspace; runs beside the loop.

        `wanted` are files that a model named in its answer. It may have been told to by the code that it read, so of
        these only what a glob may give goes along, below what the request names and above what was found for it.
        `wider`: up to twice as many files are found as else.
        """
        space = self._workspace
        found = space.gather(request.files, max_bytes=self.limits.max_file_bytes)
        omitted: list[Omitted] = list(found.omitted)
        files: dict[str, SourceFile] = {}
        for embedded in request.contents:
            reason = forbidden(embedded.path)
            if reason is not None:
                omitted.append(Omitted(embedded.path, reason))
                continue
            data = embedded.text.encode("utf-8", "replace")
            files[embedded.path] = SourceFile(
                embedded.path, embedded.text, _sha256(data), len(data), "given in the request"
            )
        for file in found.files:
            files.setdefault(file.path, file)
        seen = frames("\n".join((request.issue, request.context, request.logs)))
        mentions: dict[str, list[int]] = {}
        framed: list[tuple[str, int]] = []
        for frame, path in space.resolve_frames(seen, known=files):
            framed.append((path, frame.line))
            mentions.setdefault(path, []).append(frame.line)
            if path not in files:
                extra = space.gather((path,), max_bytes=self.limits.max_file_bytes)
                omitted += extra.omitted
                for file in extra.files:
                    files[file.path] = replace(file, why=f"named by the trace, line {frame.line}")
        guessed, likely = self._find(request, framed, files, omitted, mentions, wider=wider)
        asked = self._wanted(wanted, files, guessed, omitted)
        notes = likely.warnings
        pinned = self._failing(request, framed, likely.tests, files)
        guessed = tuple(path for path in guessed if path not in asked and path not in pinned)
        files = {path: file for path, file in files.items() if path not in guessed} | {p: files[p] for p in guessed}
        stamps = likely.stamps
        past = history.read(space, framed, [*files], stamps=stamps) if self.limits.git_context else History()
        # Parts in one pass, so that the same secret has the same placeholder everywhere.
        options = request.options
        parts = [("issue", request.issue), ("context", request.context), ("logs", request.logs)]
        parts += [("repro", options.repro), ("test", options.test), ("earlier answers", request.earlier)]
        single = len(parts)
        parts += [("attempted fixes", text) for text in request.attempted_fixes]
        parts += [("questions", text) for text in request.questions]
        parts += [(file.path, file.text) for file in files.values()]
        former = {text: path for path, text in changes.texts(past)}
        parts += [(_FORMER + path, text) for text, path in former.items()]
        labels = [*request.files, *wanted, *options.labels, *request.warnings, *found.warnings, *notes]
        labels += [text for file in files.values() for text in (file.path, file.why)]
        labels += [text for each in omitted for text in (each.path, each.reason)]
        labels = list(dict.fromkeys([*labels, *changes.names(past)]))
        parts += [("a name", text) for text in labels]
        texts, redactions = redact(parts, known=self.secrets(), seed=key, sieve=self.sieve)
        said = dict(zip(labels, texts[len(parts) - len(labels) :], strict=True))
        fixes, questions = len(request.attempted_fixes), len(request.questions)
        start = single + fixes
        clean = replace(
            request,
            issue=texts[0],
            context=texts[1],
            logs=texts[2],
            attempted_fixes=texts[single:start],
            questions=texts[start : start + questions],
            contents=(),
            files=tuple(said[text] for text in request.files),
            options=replace(
                options, repro=texts[3], test=texts[4], labels=tuple(said[text] for text in options.labels)
            ),
            warnings=tuple(said[text] for text in request.warnings),
            earlier=texts[5],
        )
        at = start + questions
        shown = [
            replace(file, path=said[file.path], why=said[file.why], text=text)
            for file, text in zip(files.values(), texts[at:], strict=False)
        ]
        said_then = said | dict(zip(former, texts[at + len(files) :], strict=False))
        return self._fit(
            clean,
            shown,
            tuple(said[path] for path in guessed),
            {said[path]: lines for path, lines in mentions.items() if path in said},
            [Omitted(said[each.path], said[each.reason]) for each in omitted],
            tuple(said[text] for text in (*found.warnings, *notes)),
            tuple(replace(each, where=said.get(each.where, each.where)) for each in redactions),
            facts,
            tuple(said[path] for path in wanted),
            {said[path]: spans for path, spans in pinned.items()},
            lambda budget, count: changes.render(past, said_then.__getitem__, budget, count),
        )

    def _failing(
        self,
        request: Request,
        framed: Sequence[tuple[str, int]],
        found: Sequence[str],
        files: dict[str, SourceFile],
    ) -> dict[str, tuple[tuple[int, int], ...]]:
        """Find the tests that failed: their lines by file. A file that holds one is added to `files`, and says so."""
        options = request.options
        said = "\n".join((options.test, options.repro, request.logs, request.issue))
        named = [path for path in clues(f"{options.test}\n{options.repro}").paths if is_test(path)]
        if named:
            listed = self._workspace.files()
            named = [path for each in named if (path := each if each in listed else locate(each, listed))]
        places = (*named, *(path for path, _ in framed), *found, *files)
        pinned: dict[str, tuple[tuple[int, int], ...]] = {}
        for path in dict.fromkeys(path for path in places if is_test(path)):
            file = files.get(path) or self._workspace.read(path, max_bytes=self.limits.max_file_bytes)
            if not isinstance(file, SourceFile):
                continue
            tests = failing(path, file.text, lines=[line for at, line in framed if at == path and line > 0], said=said)
            if not tests:
                continue
            told = ", ".join(f"`{paths.shown(test.name)}` in lines {test.start}-{test.end}" for test in tests)
            files[path] = replace(file, why="; ".join(filter(None, (file.why, f"the failing test {told}"))))
            pinned[path] = tuple((test.start, test.end) for test in tests)
            if len(pinned) == _MOST_TESTS:
                break
        return pinned

    def _wanted(
        self, wanted: Sequence[str], files: dict[str, SourceFile], guessed: Sequence[str], omitted: list[Omitted]
    ) -> set[str]:
        """Add the files that a model asked for to `files`, at their end. Returns their paths."""
        if not wanted:
            return set()
        listed = self._workspace.files()
        added: set[str] = set()
        for number, name in enumerate(wanted):
            path = None
            if number < _MOST_WANTED:
                path = name if name in listed else locate(name, listed)
            if path is None:
                reason = "it was asked for, and is no file of the workspace that may go along unless a request names it"
                if number >= _MOST_WANTED:
                    reason = f"it was asked for, and at most {_MOST_WANTED} such files are added"
                omitted.append(Omitted(name, reason))
                continue
            if path in files and path not in guessed:
                continue
            read = self._workspace.read(path, why="asked for by the model", max_bytes=self.limits.max_file_bytes)
            if isinstance(read, SourceFile):
                files.pop(path, None)
                files[path] = read
                added.add(path)
            else:
                omitted.append(read)
        kept = [each for each in omitted if not (each.guessed and each.path in added)]
        omitted[:] = kept
        return added

    def _find(
        self,
        request: Request,
        framed: Sequence[tuple[str, int]],
        files: dict[str, SourceFile],
        omitted: list[Omitted],
        mentions: dict[str, list[int]],
        *,
        wider: bool,
    ) -> tuple[tuple[str, ...], Found]:
        """Add what the request is probably about to `files`, where it names few. Returns the paths added."""
        room = self.limits.find_files * (2 if wider else 1) - len(files)
        if room <= 0:
            self._workspace.files()  # where env files lie is known by a walk, and nothing else makes one
        options = request.options
        words = (
            request.issue,
            request.context,
            *request.questions,
            *request.attempted_fixes,
            options.test,
            options.repro,
        )
        found = self._survey.find("\n".join(words), request.logs, framed=framed, given=frozenset(files), limit=room)
        refused = {each.path for each in omitted}
        added: list[str] = []
        for candidate in found.chosen:
            read = self._workspace.read(candidate.path, why=candidate.why, max_bytes=self.limits.max_file_bytes)
            if isinstance(read, SourceFile) and candidate.path not in refused:
                files[candidate.path] = read
                mentions.setdefault(candidate.path, list(candidate.lines))
                added.append(candidate.path)
        omitted += [each for each in found.close if each.path not in refused]
        return tuple(added), found

    def secrets(self) -> tuple[str, ...]:
        """Return every exact value that must not leave: our own keys, and those of the workspace's env files."""
        return (*self._known_secrets(), *self._workspace.env_values())

    def hidden(self, parts: Sequence[tuple[str, str]], key: str) -> tuple[tuple[str, ...], tuple[Redaction, ...]]:
        """Return a model's words (where, text) as they may be sent back to it, and what was replaced.

        Reads the workspace.
        """
        return redact(parts, known=self.secrets(), seed=f"{key}/repair", sieve=self.sieve)

    def now(self, path: str) -> bytes | str:
        """Return a file's bytes as they are at this moment, or why it cannot be read."""
        return self._workspace.bytes_of(path, max_bytes=self.limits.max_file_bytes)

    def hide(self, parts: Sequence[tuple[str, str]], key: str) -> tuple[str, ...]:
        """Return texts (where, text) as they may be published, their lines kept; reads the workspace."""
        return redact(parts, known=self.secrets(), seed=f"{key}/published", sieve=self.sieve)[0]

    def _fit(
        self,
        request: Request,
        files: list[SourceFile],
        guessed: Sequence[str],
        mentions: Mapping[str, list[int]],
        omitted: list[Omitted],
        warnings: tuple[str, ...],
        redactions: tuple[Redaction, ...],
        facts: ModelFacts,
        wanted: Sequence[str],
        pinned: Mapping[str, Sequence[tuple[int, int]]],
        extras: Callable[[int, Callable[[str], int]], tuple[tuple[Extra, ...], tuple[Omitted, ...]]],
    ) -> Prompt:
        count = self.tokens().count
        ceiling = min(
            request.options.max_input_tokens or self.limits.max_input_tokens,
            self.limits.max_input_tokens,
            int((facts.context_tokens - min(self.limits.max_output_tokens, facts.output_tokens)) * _fill(facts)),
        )
        bare = prompts.render(request, Context(omitted=tuple(omitted)), redactions, wanted)
        words = count(bare.system) + count(bare.user)
        notes = list(warnings)
        if words > ceiling // 2 and request.logs:
            room = max(500, ceiling // 2 - (words - count(request.logs)))
            logs, left = _shorten(request.logs, room, count)
            if left:
                request = replace(request, logs=logs)
                notes.append(f"{left:,} lines in the middle of the logs were left out: budget of {ceiling:,} tokens")
                bare = prompts.render(request, Context(omitted=tuple(omitted)), redactions, wanted)
                words = count(bare.system) + count(bare.user)
        share = min(int(ceiling * _CHANGES_SHARE), max(0, ceiling - words) // 3)
        beside, left_out = extras(share, count)
        if beside or left_out:
            omitted = [*omitted, *left_out]
            bare = prompts.render(request, Context(omitted=tuple(omitted), extras=beside), redactions, wanted)
            words = count(bare.system) + count(bare.user)
            redactions += _replaced(beside, redactions)
        context = choose(
            files,
            mentions,
            max(0, ceiling - words),
            count,
            guessed=guessed,
            pinned=pinned,
            pins=int(ceiling * _TEST_SHARE),
            omitted=omitted,
            warnings=notes,
        )
        redactions = tuple(each for each in redactions if not each.where.startswith(_FORMER))
        return prompts.render(request, replace(context, extras=beside), redactions, wanted)

    def counts(self, facts: ModelFacts) -> bool:
        """Say whether a model's tokens are counted exactly: with the tokenizer that is its own."""
        return self.tokens().exact and facts.counted_as_ours

    def input_tokens(self, prompt: Prompt, facts: ModelFacts) -> int:
        """Bound the tokens of what is sent from above, margin for the wire's own words included."""
        text = prompt.system + prompt.user + repr(prompt.schema)
        return at_most(text, self.tokens().count, exact=self.counts(facts))

    def price_bound(self, prompt: Prompt, facts: ModelFacts) -> float | None:
        """Bound the price of one call from above, in USD; None when the model's price is unknown."""
        return bound(facts, self.input_tokens(prompt, facts), min(self.limits.max_output_tokens, facts.output_tokens))


def _fill(facts: ModelFacts) -> float:
    """Return how much of its window a model is sent: less where another tokenizer than ours may make more of it."""
    return 0.9 if facts.counted_as_ours else 0.6


def _replaced(extras: Sequence[Extra], redactions: Sequence[Redaction]) -> tuple[Redaction, ...]:
    """Tell of the secrets that were replaced in the texts that extras are made of, by their lines in the extras."""
    kinds = {each.placeholder: each.kind for each in redactions}
    return tuple(
        Redaction(kinds[word], word, PART_OF[extra.kind], number)
        for extra in extras
        for number, line in enumerate(extra.text.split("\n"), 1)
        for word in re.findall(r"\[REDACTED:[^\]\n]*\]", line)
        if word in kinds
    )


def _shorten(text: str, tokens: int, count: Callable[[str], int]) -> tuple[str, int]:
    """Keep a log's first fifth and its end, whole lines, within about `tokens`; return it and the lines left out."""
    lines = text.splitlines(keepends=True)
    sizes = [count(line) for line in lines]
    if sum(sizes) <= tokens:
        return text, 0
    head, used = 0, 0
    while head < len(lines) and used + sizes[head] <= tokens // 5:
        used += sizes[head]
        head += 1
    tail = len(lines)
    while tail > head and used + sizes[tail - 1] <= tokens:
        tail -= 1
        used += sizes[tail]
    left = tail - head
    return "".join(lines[:head]) + f"[... {left} lines left out ...]\n" + "".join(lines[tail:]), left


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
