"""Arguments in, exit code out. A command's module is imported when it is asked for, and nothing heavy before."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from . import exits, terminal

if TYPE_CHECKING:
    import argparse


class Command(NamedTuple):
    """A row of the table of commands: its name, the module that holds it, and what it does in a few words."""

    name: str
    module: str
    words: str


COMMANDS: Final = (
    Command("ask", "ask", "ask about an issue and wait for the RESULT"),
    Command("preview", "preview", "show what would be sent for a request, and its price"),
    Command("ci", "ci", "ask about the failure of a CI job, show what was found there"),
    Command("wait", "wait", "wait for the RESULT of a request"),
    Command("watch", "watch", "follow the RESULTs as they come, also for an editor"),
    Command("show", "show", "print a RESULT"),
    Command("list", "list", "list the requests and how they ended"),
    Command("status", "status", "say who serves the folder, what runs and what waits"),
    Command("cancel", "cancel", "stop a request"),
    Command("retry", "retry", "ask a request again, as its next revision"),
    Command("run", "run", "run a request that is not run by itself"),
    Command("republish", "republish", "bring a deleted RESULT back from the journal"),
    Command("receipt", "receipt", "show what left the machine, check it against the records"),
    Command("outcome", "outcome", "say how a RESULT turned out"),
    Command("stats", "stats", "show how often each confidence was right here"),
    Command("purge", "purge", "remove what is kept of settled requests"),
    Command("costs", "costs", "show what was spent, and what the budgets leave"),
    Command("secrets", "secrets", "show what would be hidden in files, explain the rules"),
    Command("doctor", "doctor", "check that a request dropped now would be answered"),
    Command("init", "init", "set up a workspace, and its coding agents"),
    Command("hook", "hook", "answer a coding agent's hook"),
    Command("demo", "demo", "show the whole way on a small workspace, without key or network"),
    Command("check", "check", "check the configuration"),
    Command("service", "service", "run the daemon in the background from login on"),
    Command("mcp", "mcp", "serve the Model Context Protocol on stdin and stdout, for agents"),
    Command("completions", "completions", "print the completions for a shell"),
)
DAEMON: Final = (
    Command("run", "serve", "serve drop folders (the default)"),
    Command("check", "check", "check the configuration"),
)
# Not `list(...)` below: a command of that name is imported into this package.
_BY_NAME: Final = {command.name: command for command in COMMANDS}
assert len(_BY_NAME) == len(COMMANDS), "a command has one name"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `delegate`; return its exit code."""
    return _guarded("delegate", lambda: _delegate([*(sys.argv[1:] if argv is None else argv)]))


def main_daemon(argv: Sequence[str] | None = None) -> int:
    """Run `delegated`; return its exit code."""
    return _guarded("delegated", lambda: _delegated([*(sys.argv[1:] if argv is None else argv)]))


