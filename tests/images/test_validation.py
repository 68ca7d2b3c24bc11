"""What is refused before a pixel is decoded: files that are cut, damaged, too large, or no image."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from fakeface.images.decoding import decode_image, inspect_image, read_image
from fakeface.images.validation import RejectedImage
from tests.support.image_bytes import REFERENCE, chunk, exif, noise, picture, rejection, saved

# Files that are not whole

WHOLE_FILES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: saved(noise(), "JPEG"),
    "progressive JPEG": lambda: saved(noise(), "JPEG", progressive=True),
    "JPEG with a thumbnail": lambda: with_thumbnail(saved(noise(), "JPEG")),
    "PNG": lambda: saved(noise()),
    "interlaced palette PNG": lambda: saved(noise().quantize(16)),
    "GIF": lambda: saved(noise().quantize(64), "GIF"),
    "animated GIF": lambda: saved(noise().quantize(64), "GIF", save_all=True, append_images=[picture(96, 96)]),
    "WEBP": lambda: saved(noise(), "WEBP"),
    "animated WEBP": lambda: saved(noise(), "WEBP", save_all=True, append_images=[picture(96, 96)]),
    "animated PNG": lambda: saved(noise(), "PNG", save_all=True, append_images=[picture(96, 96)]),
    "BMP": lambda: saved(noise(), "BMP"),
    "TIFF": lambda: saved(noise(), "TIFF"),
    "AVIF": lambda: saved(noise(), "AVIF", speed=10),
}


def with_thumbnail(jpeg: bytes) -> bytes:
    """A camera's JPEG holds a whole small JPEG, with its own end marker, in its EXIF."""
    body = exif(1) + saved(picture(32, 32), "JPEG")
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.mark.parametrize("name", WHOLE_FILES)
def test_a_file_cut_anywhere_is_rejected_and_never_half_filled(name: str) -> None:
    content = WHOLE_FILES[name]()
    decode_image(content)
    lengths = {*range(1, len(content), max(1, len(content) // 40)), *range(len(content) - 12, len(content))}
    for length in sorted(lengths):
        reason = rejection(content[:length])
        assert reason.startswith(("truncated", "damaged", "not an image", "too small")), (length, reason)


def test_a_cut_jpeg_is_called_truncated() -> None:
    content = saved(picture(), "JPEG")
    assert rejection(content[: len(content) // 2]) == "truncated JPEG"
    assert rejection(content[:-2]) == "truncated JPEG"


@pytest.mark.parametrize(
    "name",
    [name for name in WHOLE_FILES if name not in ("BMP", "TIFF")],  # their zeros may be black pixels
)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_a_download_whose_end_was_never_filled_is_rejected(name: str, share: float) -> None:
    content = WHOLE_FILES[name]()
    reason = rejection(content[: int(len(content) * share)] + bytes(len(content) + 20_000))
    assert reason.startswith(("truncated", "damaged"))


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 4}, {"subsampling": 0}])
@pytest.mark.parametrize(("mode", "side"), [("RGB", 96), ("L", 101), ("CMYK", 101), ("RGB", 1100)])
def test_a_cut_jpeg_is_rejected_even_where_an_end_marker_was_put_behind_it(
    options: dict[str, int], mode: str, side: int
) -> None:
    content = saved(picture(side, side).convert(mode), "JPEG", quality=85, **options)
    start, end = content.index(b"\xff\xda") + 20, len(content) - 2
    for length in np.linspace(start, end - 30, 12, dtype=int):
        assert rejection(content[:length].rstrip(b"\xff") + b"\xff\xd9") == "truncated JPEG", length


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}])
def test_a_whole_jpeg_that_ends_in_mid_grey_is_accepted(options: dict[str, int]) -> None:
    grey = picture(200, 200)
    grey.paste((128, 128, 128), (60, 60, 200, 200))
    assert (decode_image(saved(grey, "JPEG", **options))[-10:, -10:] == 128).all()


