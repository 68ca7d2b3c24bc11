"""The generator model that forms fake pictures: a low-resolution code raised by strided transposed convolutions.

Going down, each level halves the picture; what the level below cannot say is kept as a detail code (four numbers a
block and colour). Going up, both are raised by transposed convolutions of stride 2. With ideal kernels the picture
would come back untouched; a generator's kernels are off by its traits, which leave a checkerboard (uneven overlap of
the kernels; Odena, Dumoulin, Olah 2016) and a spectral trace of period 2, 4, ... (Frank et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .camera import sensor_noise
from .noise_fields import Picture, Plane, halved, shift

GAMMA = 2.2  # generators learn from pictures as they are shown, so they work on display values
STRENGTH = (0.7, 1.3)  # of the traits, drawn for each picture
COARSER = 1.5  # how much stronger the traits of a level are than those of the next finer one


@dataclass(frozen=True)
class Generator:
    """Constants of one generator; ranges are drawn for each picture.

    `levels` counts the upsamplings, `kernel` is their size, `checker` the unevenness of the overlap (share of the
    signal), `style` the part of it that changes from picture to picture, `leak` how far a detail spills into its
    neighbours, `mix` how far colours mix, `seed` draws the kernels.
    """

    seed: int
    levels: int
    kernel: int
    checker: float
    style: float
    leak: float
    mix: float
    blur: tuple[float, float]
    noise: float
    shot_share: float


def generate(rng: np.random.Generator, generator: Generator, view: Picture, noise: float) -> Picture:
    """Linear picture of a linear view of equal size (a multiple of 2 ** levels); `noise` as for a camera."""
    view = view + sensor_noise(rng, view, noise * generator.noise, generator.shot_share)
    strength = rng.uniform(*STRENGTH)
    kernels = np.random.default_rng(generator.seed)
    plans = [_kernels(kernels, rng, generator, strength * COARSER**level) for level in range(generator.levels)]
    picture = _raised(np.clip(view, 0.0, None) ** (1.0 / GAMMA), plans)
    picture = _mixed_colours(kernels, picture, generator.mix * strength)
    return np.clip(picture, 0.0, None) ** GAMMA


def _raised(view: Picture, plans: list[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Picture:
    """Encode `view` over len(plans) levels and raise it again."""
    ideal = _spread(plans[0][0].shape[0])
    codes, low = [], view
    for _ in plans:
        high, low = low, halved(low)
        rest = high - transposed_convolution(low, ideal[..., None] * np.ones(3))
        codes.append([rest[row::2, column::2] for row in (0, 1) for column in (0, 1)])
    picture = low
    for (up, details), code in zip(reversed(plans), reversed(codes), strict=True):
        picture = transposed_convolution(picture, up)
        for kernel, detail in zip(details, code, strict=True):
            picture = picture + transposed_convolution(detail, kernel)
    return picture


def transposed_convolution(code: Picture, kernel: NDArray[np.float64]) -> Picture:
    """Stride-2 transposed convolution, channel by channel; kernel (k, k, channels), centred on each 2x2 block."""
    height, width, channels = code.shape
    size = kernel.shape[0]
    out = np.zeros((2 * height, 2 * width, channels))
    start = (size - 2) // 2
    for row in range(size):
        for column in range(size):
            y, x = row - start, column - start
            moved = shift(code, -(y // 2), -(x // 2))
            out[y % 2 :: 2, x % 2 :: 2] += moved * kernel[row, column]
    return out


def _spread(size: int) -> Plane:
    """Separable tent kernel of `size` whose four phases each sum to one."""
    line = 1.0 - np.abs(np.arange(size) - (size - 1) / 2.0) / (size / 2.0)
    line = _even(line)
    return line[:, None] * line[None, :]


def _even(line: NDArray[np.float64]) -> NDArray[np.float64]:
    line = line.copy()
    for phase in (0, 1):
        line[phase::2] /= line[phase::2].sum()
    return line


def _kernels(
    kernels: np.random.Generator, rng: np.random.Generator, generator: Generator, strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Kernel of the picture (k, k, 3) and kernels of the four detail codes (4, k, k, 3) of one level."""
    size = generator.kernel
    start = (size - 2) // 2
    habit, style = _phase_gains(kernels), _phase_gains(rng)
    gain = 1.0 + strength * generator.checker * (habit + generator.style * (style - habit))
    up = _spread(size)[..., None] * np.ones(3)
    details = 0.35 * kernels.standard_normal((4, size, size, 3)) + kernels.standard_normal((4, size, size, 1))
    details *= strength * generator.leak
    for row in range(size):
        for column in range(size):
            up[row, column] *= gain[(row - start) % 2, (column - start) % 2]
    for index, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        details[index] -= details[index].mean(axis=(0, 1))
        details[index, start + row, start + column] += gain[row, column]
    return up, details


def _phase_gains(rng: np.random.Generator) -> Picture:
    """How far each of the four phases (2, 2, 3) lies off the mean: a checkerboard, rows and columns in one."""
    board = np.array([[1.0, -1.0], [-1.0, 1.0]]) * rng.choice([-0.6, 0.6])
    rows = np.array([[1.0, 1.0], [-1.0, -1.0]]) * rng.uniform(0.3, 1.0) * rng.choice([-1.0, 1.0])
    columns = np.array([[1.0, -1.0], [1.0, -1.0]]) * rng.uniform(0.3, 1.0) * rng.choice([-1.0, 1.0])
    result: Picture = (board + rows + columns)[..., None] * rng.uniform(0.7, 1.3, 3)
    return result


def _mixed_colours(rng: np.random.Generator, picture: Picture, amount: float) -> Picture:
    matrix = np.eye(3) + amount * rng.uniform(-1.0, 1.0, (3, 3))
    matrix = matrix / matrix.sum(axis=1, keepdims=True)
    return np.stack([sum(picture[..., c] * row[c] for c in range(3)) for row in matrix], axis=-1)
