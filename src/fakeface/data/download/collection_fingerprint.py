"""Which files of the catalogue's collections are on the disk, so that DVC notices what changes there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fakeface.config.data_params import Data


def fingerprint_collections(data: Data, folder: Path) -> dict[str, dict[str, Any]]:
    """Return name → number of files and a digest of their names, sizes and times, of each collection that is used.

    Args:
        data: its profile names the collections; the profile `auto` uses none.
        folder: of all collections. Nothing is read but names and sizes: a quarter of a million files take about 1 s.
    """
    profile = data.profiles.get(data.profile)
    names = sorted({source.collection for source in profile.sources.values() if source.collection}) if profile else []
    return {name: _fingerprint(folder / name) for name in names}


def _fingerprint(folder: Path) -> dict[str, Any]:
    lines = sorted(_list_files(folder))
    digest = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
    return {"files": len(lines), "sha256_of_listing": digest}


def _list_files(folder: Path) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            facts = path.lstat()
            yield f"{path.relative_to(folder).as_posix()} {facts.st_size} {facts.st_mtime_ns}"