def _delegate(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        if len(argv) > 1 and argv[0] == "help" and argv[1] in _BY_NAME:
            return _run(_BY_NAME[argv[1]], "delegate", ["--help"])
        terminal.out(usage())
        return exits.OK if argv else exits.USAGE
    if argv[0] in ("-V", "--version"):
        from delegated import __version__

        terminal.out(f"delegate {__version__}")
        return exits.OK
    command = _BY_NAME.get(argv[0])
    if command is None:
        hint = "`delegate --help` lists the commands"
        if argv[0].startswith("-"):
            hint = f"the command comes first: delegate ask {argv[0]} ..."
        else:
            import difflib

            near = difflib.get_close_matches(argv[0], [*_BY_NAME], 1)
            hint = f"did you mean `delegate {near[0]}`? {hint}" if near else hint
        terminal.error(f"there is no command {argv[0]!a}", hint)
        return exits.USAGE
    return _run(command, "delegate", argv[1:])


def _delegated(argv: list[str]) -> int:
    if argv and argv[0] in ("-V", "--version"):
        from delegated import __version__

        terminal.out(f"delegated {__version__}")
        return exits.OK
    for command in DAEMON:
        if argv and argv[0] == command.name:
            return _run(command, "delegated", argv[1:])
    return _run(DAEMON[0], "delegated", argv, alone=True)


def _run(command: Command, program: str, argv: list[str], *, alone: bool = False) -> int:
    from importlib import import_module

    module = import_module(f"{__name__}.{command.module}")
    if hasattr(module, "at_once") and (done := module.at_once(argv)) is not None:
        return int(done)
    from .arguments import Parser

    bind = getattr(module, "bind", None)
    parser = Parser(prog=program if alone else f"{program} {command.name}", description=module.__doc__)
    module.configure(parser)
    args = parser.parse_args(bind(argv) if bind else argv)
    args.program = program
    code: int = module.run(args)
    return code


def _guarded(program: str, body: Callable[[], int]) -> int:
    """Turn every way out into an exit code and a sentence; only a fault of ours shows a traceback."""
    terminal.prepare()
    try:
        code = body()
        with terminal.writing():
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        terminal.say("interrupted")
        return exits.INTERRUPTED
    except BrokenPipeError:
        terminal.drop(sys.stdout)
        return exits.CLOSED
    except terminal.Unwritten as why:
        terminal.drop(sys.stdout)
        terminal.error(f"cannot write to standard output: {why}", program=program)
        return exits.CANNOT_WRITE
    except Exception as error:  # noqa: BLE001 - the last place where a sentence can still be said
        return _explain(program, error)


def _explain(program: str, error: Exception) -> int:
    from delegated.errors import OperatorError, RequestError

    from .place import Absent, Usage

    if isinstance(error, Usage):
        terminal.error(str(error), error.hint, program=program)
        return exits.USAGE
    if isinstance(error, Absent):
        terminal.error(str(error), error.hint, program=program)
        return exits.ABSENT
    if isinstance(error, OperatorError):
        terminal.error(str(error), error.hint, program=program)
        return error.exit_code
    if isinstance(error, RequestError):
        for problem in error.problems:
            terminal.error(str(problem), program=program)
        return exits.REJECTED
    if isinstance(error, FileNotFoundError) and not _somewhere():
        hint = "`cd` into one that is there; --workspace takes an absolute path"
        terminal.error("the current directory is not there any more", hint, program=program)
        return exits.USAGE
    import traceback

    terminal.say(_discreet("".join(traceback.format_exception(error)).rstrip()))
    terminal.error(
        _discreet(f"{type(error).__name__}: {error}"), "this is a fault of delegated: please report it", program=program
    )
    return exits.BUG


def _somewhere() -> bool:
    try:
        return bool(os.getcwd())
    except FileNotFoundError:
        return False


def _discreet(text: str) -> str:
    """Take the secrets out of a traceback: people paste it into reports."""
    from delegated.secrets import redact

    ours = [value for name, value in os.environ.items() if any(word in name for word in ("KEY", "TOKEN", "SECRET"))]
    return redact([("traceback", text)], known=ours)[0][0]


def usage() -> str:
    """Write the help of `delegate`: the commands and the exit codes."""
    width = max(len(command.name) for command in COMMANDS)
    lines = [
        "usage: delegate COMMAND [OPTION ...]",
        "",
        "Ask GPT-4o about code that will not do what it should, through a drop folder.",
        "",
        "commands:",
        *(f"  {command.name:<{width}}  {command.words}" for command in COMMANDS),
        "",
        "`delegate COMMAND --help` explains one. The service is `delegated`.",
        "",
        "exit codes:",
        *(f"  {code:>3}  {name}: {words}" for code, name, words in exits.TABLE),
    ]
    return "\n".join(lines)


def full_parser(program: str = "delegate") -> argparse.ArgumentParser:
    """Build the parser of all commands at once; only the completions need it."""
    from importlib import import_module

    from .arguments import Parser

    parser = Parser(prog=program)
    parser.add_argument("--version", action="store_true", help="print the version")
    if program == "delegated":
        import_module(f"{__name__}.serve").configure(parser)
    commands = parser.add_subparsers()
    for command in COMMANDS if program == "delegate" else DAEMON:
        module = import_module(f"{__name__}.{command.module}")
        module.configure(commands.add_parser(command.name, help=command.words, description=module.__doc__))
    return parser
