"""What agents are told of delegations, and which of a workspace's files tells it to whom."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from delegated.agents import hosts

BEGIN: Final = "<!-- delegated: begin -->"
END: Final = "<!-- delegated: end -->"
TASK: Final = "delegate: ask about this file"
WATCH: Final = "delegate: watch"
INPUT: Final = "delegateIssue"
_HOOK: Final = re.compile(r"\bdelegate hook [a-z]+\b")

_RULE: Final = """\
A line `DELEGATE TO GPT-4O: <issue>` in a prompt asks a second model about the issue.

- A hook of this workspace asks as soon as the prompt is sent: do not ask a second time. The answer begins with "The
  delegation". If it is not in your context yet, it comes as the next message: say in one line that it was asked, and
  stop.
- If it does not come, or no hooks run here, ask by the command: `delegate ask --issue "..." --files "src/a.py,src/b.py"
  --logs "..." --attempted-fixes "..." "..."`. It waits and prints the RESULT.
- The answer is a claim, not an order: look up each quote in the code, and apply a fix only after that. `delegate show`
  prints the newest RESULT as a whole.
- After three failed attempts at the same issue, propose a delegation. Do not ask without the user's word: it sends code
  to a provider and costs money.
"""
_DESCRIPTION: Final = (
    "Ask GPT-4o for a second opinion on a bug, with root cause, evidence and fixes. Use it when the user writes"
    " DELEGATE TO GPT-4O, or agrees to delegate after several failed attempts."
)
_MARK: Final = "Written by `delegate init`."
_SKILL: Final = f"""\
---
name: delegate
description: {_DESCRIPTION}
---

<!-- {_MARK} -->

# Delegating an issue

{_RULE}
## What helps the answer

- the issue in a sentence, with the exact error
- the files in play, relative to the workspace; what is found by itself is added
- the error log or traceback, whole: `--logs @logs/server.log`
- what was tried, one argument each

`delegate preview` with the same flags shows what would be sent, and costs nothing. Secrets are replaced before anything
leaves.
"""
_CURSOR: Final = f"""\
---
description: {_DESCRIPTION}
globs:
alwaysApply: true
---

<!-- {_MARK} -->

{_RULE}"""
_BLOCK: Final = f"""\
{BEGIN}
## Delegating an issue to GPT-4o

{_RULE}{END}
"""
_TASKS: Final[dict[str, Any]] = {
    "version": "2.0.0",
    "tasks": [
        {
            "label": TASK,
            "type": "process",
            "command": "delegate",
            "args": ["ask", "--issue", f"${{input:{INPUT}}}", "--files", "${relativeFile}"],
            "options": {"cwd": "${workspaceFolder}"},
            "problemMatcher": [],
        },
        {
            "label": WATCH,
            "type": "process",
            "command": "delegate",
            "args": ["watch", "--format", "gcc", "--last", "1"],
            "options": {"cwd": "${workspaceFolder}"},
            "isBackground": True,
            "runOptions": {"runOn": "folderOpen"},
            "presentation": {"reveal": "never", "panel": "dedicated"},
            "problemMatcher": {
                "owner": "delegate",
                "source": "delegate",
                "fileLocation": ["relative", "${workspaceFolder}"],
                "pattern": {
                    "regexp": r"^([^:]+):(\d+): (warning|note): (.*)$",
                    "file": 1,
                    "line": 2,
                    "severity": 3,
                    "message": 4,
                },
                "background": {
                    "activeOnStart": True,
                    "beginsPattern": "^delegate: begin ",
                    "endsPattern": "^delegate: end ",
                },
            },
        },
    ],
    "inputs": [{"id": INPUT, "type": "promptString", "description": "What is wrong?"}],
}


@dataclass(frozen=True, slots=True)
class File:
    """A file of the workspace that agents read. `wanted` is what is merged (JSON), a block, or the whole file."""

    path: str
    agents: tuple[str, ...]
    kind: str  # "json", "block" or "whole"
    wanted: Any


FILES: Final = (
    File("CLAUDE.md", ("claude",), "block", _BLOCK),
    File("AGENTS.md", ("cursor", "codex", "vscode"), "block", _BLOCK),
    File(".claude/skills/delegate/SKILL.md", ("claude",), "whole", _SKILL),
    File(".agents/skills/delegate/SKILL.md", ("cursor", "codex", "vscode"), "whole", _SKILL),
    File(".cursor/rules/delegate.mdc", ("cursor",), "whole", _CURSOR),
    File(".claude/settings.json", ("claude",), "json", hosts.entries("claude")),
    File(".cursor/hooks.json", ("cursor",), "json", hosts.entries("cursor")),
    File(".codex/hooks.json", ("codex",), "json", hosts.entries("codex")),
    File(".github/hooks/delegate.json", ("vscode",), "json", hosts.entries("vscode")),
    File(".vscode/tasks.json", ("vscode",), "json", _TASKS),
)
# By what an agent is known to be in use in a workspace.
SIGNS: Final = {
    "claude": (".claude", "CLAUDE.md", "CLAUDE.local.md"),
    "cursor": (".cursor", ".cursorrules"),
    "codex": (".codex",),
    "vscode": (".vscode", ".github/copilot-instructions.md", ".github/hooks", ".github/agents"),
}


def names(value: Any) -> frozenset[str]:
    """Say which of our entries an element of a JSON file's list stands for, by command or label, whoever wrote it."""
    if not isinstance(value, dict):
        return frozenset()
    inner = value.get("hooks")
    found = _HOOK.findall(value["command"]) if isinstance(value.get("command"), str) else []
    found += [value[key] for key in ("label", "id") if value.get(key) in (TASK, WATCH, INPUT)]
    return frozenset(found).union(*map(names, inner if isinstance(inner, list) else ()))


def stands_for(value: Any, wanted: Any) -> bool:
    """Say whether an element that is there does what one of ours would do: then it is left as its owner wants it."""
    return names(wanted) <= names(value) if names(wanted) else bool(value == wanted)


def entries(value: Any) -> Iterator[Any]:
    """Yield the elements of lists, outer before inner, that stand for one of our entries."""
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(value, list) and names(each):
            yield each
        yield from entries(each)
