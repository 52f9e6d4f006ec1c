"""How often the file to fix is among the first that are found, by each signal alone and fused; and how fast.

A directory of cases holds one directory a repository: `files.txt` (each file after a line `=== path`), or `files/`
with the real tree; and `bugs.toml`, a list of `[[bug]]` tables: `id`; `fix`, the paths to be found; `issue` and `logs`,
as in a request; `change = {path, old, new}`, which seeds the bug (optional; `old` stands once in the file). Candidates
are all files of the repository that are no tests. A bug with several files in `fix` is found when one of them is.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from delegated import rank
from delegated.survey import Survey
from delegated.traces import frames
from delegated.workspace import Workspace

CASES = Path(__file__).parent / "cases"
FIRST = (1, 3, 5, 10)
Add = Callable[[str, str, str, str], None]
WORDS = "order user price stock mail token route queue event cache page batch index store policy".split()  # noqa: SIM905


@dataclass(frozen=True)
class Bug:
    id: str
    repository: Path
    fix: tuple[str, ...]
    issue: str
    logs: str
    change: dict[str, str]


def bugs(directory: Path) -> list[Bug]:
    """Read every case of a directory."""
    found = []
    for listing in sorted(directory.glob("*/bugs.toml")):
        for each in tomllib.loads(listing.read_text())["bug"]:
            name = f"{listing.parent.name}/{each['id']}"
            fix, change = tuple(each["fix"]), each.get("change", {})
            found.append(Bug(name, listing.parent, fix, each["issue"], each.get("logs", ""), change))
    return found


def lay_out(repository: Path, into: Path) -> None:
    """Write a repository's files below a directory."""
    if (repository / "files").is_dir():
        shutil.copytree(repository / "files", into, dirs_exist_ok=True)
        return
    for part in ("\n" + (repository / "files.txt").read_text()).split("\n=== ")[1:]:
        path, _, text = part.partition("\n")
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text + "\n")


def seed(bug: Bug, root: Path) -> None:
    """Put the bug in."""
    if bug.change:
        path = root / bug.change["path"]
        text = path.read_text()
        assert text.count(bug.change["old"]) == 1, f"{bug.id}: `old` stands {text.count(bug.change['old'])} times"
        path.write_text(text.replace(bug.change["old"], bug.change["new"]))


@contextmanager
def seeded(bug: Bug) -> Iterator[Path]:
    """Lend a directory with the repository and the bug in it."""
    with tempfile.TemporaryDirectory(prefix="finding-") as tmp:
        root = Path(tmp)
        lay_out(bug.repository, root)
        seed(bug, root)
        yield root


def places(bug: Bug) -> dict[str, int]:
    """Return the rank of the first file to fix by each signal and fused; 0: not found."""
    with seeded(bug) as root, Workspace(str(root)) as space:
        framed = [(path, frame.line) for frame, path in space.resolve_frames(frames(f"{bug.issue}\n{bug.logs}"))]
        found = Survey(space).rank(bug.issue, bug.logs, framed=framed)
        ranked = {name: list(signal.found) for name, signal in found.signals.items()}
        ranked["fused"] = [each.path for each in rank.fuse(found.signals)]
    return {
        name: next((place for place, path in enumerate(paths, start=1) if path in bug.fix), 0)
        for name, paths in ranked.items()
    }


def recall(places: list[int], first: int) -> float:
    """Return the share of places that are among the first so many."""
    return sum(0 < place <= first for place in places) / len(places)


def large_workspace(root: Path, count: int) -> None:
    """Write `count` modules of Python in packages of fifty, each of which uses some of the others."""
    for number in range(count):
        first, second = WORDS[number % len(WORDS)], WORDS[number // 7 % len(WORDS)]
        package = root / "app" / f"part{number // 50:03d}"
        package.mkdir(parents=True, exist_ok=True)
        other = (number * 7919 + 1) % count
        lines = [f"from app.part{other // 50:03d}.{first}_{other} import {first.title()}{other}Reader", ""]
        for part in range(12):
            lines += [
                f"def {first}_{second}_{number}_{part}(request, {second}_id, limit=100):",
                f'    """Return the {second} that belongs to a {first}."""',
                f"    reader = {first.title()}{other}Reader(limit)",
                f"    found = [row for row in reader.rows({second}_id) if row.{first}_state == {part}]",
                f"    return {{'{second}': found, 'total': len(found), 'request': request.id}}",
                "",
            ]
        lines += [f"class {first.title()}{number}Reader:", "    def rows(self, key):", "        return []", ""]
        (package / f"{first}_{number}.py").write_text("\n".join(lines))


def spend(count: int) -> tuple[float, float, float]:
    """Return the seconds of a first and a second search in a workspace of `count` files, and of one after a change."""
    with tempfile.TemporaryDirectory(prefix="finding-") as tmp:
        root = Path(tmp)
        large_workspace(root, count)
        issue = "The reader returns the wrong total of a `price_stock` page for one request; token_mail_4_7 is right."
        with Workspace(str(root)) as space:
            survey = Survey(space)
            spans = []
            for turn in range(3):
                if turn == 2:
                    changed = next(root.rglob("*.py"))
                    changed.write_text(changed.read_text() + "\n# changed\n")
                start = time.perf_counter()
                found = survey.find(issue, "", limit=8)
                spans.append(time.perf_counter() - start)
                assert not found.warnings, found.warnings
    return spans[0], spans[1], spans[2]


def measure(add: Add, directory: Path = CASES, files: int = 5_000) -> None:
    """Fill the table: `add(what, measured, target, note)`."""
    each = bugs(directory)
    by: dict[str, list[int]] = defaultdict(list)
    for bug in each:
        for name, place in places(bug).items():
            by[name].append(place)
        if by["fused"][-1] != 1:
            add(f"  {bug.id}", f"fused {by['fused'][-1] or '-'}", "", "the file to fix is not first")
    for name, found in by.items():
        figures = ", ".join(f"R@{first} {recall(found, first):.2f}" for first in FIRST)
        known = sum(place > 0 for place in found)
        add(f"file to fix, {name}", figures, "", f"{len(found)} bugs; {known} of them this ranking names at all")
    if files:
        first, second, changed = spend(files)
        add(f"finding in {files:,} files, first", f"{first:.2f} s", "", f"{first / files * 1e3:.2f} ms a file")
        add("finding again", f"{second * 1e3:.0f} ms", "< 300", f"1/{first / second:.0f} of the first")
        add("finding after one file changed", f"{changed * 1e3:.0f} ms", "< 300", "")
