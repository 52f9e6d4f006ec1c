"""What each host of agents says to a hook, and in which form it takes the answer.

Shapes are those that the hosts document; a payload of another shape is nobody's, and None.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# The seconds that our entries give a hook, and what is left of them for the hook's own start and end.
LIMIT_S: Final = 120
MARGIN_S: Final = 10
_BUCKET_S: Final = 10
_MOST: Final = 4096
MOST_PROMPT: Final = 1 << 20
_MOST_FILES: Final = 12
_CURSOR: Final = frozenset(("conversation_id", "generation_id", "workspace_roots", "cursor_version"))
_VSCODE: Final = frozenset(("sessionId", "hookEventName", "timestamp"))
_CODEX: Final = frozenset(("turn_id",))
# Which keys tell that a payload is another host's. VS Code and Cursor also load the hooks of Claude Code, and have
# entries of their own that answer for them.
_FOREIGN: Final = {
    "claude": _CURSOR | _VSCODE | _CODEX,
    "codex": _CURSOR | _VSCODE,
    "cursor": frozenset(("sessionId", "hookEventName")),
    "vscode": _CURSOR | _CODEX,
}
_EVENTS: Final = {
    "UserPromptSubmit": "prompt",
    "Stop": "stop",
    "beforeSubmitPrompt": "prompt",
    "stop": "stop",
}
_BY_HOST: Final = {
    "claude": ("UserPromptSubmit", "Stop"),
    "codex": ("UserPromptSubmit", "Stop"),
    "vscode": ("UserPromptSubmit", "Stop"),
    "cursor": ("beforeSubmitPrompt", "stop"),
}
_SOURCES: Final = (None, "user", "sdk")  # what a plugin or a schedule says is no wish of the user's
_MOST_LOOPS: Final = 3


@dataclass(frozen=True, slots=True)
class Event:
    """One call of a hook: `kind` is `prompt` or `stop`, `turn` "" where the host names none, `roots` are absolute.

    `files` are what the user attached to the prompt, as the host names them. A prompt may be longer than `MOST_PROMPT`
    characters: then it is not for us to delegate, and its user is told so.
    """

    host: str
    kind: str
    session: str
    turn: str
    prompt: str
    roots: tuple[str, ...]
    transcript: str
    files: tuple[str, ...] = ()


def read(host: str, payload: object) -> Event | None:
    """Read a hook's payload; None when it is not one of `host`, or none that asks anything of us."""
    if not isinstance(payload, dict) or _FOREIGN[host] & payload.keys():
        return None
    if host == "vscode" and not _VSCODE & payload.keys():
        return None
    name = _text(payload, "hook_event_name", "hookEventName")
    if name not in _BY_HOST[host] or payload.get("source") not in _SOURCES:
        return None
    kind = _EVENTS[name]
    session = _text(payload, *(("conversation_id",) if host == "cursor" else ("session_id", "sessionId")))
    prompt = _text(payload, "prompt", "user_prompt", most=sys.maxsize)
    given = payload.get("workspace_roots") if host == "cursor" else [payload.get("cwd")]
    roots = tuple(root for root in given if _is_path(root)) if isinstance(given, list) else ()
    if not session or (kind == "prompt" and not (prompt and roots)):
        return None
    loops = payload.get("loop_count", 0)
    over = not isinstance(loops, int) or loops >= _MOST_LOOPS or payload.get("status", "completed") != "completed"
    if host == "cursor" and kind == "stop" and over:
        return None  # stopped by the user, or our own answers would go round
    turn = _text(payload, "prompt_id", "turn_id", "generation_id")
    attached = _attached(payload.get("attachments"))
    return Event(host, kind, session, turn, prompt, roots, _text(payload, "transcript_path"), attached)


def waits(host: str) -> bool:
    """Say whether the answer can come with the prompt; the other hosts take it only when the agent stops."""
    return host in ("claude", "codex")


def hears(event: Event) -> bool:
    """Say whether what is answered is read: of an answer to a prompt Cursor reads only whether it may go on."""
    return event.host != "cursor" or event.kind == "stop"


def keys(event: Event, workspace: str, issue: str, now: float) -> tuple[str, ...]:
    """Name the request of a prompt: the same for the same prompt, which several entries of one host may report.

    The first is its id; any of them that is taken already means that it was asked. Where the host names no turn, two
    reports within ten seconds are one prompt.
    """
    words = " ".join(issue.split()).casefold()
    bucket = int(now // _BUCKET_S)
    turns = (event.turn,) if event.turn else (f"{bucket}", f"{bucket - 1}")
    return tuple(f"prompt-{_short(workspace, event.session, turn, words)}" for turn in turns)


def note_key(event: Event, text: str) -> str:
    """Name what a prompt is to be told later: the same for the same prompt and text."""
    return f"told-{_short(event.session, event.turn, text)}"


def session_key(session: str) -> str:
    """Name a session as a file can be named, whatever the host calls it."""
    return _short(session)


def reply(event: Event, text: str) -> str:
    """Write `text` in the form in which the host takes it; "" where it takes none."""
    value: dict[str, Any]
    if event.kind == "prompt":
        if not hears(event):
            value = {"continue": True}
        elif event.host == "vscode":
            value = {"systemMessage": text}
        else:
            value = {"hookSpecificOutput": {"hookEventName": "UserPromptSubmit", "additionalContext": text}}
    elif event.host == "cursor":
        value = {"followup_message": text}
    elif event.host == "vscode":
        block = {"decision": "block", "reason": text}
        value = {**block, "hookSpecificOutput": {"hookEventName": "Stop", **block}}
    else:
        value = {"decision": "block", "reason": text}
    return json.dumps(value)


def entries(host: str) -> dict[str, Any]:
    """Return what the host's file of hooks has to hold for `delegate hook`."""
    # Exit code 2 would refuse the prompt in some hosts; where `delegate` is not installed nothing may break.
    command: dict[str, Any] = {"type": "command", "command": f"delegate hook {host} || exit 0", "timeout": LIMIT_S}
    prompt, stop = _BY_HOST[host]
    if host == "cursor":
        del command["type"]
        return {"version": 1, "hooks": {prompt: [command], stop: [command]}}
    each = command if host == "vscode" else {"hooks": [command]}
    return {"hooks": {prompt: [each], stop: [each]}}


def _attached(value: object) -> tuple[str, ...]:
    each = [item for item in value[:_MOST_FILES] if isinstance(item, dict)] if isinstance(value, list) else []
    return tuple(filter(None, (_text(item, "file_path", "filePath") for item in each if item.get("type") == "file")))


def _text(payload: Mapping[str, Any], *names: str, most: int = _MOST) -> str:
    for name in names:
        value = payload.get(name)
        if isinstance(value, str) and value.strip() and len(value) <= most and "\0" not in value:
            return value
    return ""


def _is_path(value: object) -> bool:
    if not isinstance(value, str) or len(value) > _MOST or "\0" in value:
        return False
    return value.startswith("/") or re.match(r"[A-Za-z]:[\\/]", value) is not None


def _short(*parts: str) -> str:
    import hashlib

    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
