"""Every raw image decoded once, into one array on disk that later runs and killed runs go on with.

The array lies in a folder of its own, which is no output of a stage: deleting it costs time and nothing else. A row is
used only if decoder, size and limits are those it was made with. Its sum is compared when it is read; where it differs,
the file is decoded again.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL

from fakeface.data.raw_dataset import RawFile, Rejected
from fakeface.data.split import near_duplicates
from fakeface.data.split.near_duplicates import compute_perceptual_hash
from fakeface.images.decoding import decode_image, read_decoder_source
from fakeface.images.preprocessing import Crop, Limits, Reencoding
from fakeface.images.validation import RejectedImage, read_content
from fakeface.system.errors import UserError
from fakeface.system.filesystem import annotate_os_error, ensure_dir, file_lock, recreate_dir
from fakeface.system.journal import read_journal
from fakeface.system.parallel import map_items
from fakeface.system.serialization import summarize_names

_READ = 16  # images read at once: few enough to stay in the processor's cache until they are written
_ARRAY, _INDEX, _KEY = "images.bin", "index.csv", "key.txt"


class _Settings(NamedTuple):
    size: int
    limits: Limits
    reencoding: Reencoding | None

    @property
    def image_bytes(self) -> int:
        return 3 * self.size * self.size


class _Row(NamedTuple):
    number: int
    crc32: int
    hash: int
    sha256: str  # of the pixels


_ImageKey: TypeAlias = tuple[str, str]  # sha256 of the file, crop
_Pixels: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class DecodedImages:
    """The usable files, and what is known of each in the same order, (N,).

    `hashes` are perceptual, uint64; `sums` are the sha256 of the image's bytes, as they came from the decoder.
    """

    files: list[RawFile]
    size: int
    hashes: npt.NDArray[np.uint64]
    sums: list[str]
    places: _Places

    def blocks(self, numbers: Sequence[int]) -> Iterator[_Pixels]:
        """Give the images of these files in order, some at once, as (n, size, size, 3) uint8.

        Raises:
            UserError: an image is damaged, and so is its file, or the index.
        """
        with self.places.array.open("rb", buffering=0) as file:
            for start in range(0, len(numbers), _READ):
                chosen = numbers[start : start + _READ]
                block = np.empty((len(chosen), self.size, self.size, 3), np.uint8)
                for image, number in zip(block, chosen, strict=True):
                    # Read, not mapped: mapped pages would count as this process's memory.
                    content = image.data.cast("B")
                    os.preadv(file.fileno(), [content], self.places.rows[number] * image.nbytes)
                    if zlib.crc32(content) != self.places.crc32[number]:
                        image[:] = self._decode_again(number)
                yield block

    def _decode_again(self, number: int) -> _Pixels:
        file, places = self.files[number], self.places
        decoded = _decode_file(str(places.raw / file.path), file.sha256, places.crops[file.source], places.settings)
        if decoded is None:
            raise UserError(_describe_differing([file.path], places.raw))
        if isinstance(decoded, str) or zlib.crc32(decoded.data) != places.crc32[number]:
            folder = places.array.parent
            raise UserError(f"{folder} is damaged beyond repair; delete it and run the split stage again.")
        with annotate_os_error(places.array), places.array.open("r+b", buffering=0) as array:
            _write_at(array.fileno(), decoded, places.rows[number] * decoded.nbytes)
        return decoded


class _Places(NamedTuple):
    """Where the pixels of each file lie, how they are proven, and what they are made of."""

    array: Path
    rows: list[int]
    crc32: list[int]
    raw: Path
    crops: Mapping[str, str]
    settings: _Settings


def decode_files(
    files: Sequence[RawFile],
    raw: Path,
    cache: Path,
    size: int,
    crops: Mapping[str, str],
    limits: Limits,
    workers: int | None = None,
    reencoding: Reencoding | None = None,
) -> tuple[DecodedImages, list[Rejected]]:
    """Decode the files that `cache` does not hold yet; return all usable ones, and the others with their reasons.

    Args:
        files: as datasets/raw/manifest.csv lists them; bytes that differ from its sha256 are an error, not an image.
        raw: datasets/raw.
        cache: the folder of the array; one process at a time.
        size: pixels a side.
        crops: source to crop, as `preprocessing.Crop.parse` reads it.
        limits: what is set aside undecoded.
        workers: processes; None for one a core, 1 for none beside this.
        reencoding: what every picture goes through, as `images.decode_image` does it.

    Raises:
        UserError: raw files are missing or changed, a crop is unknown, or a worker was killed.
    """
    crops = {source: str(Crop.parse(crop)) for source, crop in crops.items()}
    settings = _Settings(size, limits, reencoding)
    keys: list[_ImageKey] = [(file.sha256, crops[file.source]) for file in files]
    ensure_dir(cache)
    with file_lock(cache):
        done = _open_cache(cache, settings, set(keys))
        new = {key: file for key, file in zip(keys, files, strict=True) if key not in done}
        refused, differing = _decode_new(new, done, raw, cache, settings, workers)
    if differing:
        raise UserError(_describe_differing(differing, raw))
    usable = [file for file, key in zip(files, keys, strict=True) if key in done]
    rejected = [
        Rejected(file.path, file.source, refused[key]) for file, key in zip(files, keys, strict=True) if key not in done
    ]
    rows = [done[key] for key in keys if key in done]
    return DecodedImages(
        files=usable,
        size=size,
        hashes=np.array([row.hash for row in rows], np.uint64),
        sums=[row.sha256 for row in rows],
        places=_Places(cache / _ARRAY, [row.number for row in rows], [row.crc32 for row in rows], raw, crops, settings),
    ), rejected


def _describe_differing(paths: Sequence[str], raw: Path) -> str:
    return (
        f"{len(paths):,} files in {raw} are missing or have other bytes than its manifest lists: "
        f"{summarize_names(sorted(paths))}; run the download stage again."
    )


def _open_cache(cache: Path, settings: _Settings, wanted: set[_ImageKey]) -> dict[_ImageKey, _Row]:
    """Return the rows that are wanted and there; start anew if they were made by other code or settings."""
    made_by = (read_decoder_source(), inspect.getsource(near_duplicates), PIL.__version__, settings)
    fingerprint = hashlib.sha256(repr(made_by).encode()).hexdigest()
    if not (cache / _KEY).is_file() or (cache / _KEY).read_text() != fingerprint:
        recreate_dir(cache)
        (cache / _KEY).write_text(fingerprint)
    (cache / _ARRAY).touch()
    whole = (cache / _ARRAY).stat().st_size // settings.image_bytes
    rows: dict[_ImageKey, _Row] = {}
    for line in read_journal(cache / _INDEX):
        if len(line) == _LINE and (line[0], line[1]) in wanted and line[-1] == _checksum_line(line[:-1]):
            number, crc32, look = map(int, line[2:-2])
            if number < whole:
                rows[line[0], line[1]] = _Row(number, crc32, look, line[-2])
    return rows


_LINE = len(_Row._fields) + 3  # values: sha256 of the file, crop, the row's, sum of all these


def _checksum_line(values: Sequence[object]) -> str:
    return str(zlib.crc32(",".join(map(str, values)).encode()))


class _Item(NamedTuple):
    path: str
    key: _ImageKey
    row: int  # of the array that is free for it


_Outcome: TypeAlias = _Row | str | None  # decoded, rejected for this reason, or not the listed bytes


def _decode_new(
    new: Mapping[_ImageKey, RawFile],
    done: dict[_ImageKey, _Row],
    raw: Path,
    cache: Path,
    settings: _Settings,
    workers: int | None,
) -> tuple[dict[_ImageKey, str], list[str]]:
    """Add new images to the array, the index and `done`; return reasons of the rejected, and paths that differ."""
    refused: dict[_ImageKey, str] = {}
    differing: list[str] = []
    array, index = cache / _ARRAY, cache / _INDEX
    free_row = array.stat().st_size // settings.image_bytes
    items = [_Item(str(raw / file.path), key, free_row + n) for n, (key, file) in enumerate(new.items())]
    with annotate_os_error(index), index.open("a", newline="", buffering=1) as file:
        lines = csv.writer(file, lineterminator="\n")
        for item, outcome in map_items(partial(_decode_chunk, array, settings), items, "decoding images", workers):
            if isinstance(outcome, _Row):
                done[item.key] = outcome
                values = (*item.key, *outcome)
                lines.writerow((*values, _checksum_line(values)))
            elif outcome is None:
                differing.append(new[item.key].path)
            else:
                refused[item.key] = outcome
    return refused, differing


def _decode_chunk(array: Path, settings: _Settings, items: Sequence[_Item]) -> list[_Outcome]:
    """Decode some files into the array, from the row of the first on."""
    decoded = [_decode_file(item.path, *item.key, settings) for item in items]
    pixels = [one for one in decoded if isinstance(one, np.ndarray)]
    if not pixels:
        return [one for one in decoded if not isinstance(one, np.ndarray)]
    block, first_row = np.stack(pixels), items[0].row
    with annotate_os_error(array), array.open("r+b", buffering=0) as file:
        # Written, not mapped: a full disk is then an error that can be told instead of a killed process.
        _write_at(file.fileno(), block, first_row * block[0].nbytes)
    hashes = iter(compute_perceptual_hash(block).tolist())
    numbers = iter(range(first_row, first_row + len(block)))
    return [
        _Row(next(numbers), zlib.crc32(one.data), next(hashes), _sha256(one)) if isinstance(one, np.ndarray) else one
        for one in decoded
    ]


def _sha256(pixels: _Pixels) -> str:
    return hashlib.sha256(pixels.data).hexdigest()


def _decode_file(path: str, sha256: str, crop: str, settings: _Settings) -> _Pixels | str | None:
    """Give the image, the reason for its rejection, or None for other bytes."""
    size, limits, reencoding = settings
    try:
        content = read_content(path, max_bytes=limits.max_bytes)
        if hashlib.sha256(content).hexdigest() != sha256:
            return None
        parsed = Crop.parse(crop)
        return decode_image(content, size, parsed, reencoding=reencoding, **limits._asdict())
    except RejectedImage as rejection:
        return rejection.reason
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write_at(descriptor: int, block: _Pixels, offset: int) -> None:
    view = block.data.cast("B")
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
