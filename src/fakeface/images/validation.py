"""What bytes must be before a pixel is decoded: an image of a known format, within the limits, and whole.

The format is told by the first bytes, never by the name. Pillow's global settings are neither changed nor relied on, so
every function here may run in threads and in processes.
"""

from __future__ import annotations

import re
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

# The limits of params.yaml, for where there is none: prediction takes what training does. A test holds them equal.
MAX_BYTES = 50_000_000  # far above any photograph of a face; bounds what one file may take of the memory
MAX_PIXELS = 100_000_000  # a 50-megapixel telephone passes; 400 MB while decoded
MIN_SIDE = 8  # pixels; below it a file is a tracking pixel or an icon, not a face
MAX_SCANS = 100  # of a progressive JPEG: encoders write about 10, and thousands in a small file are an attack on time
JPEG_END = b"\xff\xd9"


class RejectedImage(Exception):  # noqa: N818 - it is an outcome to be counted, not an error of the program
    """A file that is no whole, decodable image within the limits; `reason` says why in a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


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


class JpegFile(JpegImagePlugin.JpegImageFile):
    """Pillow's JPEG reader that leaves EXIF alone: parsing it costs more than the rest of the header, and warns."""

    first_scan: int  # where the compressed pixels begin in the file

    def _open(self) -> None:
        super()._open()
        assert self.fp is not None
        self.first_scan = self.fp.tell()

    def _read_dpi_from_exif(self) -> None:
        pass


def open_checked(content: bytes, max_bytes: int, max_pixels: int) -> ImageFile.ImageFile:
    """Check bytes, format, size and wholeness; nothing is decoded yet.

    Raises:
        RejectedImage: with the reason.
    """
    if not content:
        raise RejectedImage("empty file")
    _check_length(len(content), max_bytes)
    reader = _choose_reader(content)
    if reader is WebPImagePlugin.WebPImageFile:
        _check_size(
            _read_webp_size(content), max_pixels
        )  # its reader sets the whole canvas aside before telling the size
    with reject_errors(reader):
        image = reader(BytesIO(content))
    _check_size(image.size, max_pixels)
    _check_whole(image, content)
    return image


def _choose_reader(content: bytes) -> type[ImageFile.ImageFile]:
    # The readers are called directly because Image.open warns about, or refuses, sizes by a global limit.
    for signature, reader in _READERS.items():
        if re.match(signature, content, re.DOTALL):
            return reader
    raise RejectedImage(_name_other_format(content))


_READERS: dict[bytes, type[ImageFile.ImageFile]] = {
    rb"\xff\xd8": JpegFile,
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


def _name_other_format(content: bytes) -> str:
    head = content if content[:16].strip(b"\0") == b"" else content[:2048]
    for signature, name in _OTHERS.items():
        if re.match(signature, head, re.DOTALL | re.IGNORECASE):
            return name
    return "not an image"


@contextmanager
def reject_errors(source: ImageFile.ImageFile | type[ImageFile.ImageFile]) -> Iterator[None]:
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


def _read_webp_size(content: bytes) -> tuple[int, int]:
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
    if isinstance(image, JpegFile):
        if content.count(b"\xff\xda", image.first_scan) >= MAX_SCANS:
            raise RejectedImage(f"damaged JPEG (more than {MAX_SCANS} scans)")
        whole = content.find(JPEG_END, image.first_scan) >= 0
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

    def find_end_of_colours(flags: int, at: int) -> int:
        return at + (3 << (flags & 7) + 1 if flags & 0x80 else 0)

    try:
        at = find_end_of_colours(content[10], 13)
        while content[at] != 0x3B:  # trailer
            if content[at] == 0x2C:  # image: its own colours, one byte of code size, then sub-blocks
                at = find_end_of_colours(content[at + 9], at + 10) + 1
            else:  # extension: its label, then sub-blocks
                at += 2
            while content[at]:
                at += content[at] + 1
            at += 1
    except IndexError:
        return False
    return True
