"""Which of the project's own modules a file imports, directly or by others."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.support.project import PROJECT

SOURCE = PROJECT / "src"


def find_module(name: str) -> Path | None:
    """Return the file of the module or package `name`, such as fakeface.images; None where there is none."""
    module, package = SOURCE / f"{name.replace('.', '/')}.py", SOURCE / name.replace(".", "/") / "__init__.py"
    return next((path for path in (module, package) if path.is_file()), None)


def imported_modules(path: Path, not_beyond: tuple[str, ...] = ()) -> set[Path]:
    """Return the files of fakeface that `path` imports anywhere in it, and those that these import in turn.

    What lies in one of the folders `not_beyond`, such as "fakeface/tracking/", is found but not followed.
    """
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        new = _named_modules(waiting.pop()) - found
        found |= new
        waiting += [each for each in new if not each.relative_to(SOURCE).as_posix().startswith(not_beyond)]
    return found


def _named_modules(path: Path) -> set[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = {name for name in names if name.split(".")[0] == "fakeface"}
    ours |= {name.rsplit(".", n)[0] for name in ours for n in range(1, name.count(".") + 1)}  # packages run first
    return {file for file in map(find_module, ours) if file is not None}
