"""Bytes of image files to pixels."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakeface.images.decoding import decode_full_size, decode_image, inspect_image, read_decoder_source, read_image
from fakeface.images.preprocessing import Crop, Reencoding
from fakeface.images.validation import RejectedImage
from tests.support.image_bytes import CENTRE, REFERENCE, chunk, difference, exif, picture, rejection, saved
from tests.support.imports import find_module, imported_modules

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
