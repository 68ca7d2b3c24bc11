"""Flips, turns, shifts and zooms, of which several that follow each other are one resampling."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from fakeface.training.augmentation import numpy_ops, tensor_ops
from fakeface.training.augmentation.draws import (
    Step,
    Tensor,
    draw_uniform,
    draw_uniform_pair,
    ones,
    zeros,
)

GEOMETRY = ("flip", "rotate", "shift", "random_zoom")


def merge_geometry(steps: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Give steps one by one, but such as follow each other and move pixels together."""
    group: list[Mapping[str, Any]] = []
    for step in steps:
        backends = {other["backend"] for other in [*group, step] if "backend" in other}
        joins = step["op"] in GEOMETRY and all(other["op"] in GEOMETRY for other in group) and len(backends) <= 1
        if group and not joins:
            yield group
            group = []
        group.append(step)
    if group:
        yield group


def make_geometry(steps: Sequence[Mapping[str, Any]]) -> Step:
    """Make one step of several that move pixels, which resamples once."""
    backend = next((step["backend"] for step in steps if "backend" in step), "opencv")

    def draw(seed: Tensor, shape: Tensor) -> Tensor:
        seeds = tf.random.experimental.stateless_split(seed, len(steps))
        matrices = tf.eye(3, batch_shape=shape[:1], dtype=tf.float64)
        for index, step in enumerate(steps):
            matrices = matrices @ _build_chosen_matrices(step, seeds[index], shape)
        return center_transform(matrices, shape)

    on_tensors = backend == "tensorflow"
    return Step(draw, tensor_ops.warp if on_tensors else numpy_ops.warp, on_tensors)


def _build_chosen_matrices(step: Mapping[str, Any], seed: Tensor, shape: Tensor) -> Tensor:
    seeds = tf.random.experimental.stateless_split(seed, 2)
    chosen = tf.random.stateless_uniform(shape[:1], seeds[0]) < step["probability"]
    still = tf.eye(3, batch_shape=shape[:1], dtype=tf.float64)
    return tf.where(chosen[:, tf.newaxis, tf.newaxis], _MATRICES[step["op"]](step, seeds[1], shape), still)


def _build_flip(_step: Mapping[str, Any], _seed: Tensor, shape: Tensor) -> Tensor:
    return _build_affine(-ones(shape), zeros(shape), zeros(shape), zeros(shape), ones(shape), zeros(shape))


def _build_rotation(step: Mapping[str, Any], seed: Tensor, shape: Tensor) -> Tensor:
    angle = draw_uniform(seed, shape, -step["degrees"], step["degrees"]) * (math.pi / 180)
    cos, sin = tf.cos(angle), tf.sin(angle)
    return _build_affine(cos, -sin, zeros(shape), sin, cos, zeros(shape))


def _build_shift(step: Mapping[str, Any], seed: Tensor, shape: Tensor) -> Tensor:
    x, y = draw_uniform_pair(seed, shape, step["fraction"])
    height, width = tf.cast(shape[1], tf.float64), tf.cast(shape[2], tf.float64)
    return _build_affine(ones(shape), zeros(shape), x * width, zeros(shape), ones(shape), y * height)


def _build_zoom(step: Mapping[str, Any], seed: Tensor, shape: Tensor) -> Tensor:
    seeds = tf.random.experimental.stateless_split(seed, 2)
    kept = draw_uniform(seeds[0], shape, step["low"], step["high"])
    x, y = draw_uniform_pair(seeds[1], shape, step["max_offset"] / 2)
    height, width = tf.cast(shape[1], tf.float64), tf.cast(shape[2], tf.float64)
    margin = 1 - kept
    return _build_affine(kept, zeros(shape), x * margin * width, zeros(shape), kept, y * margin * height)


_MATRICES = {
    "flip": _build_flip,
    "rotate": _build_rotation,
    "shift": _build_shift,
    "random_zoom": _build_zoom,
}


def _build_affine(a: Tensor, b: Tensor, x: Tensor, c: Tensor, d: Tensor, y: Tensor) -> Tensor:
    zero, one = tf.zeros_like(a), tf.ones_like(a)
    return tf.reshape(tf.stack([a, b, x, c, d, y, zero, zero, one], axis=1), [-1, 3, 3])


def center_transform(matrices: Tensor, shape: Tensor) -> Tensor:
    """Turn matrices (B, 3, 3) about the middle of the image into six numbers (B, 6) on pixel positions (x, y)."""
    x, y = (tf.cast(shape[2], tf.float64) - 1) / 2, (tf.cast(shape[1], tf.float64) - 1) / 2
    middle = tf.stack([x, y])[:, tf.newaxis]
    linear, offset = matrices[:, :2, :2], matrices[:, :2, 2:]
    return tf.reshape(tf.concat([linear, offset + middle - linear @ middle], axis=2), [-1, 6])
