"""Imports that find nothing: ImportError and ModuleNotFoundError."""

from __future__ import annotations

import ast
import re
import sys
from typing import Final

from delegated.models.offline.crash import Crash
from delegated.models.offline.finding import Example, Finding, Fix
from delegated.models.offline.scene import Scene, Spot
from delegated.models.offline.scopes import bindings, stars
from delegated.models.offline.source import MOST, Change, Source
from delegated.models.offline.spelling import near, sole

_CANNOT: Final = re.compile(
    r"cannot import name '([\w.]+)' from (partially initialized module )?'([\w.]+)'(?: \((.*?)\))?"
)
_NOWHERE: Final = re.compile(r"No module named '?([\w.]+)'?(; '([\w.]+)' is not a package)?")
# distributions whose name differs from that of their module
_DISTRIBUTIONS: Final = {
    "PIL": "Pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "jwt": "PyJWT",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}


def import_error(scene: Scene, crash: Crash, spot: Spot) -> Finding | None:
    """Explain `cannot import name 'x' from 'm'`."""
    match = _CANNOT.match(crash.message)
    if match is None:
        return None
    name, partial, module, file = match[1], match[2], match[3], match[4] or ""
    path = scene.resolve(file) if file.endswith(".py") else None
    target = scene.sources[path] if path else scene.module(module)
    if partial or "circular import" in crash.message:
        return _circular(name, module, target, spot)
    if target is None or target.tree is None:
        inside = (
            f"`{module}` ({file or 'its file'}) was not sent in whole"
            if module.partition(".")[0] not in sys.stdlib_module_names
            else f"`{module}` is a module of the standard library"
        )
        return Finding(
            f"`{module}` has no `{name}` that {spot.where} could import.",
            f"{inside}, so what it does define cannot be seen. It may be another version than the code "
            "was written for.",
            checks=(f'`python -c "import {module}; print({module}.__file__, dir({module}))"`',),
        )
    names = bindings(target.tree)
    best = None if stars(target) or name in names else sole(name, [n for n in names if not n.startswith("__")])
    if best is None:
        alike = near(name, names)[:4]
        return Finding(
            f"{target.path} defines no `{name}`.",
            f"{spot.where} imports `{name}` from `{module}`, and {target.path} binds no such name at its top level."
            + (
                f" It does define {', '.join(f'`{other}`' for other in alike)}; the code does not say which is meant."
                if alike
                else ""
            )
            + (" It imports names with `*`, which cannot be followed." if stars(target) else ""),
            fixes=(Fix(f"Define `{name}` in {target.path}, or import what it does define."),),
            shown=True,
        )
    home = min(getattr(node, "lineno", 0) for node in names[best])
    return Finding(
        f"{spot.source.path} imports `{name}`, which {target.path} calls `{best}`.",
        f"{target.path} was sent whole and binds no `{name}`. `{best}`, on its line {home}, is its "
        "only name that is spelt alike.",
        evidence=(target.place(home),),
        fixes=(
            Fix(f"Import `{best}`.", spot.edit(*_rename(spot, name, best)), f"`{best}` is what {target.path} defines."),
        ),
        shown=True,
    )


def _rename(spot: Spot, name: str, best: str) -> list[Change | None]:
    """Return the changes that import `best` and use it wherever `name` was used; [None] if that is unsafe."""
    source = spot.source
    aliases = [alias for node in spot.at(ast.ImportFrom) for alias in node.names if alias.name == name]
    if len(aliases) != 1 or source.tree is None:
        return [None]
    alias = aliases[0]
    whole = source.span(alias, f"{best} as {alias.asname}" if alias.asname else best)
    if alias.asname:
        return [whole]
    named = [node for node in source.everything if isinstance(node, ast.Name) and node.id == name]
    stored = any(not isinstance(node.ctx, ast.Load) for node in named) or any(
        isinstance(node, ast.arg) and node.arg == name for node in source.everything
    )
    taken = best in bindings(source.tree) or any(
        isinstance(n, ast.Name | ast.arg) and best in (getattr(n, "id", ""), getattr(n, "arg", ""))
        for n in source.everything
    )
    exported = any(isinstance(node, ast.Constant) and node.value == name for node in source.everything)
    if stored or taken or exported:
        return [None]
    return [whole, *(source.span(node, best) for node in named[: MOST + 1])]


def _circular(name: str, module: str, target: Source | None, spot: Spot) -> Finding:
    back = []
    if target is not None and target.tree is not None:
        stem = spot.source.path.rpartition("/")[2].removesuffix(".py")
        for node in target.tree.body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            origin = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            if any(stem == part for dotted in (origin, *names) for part in dotted.split(".")):
                back.append(target.place(node.lineno, node.end_lineno or 0))
    return Finding(
        f"`{module}` and the code that imports `{name}` from it import each other.",
        f"`{module}` had begun to run and had not yet defined `{name}` when {spot.where} asked for it: "
        "the imports form a circle. "
        "A file of the workspace that bears the name of a library's module gives the same message.",
        evidence=tuple(back[:2]),
        fixes=(
            Fix(
                f"Move what both need into a third module, or import `{module}` inside the function that uses `{name}`."
            ),
        ),
        checks=(
            f'`python -X importtime -c "import {module}" 2>&1 | head -50`',
            f'`python -c "import {module}; print({module}.__file__)"`',
        ),
        shown=bool(back),
    )


def module_not_found(scene: Scene, crash: Crash, spot: Spot) -> Finding | None:
    """Explain `No module named 'x'`."""
    match = _NOWHERE.match(crash.message)
    if match is None:
        return None
    name, shadowed = match[1], match[3]
    if shadowed:
        same = [path for path in scene.sources if path.rpartition("/")[2] == f"{shadowed.rpartition('.')[2]}.py"]
        return Finding(
            f"`{shadowed}` is a single file, and {spot.where} imports `{name}` as if it were a package.",
            "Python found a plain module "
            f"first{f', perhaps {same[0]}, which bears the name of a library' if same else ''}. A file "
            "that is called like a library hides it.",
            evidence=(scene.sources[same[0]].place(1),) if same else (),
            fixes=(Fix(f"Rename the file that is called `{shadowed}.py`, and delete its `__pycache__`."),)
            if same
            else (),
            checks=(f'`python -c "import {shadowed}; print({shadowed}.__file__)"`',),
            shown=bool(same),
        )
    package, _, last = name.rpartition(".")
    theirs = _modules(scene, package, spot.source.path.rpartition("/")[0])
    best = sole(last, theirs)
    if best is not None and last not in theirs:
        right = f"{package}.{best}" if package else best
        return Finding(
            f"{spot.source.path} imports `{name}`, and the workspace's module is called `{right}`.",
            f"There is no `{name}`; of the modules sent, {theirs[best]} is the only one beside it that is spelt alike.",
            evidence=(scene.sources[theirs[best]].place(1),) if theirs[best] in scene.sources else (),
            fixes=(
                Fix(
                    f"Import `{right}`.",
                    spot.edit(_module_change(spot, name, right)),
                    f"{theirs[best]} exists and {name} does not.",
                ),
            ),
            shown=True,
        )
    root = name.partition(".")[0]
    own = next((path for path in (*scene.sources, *scene.omitted) if root in path.removesuffix(".py").split("/")), None)
    if own:
        return Finding(
            f"Python does not look for modules where the workspace keeps `{root}`.",
            f"{own} belongs to `{root}`, so the code is there; the directory that holds it is not on "
            f"`sys.path` of the process that failed, or `{name}` itself is missing.",
            fixes=(
                Fix(
                    f"Start from the directory that holds `{root}` with `python -m`, set PYTHONPATH to "
                    "it, or install the project (`pip install -e .`)."
                ),
            ),
            checks=('`python -c "import sys; print(sys.path)"`',),
        )
    alike = near(root, [*theirs, *sys.stdlib_module_names])[:3]
    what = _DISTRIBUTIONS.get(root, root)
    return Finding(
        f"The Python that ran {spot.source.path} has no module `{root}`.",
        (
            f"`{root}` is neither in the code that was sent nor in the standard library. It is not "
            "installed in that environment"
        )
        + (f", or one of {', '.join(f'`{n}`' for n in alike)} was meant." if alike else "."),
        fixes=(
            Fix(
                f"Install what provides `{root}` (as far as known `{what}`) into the environment that "
                "runs the program, and list it among the project's dependencies."
            ),
        ),
        examples=(
            Example(
                "See which environment runs, and what it has",
                f'python -c "import sys; print(sys.executable)"\npython -m pip show {what}',
                "shell",
            ),
        ),
    )


def _modules(scene: Scene, package: str, beside: str) -> dict[str, str]:
    """Return a package's modules in the workspace, by name, with a path; without a package those in reach."""
    found: dict[str, str] = {}
    base = package.replace(".", "/")
    for path in (*scene.sources, *scene.omitted):
        if not path.endswith(".py"):
            continue
        folder, _, file = path.rpartition("/")
        stem = file.removesuffix(".py")
        if stem == "__init__":
            folder, _, stem = folder.rpartition("/")
        if stem and (folder in ("", "src", beside) if not base else folder == base or folder.endswith("/" + base)):
            found.setdefault(stem, path)
    return found


def _module_change(spot: Spot, name: str, right: str) -> Change | None:
    """Return the change of the module's name in `from name import ...` or `import name as ...` on the failing line."""
    found: list[tuple[int, int]] = []
    line = spot.source.line(spot.line)
    for node in spot.at(ast.stmt):
        if isinstance(node, ast.ImportFrom):
            written = name if not node.level else (node.module or "")
            if node.module and (node.module == name or (node.level and name.endswith(node.module))):
                at = line.find(written, node.col_offset + len("from"))
                new = right if not node.level else right.removeprefix(name.removesuffix(node.module))
                return Change(spot.line, at, at + len(written), new) if at >= 0 and node.lineno == spot.line else None
        elif isinstance(node, ast.Import):
            found += [
                (a.col_offset, a.col_offset + len(name))
                for a in node.names
                if a.name == name and a.asname and a.lineno == spot.line
            ]
    return Change(spot.line, *found[0], right) if len(found) == 1 else None
