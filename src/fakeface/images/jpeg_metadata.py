"""What a JPEG file's header tells of the way it was saved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0", "4:4:0", "4:1:1", "other", "grey")


def estimate_jpeg_quality(luminance_table: Sequence[int]) -> int:
    """Quality (1 to 100) whose standard luminance table is nearest to this one of 64 divisors in row order.

    Exact for encoders that scale the table of ITU-T T.81 Annex K.1 as the Independent JPEG Group's libjpeg does
    (`jpeg_quality_scaling` in jcparam.c); an estimate for the others, such as Photoshop.
    """
    return int(np.abs(_STANDARD_TABLES - np.asarray(luminance_table)).sum(axis=1).argmin()) + 1


def name_subsampling(factors: Sequence[tuple[int, int]]) -> str:
    """How much resolution the colour has, one of SUBSAMPLINGS.

    Args:
        factors: of each component, luminance first, the horizontal and vertical sampling factor of the frame header
            (ITU-T T.81, B.2.2).
    """
    if len(factors) < 3:
        return "grey"
    named: dict[tuple[float, float], str]
    named = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}
    ratios = {(factors[0][0] / across, factors[0][1] / down) for across, down in factors[1:3]}
    return named.get(ratios.pop(), "other") if len(ratios) == 1 else "other"


def _build_standard_tables() -> NDArray[np.int64]:
    # ITU-T T.81 (1992), table K.1: luminance quantisation.
    base = np.array(
        [
            [16, 11, 10, 16, 24, 40, 51, 61],
            [12, 12, 14, 19, 26, 58, 60, 55],
            [14, 13, 16, 24, 40, 57, 69, 56],
            [14, 17, 22, 29, 51, 87, 80, 62],
            [18, 22, 37, 56, 68, 109, 103, 77],
            [24, 35, 55, 64, 81, 104, 113, 92],
            [49, 64, 78, 87, 103, 121, 120, 101],
            [72, 92, 95, 98, 112, 100, 103, 99],
        ]
    ).ravel()
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    tables: NDArray[np.int64] = np.clip((base * scale[:, None] + 50) // 100, 1, 255)
    return tables


_STANDARD_TABLES = _build_standard_tables()
