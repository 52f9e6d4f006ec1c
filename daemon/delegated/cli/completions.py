"""Print the completions for a shell, to be loaded at its start."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final

from . import exits, terminal

SHELLS: Final = ("bash", "zsh", "fish")
_WHERE: Final = {
    "bash": "delegate completions bash > ~/.local/share/bash-completion/completions/delegate",
    "zsh": "delegate completions zsh > ~/.zfunc/_delegate   (with fpath+=~/.zfunc before compinit)",
    "fish": "delegate completions fish > ~/.config/fish/completions/delegate.fish",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `completions`."""
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def run(args: argparse.Namespace) -> int:
    """Print the file that was shipped."""
    with open(path(args.shell), encoding="utf-8") as file:
        terminal.out(file.read().rstrip("\n"))
    if terminal.is_terminal(sys.stdout):
        terminal.next_step(_WHERE[args.shell])
    return exits.OK


def path(shell: str) -> str:
    """Return where the shipped completions of a shell lie."""
    return os.path.join(os.path.dirname(__file__), "shells", f"delegate.{shell}")


def write() -> None:
    """Make the shipped files anew; `python -m delegated.cli.completions` calls it, a test says when it is due."""
    import shtab

    from . import full_parser

    for shell in SHELLS:
        with open(path(shell), "w", encoding="utf-8", newline="\n") as file:
            file.write(shtab.complete(full_parser(), shell=shell))


if __name__ == "__main__":
    write()
