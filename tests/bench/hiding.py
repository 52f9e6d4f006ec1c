"""How much of what is secret is found, how much of what is not, and how fast; beside three scanners from PyPI.

A secret counts as found when at least 80 of 100 of its characters would be hidden. The others are installed into a venv
below the system's cache for this measurement alone; one that cannot be installed is named with the reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
import venv
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.secrets_corpus import Case, negatives, positives
from bench.secrets_others import SCANNERS

Spans = Sequence[tuple[int, int]]
Add = Callable[[str, str, str, str], None]
HOSTILE = (
    *("password=", "secret: 'a", "://a:b", "eyJaaaaaaaaaaaa.", "api_key[", "authorization: ", "'\\n\"+ "),
    'key = "' + "a__" * 30 + '!"\n',
)


def is_hidden(case: Case, spans: Spans) -> bool:
    mask = bytearray(len(case.text))
    for start, end in spans:
        mask[start:end] = b"\1" * (end - start)
    places = [(case.text.index(secret), len(secret)) for secret in case.secrets]
    return sum(sum(mask[at : at + size]) for at, size in places) >= 0.8 * sum(size for _, size in places)


def ours(texts: Sequence[str]) -> tuple[list[Spans], float]:
    """Find as `redact` does, each text by itself; return the spans and the CPU seconds."""
    from delegated.finder import find
    from delegated.sieve import shipped, usable

    usable(shipped().rules)
    find([("warm", "password = 'warm' token ://")])
    begin = time.process_time()
    found = [[(one.start, one.end) for one in find([("text", text)])[0]] for text in texts]
    return found, time.process_time() - begin


def standard_library() -> list[tuple[str, str]]:
    """Return the modules of this Python's library, without its tests and without what was installed."""
    root = Path(sysconfig.get_path("stdlib"))
    out = {"site-packages", "test", "tests", "idle_test"}
    return [
        (str(path.relative_to(root)), path.read_text("utf-8", "replace"))
        for path in sorted(root.rglob("*.py"))
        if not out & set(path.relative_to(root).parts)
    ]


def _home() -> Path:
    return Path(os.environ.get("BENCH_DIR", "/var/tmp")) / "delegated-bench-scanners"


def others(name: str, texts: Sequence[str]) -> tuple[list[Spans], float, str] | str:
    """Run another scanner; return its spans, CPU seconds and version, or why that is not possible."""
    python = _home() / name / "bin" / "python"
    if not python.exists():
        venv.create(_home() / name, with_pip=True)
        done = subprocess.run(
            [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--pre", name],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            return f"cannot be installed: {done.stderr.strip().splitlines()[-1][:120]}"
    script = Path(__file__).with_name("secrets_others.py")
    done = subprocess.run([python, "-I", script, name], input=json.dumps(texts), capture_output=True, text=True)
    if done.returncode:
        return f"does not run: {done.stderr.strip().splitlines()[-1][:120]}"
    found = json.loads(done.stdout)
    return found["spans"], found["cpu_s"], found["version"]


def measure(add: Add, *, seed: int = 1) -> None:
    """Fill the table: `add(what, measured, target, note)`."""
    cases, none = positives(seed), negatives(seed + 1)
    library = standard_library()
    size = sum(len(text.encode()) for _, text in library) / 1e6
    texts = [each.text for each in cases] + [each.text for each in none] + [text for _, text in library]
    for name in ("delegated", *SCANNERS):
        if name == "delegated":
            small, _ = ours(texts[: len(cases) + len(none)])
            large, spent = ours(texts[len(cases) + len(none) :])
            label = name
        else:
            first = others(name, texts[: len(cases) + len(none)])
            second = others(name, texts[len(cases) + len(none) :])
            if isinstance(first, str) or isinstance(second, str):
                add(name, "-", "", first if isinstance(first, str) else str(second))
                continue
            small, large, spent, label = first[0], second[0], second[1], f"{name} {first[2]}"
        found = [is_hidden(case, spans) for case, spans in zip(cases, small, strict=False)]
        wrong = sum(bool(spans) for spans in small[len(cases) :])
        kinds = Counter(case.kind for case in cases)
        hits = Counter(case.kind for case, yes in zip(cases, found, strict=True) if yes)
        least = min(kinds, key=lambda kind: hits[kind] / kinds[kind])
        target = (">= .90", f"0 of {len(none)}", "<= 2", ">= 10") if name == "delegated" else ("", "", "", "")
        rows = (
            ("recall", f"{sum(found) / len(cases):.3f}", f"{len(kinds)} kinds, {len(cases)} texts; least {least}"),
            ("negatives hit", f"{wrong} of {len(none)}", ""),
            ("standard library", f"{sum(map(len, large))} hits", f"{len(library)} files"),
            ("speed", f"{size / spent:.1f} MB per CPU-second", f"{size:.1f} MB"),
        )
        for (what, measured, note), goal in zip(rows, target, strict=True):
            add(f"{label}: {what}", measured, goal, note)
        if name == "delegated" and "-v" in sys.argv:
            for kind in sorted(kinds):
                add(f"recall of {kind}", f"{hits[kind]} of {kinds[kind]}", "", "")
    for piece in HOSTILE:
        spent = [ours([(piece * (length // len(piece) + 1))[:length]])[1] for length in (400_000, 1_600_000)]
        ratio = spent[1] / max(spent[0], 1e-3)
        add(f"hostile {piece!a}", f"{spent[0]:.2f} s, {spent[1]:.2f} s", "x4", f"0.4 and 1.6 MB: {ratio:.1f} times")
