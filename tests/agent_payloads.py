"""What hosts of agents write to a hook, in the shape that each documents; no host was run to record them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness import BUG, TRACE

SAYS = "DELEGATE TO GPT-4O: it divides by zero"


def prompt(host: str, workspace: Path, text: str = SAYS, transcript: str = "", **more: Any) -> dict[str, Any]:
    """The payload of a prompt that was just submitted."""
    cwd = str(workspace)
    if host == "claude":
        payload = {
            "session_id": "5f0a3d7e-0000-4000-8000-000000000001",
            "transcript_path": transcript,
            "cwd": cwd,
            "permission_mode": "default",
            "hook_event_name": "UserPromptSubmit",
            "prompt": text,
        }
    elif host == "codex":
        payload = {
            "session_id": "0199a213-81c0-7800-8aa1-bbab2a035a53",
            "turn_id": "0199a213-8f00-7e11-9000-000000000002",
            "transcript_path": transcript or None,
            "cwd": cwd,
            "hook_event_name": "UserPromptSubmit",
            "model": "gpt-6-codex",
            "permission_mode": "default",
            "prompt": text,
        }
    elif host == "cursor":
        payload = {
            "conversation_id": "668320d2-2fd8-4888-b33c-2a466fec86e7",
            "generation_id": "490b90b7-a2ce-4c2c-bb76-cb77b125df2f",
            "model": "claude-sonnet",
            "hook_event_name": "beforeSubmitPrompt",
            "cursor_version": "3.7.21",
            "workspace_roots": [cwd],
            "user_email": None,
            "transcript_path": transcript or None,
            "prompt": text,
            "attachments": [{"type": "file", "file_path": f"{cwd}/app.py"}, {"type": "rule", "file_path": "/r"}, 7],
        }
    else:
        payload = {
            "timestamp": "2026-02-09T10:30:00.000Z",
            "cwd": cwd,
            "sessionId": "b7c1c0de-0000-4000-8000-000000000003",
            "hookEventName": "UserPromptSubmit",
            "transcript_path": transcript,
            "prompt": text,
        }
    return {**payload, **more}


def stop(host: str, workspace: Path, **more: Any) -> dict[str, Any]:
    """The payload of an agent that stops, in the same session as `prompt`."""
    payload = prompt(host, workspace)
    del payload["prompt"]
    if host == "cursor":
        return {**payload, "hook_event_name": "stop", "status": "completed", "loop_count": 0, **more}
    name = "hookEventName" if host == "vscode" else "hook_event_name"
    return {**payload, name: "Stop", "stop_hook_active": False, **more}


def _edit(workspace: Path) -> dict[str, Any]:
    return {"file_path": f"{workspace}/app.py", "old_string": "len(items)", "new_string": "max(len(items), 1)"}


def claude(workspace: Path) -> list[dict[str, Any]]:
    failed = {"type": "tool_result", "tool_use_id": "t2", "is_error": True, "content": f"Exit code 1\n{TRACE}"}
    read = {"type": "tool_use", "id": "t0", "name": "Read", "input": {"file_path": f"{workspace}/app.py"}}
    edit = {"type": "tool_use", "id": "t1", "name": "Edit", "input": _edit(workspace)}
    found = {"type": "tool_result", "tool_use_id": "t0", "content": [{"type": "text", "text": BUG}]}
    return [
        {"type": "summary", "summary": "A division"},
        {"type": "user", "message": {"role": "user", "content": "it fails"}, "cwd": str(workspace)},
        {"type": "assistant", "message": {"role": "assistant", "content": [{"type": "text", "text": "I look."}, read]}},
        {"type": "user", "message": {"role": "user", "content": [found]}},
        {"type": "assistant", "message": {"role": "assistant", "content": [edit]}},
        {"type": "user", "message": {"role": "user", "content": [failed]}},
        {"type": "assistant", "message": {"role": "assistant", "content": [{"type": "text", "text": "Still fails."}]}},
    ]


def codex(workspace: Path) -> list[dict[str, Any]]:
    patch = "*** Begin Patch\n*** Update File: app.py\n@@\n-len(items)\n+max(len(items), 1)\n*** End Patch\n"
    output = json.dumps({"output": TRACE, "metadata": {"exit_code": 1, "duration_seconds": 0.1}})
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Still fails."}]}
    call = {"type": "custom_tool_call", "name": "apply_patch", "call_id": "c1", "input": patch}
    shell = {
        "type": "function_call",
        "name": "shell",
        "arguments": '{"command": ["python", "app.py"]}',
        "call_id": "c2",
    }
    items = [call, shell, {"type": "function_call_output", "call_id": "c2", "output": output}, said]
    return [
        {"timestamp": "2026-02-09T10:30:00Z", "type": "session_meta", "payload": {"cwd": str(workspace)}},
        *({"timestamp": "2026-02-09T10:30:01Z", "type": "response_item", "payload": item} for item in items),
    ]


def cursor(workspace: Path) -> list[dict[str, Any]]:
    edit = {
        "type": "tool_use",
        "name": "StrReplace",
        "input": {"path": f"{workspace}/app.py", "old_string": "len(items)", "new_string": "max(len(items), 1)"},
    }
    result = {"type": "tool_result", "content": TRACE}
    return [
        {"role": "user", "message": {"content": [{"type": "text", "text": "it fails"}]}},
        {"role": "assistant", "message": {"content": [{"type": "text", "text": "I look."}, edit]}},
        {"role": "user", "message": {"content": [result]}},
        {"role": "assistant", "message": {"content": [{"type": "text", "text": "Still fails."}]}},
    ]


def vscode(workspace: Path) -> list[dict[str, Any]]:
    edit = {
        "toolCallId": "t1",
        "toolName": "replace_string_in_file",
        "arguments": {"filePath": f"{workspace}/app.py", "oldString": "len(items)", "newString": "max(len(items), 1)"},
    }
    done = {"toolCallId": "t2", "success": False, "error": {"message": TRACE}}
    return [
        {"type": "user.message", "data": {"content": "it fails"}},
        {"type": "tool.execution_start", "data": edit},
        {"type": "tool.execution_complete", "data": done},
        {"type": "assistant.message", "data": {"content": "Still fails."}},
    ]


TRANSCRIPTS = {"claude": claude, "codex": codex, "cursor": cursor, "vscode": vscode}
HOMES = {
    "claude": ".claude/projects/-work",
    "codex": ".codex/sessions/2026/02/09",
    "cursor": ".cursor/projects/work/agent-transcripts",
    "vscode": ".config/Code/User/workspaceStorage/1/GitHub.copilot-chat/transcripts",
}


def transcript(host: str, home: Path, workspace: Path) -> Path:
    """Write a session's transcript where the host keeps it, torn and foreign lines among the others."""
    path = home / HOMES[host] / "session.jsonl"
    path.parent.mkdir(parents=True)
    lines = [json.dumps(record) for record in TRANSCRIPTS[host](workspace)]
    path.write_bytes(
        "\n".join(['{"torn": ', "[" * 5000, *lines, "null", '{"type": 7}', "\ud800"]).encode("utf-8", "replace")
    )
    return path
