"""Stack traces, found in any text: whose line failed, in eight notations.

The text is a stranger's: every pattern is anchored or starts with a literal, repeats are bounded, long lines are cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

MAX_FRAMES: Final = 400
_MAX_LINE: Final = 2_000
_MAX_TEXT: Final = 2_000_000  # characters, of the end: what failed stands there


@dataclass(frozen=True, slots=True)
class Frame:
    """One place that a trace names: the path as written there, the 1-based line (0 when only the file is named).

    For Java the path is made of the package and the file name. `library` marks code that is not the workspace's own.
    """

    path: str
    line: int
    function: str
    language: str  # python, pytest, javascript, java, go, rust, c, or by a diagnostic's file extension
    library: bool = False


@dataclass(frozen=True, slots=True)
class TraceError:
    """What went wrong: the type as written (`json.decoder.JSONDecodeError`) and the first line of the message."""

    type: str
    message: str
    language: str

    @property
    def name(self) -> str:
        """The type without its module."""
        return re.split(r"[.:$]", self.type)[-1]


@dataclass(frozen=True, slots=True)
class _Order:
    """Where in a text of this language the fault is most likely named."""

    deepest_last: bool  # within one trace
    latest_first: bool  # among several traces


_ORDERS: Final = {
    "python": _Order(deepest_last=True, latest_first=True),
    "pytest": _Order(deepest_last=True, latest_first=True),
    "javascript": _Order(deepest_last=False, latest_first=True),  # `[cause]:` stands last
    "java": _Order(deepest_last=False, latest_first=True),  # so does the last `Caused by:`
    "rust": _Order(deepest_last=False, latest_first=True),
    "go": _Order(deepest_last=False, latest_first=False),  # the goroutine that panicked comes first
    "compiler": _Order(deepest_last=False, latest_first=False),  # the first error causes the others
    "summary": _Order(deepest_last=False, latest_first=False),  # pytest's list of failed tests: no lines, so last
}

_ANSI: Final = re.compile(r"\x1b\[[0-9;:?]{0,40}[A-Za-z]|\x1b\][^\x07\x1b\n]{0,2000}(?:\x07|\x1b\\)|\x1b[()][0-9A-B]")
_PREFIX: Final = re.compile(  # docker compose, syslog and journald, `docker logs -t` and `kubectl logs --timestamps`
    r"^(?:[A-Za-z][\w.-]{0,60} {0,20}\| |[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} \S{1,100} [^\s:]{1,100}: "
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.,]{5,20}(?:Z|[+-][0-9]{2}:?[0-9]{2}) )"
)
_PYTHON: Final = re.compile(r'(?:^|[\s|+-])File "([^"\n]{1,1000})", line ([0-9]{1,9})(?:, in (\S[^\n]{0,200}))?')
_PYTEST: Final = re.compile(
    r"^((?:[A-Za-z]:)?[^\s:][^:\n]{0,500}\.(?:py|pyx|pyi)):([0-9]{1,9}): ?"
    r"(?:in (\S.{0,200})|[A-Za-z_][\w.]{0,200}|[A-Za-z_][\w.]{0,200}(?:Error|Exception): .*)?$"
)
_SUMMARY: Final = re.compile(r"^(?:FAILED|ERROR) ([^\s:][^:\n]{0,500}\.py)(?:::(\S{1,500}))?(?: - .*)?$")
_JAVA: Final = re.compile(
    r"^\s{0,80}at (?:[\w.@$-]{0,200}/{1,2}){0,4}([\w$.]{1,500})\.([\w$<>-]{1,200})"
    r"\(([\w$-]{1,200}\.(?:java|kt|kts|scala|groovy|clj)):([0-9]{1,9})\)"
)
_JS_PLACE: Final = re.compile(
    r"^(?:async )?(?:file://|webpack-internal:///|webpack:///|https?://[^/\s]{1,200}/)?"
    r"(.{1,1000}\.(?:[cm]?[jt]sx?|vue|svelte)(?:\?[^:\s]{0,100})?):([0-9]{1,9}):[0-9]{1,9}$"
)
_GO: Final = re.compile(r"^(?:\t| {4,8})(\S[^\n]{0,1000}\.go):([0-9]{1,9})(?: \+0x[0-9a-f]{1,16}|: .*)?$")
_RUST_PANIC: Final = re.compile(r"panicked at (?:'.{0,1000}', )?([^\s':][^':\n]{0,500}\.rs):([0-9]{1,9}):[0-9]{1,9}")
_RUST_PLACE: Final = re.compile(r"^\s{0,80}(?:at|-->) (\S[^\n]{0,500}\.rs):([0-9]{1,9}):[0-9]{1,9}$")
_RUST_NAME: Final = re.compile(r"^\s{1,20}[0-9]{1,6}: (?:0x[0-9a-f]{1,16} - )?(\S.{0,500})$")
_DIAGNOSTIC: Final = re.compile(
    r"^((?:[A-Za-z]:)?[^\s:][^:\n]{0,500}\.(\w{1,10})):([0-9]{1,9}):(?:([0-9]{1,9}):?)?"
    r"(?: -)? (?:(?:fatal )?error|warning|note)\b"
)
_GO_DIAGNOSTIC: Final = re.compile(r"^(?:vet: )?([^\s:][^:\n]{0,500}\.go):([0-9]{1,9}):[0-9]{1,9}: ")

_LANGUAGES: Final = {
    **dict.fromkeys(("c", "h", "cc", "cpp", "cxx", "hpp", "hh", "m", "mm", "cu"), "c"),
    **dict.fromkeys(("js", "jsx", "mjs", "cjs", "ts", "tsx", "mts", "cts"), "javascript"),
    **dict.fromkeys(("java", "kt", "scala"), "java"),
    "py": "python",
    "rs": "rust",
}

_LIBRARY: Final = re.compile(
    r"(?:^|/)(?:site-packages|dist-packages|node_modules|bower_components|vendor|_pytest|pluggy|\.cargo|\.rustup"
    r"|\.tox|\.nox|\.venv|venv)/"
    r"|(?:^|/)lib(?:64)?/python[0-9.]{1,6}/|/Python[0-9]{2,3}/Lib/|/Python\.framework/"
    r"|^<|^(?:node:|internal/)|(?:^|/)ext:"
    r"|^/rustc/|(?:^|/)library/(?:std|core|alloc|test|panic_unwind)/src/"
    r"|/go/src/(?:runtime|testing|net|reflect|sync|syscall|internal|os|io|encoding|database|bufio|context)/"
    r"|/pkg/mod/|^_testmain\.go|^_cgo_gotypes\.go"
)
_JAVA_LIBRARY: Final = re.compile(
    r"^(?:java|javax|jakarta|jdk|sun|kotlin|kotlinx|scala|groovy|clojure|android|androidx|reactor|io/netty|io/vertx"
    r"|org/(?:junit|testng|hamcrest|mockito|assertj|gradle|apache|springframework|hibernate|eclipse|jboss|codehaus|slf4j|aspectj)"
    r"|com/(?:sun|google/common|fasterxml|zaxxer|mysql|intellij|android)|ch/qos/logback|net/sf/cglib|worker/org/gradle)/"
)


def frames(text: str) -> tuple[Frame, ...]:
    """Find every place that traces in `text` name, the most suspicious first, each once; library code last.

    In one trace the deepest own frame comes first; of several traces, each one's best frame comes before any second.
    """
    groups: dict[str, list[list[Frame]]] = {}
    for kind, trace in _traces(text):
        groups.setdefault(kind, []).append(trace)
    ranked: list[Frame] = []
    for kind in sorted(groups, key=lambda kind: kind == "summary"):
        order = _ORDERS[kind]
        own = [[frame for frame in trace if not frame.library] for trace in groups[kind]]
        columns = [trace[::-1] for trace in own] if order.deepest_last else own
        rows = zip_longest(*(columns[::-1] if order.latest_first else columns))
        ranked += [frame for row in rows for frame in row if frame is not None]
    ranked += [frame for traces in groups.values() for trace in traces for frame in trace if frame.library]
    return tuple(dict.fromkeys(ranked))[:MAX_FRAMES]


def is_library(path: str) -> bool:
    """Say whether a path in a trace (POSIX separators) is a package's, the language's own, or a test runner's."""
    return _LIBRARY.search(path) is not None


