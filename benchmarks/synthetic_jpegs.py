"""Any number of different JPEG files in little time: stripes of a few drawn pictures, joined without encoding anew.

A JPEG with a restart marker behind each row of blocks has stripes that decode by themselves (ITU-T T.81, E.1.4), so
stripes of several files of one size and quality make another valid file. With 16 stripes of 200 pictures, no two files
share their bytes, and hardly any two look alike to the near-duplicate search.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

PICTURES = 200
QUALITY = 90
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")


def drawn_pictures(side: int) -> list[tuple[bytes, list[bytes]]]:
    """Draw soft shapes under the grain of a camera; give each JPEG's header and its stripes."""
    random = np.random.default_rng(0)
    return [_cut(_jpeg(_drawn(random, side))) for _ in range(PICTURES)]


def striped_jpegs(pictures: Sequence[tuple[bytes, list[bytes]]], count: int, skipped: int = 0) -> Iterator[bytes]:
    """Give `count` files, the first `skipped` of the endless row left out."""
    header, stripes = pictures[0]
    for number in range(skipped, skipped + count):
        chosen = np.random.default_rng((1, number)).integers(0, len(pictures), len(stripes))
        rows = (pictures[picture][1][row] for row, picture in enumerate(chosen))
        yield header + b"".join(stripe + b"\xff%c" % (0xD0 + row % 8) for row, stripe in enumerate(rows))[:-2] + _END


def write_folder(folder: Path, pictures: Sequence[tuple[bytes, list[bytes]]], count: int, skipped: int) -> None:
    """Write files named by their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(striped_jpegs(pictures, count, skipped), skipped):
        (folder / f"{number:06d}.jpg").write_bytes(content)


_END = b"\xff\xd9"


def _drawn(random: np.random.Generator, side: int) -> Image.Image:
    coarse = random.integers(0, 256, (6, 6, 3), np.uint8)
    shapes = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC), np.float32)
    grain = random.normal(0, 5, (side, side, 1)).astype(np.float32)
    return Image.fromarray(np.clip(shapes + grain, 0, 255).astype(np.uint8))


def _jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    # Without Huffman tables of its own, so that the stripes of one file are read by the tables of another
    picture.save(file, "JPEG", quality=QUALITY, subsampling="4:2:0", restart_marker_rows=1)
    return file.getvalue()


def _cut(jpeg: bytes) -> tuple[bytes, list[bytes]]:
    scan = jpeg.index(b"\xff\xda")
    first = scan + 2 + int.from_bytes(jpeg[scan + 2 : scan + 4], "big")
    return jpeg[:first], _RESTART.split(jpeg[first : -len(_END)])
