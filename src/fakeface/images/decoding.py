"""Bytes of an image file in, a checked uint8 RGB array out. The only decoder of training, evaluation and prediction.

Limits hold before any pixel is decoded (validation). Every function here may run in threads and in processes.
"""

from __future__ import annotations

import inspect
import struct
import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFile, JpegImagePlugin

from fakeface.images import jpeg_metadata, preprocessing, validation
from fakeface.images.jpeg_metadata import estimate_jpeg_quality, name_subsampling
from fakeface.images.preprocessing import WHOLE, Crop, Reencoding
from fakeface.images.validation import (
    JPEG_END,
    MAX_BYTES,
    MAX_PIXELS,
    JpegFile,
    RejectedImage,
    open_checked,
    read_content,
    reject_errors,
)

IMAGE_SIZE = 128  # pixels a side
BACKGROUND = (255, 255, 255)  # under transparent pixels: white, as a web page shows them

# Lanczos, 3 lobes, stretched over the source (Pillow): the flattest pass band and the least aliasing of its filters,
# so that a source's native size leaves the smallest mark on the reduced image.
REDUCTION = Image.Resampling.LANCZOS

# libjpeg can decode at 1/2, 1/4 or 1/8 size. It is used only where at least this many times the wanted size is left for
# the filter above: on faces reduced eightfold the arrays then differ from a full decode by 0.25 levels on average,
# 99 % of the values by at most 1. With a margin of 2 it would be 3 levels, with 1 it would be 13.
SHRINK_ON_LOAD_MARGIN = 4


@dataclass(frozen=True)
class ImageHeader:
    """What an image file's header says; nothing is decoded."""

    width: int  # pixels, as stored: before the EXIF orientation
    height: int
    format: str  # JPEG, PNG, GIF, WEBP, BMP, TIFF or AVIF
    mode: str  # Pillow's name of the stored colours: L, RGB, CMYK, P, RGBA, I;16 …
    greyscale: bool  # stored without colour; a grey picture stored as RGB is False
    orientation: int  # EXIF, 1 (upright) to 8
    jpeg_quality: int | None  # 1 to 100, see jpeg_metadata.estimate_jpeg_quality; None for other formats
    jpeg_divisor: float | None  # mean of all quantisation divisors; tells apart tables that no quality describes
    subsampling: str | None  # of a JPEG's colour: "grey" without colour, else one of jpeg_metadata.SUBSAMPLINGS
    progressive: bool  # a JPEG whose detail comes in several scans


def decode_image(
    content: bytes,
    size: int = IMAGE_SIZE,
    crop: Crop = WHOLE,
    *,
    reencoding: Reencoding | None = None,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.uint8]:
    """Decode a whole image file to a uint8 RGB array of shape (size, size, 3); raise RejectedImage with the reason.

    EXIF orientation is applied, then `crop`, then `reencoding` if one is given, then the reduction by a Lanczos filter.
    Transparent pixels lie on white. 16-bit values keep their high byte. Of an animation or a file of several pages the
    first frame counts, after the file was checked to be whole. Embedded colour profiles are ignored. A file that is cut
    short is rejected.
    """
    image = open_checked(content, max_bytes, max_pixels)
    with reject_errors(image):
        full_size = image.size
        first_size = reencoding.size if reencoding else size
        factor = _choose_shrink_factor(image, first_size, crop)
        upright, turned = _decode_upright(image, content, factor)
        left, top, right, bottom = crop.box(*(full_size[::-1] if turned else full_size))
        box = (left / factor, top / factor, right / factor, bottom / factor)
        square = _flatten_on_background(upright.resize((first_size, first_size), REDUCTION, box=box))
        if reencoding:
            square = _reencode_jpeg(square, reencoding.quality).resize((size, size), REDUCTION)
        return np.array(square)


