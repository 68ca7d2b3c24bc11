"""Bytes of an image file in, a checked uint8 RGB array out. The only decoder of training, evaluation and prediction.

The format is told by the first bytes, never by the name. Limits hold before any pixel is decoded. Pillow's global
settings are neither changed nor relied on, so every function here may run in threads and in processes.
"""

from __future__ import annotations

import re
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageChops,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from fakeface.errors import UserError
from fakeface.jpeg_header import jpeg_quality, subsampling

IMAGE_SIZE = 128  # pixels a side
MAX_BYTES = 64 * 2**20  # far above any photograph of a face; bounds what one file may take of the memory
MAX_PIXELS = 64_000_000  # a 50-megapixel telephone passes; 256 MB while decoded
MIN_SIDE = 8  # pixels; below it a file is a tracking pixel or an icon, not a face
MAX_SCANS = 100  # of a progressive JPEG: encoders write about 10, and thousands in a small file are an attack on time
BACKGROUND = (255, 255, 255)  # under transparent pixels: white, as a web page shows them

# Lanczos, 3 lobes, stretched over the source (Pillow): the flattest pass band and the least aliasing of its filters,
# so that a source's native size leaves the smallest mark on the reduced image.
REDUCTION = Image.Resampling.LANCZOS

# libjpeg can decode at 1/2, 1/4 or 1/8 size. It is used only where at least this many times the wanted size is left for
# the filter above: on faces reduced eightfold the arrays then differ from a full decode by 0.25 levels on average,
# 99 % of the values by at most 1. With a margin of 2 it would be 3 levels, with 1 it would be 13.
SHRINK_ON_LOAD_MARGIN = 4


class RejectedImage(Exception):  # noqa: N818 - it is an outcome to be counted, not an error of the program
    """A file that is no whole, decodable image within the limits; `reason` says why in a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Crop:
    """The part of an upright picture that becomes the square array.

    `fraction` None: the whole picture, stretched to a square. Otherwise the centred square whose side is this fraction
    (0 < fraction <= 1) of the picture's shorter side.
    """

    fraction: float | None = None

    def __post_init__(self) -> None:
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise UserError(f"The crop's centre fraction {self.fraction} is out of range: give one above 0, at most 1.")

    @classmethod
    def parse(cls, text: str) -> Crop:
        """Read `whole`, `centre` or `centre 0.6`; raise UserError for anything else."""
        if text.strip() == "whole":
            return cls()
        match = re.fullmatch(r"\s*centre(?:\s+(\d*\.?\d+))?\s*", text)
        if match is None:
            raise UserError(f"The crop {text!r} is unknown: write 'whole', 'centre' or a fraction, as in 'centre 0.6'.")
        return cls(float(match[1] or 1))

    def __str__(self) -> str:
        if self.fraction is None:
            return "whole"
        return "centre" if self.fraction == 1 else f"centre {self.fraction:g}"

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of the crop in a picture of this size, in whole pixels."""
        if self.fraction is None:
            return 0, 0, width, height
        side = max(1, round(self.fraction * min(width, height)))
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side


WHOLE = Crop()


class Reencoding(NamedTuple):
    """One size and one JPEG compression that every picture goes through, so that neither tells where it came from.

    After the crop a picture is brought to `size` pixels a side (8 or more) by the Lanczos filter and saved as JPEG of
    `quality` (1 to 100, the Independent JPEG Group's scale) with colour at half resolution (4:2:0).
    """

    quality: int
    size: int


@dataclass(frozen=True)
class ImageFacts:
    """What an image file's header says; nothing is decoded."""

    width: int  # pixels, as stored: before the EXIF orientation
    height: int
    format: str  # JPEG, PNG, GIF, WEBP, BMP, TIFF or AVIF
    mode: str  # Pillow's name of the stored colours: L, RGB, CMYK, P, RGBA, I;16 …
    greyscale: bool  # stored without colour; a grey picture stored as RGB is False
    orientation: int  # EXIF, 1 (upright) to 8
    jpeg_quality: int | None  # 1 to 100, see jpeg_header.jpeg_quality(); None for other formats
    jpeg_divisor: float | None  # mean of all quantisation divisors; tells apart tables that no quality describes
    subsampling: str | None  # of a JPEG's colour: "grey" without colour, else one of jpeg_header.SUBSAMPLINGS
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
    return decode_with_size(content, size, crop, reencoding=reencoding, max_bytes=max_bytes, max_pixels=max_pixels)[0]


