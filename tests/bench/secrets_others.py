"""Run one other scanner over texts: `python secrets_others.py NAME < texts.json > spans.json`, in a venv of its own.

Reads a JSON array of texts; writes `{"version", "cpu_s", "spans"}`, for each text the (start, end) pairs that the
scanner found, in characters. Knows detect-secrets, kingfisher and redact-secret; each with what it ships, no network.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version

Spans = list[tuple[int, int]]


def _everywhere(text: str, value: str) -> Iterator[tuple[int, int]]:
    at = text.find(value) if value else -1
    while at >= 0:
        yield at, at + len(value)
        at = text.find(value, at + len(value))


def detect_secrets() -> Callable[[str], Spans]:
    from detect_secrets.core.scan import scan_file
    from detect_secrets.settings import default_settings

    settings = default_settings()  # holds only while this lives
    settings.__enter__()
    directory = tempfile.mkdtemp()
    path = os.path.join(directory, "text.py")

    def scan(text: str, _: object = settings) -> Spans:
        with open(path, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        return [
            span for found in scan_file(path) if found.secret_value for span in _everywhere(text, found.secret_value)
        ]

    return scan


def kingfisher() -> Callable[[str], Spans]:
    import kingfisher_sdk

    scanner = kingfisher_sdk.Scanner(kingfisher_sdk.Rules())

    def scan(text: str) -> Spans:
        found = scanner.scan(text.encode("utf-8", "replace").decode())
        return [span for one in found if one.visible for span in _everywhere(text, one.secret)]

    return scan


def redact_secret() -> Callable[[str], Spans]:
    import redact_secret as library

    def scan(text: str) -> Spans:
        return [(one.start, one.end) for one in library.scan(text.encode("utf-8", "replace").decode())]

    return scan


SCANNERS = {
    "detect-secrets": detect_secrets,
    "kingfisher-secret-scanner": kingfisher,
    "redact-secret": redact_secret,
}


def main() -> None:
    name = sys.argv[1]
    texts = json.load(sys.stdin)
    scan = SCANNERS[name]()
    scan("password = 'warm'")
    begin = time.process_time()
    spans = [scan(text) for text in texts]
    json.dump({"version": version(name), "cpu_s": time.process_time() - begin, "spans": spans}, sys.stdout)


if __name__ == "__main__":
    main()
