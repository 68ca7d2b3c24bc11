"""Small pictures as the bytes of image files, and what the decoder says of them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fakeface.images.decoding import decode_image
from fakeface.images.preprocessing import Crop
from fakeface.images.validation import MAX_BYTES, MAX_PIXELS, RejectedImage

CENTRE = Crop(1.0)


def picture(width: int = 256, height: int = 256, seed: int = 0) -> Image.Image:
    """A smooth colour gradient with a few discs: no two corners alike, and detail that survives JPEG."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    image = Image.fromarray(np.stack([40 + 180 * x, 40 + 180 * y, 200 - 150 * x * y], axis=-1).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        cx, cy, r = rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height, rng.uniform(0.05, 0.15) * width
        draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=tuple(int(v) for v in rng.integers(0, 255, 3)))
    return image


def saved(image: Image.Image, format: str = "PNG", **options: object) -> bytes:  # noqa: A002
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def rejection(content: bytes, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(RejectedImage) as caught:
        decode_image(content, max_bytes=max_bytes, max_pixels=max_pixels)
    assert caught.value.reason == str(caught.value)
    assert "\n" not in caught.value.reason
    return caught.value.reason


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def exif(orientation: int, order: str = "<") -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + mark + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


REFERENCE = decode_image(saved(picture()))


def noise(side: int = 96) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 255, (side, side, 3), dtype=np.uint8))
