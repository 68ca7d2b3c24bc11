"""Crops, as params.yaml names them."""

from __future__ import annotations

import pytest

from fakeface.images.preprocessing import Crop
from fakeface.system.errors import UserError


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
