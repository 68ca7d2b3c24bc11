"""Every image of the split beside its side facts: what the audit reasons about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fakeface.data.audit.image_properties import FORMATS, FileProperties, PixelProperties
from fakeface.data.audit.property_cache import Facts, measure_files, measure_stored_pixels
from fakeface.data.image_store import IMAGES, MANIFEST, StoredImage, open_store
from fakeface.data.raw_dataset import Collection
from fakeface.data.split.leak_check import ROLES, Assignment
from fakeface.data.split.near_duplicates import compute_perceptual_hash, group_near_duplicates
from fakeface.images.jpeg_metadata import SUBSAMPLINGS
from fakeface.images.preprocessing import Limits, Reencoding
from fakeface.system.errors import UserError
from fakeface.system.serialization import read_rows

IDENTITY = ("path", "source", "label", "role", "part", "group")
_NAMES = {"format": FORMATS, "subsampling": SUBSAMPLINGS}  # facts that number a name
_BLOCK = 64  # images hashed at once
_WHOLE = ("width", "height", "bytes", "jpeg_quality", "progressive", "file_grey", "grey")


@dataclass(frozen=True)
class ImageTable:
    """All images of all stores in one order, (N,), each with FileFacts (N, 23) and PictureFacts (N, 19)."""

    placed: list[Assignment]
    sources: NDArray[np.str_]
    roles: NDArray[np.str_]
    fake: NDArray[np.bool_]
    groups: NDArray[np.str_]
    file_facts: Facts
    picture_facts: Facts
    size: int
    reencoding: Reencoding | None

    def fact(self, name: str) -> NDArray[np.float64]:
        """One fact of every image, (N,)."""
        if name in FileProperties._fields:
            return self.file_facts[:, FileProperties._fields.index(name)]
        return self.picture_facts[:, PixelProperties._fields.index(name)]

    def facts(self, names: tuple[str, ...]) -> Facts:
        """Some facts of every image, (N, number of names)."""
        return np.column_stack([self.fact(name) for name in names])

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Give IDENTITY and all facts of each image, as text that a spreadsheet reads; empty where there is none."""
        write = [_choose_format(name) for name in (*FileProperties._fields, *PixelProperties._fields)]
        for number, image in enumerate(self.placed):
            values = (*self.file_facts[number].tolist(), *self.picture_facts[number].tolist())
            written = ("" if isnan(value) else as_text(value) for as_text, value in zip(write, values, strict=True))
            file = image.file
            yield (file.path, file.source, file.label, image.role, image.part, image.group, *written)


def _choose_format(name: str) -> Callable[[float], str]:
    if name in _NAMES:
        return lambda value: _NAMES[name][int(value)]
    return (lambda value: f"{value:.0f}") if name in _WHOLE else (lambda value: f"{value:.5g}")


def build_image_table(
    collection: Collection,
    raw: Path,
    split: Path,
    cache: Path,
    limits: Limits,
    near_duplicate_bits: int,
    workers: int | None = None,
) -> ImageTable:
    """Measure what datasets/raw and datasets/split hold; what was measured before is taken from `cache`.

    Which images look alike is found anew in the stores' pictures, without the split's own word for it.

    Raises:
        UserError: a store is damaged, raw files have changed, or the two do not belong together.
    """
    stores = {role: open_store(split / role) for role in ROLES}
    hashes = [_hash_images(split / role / IMAGES, len(store), workers) for role, store in stores.items()]
    looks = group_near_duplicates(np.concatenate(hashes), near_duplicate_bits).tolist()
    placed, sums = _list_assignments(collection, split, looks)
    pictures = measure_stored_pixels([(split / role / IMAGES, sums[role]) for role in ROLES], cache, workers)
    return ImageTable(
        placed,
        np.concatenate([store.sources for store in stores.values()]),
        np.array([image.role for image in placed], np.str_),
        np.concatenate([store.labels for store in stores.values()]) == 1,
        np.array([image.group for image in placed], np.str_),
        measure_files([image.file for image in placed], raw, cache, limits, workers),
        pictures,
        stores[ROLES[0]].images.shape[1],
        stores[ROLES[0]].reencoding,
    )


def _hash_images(array: Path, images: int, workers: int | None) -> NDArray[np.uint64]:
    def of_block(start: int) -> NDArray[np.uint64]:
        # Mapped for these few alone: pages that stay mapped count as this process's memory.
        return compute_perceptual_hash(np.array(np.load(array, mmap_mode="r")[start : start + _BLOCK]))

    with ThreadPoolExecutor(workers) as threads:
        return np.concatenate([np.empty(0, np.uint64), *threads.map(of_block, range(0, images, _BLOCK))])


def _list_assignments(
    collection: Collection, split: Path, looks: Sequence[int]
) -> tuple[list[Assignment], dict[str, list[str]]]:
    """Put the stores' manifests and the raw one together again, with the sums of the pixels that open_store proves."""
    files = {file.path: file for file in collection.files}
    placed: list[Assignment] = []
    sums: dict[str, list[str]] = {role: [] for role in ROLES}
    for role in ROLES:
        for row in read_rows(split / role / MANIFEST, StoredImage._fields):
            file = files.get(row["path"])
            if file is None or (file.sha256, file.label) != (row["sha256"], row["label"]):
                raise UserError(f"{split / role} holds '{row['path']}', which datasets/raw does not; run `dvc repro`.")
            placed.append(Assignment(file, looks[len(placed)], role, row["part"], row["group"]))
            sums[role].append(row["pixels_sha256"])
    return placed, sums
