from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFile

from fakeface.images.decoding import decode_full_size, decode_image, inspect_image, read_decoder_source, read_image
from fakeface.images.preprocessing import Crop, Reencoding
from fakeface.images.validation import MAX_BYTES, MAX_PIXELS, RejectedImage
from fakeface.system.errors import UserError
from tests.support.imports import find_module, imported_modules

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


# What comes out


def test_gives_a_square_rgb_array_that_its_owner_may_write() -> None:
    image = decode_image(saved(picture(200, 300)), 64)
    assert image.shape == (64, 64, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    image[:] = 0


def test_a_picture_of_the_wanted_size_is_passed_through_unchanged() -> None:
    source = picture(128, 128)
    assert (decode_image(saved(source)) == np.asarray(source)).all()


@pytest.mark.parametrize(
    ("format", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 98, "subsampling": 0}, 8),
        ("JPEG", {"quality": 98, "subsampling": 0, "progressive": True}, 8),
        ("WEBP", {"quality": 98}, 25),
        ("AVIF", {"quality": 98, "subsampling": "4:4:4"}, 12),
    ],
)
def test_every_format_gives_the_same_picture(format: str, options: dict[str, object], tolerance: int) -> None:  # noqa: A002
    content = saved(picture(), format, **options)
    assert difference(decode_image(content), REFERENCE) <= tolerance
    assert inspect_image(content).format == format


def test_a_progressive_jpeg_decodes_as_the_sequential_one() -> None:
    plain, progressive = (saved(picture(), "JPEG", quality=80, progressive=flag) for flag in (False, True))
    assert plain != progressive
    assert (decode_image(plain) == decode_image(progressive)).all()


def test_the_format_is_told_by_the_bytes_not_the_name(tmp_path: Path) -> None:
    (tmp_path / "face.jpg").write_bytes(saved(picture()))
    assert (read_image(tmp_path / "face.jpg") == REFERENCE).all()


# Colours


def test_a_greyscale_picture_has_three_equal_channels() -> None:
    grey = picture().convert("L")
    for content in (saved(grey), saved(grey, "TIFF"), saved(grey.convert("RGB"))):
        image = decode_image(content)
        assert (image[..., 0] == image[..., 1]).all()
        assert (image[..., 0] == image[..., 2]).all()
        assert difference(image, decode_image(saved(grey))) == 0


def test_black_and_white_pixels_become_0_and_255() -> None:
    half = Image.new("1", (128, 128))
    half.paste(1, (64, 0, 128, 128))
    image = decode_image(saved(half))
    assert (image[:, :60] == 0).all()
    assert (image[:, 68:] == 255).all()


def test_a_palette_gives_its_colours() -> None:
    flat = Image.new("P", (128, 128), 1)
    flat.putpalette([0, 0, 0, 10, 120, 250])
    for format_ in ("PNG", "GIF", "BMP"):
        assert (decode_image(saved(flat, format_)) == (10, 120, 250)).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparent_pixels_lie_on_white_and_never_show_what_is_hidden_under_them(mode: str) -> None:
    hidden = Image.new("RGBA", (256, 256), (200, 0, 0, 0))
    hidden.paste((0, 0, 0, 255), (0, 0, 256, 128))
    if mode == "P":
        image = Image.new("P", (256, 256), 1)
        image.putpalette([0, 0, 0, 200, 0, 0])
        image.paste(0, (0, 0, 256, 128))
        content = saved(image, transparency=1)
    elif mode == "RGB":
        content = saved(hidden.convert("RGB"), transparency=(200, 0, 0))
    else:
        content = saved(hidden.convert(mode))
    array = decode_image(content)
    assert (array[:60] == 0).all()
    assert (array[68:] == 255).all()
    assert (array[..., 0] == array[..., 1]).all()  # no red fringe on the edge


def test_half_transparent_black_on_white_is_grey() -> None:
    assert (
        difference(
            decode_image(saved(Image.new("RGBA", (128, 128), (0, 0, 0, 128)))), np.full((128, 128, 3), 127, np.uint8)
        )
        <= 1
    )


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_16_bit_greyscale_is_scaled_not_clipped(format_: str) -> None:
    ramp = np.repeat(np.linspace(0, 65535, 128).astype(np.uint16)[None], 128, axis=0)
    image = decode_image(saved(Image.fromarray(ramp), format_))
    assert difference(image, np.repeat((ramp >> 8).astype(np.uint8)[..., None], 3, axis=-1)) == 0


def test_16_bit_colour_keeps_the_high_byte() -> None:
    rows = np.full((128, 128, 3), (0x12FF, 0x8000, 0xFE01), ">u2")
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 128, 128, 16, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    assert (decode_image(content) == (0x12, 0x80, 0xFE)).all()


def test_32_bit_values_are_rejected_because_their_white_is_unknown() -> None:
    assert "white is unknown" in rejection(saved(Image.new("F", (128, 128), 0.5), "TIFF"))


