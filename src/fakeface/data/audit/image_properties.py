"""What can be told of a picture without looking at the face: how its file was saved, its colours, border and sharpness.

All facts are numbers, so that a plain classifier can be tried on them; one that a file does not have is NaN.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fakeface.images.decoding import decode_full_size, inspect_image
from fakeface.images.jpeg_metadata import SUBSAMPLINGS
from fakeface.images.validation import MAX_BYTES, MAX_PIXELS

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")
PICTURE_BANDS = 8  # of the reduced picture, in equal steps up to the finest pattern that its pixels can hold
FULL_SIZE_BANDS = 6  # of the full-size picture
TILE = 256  # pixels a side, at most, of the middle piece whose sharpness is measured at full size

_GREY_TOLERANCE = 8  # levels between the channels of a pixel; JPEG leaves up to some 5 in a grey picture saved as RGB
_GREY_SHARE = 0.99  # of the pixels; a stamp or a date in colour does not make a grey photograph a colour one
_BLACK = 16  # levels; a black bar after JPEG stays below
_BORDER = 32  # the border is this part of the shorter side
_BLOCK = 8  # pixels, the side of a JPEG block
_EMPTY = 1e-2  # power of a band without any pattern; rounding to whole levels leaves about 0.1


class FileProperties(NamedTuple):
    """Facts of a file and of its picture in full size."""

    format: float  # number in FORMATS
    width: float  # pixels, as stored
    height: float
    bytes: float
    bytes_per_pixel: float
    jpeg_quality: float  # 1 to 100, jpeg_metadata.jpeg_quality
    jpeg_divisor: float  # mean of the quantisation divisors
    subsampling: float  # of a JPEG's colour, number in jpeg_metadata.SUBSAMPLINGS
    progressive: float  # 1 or 0
    file_grey: float  # 1 where the pixels have no colour, however they are stored
    file_red: float  # mean, 0 to 255
    file_green: float
    file_blue: float
    file_border_red: float  # mean of the border
    file_border_green: float
    file_border_blue: float
    file_black_border: float  # share of the border that is black, 0 to 1
    # log10 of the power in bands of 0 to 0.5 cycles a pixel, in the middle of the picture
    full_band_1: float
    full_band_2: float
    full_band_3: float
    full_band_4: float
    full_band_5: float
    full_band_6: float


class PixelProperties(NamedTuple):
    """Facts of the square that the network sees."""

    grey: float  # as above
    red: float
    green: float
    blue: float
    contrast: float  # standard deviation of the luminance, levels
    border_red: float
    border_green: float
    border_blue: float
    black_border: float
    blockiness: float  # steps of luminance at the edges of 8×8 blocks over steps elsewhere; 1 without blocks
    slope: float  # of log power over log frequency; the lower, the softer the picture
    # log10 of the power in bands of 0 to 0.5 cycles a pixel
    band_1: float
    band_2: float
    band_3: float
    band_4: float
    band_5: float
    band_6: float
    band_7: float
    band_8: float


def measure_file(content: bytes, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> FileProperties:
    """Measure an image file; raise validation.RejectedImage for one that is no whole image within the limits."""
    header = inspect_image(content, max_bytes=max_bytes, max_pixels=max_pixels)
    pixels = decode_full_size(content, max_bytes=max_bytes, max_pixels=max_pixels)
    side = min(TILE, *pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    tile = _compute_luminance(pixels[top : top + side, left : left + side])
    return FileProperties(
        FORMATS.index(header.format),
        header.width,
        header.height,
        len(content),
        len(content) / (header.width * header.height),
        _nan_if_none(header.jpeg_quality),
        _nan_if_none(header.jpeg_divisor),
        float("nan") if header.subsampling is None else SUBSAMPLINGS.index(header.subsampling),
        header.progressive,
        is_grey(pixels),
        *_average_colour(pixels),
        *_measure_border(pixels),
        *compute_power_spectrum(tile, FULL_SIZE_BANDS),
    )


def measure_pixels(pixels: NDArray[np.uint8]) -> PixelProperties:
    """Measure a decoded square, uint8 RGB (size, size, 3)."""
    luminance = _compute_luminance(pixels)
    bands = compute_power_spectrum(luminance, PICTURE_BANDS)
    return PixelProperties(
        is_grey(pixels),
        *_average_colour(pixels),
        float(luminance.std()),
        *_measure_border(pixels),
        measure_blockiness(luminance),
        _fit_slope(bands),
        *bands,
    )


def _nan_if_none(value: float | None) -> float:
    return float("nan") if value is None else value


def is_grey(pixels: NDArray[np.uint8]) -> bool:
    """Tell whether 99 % of the pixels, uint8 RGB, have channels that differ by 8 levels at most."""
    red, green, blue = (pixels[..., channel] for channel in range(3))
    highest, lowest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return bool((highest - lowest <= _GREY_TOLERANCE).mean() >= _GREY_SHARE)


def _average_colour(pixels: NDArray[np.uint8]) -> tuple[float, float, float]:
    red, green, blue = (float(pixels[..., channel].mean()) for channel in range(3))
    return red, green, blue


def _measure_border(pixels: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Mean red, green and blue of the outermost frame, and the share of it that is black."""
    width = max(1, min(pixels.shape[:2]) // _BORDER)
    inside = pixels[width:-width]
    frame = np.concatenate(
        [part.reshape(-1, 3) for part in (pixels[:width], pixels[-width:], inside[:, :width], inside[:, -width:])]
    )
    return *_average_colour(frame), float((frame.max(axis=1) <= _BLACK).mean())


def _compute_luminance(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Luma of ITU-R BT.601."""
    red, green, blue = (pixels[..., channel].astype(np.float32) for channel in range(3))
    luminance: NDArray[np.float32] = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    return luminance


def measure_blockiness(luminance: NDArray[np.float32]) -> float:
    """Mean step of luminance (H, W) across the edges of JPEG's 8×8 blocks, over the mean step elsewhere.

    The two terms of Wang, Sheikh and Bovik, "No-reference perceptual quality assessment of JPEG compressed images",
    ICIP 2002, as a ratio. 1 where neither is larger; the grid is looked for at the picture's own corner only.
    """
    at_edges, elsewhere = [], []
    for axis in (0, 1):
        steps = np.abs(np.diff(luminance, axis=axis)).mean(axis=1 - axis, dtype=np.float64)
        edge = np.arange(1, len(steps) + 1) % _BLOCK == 0
        at_edges.append(steps[edge])
        elsewhere.append(steps[~edge])
    return float((np.concatenate(at_edges).mean() + 0.01) / (np.concatenate(elsewhere).mean() + 0.01))


def compute_power_spectrum(luminance: NDArray[np.float32], bands: int) -> list[float]:
    """Return log10 of the mean power of a square (S, S) in `bands` rings of equal width, 0 to 0.5 cycles a pixel.

    The mean is taken off, a Hann window keeps the picture's edges from counting as patterns, and power is a pixel's:
    white noise of variance v has v in every band, whatever S is.
    """
    from scipy.fft import rfft2

    window, order, starts = _number_rings(len(luminance), bands)
    power = np.abs(rfft2((luminance - luminance.mean()) * window)) ** 2
    sums = np.add.reduceat(power.ravel()[order].astype(np.float64), starts)
    means = sums[:bands] / np.diff(np.append(starts, len(order)))[:bands]
    return np.log10(means + _EMPTY).tolist()  # type: ignore[no-any-return]


@lru_cache
def _number_rings(size: int, bands: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """A window whose square adds up to 1, the frequencies sorted by ring, and where each ring begins.

    The corners beyond 0.5 are the last ring; the constant is in none, so it comes first and is left out.
    """
    hann = np.hanning(size + 2)[1:-1]
    window = np.outer(hann, hann)
    radius = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    ring = np.minimum((radius * 2 * bands).astype(int), bands).ravel()
    order = np.argsort(ring, kind="stable")[1:]
    starts = np.searchsorted(ring[order], np.arange(bands + 1))
    return (window / np.sqrt((window**2).sum())).astype(np.float32), order, starts


def _fit_slope(bands: list[float]) -> float:
    frequencies = np.log10((np.arange(len(bands)) + 0.5) / (2 * len(bands)))
    return float(np.polyfit(frequencies, bands, 1)[0])