def decode_with_size(
    content: bytes,
    size: int = IMAGE_SIZE,
    crop: Crop = WHOLE,
    *,
    reencoding: Reencoding | None = None,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Decode as `decode_image` does; give also the file's width and height, as `inspect_image` does."""
    image = _open(content, max_bytes, max_pixels)
    with _rejecting(image):
        full_size = image.size
        first_size = reencoding.size if reencoding else size
        factor = _shrink_factor(image, first_size, crop)
        upright, turned = _upright(image, content, factor)
        left, top, right, bottom = crop.box(*(full_size[::-1] if turned else full_size))
        box = (left / factor, top / factor, right / factor, bottom / factor)
        square = _on_background(upright.resize((first_size, first_size), REDUCTION, box=box))
        if reencoding:
            square = _saved_again(square, reencoding.quality).resize((size, size), REDUCTION)
        return np.array(square), full_size


def decode_full_size(content: bytes, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode an image file as `decode_image` does, uncropped and unreduced: uint8 RGB (height, width, 3), upright."""
    image = _open(content, max_bytes, max_pixels)
    with _rejecting(image):
        return np.array(_on_background(_upright(image, content, factor=1)[0]))


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


def read_content(path: str | Path, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a regular file of at most `max_bytes`; raise RejectedImage for a larger one, a pipe or a device."""
    status = Path(path).stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # opening a folder raises the right OSError
        raise RejectedImage("not a regular file")
    _check_length(status.st_size, max_bytes)
    with Path(path).open("rb") as file:
        content = file.read(status.st_size + 1)
    _check_length(len(content), max_bytes)
    return content


def inspect_image(content: bytes, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Read an image file's header under the limits of `decode_image`; raise RejectedImage."""
    image = _open(content, max_bytes, max_pixels)
    with _rejecting(image):
        tables = image.quantization if isinstance(image, _JpegFile) else {}
        divisors = [divisor for table in tables.values() for divisor in table]
        return ImageFacts(
            width=image.width,
            height=image.height,
            format=str(image.format),
            mode=image.mode,
            greyscale=image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I"),
            orientation=_orientation(image),
            jpeg_quality=jpeg_quality(tables[min(tables)]) if tables else None,
            jpeg_divisor=sum(divisors) / len(divisors) if divisors else None,
            subsampling=subsampling([layer[1:3] for layer in image.layer]) if isinstance(image, _JpegFile) else None,
            progressive="progressive" in image.info,
        )


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """Pillow's JPEG reader that leaves EXIF alone: parsing it costs more than the rest of the header, and warns."""

    first_scan: int  # where the compressed pixels begin in the file

    def _open(self) -> None:
        super()._open()
        assert self.fp is not None
        self.first_scan = self.fp.tell()

    def _read_dpi_from_exif(self) -> None:
        pass


def _open(content: bytes, max_bytes: int, max_pixels: int) -> ImageFile.ImageFile:
    """Check bytes, format, size and wholeness; nothing is decoded yet."""
    if not content:
        raise RejectedImage("empty file")
    _check_length(len(content), max_bytes)
    reader = _reader_of(content)
    if reader is WebPImagePlugin.WebPImageFile:
        _check_size(_webp_size(content), max_pixels)  # its reader sets the whole canvas aside before telling the size
    with _rejecting(reader):
        image = reader(BytesIO(content))
    _check_size(image.size, max_pixels)
    _check_whole(image, content)
    return image


def _reader_of(content: bytes) -> type[ImageFile.ImageFile]:
    # The readers are called directly because Image.open warns about, or refuses, sizes by a global limit.
    for signature, reader in _READERS.items():
        if re.match(signature, content, re.DOTALL):
            return reader
    raise RejectedImage(_name_of_other(content))


_READERS: dict[bytes, type[ImageFile.ImageFile]] = {
    rb"\xff\xd8": _JpegFile,
    rb"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    rb"GIF8[79]a": GifImagePlugin.GifImageFile,
    rb"RIFF....WEBP": WebPImagePlugin.WebPImageFile,
    rb"BM": BmpImagePlugin.BmpImageFile,
    rb"II[*+]\x00|MM\x00[*+]": TiffImagePlugin.TiffImageFile,
    rb"....ftyp(avi[fs]|m(if|sf)1.{0,200}?avi[fs])": AvifImagePlugin.AvifImageFile,
}

_OTHERS = {
    rb"\0*$": "not an image (only zero bytes)",
    rb".{0,1000}<(!doctype\s+)?html": "not an image (HTML)",
    rb".{0,1000}<svg": "a drawing (SVG), not a photograph",
    rb"\s*(<\?xml|[{\[]|version https://git-lfs|[\x20-\x7e\s]{32})": "not an image (text)",
    rb"PK\x03\x04|\x1f\x8b|BZh|Rar!|7z\xbc\xaf": "not an image (an archive)",
    rb"%pdf": "not an image (PDF)",
    rb"....ftyp(hei|hev|mif|msf)": "HEIC, which is not supported; convert it to JPEG or PNG",
    rb"....jp  |\xff\x4f\xff\x51": "JPEG 2000, which is not supported; convert it to PNG",
    rb"....ftyp": "not an image (a video)",
}


def _name_of_other(content: bytes) -> str:
    head = content if content[:16].strip(b"\0") == b"" else content[:2048]
    for signature, name in _OTHERS.items():
        if re.match(signature, head, re.DOTALL | re.IGNORECASE):
            return name
    return "not an image"


@contextmanager
def _rejecting(source: ImageFile.ImageFile | type[ImageFile.ImageFile]) -> Iterator[None]:
    """Turn whatever a reader raises on hostile bytes into a RejectedImage; only a lack of memory passes."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on: cut files would be filled with grey unnoticed")
    try:
        yield
    except (RejectedImage, MemoryError):
        raise
    except Exception as error:
        message = " ".join(str(error).split())
        if isinstance(error, EOFError | struct.error) or "runcated" in message:
            raise RejectedImage(f"truncated {source.format}") from error
        raise RejectedImage(f"damaged {source.format} ({message[:100] or type(error).__name__})") from error


def _check_length(length: int, max_bytes: int) -> None:
    if length > max_bytes:
        raise RejectedImage(f"too many bytes ({length:,}, the limit is {max_bytes:,})")


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise RejectedImage(f"too many pixels ({width}×{height}, the limit is {max_pixels:,})")
    if min(size) < MIN_SIDE:
        raise RejectedImage(f"too small ({width}×{height} pixels)")


def _webp_size(content: bytes) -> tuple[int, int]:
    """Canvas size by RFC 9649, sections 2.5 to 2.7."""
    try:
        kind = content[12:16]
        if kind == b"VP8X":
            width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
        elif kind == b"VP8L":
            bits = struct.unpack_from("<I", content, 21)[0]
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        else:
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
    except struct.error:
        raise RejectedImage("truncated WEBP") from None
    return width, height


def _check_whole(image: ImageFile.ImageFile, content: bytes) -> None:
    """Reject a file that ends early where its reader, which decodes one frame and no further, may not see it."""
    whole = True
    if isinstance(image, _JpegFile):
        if content.count(b"\xff\xda", image.first_scan) >= MAX_SCANS:
            raise RejectedImage(f"damaged JPEG (more than {MAX_SCANS} scans)")
        whole = content.find(_JPEG_END, image.first_scan) >= 0
    elif isinstance(image, PngImagePlugin.PngImageFile):
        whole = _png_is_whole(content)
    elif isinstance(image, GifImagePlugin.GifImageFile):
        whole = _gif_is_whole(content)
    elif isinstance(image, WebPImagePlugin.WebPImageFile):
        whole = not content.endswith(_UNFILLED, 0, int.from_bytes(content[4:8], "little") + 8)
    elif isinstance(image, AvifImagePlugin.AvifImageFile):
        whole = not content.endswith(_UNFILLED)
    if not whole:
        raise RejectedImage(f"truncated {image.format}")


_JPEG_END = b"\xff\xd9"
_MORE_DATA = b"".join(marker + bytes(range(100, 164)) for marker in [b"", *(b"\xff%c" % (0xD0 + i) for i in range(8))])
_UNFILLED = bytes(64)  # the end of a download into a file of full length; to the decoders zeros are data like any other


def _png_is_whole(content: bytes) -> bool:
    """Follow the chunks to IEND and check the sums of the critical ones, which Pillow leaves out for pixel data."""
    view, at = memoryview(content), 8
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        if end > len(content):
            return False
        critical = kind[:1].isupper()
        if critical and zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise RejectedImage(f"damaged PNG (wrong checksum of {kind.decode('ascii', 'replace')})")
        if kind == b"IEND":
            return True
        at = end
    return False


def _gif_is_whole(content: bytes) -> bool:
    """Follow the blocks to the trailer."""

    def behind_colours(flags: int, at: int) -> int:
        return at + (3 << (flags & 7) + 1 if flags & 0x80 else 0)

    try:
        at = behind_colours(content[10], 13)
        while content[at] != 0x3B:  # trailer
            if content[at] == 0x2C:  # image: its own colours, one byte of code size, then sub-blocks
                at = behind_colours(content[at + 9], at + 10) + 1
            else:  # extension: its label, then sub-blocks
                at += 2
            while content[at]:
                at += content[at] + 1
            at += 1
    except IndexError:
        return False
    return True


def _shrink_factor(image: ImageFile.ImageFile, size: int, crop: Crop) -> int:
    """The divisor, 1, 2, 4 or 8, by which a JPEG may be shrunk while it is decoded."""
    left, top, right, bottom = crop.box(*image.size)
    spare = min(right - left, bottom - top) // (size * SHRINK_ON_LOAD_MARGIN)
    return min(8, 1 << spare.bit_length() - 1) if spare and isinstance(image, _JpegFile) else 1


def _upright(image: ImageFile.ImageFile, content: bytes, factor: int) -> tuple[Image.Image, bool]:
    """Decode, at 1/factor of its size, and turn by the EXIF orientation; tell whether the sides changed places."""
    _load(image, factor)
    if isinstance(image, _JpegFile) and _lacks_data(image, content, factor):
        raise RejectedImage("truncated JPEG")
    orientation = _orientation(image)  # after the pixels: a PNG may carry its EXIF behind them
    plain = _plain_mode(image)
    return plain.transpose(_TURNS[orientation]) if orientation in _TURNS else plain, orientation >= 5


def _saved_again(image: Image.Image, quality: int) -> Image.Image:
    file = BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    file.seek(0)
    return JpegImagePlugin.JpegImageFile(file)


def _load(image: ImageFile.ImageFile, factor: int) -> None:
    if factor > 1:
        image.draft(None, (image.width // factor, image.height // factor))
    image.load()


def _lacks_data(image: _JpegFile, content: bytes, factor: int) -> bool:
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
    end = content.find(_JPEG_END, image.first_scan)
    probe = _JpegFile(BytesIO(content[:end] + _MORE_DATA + content[end:]))
    _load(probe, factor)
    return probe.tobytes() != image.tobytes()


def _plain_mode(image: ImageFile.ImageFile) -> Image.Image:
    """The same picture as L, LA, RGB or RGBA, 8 bits a channel."""
    if image.mode.startswith("I;16"):
        # convert() would clip instead of scaling
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise RejectedImage(f"{image.format} with 32-bit values, whose white is unknown")
    if image.mode == "CMYK" and isinstance(image, _JpegFile) and "adobe" not in image.info:
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


def _orientation(image: ImageFile.ImageFile) -> int:
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


def _on_background(image: Image.Image) -> Image.Image:
    if image.mode == "RGBA":
        under = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        image = Image.alpha_composite(under, image)
    return image.convert("RGB")
