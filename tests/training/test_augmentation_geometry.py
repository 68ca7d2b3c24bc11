"""Geometric steps, read off an image whose levels are its positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fakeface.models.device import quiet_tensorflow

quiet_tensorflow()

from tests.support.augmentation_images import Images, distance, photos, run_eagerly  # noqa: E402


def sampled_positions(steps: list[dict[str, Any]], count: int) -> tuple[Images, Images]:
    """Fit (x, y) -> sampled (x, y), from the middle, to images whose levels are positions: (N, 2, 2) and (N, 2)."""
    size = 65
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    ruler = np.stack([columns, rows, np.zeros_like(rows)], axis=-1) + 90
    sampled = run_eagerly(steps, np.repeat(ruler[np.newaxis], count, axis=0))[..., :2] - 90
    middle = slice(size // 2 - 3, size // 2 + 4)  # never near the border, where the nearest pixel is repeated
    inputs = np.stack([columns[middle, middle], rows[middle, middle]], axis=-1).reshape(-1, 2) - size // 2
    outputs = sampled[:, middle, middle].reshape(count, -1, 2) - size // 2
    with_one = np.hstack([inputs, np.ones((len(inputs), 1))])
    fits = np.array([np.linalg.lstsq(with_one, output, rcond=None)[0] for output in outputs])
    return fits[:, :2].transpose(0, 2, 1), fits[:, 2]


@pytest.mark.parametrize("backend", ["opencv", "tensorflow"])
def test_rotate_and_shift_make_one_rotation_then_shift_in_their_ranges(backend: str) -> None:
    steps = [{"op": "rotate", "degrees": 20, "backend": backend}, {"op": "shift", "fraction": 0.18, "backend": backend}]
    linear, offsets = sampled_positions(steps, 200)
    angles = np.rad2deg(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    assert distance(linear @ linear.transpose(0, 2, 1), np.tile(np.eye(2), (200, 1, 1))) < 0.02
    assert np.abs(angles).max() <= 20.2
    assert angles.min() < -15
    assert angles.max() > 15
    shifts = np.linalg.solve(linear, offsets[..., np.newaxis])[..., 0] / 65
    assert np.abs(shifts).max() <= 0.185
    assert (shifts.min(axis=0) < -0.14).all()
    assert (shifts.max(axis=0) > 0.14).all()


@pytest.mark.parametrize("backend", ["opencv", "tensorflow"])
def test_framing_zooms_in_within_its_range_and_stays_centred_unless_asked(backend: str) -> None:
    step = {"op": "random_zoom", "low": 0.6, "high": 0.9, "backend": backend}
    linear, offsets = sampled_positions([step], 100)
    assert linear[:, 0, 0] == pytest.approx(linear[:, 1, 1], abs=0.01)
    assert linear[:, 0, 0].min() == pytest.approx(0.6, abs=0.05)
    assert linear[:, 0, 0].max() == pytest.approx(0.9, abs=0.05)
    assert np.abs(offsets).max() < 0.05
    linear, offsets = sampled_positions([{**step, "max_offset": 1.0}], 100)
    assert (np.abs(offsets) <= (1 - linear[:, :1, 0]) * 65 / 2 + 0.1).all()  # never leaves the picture
    assert np.abs(offsets).max() > 6


@pytest.mark.parametrize("backend", ["opencv", "tensorflow"])
def test_framing_above_one_makes_the_picture_smaller_and_repeats_its_border(backend: str) -> None:
    step = {"op": "random_zoom", "low": 1.25, "high": 1.25, "backend": backend}
    images = np.zeros((2, 65, 65, 3), np.uint8)
    images[:, 1:-1, 1:-1] = 200  # a black frame one pixel wide
    smaller = run_eagerly([step], images)
    bright = (smaller[0, 32, :, 0] > 100).sum()
    assert abs(bright - 63 / 1.25) <= 2
    assert not smaller[:, :5].any()


def test_flip_beside_a_rotation_is_exact_and_happens_half_of_the_time() -> None:
    linear, _ = sampled_positions([{"op": "flip"}, {"op": "rotate", "degrees": 0}], 400)
    mirrored = linear[:, 0, 0] < 0
    assert 0.4 < mirrored.mean() < 0.6
    assert np.abs(linear[:, 0, 0]) == pytest.approx(np.ones(400), abs=1e-3)
    images = photos()
    for backend in ("opencv", "tensorflow"):
        steps = [{"op": "flip", "probability": 1}, {"op": "rotate", "degrees": 0, "backend": backend}]
        assert np.array_equal(run_eagerly(steps, images), images[:, :, ::-1])
