"""Decoded images on disk: written once, proven when opened, memory-mapped."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fakeface import LABELS
from fakeface.disk import clear_folder, naming
from fakeface.errors import UserError
from fakeface.images import Reencoding
from fakeface.tables import read_json, read_rows, write_json, write_rows

IMAGES, MANIFEST, FACTS = "images.npy", "manifest.csv", "store.json"
_BLOCK = 1 << 20  # bytes read at once


class StoredImage(NamedTuple):
    """A line of a store's manifest.csv."""

    path: str  # relative to datasets/raw, POSIX
    source: str
    label: str  # real or fake
    part: str  # train, valid, test or heldout
    sha256: str  # of the file
    group: str  # images of one group lie in one part of one store
    width: int  # of the file, pixels
    height: int


@dataclass(frozen=True)
class Store:
    """Images and what is known of them, in one order.

    images (N, size, size, 3) uint8 RGB, memory-mapped, read-only; labels (N,) uint8, fake = 1; parts, sources and
    paths (N,) str; `note` is to be shown with every result of them, for instance "synthetic sample"; `reencoding` is
    what every picture went through when it was decoded, and what one that is compared with them has to go through.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    parts: npt.NDArray[np.str_]
    sources: npt.NDArray[np.str_]
    paths: npt.NDArray[np.str_]
    note: str | None = None
    reencoding: Reencoding | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, part: str | None = None, source: str | None = None) -> npt.NDArray[np.int64]:
        """Return the numbers of the images of one part, of one source, or of both, ascending."""
        chosen = np.ones(len(self), bool)
        if part is not None:
            chosen &= self.parts == part
        if source is not None:
            chosen &= self.sources == source
        return np.flatnonzero(chosen)


def write_store(
    rows: Sequence[StoredImage],
    blocks: Iterable[npt.NDArray[np.uint8]],
    size: int,
    into: Path,
    note: str | None = None,
    reencoding: Reencoding | None = None,
) -> None:
    """Write a store; the folder takes its name, and replaces an older one, only when it is whole.

    Args:
        rows: row i describes image i.
        blocks: the images in that order, some at once, (n, size, size, 3) uint8.
        size: pixels a side.
        into: the store's folder.
        note: to be shown with every result of these images.
        reencoding: what the images went through.

    Raises:
        ValueError: there are more or fewer images than rows.
    """
    beside = into.with_name(f".{into.name}.partial")
    clear_folder(beside)
    header = _npy_header((len(rows), size, size, 3))
    digest, written = hashlib.sha256(), 0
    with naming(beside / IMAGES), (beside / IMAGES).open("wb") as file:
        # Written, not mapped: a full disk is then an error that can be told instead of a killed process.
        for piece in chain([memoryview(header)], (np.ravel(block).data for block in blocks)):
            written += file.write(piece)
            digest.update(piece)
    if written != len(header) + 3 * size * size * len(rows):
        raise ValueError(f"{len(rows)} rows came with images of {written - len(header)} bytes")
    write_rows(beside / MANIFEST, StoredImage._fields, rows)
    sums = {IMAGES: digest.hexdigest(), MANIFEST: _sha256(beside / MANIFEST)}
    facts = {"images": len(rows), "size": size, "note": note, "reencoding": reencoding and reencoding._asdict()}
    write_json(beside / FACTS, facts | {"sha256": sums})
    if into.exists():
        shutil.rmtree(into)
    beside.replace(into)


def _npy_header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    form = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, form)  # type: ignore[no-untyped-call]
    return header.getvalue()


def open_store(folder: Path) -> Store:
    """Open a store after comparing its files with the sums that were taken when it was written.

    Reading all bytes takes about 1 s a gigabyte, and leaves them in the system's cache for what follows.

    Raises:
        UserError: a file is missing, or has other bytes than were written.
    """
    facts = read_json(folder / FACTS)
    sums = facts.get("sha256")
    for name in (IMAGES, MANIFEST):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing; run the split stage again.")
        if not isinstance(sums, dict) or _sha256(folder / name) != sums.get(name):
            raise UserError(f"{folder / name} is damaged: its bytes are not those written; run the split stage again.")
    images = np.load(folder / IMAGES, mmap_mode="r")
    rows = list(read_rows(folder / MANIFEST, StoredImage._fields))
    expected = (len(rows), facts.get("size"), facts.get("size"), 3)
    if images.shape != expected or images.dtype != np.uint8:
        raise UserError(
            f"{folder} does not fit together: {images.dtype} images of shape {images.shape} and "
            f"{len(rows):,} manifest lines; run the split stage again."
        )
    return Store(
        images=images,
        labels=np.array([LABELS[row["label"]] for row in rows], np.uint8),
        parts=np.array([row["part"] for row in rows], np.str_),
        sources=np.array([row["source"] for row in rows], np.str_),
        paths=np.array([row["path"] for row in rows], np.str_),
        note=facts.get("note"),
        reencoding=Reencoding(**facts["reencoding"]) if facts.get("reencoding") else None,
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