def error(text: str) -> TraceError | None:
    """Return the last error that `text` names, or None. The root cause stands last in Java and JavaScript."""
    found: TraceError | None = None
    for candidate in _errors(_lines(text)):
        found = candidate
    return found


def _lines(text: str) -> Sequence[str]:
    """Split into lines without colours and log prefixes, cut to a length. A trace inside a JSON string is unfolded."""
    lines: list[str] = []
    for line in _ANSI.sub("", text[-_MAX_TEXT:]).split("\n"):
        if "\\n" in line and ("Traceback (most recent" in line or "\\n    at " in line or "goroutine " in line):
            unfolded = line.replace("\\n", "\n").replace("\\t", "\t").replace('\\"', '"').replace("\\\\", "\\")
            lines += [part[:_MAX_LINE].rstrip() for part in unfolded.split("\n")]
        else:
            lines.append(_PREFIX.sub("", line[:_MAX_LINE].rstrip()))
    return lines


def _traces(text: str) -> Iterator[tuple[str, list[Frame]]]:
    """Yield each run of frames that belong to one trace, in the order of the text, as (key of `_ORDERS`, frames)."""
    current: list[Frame] = []
    kind = ""
    before = ""  # the line before: Go and Rust name the function there
    for line in _lines(text):
        found = _frame(line, before)
        if current and (found[0] != kind if found else _ends(kind, line)):
            yield kind, current
            current = []
        if found:
            kind, frame = found
            current.append(frame)
        before = line
    if current:
        yield kind, current


