"""Reads are confined to the workspace, beside a reader that is not; and what cannot be read is refused quickly.

`python -m tests.security` runs the races for longer, times every refusal and prints the figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from delegated.context import SourceFile
from delegated.errors import RequestError
from delegated.request import parse
from delegated.workspace import Workspace
from harness import House

SECRET = "what lies outside"
# One process swaps a part of the path, as fast as it can.
SWAPS = {
    "a directory for a link": (
        "os.rename('dir', 'kept'); os.rename('link', 'dir'); os.rename('dir', 'link'); os.rename('kept', 'dir')"
    ),
    "a file for a link": (
        "os.symlink(away + '/file.py', 'x'); os.replace('x', 'dir/file.py'); "
        "os.link('f', 'x'); os.replace('x', 'dir/file.py')"
    ),
    "a link for another": (
        "os.symlink('dir', 'x'); os.replace('x', 'via'); os.symlink(away, 'x'); os.replace('x', 'via')"
    ),
}


def naive(root: Path, path: str) -> str:
    """Read as it is usually written: resolve, see that it lies below the root, open the path."""
    full = root / path
    if not full.resolve().is_relative_to(root):
        return "outside"
    return full.read_text()


@contextmanager
def swapping(folder: Path, away: Path, swap: str) -> Iterator[None]:
    for directory in (folder / "dir", away):
        directory.mkdir(parents=True)
    (folder / "dir" / "file.py").write_text("inside")
    (folder / "f").write_text("inside")
    (away / "file.py").write_text(SECRET)
    (folder / "link").symlink_to(away)
    (folder / "via").symlink_to("dir")
    script = f"import os, sys\naway = sys.argv[1]\nprint('ready', flush=True)\nwhile True:\n    {SWAPS[swap]}\n"
    process = subprocess.Popen([sys.executable, "-c", script, str(away)], cwd=folder, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()


def race(tmp: Path, swap: str, seconds: float, *, both: bool = True) -> Counter[str]:
    """Read by our way, and by the naive one, while the path is swapped; count what came out."""
    seen: Counter[str] = Counter()
    root = (tmp / "root").resolve()
    path = "swap/via/file.py" if "another" in swap else "swap/dir/file.py"
    with swapping(root / "swap", tmp / "away", swap), Workspace(str(root)) as space:
        until, limit = time.monotonic() + seconds, time.monotonic() + 60
        # Longer on a machine where the naive reader was lucky so far: without a leak of its the race proves nothing.
        while time.monotonic() < until or (both and not seen["naive: leak"] and time.monotonic() < limit):
            found = space.read(path)
            text = found.text if isinstance(found, SourceFile) else "refused"
            seen["ours: leak" if SECRET in text else f"ours: {text}"] += 1
            if both:
                try:
                    text = naive(root, path)
                except (OSError, RuntimeError):
                    text = "refused"
                seen["naive: leak" if SECRET in text else f"naive: {text}"] += 1
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("swap", SWAPS)
def test_a_race_that_a_usual_reader_loses_is_not_lost(tmp_path: Path, swap: str) -> None:
    """A part of the path is swapped for a link to the outside meanwhile: the usual way leaks, this one never."""
    seen = race(tmp_path, swap, 3)
    assert seen["naive: leak"] > 0, "the race is one"
    assert seen["ours: leak"] == 0
    assert sum(count for name, count in seen.items() if name.startswith("ours")) > 100


def odd_files(root: Path) -> dict[str, str]:
    """Make what is no ordinary file, as far as this user may; return each path with a word of its reason."""
    root.mkdir(parents=True, exist_ok=True)
    outside = root.parent / "outside.py"
    outside.write_text(SECRET)
    (root / "link.py").symlink_to(outside)
    (root / "up").symlink_to("..")
    (root / "proc").symlink_to("/proc/self")
    os.mkfifo(root / "fifo")
    with open(root / "huge.py", "wb") as file:
        file.truncate(1 << 40)
    (root / "binary.py").write_bytes(b"\0\1\2" * 1000)
    (root / "dir.py").mkdir()
    made = {
        "link.py": "symbolic link",
        "up/outside.py": "symbolic link",
        "proc/environ": "symbolic link",
        "fifo": "FIFO",
        "huge.py": "too large",
        "binary.py": "",
        "dir.py": "directory",
        "../outside.py": "",
        str(outside): "",
        "/proc/self/environ": "",
        "/dev/zero": "",
        "~/.ssh/id_rsa": "",
        ".env": "never sent",
    }
    if os.geteuid() == 0:
        for name, kind, device in (("zero", 0o020000, (1, 5)), ("disk", 0o060000, (7, 0))):
            try:
                os.mknod(root / name, 0o600 | kind, os.makedev(*device))
            except OSError:
                continue
            made[name] = "device"
    return made


def test_what_is_no_file_of_the_workspace_is_left_out_with_its_reason(house: House) -> None:
    """A request that names them all is answered; each stands under *Left out* with why, and nothing of it was sent."""
    made = odd_files(house.workspace / "odd")
    names = [name if name.startswith(("/", "~", ".")) else f"odd/{name}" for name in made]
    house.drop("k", "# Issue\n\nIt fails\n\n# Files\n\n- app.py\n" + "".join(f"- {name}\n" for name in names))
    house.start("--once").process.wait(60)
    result = house.result("k")
    assert result["status"] == "answered"
    omitted = {each["path"]: each["reason"] for receipt in result["egress"] for each in receipt["omitted"]}
    assert len(omitted) == len(names)
    for word in filter(None, made.values()):
        assert any(word in reason for reason in omitted.values()), (word, omitted)
    assert [each["path"] for receipt in result["egress"] for each in receipt["files"]] == ["app.py"]
    page = house.result_path("k", "md").read_text()
    for word in ("FIFO", "too large", "symbolic link"):
        assert word in page
    assert SECRET not in (house.job("k") / "calls" / "01-first" / "prompt").read_text()


def test_a_hard_link_is_a_file_of_the_workspace(tmp_path: Path) -> None:
    """Decided so: whoever can make it can copy the file too, and package managers fill trees with them (pnpm, uv)."""
    (tmp_path / "root").mkdir()
    (tmp_path / "outside.py").write_text("x = 1\n")
    os.link(tmp_path / "outside.py", tmp_path / "root" / "linked.py")
    with Workspace(str(tmp_path / "root")) as space:
        assert isinstance(space.read("linked.py"), SourceFile)
    assert "Hard links" in (Path(__file__).parents[2] / "docs" / "security.md").read_text()


def _laughs(times: int) -> str:
    rows = ["a0: &a0 [lol, lol]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, times)]
    return "\n".join([*rows, f"issue: *a{times - 1}", ""])


def _merges(times: int) -> str:
    rows = ["a0: &a0 {k0: v}"]
    rows += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: v}}" for n in range(1, times)]
    return "\n".join([*rows, "issue: x", ""])


# Each with what the refusal says.
REFUSED = {
    "billion laughs": (_laughs(10), "anchor"),
    "quadratic": ("a: &a " + "x" * 50_000 + "\nissue: [" + "*a, " * 20_000 + "]\n", "anchor"),
    "merge keys": (_merges(12), "anchor"),
    "a merge key alone": ("issue: x\n<<: {context: y}\n", "merge key"),
    "an alias to itself": ("issue: &a [*a]\n", "anchor"),
    "a tag of Python": ("issue: !!python/object/apply:os.system [id]\n", "tag"),
    "a tag of one's own": ("issue: !x y\n", "tag"),
    "a binary": ("issue: !!binary aGVsbG8=\n", "tag"),
    "a tag directive": ("%TAG ! tag:python.org,2002:\n---\nissue: !x y\n", "tag"),
    "duplicate keys": ("issue: a\nissue: b\n", "a second time"),
    "a second document": ("issue: a\n---\nissue: b\n", "second YAML document"),
    "depth by brackets": ("issue: " + "[" * 100_000, "nesting deeper"),
    "depth by braces": ("issue: " + "{a: " * 30_000, "nesting deeper"),
    "depth by lines": ("issue:\n" + "".join(" " * n + "- \n" for n in range(1, 600)), "nesting deeper"),
    "very many": ("issue: x\nfiles:\n" + "- a\n" * 60_000, "more than 20,000"),
    "very long": ("issue: " + "x" * 300_000 + "\n", "bytes of YAML"),
    "a key of lists": ("issue: x\n? [a, b]\n: c\n", "a list as a key"),
    "an unprintable": ("issue: \x07\n", "character"),
    "a number beyond all bounds": ("issue: x\nmax_cost_usd: 1e999999999\n", "a finite number"),
    "a very long number": ("issue: x\npriority: " + "9" * 200_000 + "\n", "priority"),
    "a date": ("issue: x\ndeadline_s: 2025-01-01\n", "deadline_s"),
    "sexagesimal": ("issue: x\nmax_input_tokens: 1:30\n", "max_input_tokens"),
    "hexadecimal": ("issue: x\nmax_input_tokens: 0xfffffff\n", "max_input_tokens"),
}
READ = {
    "NO": ("issue: NO\nfiles: [no, Off, on]\n", "NO"),
    "a version": ("issue: 1.10\n", "1.10"),
    "an octal": ("issue: 007\n", "007"),
    "a date as text": ("issue: 2025-01-01\n", "2025-01-01"),
    "a number too long for a number": ("issue: " + "9" * 10_000 + "\n", "9" * 10_000),
}


ENDS_FRONT_MATTER = ("a second document", "a tag directive")  # by the line --- in them


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        (name, suffix)
        for name in REFUSED
        for suffix in (".yaml", ".md")
        if suffix == ".yaml" or name not in ENDS_FRONT_MATTER
    ],
)
def test_yaml_that_would_cost_or_mean_more_than_it_shows_is_refused(name: str, suffix: str) -> None:
    """In a file of its own and in front matter, with a sentence that says what it is."""
    document, word = REFUSED[name]
    data = document if suffix == ".yaml" else f"---\n{document.removesuffix(chr(10))}\n---\n"
    with pytest.raises(RequestError) as error:
        parse(data.encode(), suffix)
    assert any(word in str(problem) for problem in error.value.problems), error.value.problems
    assert len(json.dumps(str(error.value))) < 20_000


@pytest.mark.parametrize("name", READ)
def test_yaml_means_the_text_that_stands_there(name: str) -> None:
    """No word becomes false, no version a number, no date an object."""
    document, text = READ[name]
    assert parse(document.encode(), ".yaml").issue == text