def test_cmyk_is_read_inverted_with_adobes_marker_and_plain_without() -> None:
    cmyk = Image.new("CMYK", (128, 128), (255, 0, 0, 0))  # cyan ink
    adobe = saved(cmyk, "JPEG", quality=95)
    at = adobe.index(b"\xff\xee")
    length = struct.unpack_from(">H", adobe, at + 2)[0]
    unmarked = adobe[:at] + adobe[at + 2 + length :]
    for content in (adobe, saved(cmyk, "TIFF")):
        assert difference(decode_image(content), np.full((128, 128, 3), (0, 255, 255), np.uint8)) <= 3
    # the same bytes without the marker mean the opposite amounts of ink: no cyan, full magenta, yellow and black
    assert decode_image(unmarked).max() <= 3


# Orientation, crop, reduction


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation_is_applied(orientation: int, order: str) -> None:
    upright = picture(240, 160)
    stored_from_upright = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }
    stored = stored_from_upright[orientation]
    for crop in (Crop(), Crop(0.7)):
        expected = decode_image(saved(upright), crop=crop)
        for content in (
            saved(stored, exif=exif(orientation, order)),
            saved(stored, "WEBP", lossless=True, exif=exif(orientation, order)),
        ):
            assert inspect_image(content).orientation == orientation
            assert (decode_image(content, crop=crop) == expected).all()
    jpeg = saved(stored, "JPEG", quality=98, subsampling=0, exif=exif(orientation, order))
    assert difference(decode_image(jpeg), decode_image(saved(upright))) <= 10


def test_orientation_in_a_tiff_and_behind_the_pixels_of_a_png() -> None:
    upright = picture(240, 160)
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    tiff = saved(stored, "TIFF", tiffinfo={274: 6})
    assert (decode_image(tiff) == decode_image(saved(upright))).all()
    png = saved(stored)
    late = png[:-12] + chunk(b"eXIf", exif(6).removeprefix(b"Exif\0\0")) + png[-12:]
    assert (decode_image(late) == decode_image(saved(upright))).all()


@pytest.mark.parametrize(
    "body", [b"", b"Exif", b"Exif\0\0II*\0\xff\xff\xff\x7f", exif(6)[:20], exif(9), b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_unreadable_exif_means_upright_and_nothing_is_printed(body: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jpeg = saved(picture(), "JPEG", quality=95)
        damaged = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]
        assert (decode_image(damaged) == decode_image(jpeg)).all()


@pytest.mark.parametrize(
    ("text", "crop", "box"),
    [
        ("whole", Crop(), (0, 0, 300, 200)),
        ("centre", Crop(1.0), (50, 0, 250, 200)),
        ("centre 0.6", Crop(0.6), (90, 40, 210, 160)),
        (" centre  .5 ", Crop(0.5), (100, 50, 200, 150)),
    ],
)
def test_crop_is_read_from_text(text: str, crop: Crop, box: tuple[int, int, int, int]) -> None:
    assert Crop.parse(text) == crop
    assert Crop.parse(str(crop)) == crop
    assert crop.box(300, 200) == box


@pytest.mark.parametrize("text", ["", "center", "centre 0", "centre 1.1", "centre -1", "centre x", "whole 0.5", "0.5"])
def test_a_misspelt_crop_is_one_clear_sentence(text: str) -> None:
    with pytest.raises(UserError, match=r"^The crop"):
        Crop.parse(text)


def test_centre_crop_takes_the_pixels_it_names() -> None:
    source = picture(300, 200)
    array = decode_image(saved(source), 100, Crop(0.5))
    assert (array == np.asarray(source.crop((100, 50, 200, 150)))).all()


def test_whole_keeps_all_four_corners_of_a_wide_picture() -> None:
    source = Image.new("RGB", (400, 200))
    for corner, colour in (((0, 0), "red"), ((300, 0), "lime"), ((0, 100), "blue"), ((300, 100), "white")):
        source.paste(colour, (*corner, corner[0] + 100, corner[1] + 100))
    array = decode_image(saved(source))
    assert [tuple(array[y, x]) for y, x in ((5, 5), (5, 122), (122, 5), (122, 122))] == [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
    ]


@pytest.mark.parametrize("side", [200, 250, 256, 300, 513])
@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_detail_finer_than_the_result_is_averaged_away_at_every_source_size(side: int, format_: str) -> None:
    stripes = np.zeros((side, side, 3), np.uint8)
    stripes[:, ::2] = 255  # nearest-neighbour and plain bilinear reduction turn these into bands
    array = decode_image(saved(Image.fromarray(stripes), format_))
    assert array[:, 4:-4].std() < 6
    assert abs(array.mean() - 127.5) < 6


@pytest.mark.parametrize(
    ("width", "height", "crop"), [(1024, 1024, Crop()), (2100, 1043, CENTRE), (1100, 2100, Crop(0.95))]
)
def test_a_large_jpeg_is_close_to_its_full_decode(width: int, height: int, crop: Crop) -> None:
    rng = np.random.default_rng(1)
    noisy = np.clip(np.asarray(picture(width, height)) + rng.normal(0, 12, (height, width, 3)), 0, 255)
    content = saved(Image.fromarray(noisy.astype(np.uint8)), "JPEG", quality=92)
    full = Image.open(io.BytesIO(content)).resize((128, 128), Image.Resampling.LANCZOS, box=crop.box(width, height))
    errors = np.abs(decode_image(content, crop=crop).astype(int) - np.asarray(full).astype(int))
    assert errors.mean() < 0.5
    assert np.percentile(errors, 99) <= 2
    assert errors.max() <= 12


# Animations and several pages: the first frame


def test_reencoding_brings_pictures_to_one_size_and_quality_behind_the_crop() -> None:
    content, how = saved(picture(300, 200)), Reencoding(quality=30, size=90)
    again = saved(Image.fromarray(decode_image(content, how.size, CENTRE)), "JPEG", quality=30, subsampling="4:2:0")
    np.testing.assert_array_equal(decode_image(content, 64, CENTRE, reencoding=how), decode_image(again, 64))
    assert difference(decode_image(content, 64, CENTRE, reencoding=how), decode_image(content, 64, CENTRE)) > 8


def test_the_full_size_picture_is_upright_and_uncropped() -> None:
    content = saved(picture(60, 40), "JPEG", exif=exif(6))
    assert decode_full_size(content).shape == (60, 40, 3)
    png = picture(60, 40)
    np.testing.assert_array_equal(decode_full_size(saved(png)), np.asarray(png))


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (128, 128), colour) for colour in ("red", "lime", "blue")]
    for format_, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        content = saved(frames[0], format_, save_all=True, append_images=frames[1:], **options)
        assert (decode_image(content) == (255, 0, 0)).all(), format_


