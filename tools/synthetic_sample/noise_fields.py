"""Planes of numbers that every drawing uses: noise, soft masks, blur, interpolation.

A plane is a float64 array (height, width). Sums run over shifted copies, never through BLAS, so that the result does
not depend on the number of threads; float64 keeps last-digit differences between processors away from the 8-bit result.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]
Picture = NDArray[np.float64]  # (height, width, 3)
Colour = NDArray[np.float64]  # (3,)


def smoothstep(low: float, high: float, value: Plane) -> Plane:
    """Rise from 0 at `low` to 1 at `high` with zero slope at both ends; `low` may be the larger one."""
    t: Plane = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def bump(value: Plane, width: float | Plane) -> Plane:
    """A Gaussian hill of height 1 at value 0."""
    result: Plane = np.exp(-0.5 * (value / width) ** 2)
    return result


def cover(inside: Plane, softness: float) -> Plane:
    """Share of a pixel that is covered, where `inside` is the signed distance to the edge (positive within)."""
    return np.clip(0.5 + inside / softness, 0.0, 1.0)


def blend(below: Picture, above: Picture | Colour, share: Plane) -> Picture:
    """Paint `above` over `below` where `share` (height, width) is 1."""
    part = window(share > 0.0)
    painted = below.copy()
    upper = above[part] if above.ndim == 3 else above
    painted[part] += (upper - below[part]) * share[part][..., None]
    return painted


def window(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The smallest box of rows and columns that holds every true element."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def shift(plane: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    """The plane moved so that result[y, x] = plane[y + rows, x + columns], mirrored at the border (not repeated)."""
    height, width = plane.shape[:2]
    y = _mirrored(np.arange(height) + rows, height)
    x = _mirrored(np.arange(width) + columns, width)
    return plane[y][:, x]


def with_margin(plane: NDArray[np.float64], top: int, left: int, margin: int) -> NDArray[np.float64]:
    """The plane mirrored outwards by `margin` rows and columns in all, `top` and `left` of them before it."""
    height, width = plane.shape[:2]
    y = _mirrored(np.arange(-top, height + margin - top), height)
    x = _mirrored(np.arange(-left, width + margin - left), width)
    return plane[y][:, x]


def blur(plane: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Gaussian blur, `sigma` in pixels, cut at three sigmas."""
    if sigma <= 0.05:
        return plane
    reach = max(1, int(np.ceil(3.0 * sigma)))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    return _weighted(_weighted(plane, weights, 0), weights, 1)


def halved(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of each 2x2 block."""
    result: NDArray[np.float64] = (plane[0::2, 0::2] + plane[0::2, 1::2] + plane[1::2, 0::2] + plane[1::2, 1::2]) / 4.0
    return result


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Plane:
    """Random values on a `cells` x `cells` lattice, smoothly interpolated to size x size; about -1..1."""
    lattice = rng.uniform(-1.0, 1.0, (cells + 1, cells + 1))
    position = np.arange(size) * (cells / size)
    whole = position.astype(np.int64)
    share = smoothstep(0.0, 1.0, position - whole)
    rows = lattice[whole] + (lattice[whole + 1] - lattice[whole]) * share[:, None]
    result: Plane = rows[:, whole] + (rows[:, whole + 1] - rows[:, whole]) * share[None, :]
    return result


def cloud(rng: np.random.Generator, size: int, cells: int, octaves: int, persistence: float = 0.5) -> Plane:
    """Smooth noise summed over octaves, about -1..1."""
    total = np.zeros((size, size))
    weight, weights = 1.0, 0.0
    for octave in range(octaves):
        total += weight * smooth_noise(rng, size, cells * 2**octave)
        weights += weight
        weight *= persistence
    return total / weights


def grain(rng: np.random.Generator, size: int, fine: float, coarse: float) -> Plane:
    """Band-passed white noise with unit standard deviation: blur `fine` minus blur `coarse`, both in pixels."""
    white = rng.standard_normal((size, size))
    band = blur(white, fine) - blur(white, coarse)
    result: Plane = band / band.std()
    return result


def strands(rng: np.random.Generator, coordinate: Plane, entries: int = 1024) -> Plane:
    """Random values along a line, looked up at `coordinate` (one entry a unit, wrapped); about 0..1."""
    line = rng.uniform(0.0, 1.0, entries)
    floor = np.floor(coordinate)
    index = floor.astype(np.int64) % entries
    share = smoothstep(0.0, 1.0, coordinate - floor)
    result: Plane = line[index] + (line[(index + 1) % entries] - line[index]) * share
    return result


def mixed(rng: np.random.Generator, first: Colour, second: Colour) -> Colour:
    """A random colour on the way from `first` to `second`."""
    return first + (second - first) * rng.uniform()


def rgb(*values: float) -> Colour:
    """A linear-light colour."""
    return np.array(values, dtype=np.float64)


def _mirrored(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    index = np.abs(index)
    return np.where(index >= length, 2 * (length - 1) - index, index)


def _weighted(plane: NDArray[np.float64], weights: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    reach = len(weights) // 2
    length = plane.shape[axis]
    index = np.clip(np.arange(-reach, length + reach), 0, length - 1)
    padded = plane.take(index, axis=axis)
    total = np.zeros_like(plane)
    for start, weight in enumerate(weights):
        total += weight * (padded[start : start + length] if axis == 0 else padded[:, start : start + length])
    return total