def decode_full_size(content: bytes, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode an image file as `decode_image` does, uncropped and unreduced: uint8 RGB (height, width, 3), upright."""
    image = open_checked(content, max_bytes, max_pixels)
    with reject_errors(image):
        return np.array(_flatten_on_background(_decode_upright(image, content, factor=1)[0]))


def read_image(
    path: str | Path,
    size: int = IMAGE_SIZE,
    crop: Crop = WHOLE,
    *,
    reencoding: Reencoding | None = None,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.uint8]:
    """Decode a file as `decode_image` does; raise OSError where it cannot be read. Follows symbolic links."""
    content = read_content(path, max_bytes=max_bytes)
    return decode_image(content, size, crop, reencoding=reencoding, max_bytes=max_bytes, max_pixels=max_pixels)


def inspect_image(content: bytes, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Read an image file's header under the limits of `decode_image`; raise RejectedImage."""
    image = open_checked(content, max_bytes, max_pixels)
    with reject_errors(image):
        tables = image.quantization if isinstance(image, JpegFile) else {}
        divisors = [divisor for table in tables.values() for divisor in table]
        return ImageHeader(
            width=image.width,
            height=image.height,
            format=str(image.format),
            mode=image.mode,
            greyscale=image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I"),
            orientation=_read_orientation(image),
            jpeg_quality=estimate_jpeg_quality(tables[min(tables)]) if tables else None,
            jpeg_divisor=sum(divisors) / len(divisors) if divisors else None,
            subsampling=_read_subsampling(image) if isinstance(image, JpegFile) else None,
            progressive="progressive" in image.info,
        )


def _read_subsampling(image: JpegFile) -> str:
    return name_subsampling([layer[1:3] for layer in image.layer])


def read_decoder_source() -> str:
    """Return the source of all that decides arrays and facts of files; what is kept of these names it."""
    return "".join(map(inspect.getsource, (preprocessing, validation, jpeg_metadata, sys.modules[__name__])))


def _choose_shrink_factor(image: ImageFile.ImageFile, size: int, crop: Crop) -> int:
    """The divisor, 1, 2, 4 or 8, by which a JPEG may be shrunk while it is decoded."""
    left, top, right, bottom = crop.box(*image.size)
    spare = min(right - left, bottom - top) // (size * SHRINK_ON_LOAD_MARGIN)
    return min(8, 1 << spare.bit_length() - 1) if spare and isinstance(image, JpegFile) else 1


def _decode_upright(image: ImageFile.ImageFile, content: bytes, factor: int) -> tuple[Image.Image, bool]:
    """Decode, at 1/factor of its size, and turn by the EXIF orientation; tell whether the sides changed places."""
    _load(image, factor)
    if isinstance(image, JpegFile) and _lacks_data(image, content, factor):
        raise RejectedImage("truncated JPEG")
    orientation = _read_orientation(image)  # after the pixels: a PNG may carry its EXIF behind them
    plain = _convert_to_plain_mode(image)
    return plain.transpose(_TURNS[orientation]) if orientation in _TURNS else plain, orientation >= 5


def _reencode_jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    file.seek(0)
    return JpegImagePlugin.JpegImageFile(file)


def _load(image: ImageFile.ImageFile, factor: int) -> None:
    if factor > 1:
        image.draft(None, (image.width // factor, image.height // factor))
    image.load()


_MORE_DATA = b"".join(marker + bytes(range(100, 164)) for marker in [b"", *(b"\xff%c" % (0xD0 + i) for i in range(8))])


def _lacks_data(image: JpegFile, content: bytes, factor: int) -> bool:
    """Tell whether a decoded JPEG that has its end marker was cut before it.

    libjpeg paints what is missing mid-grey, down to the last pixel. Only where that is grey, the file is decoded again
    with more data before the end marker: in a whole file it is skipped, in a cut one it becomes pixels. A progressive
    file that was cut after its first coarse scan passes, with less detail.
    """
    width, height = image.size
    corner = image.crop((width - 1, height - 1, width, height))
    grey = corner.getchannel("K") if image.mode == "CMYK" else corner.convert("L")
    if not 126 <= grey.tobytes()[0] <= 130:
        return False
    end = content.find(JPEG_END, image.first_scan)
    probe = JpegFile(BytesIO(content[:end] + _MORE_DATA + content[end:]))
    _load(probe, factor)
    return probe.tobytes() != image.tobytes()


def _convert_to_plain_mode(image: ImageFile.ImageFile) -> Image.Image:
    """The same picture as L, LA, RGB or RGBA, 8 bits a channel."""
    if image.mode.startswith("I;16"):
        # convert() would clip instead of scaling
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise RejectedImage(f"{image.format} with 32-bit values, whose white is unknown")
    if image.mode == "CMYK" and isinstance(image, JpegFile) and "adobe" not in image.info:
        # Pillow takes every CMYK JPEG for Adobe's inverted one; without Adobe's marker the values are plain ink.
        return ImageChops.invert(image).convert("RGB")
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _read_orientation(image: ImageFile.ImageFile) -> int:
    """EXIF tag 0x0112 of the first directory (TIFF 6.0, section 2); 1 where EXIF is missing or unreadable.

    Pillow's own reader warns about a damaged directory and reads all of it. It turns a TIFF by itself.
    """
    exif = image.info.get("exif", b"")
    exif = exif.removeprefix(b"Exif\x00\x00") if isinstance(exif, bytes) else b""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, _kind, _count, value = struct.unpack_from(f"{order}HHIH", exif, entry)
            if tag == 0x0112:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _flatten_on_background(image: Image.Image) -> Image.Image:
    if image.mode == "RGBA":
        under = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        image = Image.alpha_composite(under, image)
    return image.convert("RGB")
