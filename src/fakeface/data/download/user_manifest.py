"""The data folder's own manifest.csv: what it says of the files must agree with what is found."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fakeface.system.errors import UserError
from fakeface.system.serialization import read_rows, summarize_names

DataManifest = Mapping[str, Mapping[str, str]]  # path relative to the data folder: sha256, label, near_duplicate_group


class ListedFile(NamedTuple):
    """A file that was found: `listed_as` is its path relative to the data folder, the others what it is."""

    path: str
    listed_as: str
    source: str
    label: str
    sha256: str


def read_data_manifest(path: Path) -> DataManifest:
    """Read it; empty where there is none.

    Raises:
        UserError: no column `path` or `sha256`, a damaged line, or a path listed twice.
    """
    if not path.is_file():
        return {}
    listing: dict[str, dict[str, str]] = {}
    kept = ("sha256", "label", "near_duplicate_group")
    for row in read_rows(path, ("path", "sha256")):
        name = PurePosixPath(row["path"]).as_posix()
        if name in listing:
            raise UserError(f"{path} lists '{name}' twice; keep one line.")
        listing[name] = {column: row[column].strip() for column in kept if row.get(column)}
    return listing


def check_missing(listing: DataManifest, folders: Mapping[str, Path], manifest: Path) -> None:
    """Check that what the manifest lists below some folders is there.

    Args:
        listing: the manifest.
        folders: where its folders lie, by their path in the manifest.
        manifest: its name in the message.

    Raises:
        UserError: files are missing.
    """
    missing = [
        name
        for name in listing
        for listed, folder in folders.items()
        if name.startswith(f"{listed}/") and not os.path.lexists(folder / name.removeprefix(f"{listed}/"))
    ]
    if missing:
        raise UserError(
            f"{manifest} lists {len(missing):,} files that are not there: {summarize_names(missing)}; "
            "bring them back, or take their lines out."
        )


def check_contradictions(listing: DataManifest, files: Iterable[ListedFile], manifest: Path) -> None:
    """Check bytes and labels of files against the manifest.

    Raises:
        UserError: they differ.
    """
    listed = [(file, listing[file.listed_as]) for file in files if file.listed_as in listing]
    changed = [file.path for file, row in listed if row.get("sha256", file.sha256).lower() != file.sha256]
    if changed:
        raise UserError(
            f"{len(changed):,} files do not have the sha256 that {manifest} lists: {summarize_names(changed)}; "
            "bring the listed bytes back, or correct the list."
        )
    other = [file for file, row in listed if row.get("label", file.label) != file.label]
    if other:
        raise UserError(
            f"params.yaml calls source '{other[0].source}' {other[0].label}, but {manifest} says otherwise "
            f"of {len(other):,} files: {summarize_names([file.path for file in other])}; correct one of the two."
        )
