"""Answer one request on the command line, or serve."""

from __future__ import annotations

import logging
import sys
from wsgiref.simple_server import make_server
from wsgiref.util import setup_testing_defaults

from shop.web import application


def main(arguments: list[str]) -> int:
    """Run `serve`, or `METHOD PATH`; return the exit code."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.INFO)
    if arguments == ["serve"]:
        make_server("127.0.0.1", 8080, application).serve_forever()
    if len(arguments) != 2:
        sys.stderr.write("usage: python3 -m shop serve | METHOD PATH\n")
        return 2
    environ: dict[str, object] = {"REQUEST_METHOD": arguments[0], "PATH_INFO": arguments[1]}
    setup_testing_defaults(environ)
    answered: list[str] = []
    body = application(environ, lambda status, headers: answered.append(status))
    sys.stdout.write(f"{answered[0]}\n{b''.join(body).decode()}\n")
    return 0 if answered[0].startswith("2") else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