def _ends(language: str, line: str) -> bool:
    """Say whether a line that is no frame ends the trace before it."""
    stripped = line.strip()
    if language in ("python", "pytest"):
        return "Traceback (most recent call last)" in line or (line.startswith("___") and line.endswith("___"))
    if language == "go":
        return stripped.startswith("goroutine ")
    if language == "rust":
        return "panicked at " in line
    if language in ("java", "javascript"):
        return not (stripped.startswith(("at ", "... ")) or not stripped)
    return False


def _frame(line: str, before: str) -> tuple[str, Frame] | None:
    """Read one line as (key of `_ORDERS`, frame); `before` is the line above it."""
    if 'File "' in line and (found := _PYTHON.search(line)):
        return _made("python", found[1], found[2], found[3] or "")
    stripped = line.lstrip()
    if stripped.startswith("at "):
        return _at(line, stripped, before)
    if found := _DIAGNOSTIC.match(line):
        return _made("compiler", found[1], found[3], language=_LANGUAGES.get(found[2].lower(), found[2].lower()))
    if ".py" in line:
        if found := _PYTEST.match(line):
            return _made("pytest", found[1], found[2], found[3] or "")
        if found := _SUMMARY.match(line):
            return _made("summary", found[1], "0", found[2] or "", language="pytest")
    if ".go:" in line:
        if found := _GO.match(line):
            name = before.strip().removeprefix("created by ")
            return _made("go", found[1], found[2], name[: name.rfind("(")] if name.endswith(")") else name)
        if found := _GO_DIAGNOSTIC.match(line):
            return _made("compiler", found[1], found[2], language="go")
    if ".rs:" in line:
        if found := _RUST_PANIC.search(line):
            return _made("rust", found[1], found[2])
        if found := _RUST_PLACE.match(line):
            return _made("compiler", found[1], found[2], language="rust")
    return None


