from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fakeface.data.audit.image_properties import (
    FORMATS,
    PICTURE_BANDS,
    FileProperties,
    compute_power_spectrum,
    is_grey,
    measure_file,
    measure_pixels,
)
from tests.support.image_folders import picture


def saved(image: Image.Image, form: str = "JPEG", **settings: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()


def noise(side: int, spread: float = 20) -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(128, spread, (side, side)).astype(np.float32)


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_jpeg_quality_and_size_are_those_it_was_saved_with(quality: int) -> None:
    content = saved(picture(1, 200).resize((200, 160)), quality=quality)
    facts = measure_file(content)
    assert (facts.jpeg_quality, facts.width, facts.height, facts.bytes) == (quality, 200, 160, len(content))
    assert facts.bytes_per_pixel == pytest.approx(len(content) / 32_000)
    assert FORMATS[int(facts.format)] == "JPEG"


def test_what_only_a_jpeg_has_is_unknown_of_a_png() -> None:
    facts = measure_file(saved(picture(1), "PNG"))
    assert FORMATS[int(facts.format)] == "PNG"
    assert np.isnan([facts.jpeg_quality, facts.jpeg_divisor, facts.subsampling]).all()


@pytest.mark.parametrize(("settings", "index"), [("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2)])
def test_chroma_subsampling_and_scans(settings: str, index: int) -> None:
    assert measure_file(saved(picture(1), subsampling=settings)).subsampling == index
    assert [measure_file(saved(picture(1), progressive=on)).progressive for on in (False, True)] == [0, 1]


def test_grey_is_told_by_the_pixels_not_by_the_mode() -> None:
    grey = picture(3, 100).convert("L")
    for content in (saved(grey), saved(grey.convert("RGB"), quality=40), saved(grey.convert("P"), "PNG")):
        assert measure_file(content).file_grey == 1
    assert measure_file(saved(picture(3, 100))).file_grey == 0
    assert measure_file(saved(grey))._replace(file_grey=0) != measure_file(saved(picture(3, 100)))
    stamped = np.array(grey.convert("RGB"))
    stamped[:5, :5] = (255, 0, 0)
    assert is_grey(stamped)


def test_a_black_border_is_measured_and_a_colour_is_the_pictures() -> None:
    pixels = np.full((128, 128, 3), (200, 100, 50), np.uint8)
    assert measure_pixels(pixels)[:4] == (0, 200, 100, 50)
    assert measure_pixels(pixels).black_border == 0
    pixels[:, :8] = pixels[:, -8:] = 0
    facts = measure_pixels(pixels)
    # The frame is 4 wide: 2·4·128 rows and 2·4·120 columns; the columns and the ends of the rows are black.
    assert facts.black_border == pytest.approx((2 * 4 * 120 + 2 * 4 * 16) / (2 * 4 * 128 + 2 * 4 * 120))
    file = measure_file(saved(Image.fromarray(pixels), quality=90))
    assert file.file_black_border == pytest.approx(facts.black_border, abs=0.02)


def test_white_noise_has_its_variance_in_every_band() -> None:
    for side in (100, 128, 256):
        assert compute_power_spectrum(noise(side), PICTURE_BANDS) == pytest.approx(
            [np.log10(400)] * PICTURE_BANDS, abs=0.25
        )


def test_a_softer_picture_has_less_detail_and_a_steeper_slope() -> None:
    sharp = Image.fromarray(noise(128).clip(0, 255).astype(np.uint8)).convert("RGB")
    soft = sharp.resize((64, 64), Image.Resampling.LANCZOS).resize((128, 128), Image.Resampling.LANCZOS)
    of_sharp, of_soft = (measure_pixels(np.array(image)) for image in (sharp, soft))
    assert of_soft.band_8 < of_sharp.band_8 - 1
    assert of_soft.band_1 == pytest.approx(of_sharp.band_1, abs=0.1)
    assert of_soft.slope < of_sharp.slope - 0.5


def test_blocks_of_a_low_quality_are_seen_where_they_are() -> None:
    image = picture(5, 128)
    low, high = (np.array(Image.open(io.BytesIO(saved(image, quality=quality)))) for quality in (8, 95))
    assert measure_pixels(low).blockiness > 1.5
    assert measure_pixels(high).blockiness == pytest.approx(1, abs=0.1)


def test_an_upright_picture_is_measured_whatever_its_exif_says() -> None:
    image = picture(2, 64).resize((64, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    facts = [measure_file(saved(image, exif=turned)) for turned in (Image.Exif(), exif)]
    blue = FileProperties._fields.index("file_blue")
    assert facts[0][blue] == pytest.approx(facts[1][blue])
