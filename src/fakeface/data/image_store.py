"""Decoded images on disk: written once, proven when opened, memory-mapped."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fakeface.constants import LABELS
from fakeface.images.preprocessing import Reencoding
from fakeface.system.checksums import hash_file
from fakeface.system.errors import UserError
from fakeface.system.filesystem import annotate_os_error, recreate_dir
from fakeface.system.serialization import (
    read_json_with_checksum,
    read_rows,
    summarize_names,
    write_json_with_checksum,
    write_rows,
)

IMAGES, MANIFEST, FACTS = "images.npy", "manifest.csv", "store.json"
_BLOCK = 32  # images read at once


class StoredImage(NamedTuple):
    """A line of a store's manifest.csv."""

    path: str  # relative to datasets/raw, POSIX
    source: str
    label: str  # real or fake
    part: str  # train, valid, test or heldout
    sha256: str  # of the file
    group: str  # images of one group lie in one part of one store
    pixels_sha256: str  # of the image's bytes in images.npy


@dataclass(frozen=True)
class Store:
    """Images and what is known of them, in one order.

    images (N, size, size, 3) uint8 RGB, memory-mapped, read-only; labels (N,) uint8, fake = 1; parts, sources and
    paths (N,) str; `note` is to be shown with every result of them, for instance "synthetic sample"; `reencoding` is
    what every image went through when it was decoded, and what one that is compared with them has to go through.
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

    The images are proven one by one, by sums taken when they were decoded: what went wrong since then is noticed too,
    and images that were there before need no new sum.

    Args:
        rows: row i describes image i; its `pixels_sha256` is what open_store compares the image with.
        blocks: the images in that order, some at once, (n, size, size, 3) uint8.
        size: pixels a side.
        into: the store's folder.
        note: to be shown with every result of these images.
        reencoding: what the images went through.

    Raises:
        ValueError: there are more or fewer images than rows.
    """
    beside = into.with_name(f".{into.name}.partial")
    recreate_dir(beside)
    header = _build_npy_header((len(rows), size, size, 3))
    written = 0
    with annotate_os_error(beside / IMAGES), (beside / IMAGES).open("wb") as file:
        # Written, not mapped: a full disk is then an error that can be told instead of a killed process.
        for piece in chain([memoryview(header)], (np.ravel(block).data for block in blocks)):
            written += file.write(piece)
    if written != len(header) + 3 * size * size * len(rows):
        raise ValueError(f"{len(rows)} rows came with images of {written - len(header)} bytes")
    write_rows(beside / MANIFEST, StoredImage._fields, rows)
    sums = {MANIFEST: hash_file(beside / MANIFEST)}
    facts = {"images": len(rows), "size": size, "note": note, "reencoding": reencoding and reencoding._asdict()}
    write_json_with_checksum(beside / FACTS, facts | {"sha256": sums})
    if into.exists():
        shutil.rmtree(into)
    beside.replace(into)


def _build_npy_header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    form = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, form)  # type: ignore[no-untyped-call]
    return header.getvalue()


def open_store(folder: Path) -> Store:
    """Open a store after comparing its facts, its manifest and each image with the sums taken when they were made.

    Reading all bytes takes about 1 s a gigabyte and core, and leaves them in the system's cache for what follows.

    Raises:
        UserError: a file is missing, or has other bytes than were written.
    """
    facts = read_json_with_checksum(folder / FACTS)
    sums = facts.get("sha256")
    for name in (IMAGES, MANIFEST):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing; run the split stage again.")
    if not isinstance(sums, dict) or hash_file(folder / MANIFEST) != sums.get(MANIFEST):
        raise _describe_damage(folder / MANIFEST, "its bytes are not those written")
    rows = list(read_rows(folder / MANIFEST, StoredImage._fields))
    images = _map_images(folder / IMAGES)
    expected = (len(rows), facts.get("size"), facts.get("size"), 3)
    if images.shape != expected or images.dtype != np.uint8:
        raise UserError(
            f"{folder} does not fit together: {images.dtype} images of shape {images.shape} and "
            f"{len(rows):,} manifest lines; run the split stage again."
        )
    damaged = _find_differing_images(folder / IMAGES, images.shape, [row["pixels_sha256"] for row in rows])
    if damaged:
        named = summarize_names([rows[number]["path"] for number in damaged])
        raise _describe_damage(folder / IMAGES, f"{len(damaged):,} images are not those written ({named})")
    return Store(
        images=images,
        labels=np.array([LABELS[row["label"]] for row in rows], np.uint8),
        parts=np.array([row["part"] for row in rows], np.str_),
        sources=np.array([row["source"] for row in rows], np.str_),
        paths=np.array([row["path"] for row in rows], np.str_),
        note=facts.get("note"),
        reencoding=Reencoding(**facts["reencoding"]) if facts.get("reencoding") else None,
    )


def _describe_damage(path: Path, what: str) -> UserError:
    return UserError(f"{path} is damaged: {what}; run the split stage again.")


def _map_images(path: Path) -> npt.NDArray[np.uint8]:
    try:
        images: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise _describe_damage(path, f"it cannot be read ({error})") from None
    if path.stat().st_size != len(_build_npy_header(images.shape)) + images.nbytes:
        raise _describe_damage(path, "its length is not the one written")
    return images


def _find_differing_images(path: Path, shape: tuple[int, ...], sums: Sequence[str]) -> list[int]:
    """Return the numbers of the images that have another sha256; on all cores."""
    start, length = len(_build_npy_header(shape)), int(np.prod(shape[1:]))

    def differing(first: int) -> list[int]:
        expected = sums[first : first + _BLOCK]
        # Read, not mapped: mapped pages would count as this process's memory.
        content = memoryview(os.pread(file.fileno(), length * len(expected), start + length * first))
        found = (hashlib.sha256(content[length * n : length * (n + 1)]).hexdigest() for n in range(len(expected)))
        return [first + n for n, (one, other) in enumerate(zip(found, expected, strict=True)) if one != other]

    with path.open("rb", buffering=0) as file, ThreadPoolExecutor() as threads:
        return [
            number for some_of_them in threads.map(differing, range(0, len(sums), _BLOCK)) for number in some_of_them
        ]
