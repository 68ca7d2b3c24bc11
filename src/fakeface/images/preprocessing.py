"""What is done to an upright picture before it becomes an array: which part of it, and through which compression."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from fakeface.system.errors import UserError


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


class Limits(NamedTuple):
    """What is set aside undecoded."""

    max_bytes: int
    max_pixels: int
