"""Where a user's own state lies: outside every workspace, so that no clone can bring it along."""

from __future__ import annotations

import os
from collections.abc import Mapping


def state_directory(env: Mapping[str, str]) -> str:
    """Return the directory of what is kept across workspaces; it need not exist yet.

    `$STATE_DIRECTORY` (systemd's StateDirectory=), else `$XDG_STATE_HOME/delegated`, else `~/.local/state/delegated`.
    A relative value of either variable is not heeded, as the XDG Base Directory Specification demands.
    """
    given = env.get("STATE_DIRECTORY", "").split(":")[0]
    if os.path.isabs(given):
        return given
    base = env.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(env.get("HOME") or os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "delegated")
