"""What both classes share after a picture is formed: tone curve, 8 bits, JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .noise_fields import Picture

QUALITIES = range(80, 93)
FULL_CHROMA_EVERY = 5  # one in so many images keeps its colour at full resolution (4:4:4)


@dataclass(frozen=True)
class Development:
    """Random settings of one picture, drawn alike for both classes."""

    exposure: float
    white_balance: tuple[float, float, float]
    contrast: float
    quality: int
    subsampling: int  # Pillow's code: 0 is 4:4:4, 2 is 4:2:0


def random_development(rng: np.random.Generator, index: int) -> Development:
    """Draw exposure, white balance and contrast; JPEG settings take turns, so that all sources share them alike."""
    warm, green = rng.normal(0, 0.05), rng.normal(0, 0.02)
    return Development(
        exposure=float(np.exp(rng.normal(0.15, 0.22))),
        white_balance=(1.0 + warm, 1.0 + green, 1.0 - warm),
        contrast=float(rng.uniform(-0.1, 0.5)),
        quality=QUALITIES[index * 5 % len(QUALITIES)],
        subsampling=0 if index // len(QUALITIES) % FULL_CHROMA_EVERY == 0 else 2,
    )


def toned(picture: Picture, development: Development) -> Picture:
    """Linear light to display values 0..1: white balance, a soft shoulder, gamma 2.2 and an S-curve."""
    light = np.clip(picture, 0.0, None) * development.exposure * np.array(development.white_balance)
    light = light * (1.0 + 0.25 * light) / (1.0 + light * 0.85)
    display = np.clip(light, 0.0, 1.0) ** (1.0 / 2.2)
    result: Picture = display + development.contrast * (display * display * (3.0 - 2.0 * display) - display)
    return result


def jpeg(picture: Picture, development: Development) -> bytes:
    """Display values 0..1 as JPEG bytes without metadata."""
    pixels = np.floor(np.clip(picture, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGB").save(
        buffer, "JPEG", quality=development.quality, subsampling=development.subsampling, optimize=True
    )
    return buffer.getvalue()
