"""What the header of an image file tells."""

from __future__ import annotations

import pytest

from fakeface.images.decoding import inspect_image
from fakeface.images.validation import RejectedImage
from tests.support.image_bytes import exif, picture, saved


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