def test_a_png_with_a_flipped_bit_is_rejected() -> None:
    content = bytearray(saved(noise()))
    content[len(content) // 2] ^= 4
    assert rejection(bytes(content)) == "damaged PNG (wrong checksum of IDAT)"


def test_bytes_behind_a_whole_image_do_no_harm() -> None:
    for name, make in WHOLE_FILES.items():
        assert (decode_image(make() + bytes(10)) == decode_image(make())).all(), name


def test_random_damage_is_an_image_or_a_rejection_never_another_error() -> None:
    rng = np.random.default_rng(5)
    for make in WHOLE_FILES.values():
        content = np.frombuffer(make(), np.uint8)
        for _ in range(15):
            damaged = content.copy()
            damaged[rng.integers(0, min(len(content), 400), 4)] = rng.integers(0, 255, 4)
            try:
                array = decode_image(damaged.tobytes(), max_pixels=1_000_000)
            except RejectedImage:
                continue
            assert array.shape == (128, 128, 3)


# Files that are no image


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (bytes(5000), "not an image (only zero bytes)"),
        (b"\n<!DOCTYPE html><html><body>Please log in</body></html>", "not an image (HTML)"),
        (b"<!-- saved -->\n<HTML>", "not an image (HTML)"),
        (b'{"error": "quota exceeded"}', "not an image (text)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "not an image (text)"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "a drawing (SVG), not a photograph"),
        (b"PK\x03\x04" + bytes(40), "not an image (an archive)"),
        (b"%PDF-1.7 ", "not an image (PDF)"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC, which is not supported; convert it to JPEG or PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
        (b"\x01\x02\x03\x04" * 10, "not an image"),
    ],
)
def test_what_is_no_image_is_named(content: bytes, reason: str) -> None:
    assert rejection(content) == reason


# Limits


def test_too_many_bytes_are_refused_before_reading_and_before_decoding(tmp_path: Path) -> None:
    content = saved(picture())
    assert rejection(content, max_bytes=100) == f"too many bytes ({len(content):,}, the limit is 100)"
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(10**12)  # a sparse terabyte
    with pytest.raises(RejectedImage, match=r"too many bytes \(1,000,000,000,000"):
        read_image(tmp_path / "huge.png")


def bomb(format_: str) -> bytes:
    """A few bytes that promise some 10**9 pixels."""
    small = bytearray(saved(picture(64, 64), "JPEG" if format_ == "JPEG" else format_))
    if format_ == "PNG":
        return (
            bytes(small[:8])
            + chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
            + bytes(small[33:])
        )
    if format_ == "JPEG":
        at = small.index(b"\xff\xc0")
        small[at + 5 : at + 9] = struct.pack(">HH", 50_000, 50_000)
    elif format_ == "GIF":
        small[6:10] = struct.pack("<HH", 50_000, 50_000)
    elif format_ == "BMP":
        small[18:26] = struct.pack("<ii", 50_000, 50_000)
    elif format_ == "WEBP":
        large = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (49_999).to_bytes(3, "little") * 2
        return b"RIFF" + struct.pack("<I", len(small) - 8 + len(large)) + b"WEBP" + large + bytes(small[12:])
    elif format_ == "TIFF":
        return (
            saved(picture(64, 64), "TIFF")
            .replace(struct.pack("<HHIHH", 256, 4, 1, 64, 0), struct.pack("<HHII", 256, 4, 1, 50_000))
            .replace(struct.pack("<HHIHH", 257, 4, 1, 64, 0), struct.pack("<HHII", 257, 4, 1, 50_000))
        )
    return bytes(small)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_decompression_bomb_is_refused_by_its_header_without_a_warning(format_: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rejection(bomb(format_)) == "too many pixels (50000×50000, the limit is 100,000,000)"
        with pytest.raises(RejectedImage, match="too many pixels"):
            inspect_image(bomb(format_))


def test_the_pixel_limit_is_the_callers() -> None:
    content = saved(picture(100, 100))
    assert decode_image(content, max_pixels=10_000).shape == (128, 128, 3)
    assert rejection(content, max_pixels=9_999) == "too many pixels (100×100, the limit is 9,999)"


def test_pillows_own_limit_neither_counts_nor_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (decode_image(saved(picture())) == REFERENCE).all()
    assert Image.MAX_IMAGE_PIXELS == 100


def test_refuses_to_work_where_pillow_was_told_to_fill_cut_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RuntimeError, match="LOAD_TRUNCATED_IMAGES"):
        decode_image(saved(picture()))


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    content = saved(picture(), "JPEG", progressive=True)
    last_scan = content.rindex(b"\xff\xda")
    attack = content[:-2] + content[last_scan:-2] * 2000 + content[-2:]
    assert "scans" in rejection(attack)


def test_a_tracking_pixel_is_no_face() -> None:
    assert rejection(saved(Image.new("RGB", (1, 1)))) == "too small (1×1 pixels)"
