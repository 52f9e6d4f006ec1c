"""A request, parsed once at the door from Markdown, YAML or JSON."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Embedded:
    """A file that the request carries itself under *File Contents*. `line` is where it starts in the request (1-based)."""

    path: str
    text: str
    language: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Options:
    """What a request may ask for beside its words; None or empty means: as configured."""

    id: str = ""
    draft: bool = False
    models: tuple[str, ...] = ()
    compare: bool = False
    priority: int = 0
    max_cost_usd: float | None = None
    max_input_tokens: int | None = None
    deadline_s: float | None = None
    repro: str = ""
    test: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants to know, and what they gave to find it out. Always made by `parse`."""

    issue: str
    context: str = ""
    logs: str = ""
    attempted_fixes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    contents: tuple[Embedded, ...] = ()
    questions: tuple[str, ...] = ()
    options: Options = field(default_factory=Options)
    warnings: tuple[str, ...] = ()


def parse(data: bytes, suffix: str) -> Request:
    """Read a request file's bytes; `suffix` is one of `.md`, `.yaml`, `.yml`, `.json`.

    Raises `RequestError` with every problem and its line. Never raises anything else.
    """
    raise NotImplementedError


def render(request: Request) -> str:
    """Write a request as Markdown that `parse` reads back to an equal request. Standard library only."""
    raise NotImplementedError