# Files that are not whole


def noise(side: int = 96) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 255, (side, side, 3), dtype=np.uint8))


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


# Files and processes


def test_reading_leaves_system_errors_to_the_caller(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path)


def test_a_pipe_is_rejected_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(RejectedImage, match="not a regular file"):
        read_image(tmp_path / "pipe.jpg")


def test_a_file_equals_its_bytes_whatever_its_name(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/line\nbreak \xff.jpg"
    content = saved(picture(300, 280), "JPEG")
    Path(os.fsdecode(path)).write_bytes(content)
    assert (read_image(os.fsdecode(path), 64, CENTRE) == decode_image(content, 64, CENTRE)).all()


def test_a_rejection_travels_between_processes() -> None:
    copy = pickle.loads(pickle.dumps(RejectedImage("truncated JPEG")))
    assert (type(copy), copy.reason) == (RejectedImage, "truncated JPEG")


def test_threads_get_what_one_thread_gets() -> None:
    contents = [saved(picture(200 + i, 200, seed=i), "JPEG", exif=exif(1 + i % 8)) for i in range(24)]
    alone = [decode_image(content) for content in contents]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(decode_image, contents))
    assert all((a == b).all() for a, b in zip(alone, together, strict=True))


def test_the_decoder_does_not_load_tensorflow() -> None:
    code = "import sys, fakeface.images.decoding; sys.exit('tensorflow' in sys.modules or 'cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_decoder_code_holds_every_module_that_decides_pixels() -> None:
    code, decoder = read_decoder_source(), find_module("fakeface.images.decoding")
    assert decoder is not None
    decides_no_pixel = {"__init__.py", "errors.py"}
    for module in imported_modules(decoder) | {decoder}:
        if module.name not in decides_no_pixel:
            assert module.read_text(encoding="utf-8") in code, module


# Facts for the audit


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 90, 95, 100])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_quality_is_found_again(quality: int, progressive: bool) -> None:
    assert inspect_image(saved(picture(), "JPEG", quality=quality, progressive=progressive)).jpeg_quality == quality


def test_facts_come_from_the_header_alone() -> None:
    content = saved(picture(300, 200).convert("L"), "JPEG", exif=exif(6), quality=60)
    end_of_header = content.index(b"\xff\xda") + 20
    facts = inspect_image(content[:end_of_header] + b"\xff\xd9")
    assert (facts.width, facts.height, facts.format, facts.mode) == (300, 200, "JPEG", "L")
    assert (facts.greyscale, facts.orientation, facts.jpeg_quality) == (True, 6, 60)


def test_facts_of_a_colour_png() -> None:
    facts = inspect_image(saved(picture(30, 20).convert("RGBA")))
    assert (facts.width, facts.height, facts.format, facts.mode) == (30, 20, "PNG", "RGBA")
    assert (facts.greyscale, facts.orientation, facts.jpeg_quality) == (False, 1, None)


def test_facts_of_a_broken_file_are_a_rejection() -> None:
    with pytest.raises(RejectedImage, match="empty file"):
        inspect_image(b"")
