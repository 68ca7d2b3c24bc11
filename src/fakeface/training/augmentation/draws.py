"""A step of the augmentation, and what it draws at random for each image of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

Tensor = Any  # TensorFlow has no type hints


@dataclass(frozen=True)
class Step:
    """One operation, ready to run: what it draws (seed, shape) -> float64 (B, k), and how it applies it."""

    draw: Callable[[Tensor, Tensor], Tensor]
    apply: Callable[[Any, Any], Any]
    on_tensors: bool = False  # TensorFlow or NumPy
    gives_floats: bool = False  # the notebook's libraries worked on float32 and kept fractions
    probability: float = 1.0


def ones(shape: Tensor) -> Tensor:
    """Return ones, float64 (B,)."""
    return tf.ones(shape[:1], tf.float64)


def zeros(shape: Tensor) -> Tensor:
    """Return zeros, float64 (B,)."""
    return tf.zeros(shape[:1], tf.float64)


def draw_nothing(_seed: Tensor, shape: Tensor) -> Tensor:
    """Draw no number: float64 (B, 0)."""
    return tf.zeros([shape[0], 0], tf.float64)


def draw_uniform(seed: Tensor, shape: Tensor, low: float, high: float) -> Tensor:
    """Draw float64 (B,) from low to high."""
    return low + (high - low) * tf.random.stateless_uniform(shape[:1], seed, dtype=tf.float64)


def draw_uniform_pair(seed: Tensor, shape: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Draw two float64 (B,) from -limit to limit."""
    seeds = tf.random.experimental.stateless_split(seed, 2)
    return draw_uniform(seeds[0], shape, -limit, limit), draw_uniform(seeds[1], shape, -limit, limit)


def make_uniform_draw(low: float, high: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Make a draw of one number from low to high: float64 (B, 1)."""
    return lambda seed, shape: draw_uniform(seed, shape, low, high)[:, tf.newaxis]


def make_integer_draw(low: float, high: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Make a draw of one whole number from low to high, both included: float64 (B, 1)."""
    return lambda seed, shape: tf.floor(draw_uniform(seed, shape, low, high + 1))[:, tf.newaxis]


def stack_draws(*draws: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Make one draw of several: float64 (B, k)."""

    def draw(seed: Tensor, shape: Tensor) -> Tensor:
        seeds = tf.random.experimental.stateless_split(seed, len(draws))
        return tf.concat([part(seeds[index], shape) for index, part in enumerate(draws)], axis=1)

    return draw
