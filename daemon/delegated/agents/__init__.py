"""At home in coding agents: what their hooks say and are answered, and what is merged into their files."""

from __future__ import annotations

from typing import Final

# In the order in which they are shown. Each is a host of hooks, and a name that `delegate init --agent` takes.
NAMES: Final = ("claude", "cursor", "codex", "vscode")
TITLES: Final = {"claude": "Claude Code", "cursor": "Cursor", "codex": "Codex", "vscode": "VS Code"}
