"""Side facts of many images: measured once on all cores, kept by content, so that a killed or later run goes on.

The journals lie in a folder that is no output of a stage: deleting them costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import PIL
from numpy.typing import NDArray

from fakeface.data.audit import image_properties
from fakeface.data.audit.image_properties import FileProperties, PixelProperties, measure_file, measure_pixels
from fakeface.data.raw_dataset import RawFile
from fakeface.images.decoding import read_decoder_source
from fakeface.images.preprocessing import Limits
from fakeface.images.validation import RejectedImage, read_content
from fakeface.system.errors import UserError
from fakeface.system.filesystem import file_lock
from fakeface.system.journal import open_journal, read_journal
from fakeface.system.parallel import map_items
from fakeface.system.serialization import summarize_names

Facts: TypeAlias = NDArray[np.float64]  # (N, number of facts)
_Known: TypeAlias = dict[str, NDArray[np.float64]]  # sha256: facts


def measure_files(
    files: Sequence[RawFile], raw: Path, cache: Path, limits: Limits, workers: int | None = None
) -> Facts:
    """Return the image_properties.FileProperties of each file, (N, 23).

    Args:
        files: usable ones, as datasets/raw/manifest.csv lists them.
        raw: datasets/raw.
        cache: folder of the journals; one process at a time.
        limits: those they were decoded with.
        workers: processes; None for one a core, 1 for none beside this.

    Raises:
        UserError: a file is missing or has other bytes than the manifest lists, or a worker was killed.
    """
    keys = [file.sha256 for file in files]
    with _open_journal(cache / "files.csv", set(keys), len(FileProperties._fields), limits) as (known, note):
        new = {file.sha256: file.path for file in files if file.sha256 not in known}
        items = [(str(raw / path), sha256) for sha256, path in new.items()]
        differing = []
        for (path, sha256), facts in map_items(partial(_measure_files, limits), items, "measuring files", workers):
            if facts is None:
                differing.append(path)
            else:
                note(sha256, facts)
        if differing:
            raise UserError(
                f"{len(differing):,} files are no longer those that the split has read: "
                f"{summarize_names(sorted(differing))}; "
                "run the download and the split stage again."
            )
        return _build_table(known, keys, len(FileProperties._fields))


def measure_stored_pixels(
    stores: Sequence[tuple[Path, Sequence[str]]], cache: Path, workers: int | None = None
) -> Facts:
    """Return the image_properties.PixelProperties of each image of some stores, (N, 19), one store behind the other.

    Args:
        stores: of each the .npy file, uint8 (N, size, size, 3), which the workers open, and the sha256 of each image.
        cache: folder of the journals; one process at a time.
        workers: processes; None for one a core, 1 for none beside this.

    Raises:
        UserError: a worker was killed.
    """
    places = [(array, number) for array, sums in stores for number in range(len(sums))]
    keys = [sha256 for _, sums in stores for sha256 in sums]
    with _open_journal(cache / "pictures.csv", set(keys), len(PixelProperties._fields)) as (known, note):
        new = {key: place for key, place in zip(keys, places, strict=True) if key not in known}
        for (key, _), facts in map_items(_measure_pictures, list(new.items()), "measuring pictures", workers):
            note(key, facts)
        return _build_table(known, keys, len(PixelProperties._fields))


def _measure_files(limits: Limits, files: Sequence[tuple[str, str]]) -> list[FileProperties | None]:
    return [_measure_file(path, sha256, limits) for path, sha256 in files]


def _measure_file(path: str, sha256: str, limits: Limits) -> FileProperties | None:
    """Give the facts, or None where the file is not the one that the manifest lists."""
    try:
        content = read_content(path, max_bytes=limits.max_bytes)
        if hashlib.sha256(content).hexdigest() == sha256:
            return measure_file(content, **limits._asdict())
    except (RejectedImage, FileNotFoundError, NotADirectoryError):
        pass
    return None


def _measure_pictures(stored: Sequence[tuple[str, tuple[Path, int]]]) -> list[PixelProperties]:
    return [measure_pixels(np.array(np.load(array, mmap_mode="r")[number])) for _, (array, number) in stored]


def _build_table(known: Mapping[str, NDArray[np.float64]], keys: Sequence[str], width: int) -> Facts:
    return np.array([known[key] for key in keys]).reshape(-1, width)


@contextmanager
def _open_journal(
    path: Path, wanted: set[str], width: int, *settings: object
) -> Iterator[tuple[_Known, Callable[[str, Sequence[float]], None]]]:
    """Give what is known of the wanted, and a function that adds to it and writes it down at once.

    Only the wanted stay in the journal. It starts anew when it was made by other code or settings.
    """
    made_by = (read_decoder_source(), inspect.getsource(image_properties), PIL.__version__, np.__version__, settings)
    fingerprint = hashlib.sha256(repr(made_by).encode()).hexdigest()
    with file_lock(path):
        known = _read_journal(path, fingerprint, wanted, width)
        lines = [(fingerprint,), *((key, *facts.tolist()) for key, facts in known.items())]
        with open_journal(path, lines) as append:

            def note(key: str, facts: Sequence[float]) -> None:
                known[key] = np.array(facts, np.float64)
                append((key, *known[key].tolist()))

            yield known, note


def _read_journal(path: Path, fingerprint: str, wanted: set[str], width: int) -> _Known:
    lines = read_journal(path)
    if next(lines, None) != [fingerprint]:
        return {}
    known = {}
    for key, *values in lines:
        if key in wanted and len(values) == width:
            try:
                known[key] = np.array(values, np.float64)
            except ValueError:  # a line that a killed process has cut, and the next one behind it
                continue
    return known
