"""Checksums of files and of folders with a manifest: the one place that hashes a file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from fakeface.system.errors import UserError

_BLOCK: Final = 1 << 20


def hash_file(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    return hash_file_with(path, ["sha256"])["sha256"]


def hash_file_with(path: Path, algorithms: Iterable[str]) -> dict[str, str]:
    """Return digests of a file in hexadecimal, by the algorithms' names in hashlib; it is read once for all of them."""
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    if hashes:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                for digest in hashes.values():
                    digest.update(block)
    return {name: digest.hexdigest() for name, digest in hashes.items()}


CHECKSUMS: Final = "data_checksums.json"


@dataclass(frozen=True)
class VerifyReport:
    """The files of a folder against its manifest, each list sorted."""

    checked: int
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    added: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether the folder holds the manifest's files, all of them unchanged, and no others."""
        return not (self.missing or self.changed or self.added)


def verify_folder(
    folder: Path, rows: Iterable[Mapping[str, Any]], *, advance: Callable[[int], None] | None = None
) -> VerifyReport:
    """Every file of `folder` against manifest rows (`path`, `sha256`, and `bytes` where known), on all cores.

    A link is `changed` whatever it points to. Hidden names, and manifest.csv in the root, are the program's own.
    `advance` is told how many files more are done.

    Raises:
        UserError: the path of a row leaves the folder.
    """
    rows = list(rows)
    listed = {_check_inside(folder, str(row["path"])) for row in rows}
    states: dict[str, list[str]] = {"right": [], "missing": [], "changed": []}
    left = iter(rows)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while batch := list(islice(left, 2048)):  # a quarter of a million futures at once would fill the memory
            for row, state in zip(batch, pool.map(lambda row: _compare_file(folder, row), batch), strict=True):
                states[state].append(str(row["path"]))
            if advance:
                advance(len(batch))
    added = sorted(name for name in _list_visible_files(folder) if name not in listed)
    return VerifyReport(len(rows), tuple(sorted(states["missing"])), tuple(sorted(states["changed"])), tuple(added))


def _compare_file(folder: Path, row: Mapping[str, Any]) -> str:
    path = folder / str(row["path"])
    if path.is_symlink():
        return "changed"
    if not path.is_file():
        return "missing"
    if row.get("bytes") not in (None, "") and path.stat().st_size != int(row["bytes"]):
        return "changed"
    return "right" if hash_file(path) == row["sha256"] else "changed"


def _check_inside(folder: Path, name: str) -> str:
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise UserError(f"The manifest of {folder} names {name!r}, which is not inside it; make the manifest again.")
    return path.as_posix()


def _list_visible_files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if not hidden and (path.is_symlink() or path.is_file()) and name.as_posix() not in ("manifest.csv", CHECKSUMS):
            yield name.as_posix()