def _at(line: str, stripped: str, before: str) -> tuple[str, Frame] | None:
    """Read a line that begins with `at`: Java, JavaScript or a Rust backtrace."""
    if found := _JAVA.match(line):
        package, _, owner = found[1].rpartition(".")
        path = f"{package.replace('.', '/')}/{found[3]}".removeprefix("/")
        library = _JAVA_LIBRARY.match(path) is not None
        return "java", Frame(path, int(found[4]), f"{owner}.{found[2]}", "java", library)
    if found := _RUST_PLACE.match(line):
        name = _RUST_NAME.match(before)
        return _made("rust", found[1], found[2], name[1] if name else "")
    place, function = stripped[3:], ""
    if place.endswith(")"):
        function, _, place = place[:-1].rpartition(" (")
    if found := _JS_PLACE.match(place):
        return _made("javascript", found[1].partition("?")[0], found[2], function.removeprefix("async "))
    return None


def _made(kind: str, path: str, line: str, function: str = "", *, language: str = "") -> tuple[str, Frame] | None:
    path = path.replace("\\", "/").removeprefix("./")
    if not path or path.startswith("<"):  # <string>, <stdin>, <frozen importlib._bootstrap>
        return None
    return kind, Frame(path, int(line), function.strip(), language or kind, is_library(path))


_TYPED: Final = re.compile(r"^[ |+-]{0,80}([A-Za-z_][\w.]{0,200})(?:: (.{0,2000}))?$")
_PYTEST_ERROR: Final = re.compile(
    r"^E {3,8}([A-Za-z_][\w.]{0,200}(?:Error|Exception|Warning|Exit|Interrupt|Failed|Iteration))(?:: (.{0,2000}))?$"
)
_JAVA_ERROR: Final = re.compile(
    r'^(?:Exception in thread "[^"\n]{0,200}" |\s{0,40}Caused by: |)'
    r"((?:[a-z_][\w$]{0,80}\.){1,12}[A-Z][\w$]{0,100})(?:: (.{0,2000}))?$"
)
_NAMED: Final = re.compile(
    r"(?:^|[\s:\]|(])((?:[A-Za-z_][\w.]{0,100}\.)?[A-Z]\w{0,80}(?:Error|Exception)|Error|panic)"
    r"(?: \[[A-Z_0-9]{1,80}\])?: (.{1,2000})$"
)


def _errors(lines: Sequence[str]) -> Iterator[TraceError]:
    """Yield each error named, in the order of the text."""
    in_python = False
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if "Traceback (most recent call last)" in line or _PYTHON.search(line):
            in_python = True
        elif in_python and (found := _TYPED.match(line)) and _ends_traceback(line, lines, number):
            in_python = False
            yield TraceError(found[1], found[2] or "", "python")
        elif found := _PYTEST_ERROR.match(line):
            yield TraceError(found[1], found[2] or "", "python")
        elif (found := _JAVA_ERROR.match(line)) and _JAVA.match(following):
            yield TraceError(found[1], found[2] or "", "java")
        elif found := _RUST_PANIC.search(line):
            yield TraceError("panic", following.strip(), "rust")
        elif line.startswith(("panic: ", "fatal error: ")) and not in_python:
            kind, _, message = line.partition(": ")
            yield TraceError(kind, message, "go")
        elif not in_python and (found := _NAMED.search(line)):
            script = following.lstrip().startswith("at ")
            yield TraceError(found[1], found[2], "javascript" if script else "")


def _ends_traceback(line: str, lines: Sequence[str], number: int) -> bool:
    """Tell the exception's line from a line of code: it is indented no deeper than the header of its traceback."""
    if line.startswith(("During handling of", "The above exception")):
        return False
    margin = len(line) - len(line.lstrip(" |+-"))
    previous = next((lines[at] for at in range(number - 1, max(number - 6, -1), -1) if _PYTHON.search(lines[at])), "")
    return margin < len(previous) - len(previous.lstrip(" |+-")) if previous else margin == 0
