"""Log events: one JSON object a line for machines, a readable line on a terminal, and never a key in either.

An event is a constant name, `noun.past-verb`, with values beside it. Values are untrusted (file names, a model's
words), so they are made plain, cleaned of what steers a terminal, and secrets are masked, last before rendering: known
keys in every event; values of env files and what the rules find in warnings and errors.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Final, Literal, TextIO
from urllib.parse import quote

import structlog

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]

MASK: Final = "[REDACTED:own-key]"
NOISY: Final = ("openai", "anthropic", "httpx2", "httpcore2", "asyncio", "watchdog", "markdown_it")
"""Libraries that tell of each step; of these only warnings and worse are logged."""

_LEAST_SECRET: Final = 6  # a shorter "key" is a word that stands everywhere, and gives nothing away
_CONSTANT: Final = frozenset({"event", "level", "timestamp", "hint", "folder", "exc_type", "filename"})
_UNSEEN: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0"
)  # "printable", and blank
_MAX_DEPTH: Final = 8
_MAX_TEXT: Final = 20_000
_TOKEN: Final = re.compile(r"\bsk-[A-Za-z0-9_-]{16,}|(?i:\bbearer\s+)[A-Za-z0-9._~+/=-]{8,}")
_SYSLOG: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}

_hidden: list[str] = []
_known: dict[str, Callable[[], Iterable[str]]] = {}
_last: dict[str, tuple[str, ...]] = {}
_severity = logging.INFO  # read at each event, because loggers that were bound before a reload live on


def hide(value: str) -> None:
    """Mask this exact value in all that is logged from now on, also where it stands inside a URL."""
    for each in {value, quote(value, safe="")}:
        if len(each) >= _LEAST_SECRET and each not in _hidden:
            _hidden.append(each)
    _hidden.sort(key=len, reverse=True)  # a key that begins like another must not leave that one's tail


def learn(place: str, read: Callable[[], Iterable[str]]) -> None:
    """Have the values that `read` returns (a workspace's env files) taken out of warnings and errors."""
    _known[place] = read
    with contextlib.suppress(OSError):  # read now: later there may be no descriptor left to read it with
        _last[place] = tuple(read())


def configure(
    level: Level = "info",
    format: Format = "auto",
    stream: TextIO | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Send all events, and what libraries log, to `stream` (stderr). May be called again, on a reload."""
    stream = sys.stderr if stream is None else stream
    env = os.environ if env is None else env
    on_terminal = stream.isatty()
    console = format == "console" or (format == "auto" and on_terminal)
    global _severity
    _severity = severity = int(getattr(logging, level.upper()))
    structlog.configure(
        processors=[
            _drop_lesser,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if console else _traceback(),
            _plain_for_people if console else make_plain,
            mask_keys,
            mask_secrets,
            _console(colors=on_terminal and not env.get("NO_COLOR")) if console else _as_json,
            _with_priority if _is_journal(stream, env) else _as_it_is,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda *_: _Lines(stream),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [each for each in root.handlers if not isinstance(each, _Foreign)]
    root.addHandler(_Foreign())
    root.setLevel(severity)
    for name in NOISY:
        logging.getLogger(name).setLevel(max(severity, logging.WARNING))
    logging.captureWarnings(True)


Event = MutableMapping[str, Any]


def _drop_lesser(_logger: object, method: str, event: Event) -> Event:
    if getattr(logging, method.upper(), logging.ERROR) < _severity:  # `exception` is an error
        raise structlog.DropEvent
    return event


def make_plain(_logger: object, method: str, event: Event) -> Event:
    """Turn every value into JSON's types, so that nothing is left whose `repr` could say more after the masking.

    Line breaks stay, as JSON writes them out.
    """
    return {_clean(key): _plain(value, keep_lines=True) for key, value in event.items()}


def _plain_for_people(_logger: object, method: str, event: Event) -> Event:
    """Do the same, and let only a traceback have more than one line."""
    return {_clean(key): _plain(value, keep_lines=key == "exception") for key, value in event.items()}


def mask_keys(_logger: object, method: str, event: Event) -> Event:
    """Replace known keys, and what looks like one, wherever it stands."""
    return {_mask(key): _masked(value) for key, value in event.items()}


def _values(place: str) -> tuple[str, ...]:
    """Return what is to be hidden of a place; what was read last where it cannot be read now."""
    try:
        _last[place] = tuple(_known[place]())
    except OSError:
        if place not in _last:
            raise
    return _last[place]


def mask_secrets(_logger: object, method: str, event: Event) -> Event:
    """Replace what the rules for secrets find in a warning or an error: those quote what was being worked on."""
    if getattr(logging, method.upper(), logging.ERROR) < logging.WARNING:
        return event
    texts = tuple({text for key, value in event.items() if key not in _CONSTANT for text in _texts(value)})
    try:
        from delegated.secrets import redact  # re2 and 200 rules: at the first warning, not at the start

        known = [value for place in tuple(_known) for value in _values(place)]
        cleaned, found = redact([("the log", text) for text in texts], known=known)
    except Exception as error:  # noqa: BLE001 - the event is told all the same, without what could not be looked at
        cleaned, found = (f"[not shown: {type(error).__name__} when it was searched for secrets]",) * len(texts), ()
        return _with(event, dict(zip(texts, cleaned, strict=True)))
    return _with(event, dict(zip(texts, cleaned, strict=True))) if found else event


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        if len(value) >= _LEAST_SECRET:
            yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _with(event: Event, said: Mapping[str, str]) -> Event:
    return {key: value if key in _CONSTANT else _said(value, said) for key, value in event.items()}


def _said(value: object, said: Mapping[str, str]) -> object:
    if isinstance(value, str):
        return said.get(value, value)
    if isinstance(value, dict):
        return {key: _said(each, said) for key, each in value.items()}
    if isinstance(value, list):
        return [_said(each, said) for each in value]
    return value


def _plain(value: object, depth: int = 0, *, keep_lines: bool = False) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _clean(value, keep_lines=keep_lines)
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return {_clean(str(key)): _plain(each, depth + 1, keep_lines=keep_lines) for key, each in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [_plain(each, depth + 1, keep_lines=keep_lines) for each in value]
    try:
        return _clean(repr(value))
    except Exception as error:  # noqa: BLE001 - somebody else's __repr__ must not cost the event
        return f"<{type(value).__name__} whose repr failed: {type(error).__name__}>"


def _clean(text: str, *, keep_lines: bool = False) -> str:
    """Write out what a terminal would obey: control characters, escapes, and those that turn the reading direction."""
    if len(text) > _MAX_TEXT:
        text = f"{text[:_MAX_TEXT]}… ({len(text)} characters)"
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each
        if (each.isprintable() and each not in _UNSEEN) or (keep_lines and each in "\n\t")
        else each.encode("unicode_escape").decode("ascii")
        if each in _UNSEEN or (unicodedata.category(each)[0] in "CZ" and each != " ")
        else each
        for each in text
    )


def _mask(text: str) -> str:
    for value in _hidden:
        text = text.replace(value, MASK)
    return _TOKEN.sub(MASK, text)


def _masked(value: object) -> object:
    if isinstance(value, str):
        return _mask(value)
    if isinstance(value, dict):
        return {_mask(key): _masked(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_masked(each) for each in value]
    return value


def _traceback() -> Any:
    # show_locals=False: local variables hold requests, code and keys
    return structlog.processors.ExceptionRenderer(
        structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
    )


def _console(*, colors: bool) -> Any:
    return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)


def _as_json(_logger: object, method: str, event: Event) -> str:
    first = {key: event.pop(key, None) for key in ("timestamp", "level", "event")}
    return json.dumps({**first, **event}, ensure_ascii=False, allow_nan=True)


def _with_priority(_logger: object, method: str, line: Any) -> str:
    """Begin the line as sd-daemon(3) says, so that `journalctl -p warning` finds it."""
    return f"<{_SYSLOG.get(method, 3)}>{line}"


def _as_it_is(_logger: object, method: str, line: Any) -> str:
    return str(line)


def _is_journal(stream: TextIO, env: Mapping[str, str]) -> bool:
    """Tell whether the stream really is the journal's, as the variable is inherited by whatever a service starts."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return env.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _Lines:
    """Writes whole lines. A reader that has gone away must not stop the daemon."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line.encode("utf-8", "backslashreplace").decode() + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = critical = exception = fatal = log = msg


class _Foreign(logging.Handler):
    """Brings what libraries log by `logging` to the same place and the same rules."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's wrong format string
            text = str(record.msg)
        log = structlog.get_logger()
        level = min(record.levelno // 10 * 10, logging.CRITICAL) or logging.DEBUG
        log.log(level, "library.logged", library=record.name, text=text, exc_info=record.exc_info or None)
