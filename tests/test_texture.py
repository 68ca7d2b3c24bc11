"""The texture that a network counts, against counting by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fakeface.device import quiet_tensorflow
from fakeface.models import build_network
from fakeface.texture import FEATURES, occurrences, texture_counts

quiet_tensorflow()

IMAGES = np.random.default_rng(3).integers(90, 110, (2, 9, 9, 3)).astype(np.float32)


def counted(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The counts, (N, 12, 169), of the network's part alone."""
    import tensorflow as tf

    inputs = tf.keras.Input(images.shape[1:])
    roots = tf.keras.Model(inputs, texture_counts(inputs)).predict_on_batch(images)
    assert roots.shape == (len(images), FEATURES)
    return np.asarray(roots, np.float64).reshape(len(images), 12, 169) ** 2


def by_hand(residuals: npt.NDArray[np.float64]) -> Counter[tuple[int, ...]]:
    """How often each row of four steps, up to mirror and sign, stands in residuals (rows, columns), both ways."""
    steps = np.clip(np.rint(residuals), -2, 2).astype(int)
    found: Counter[tuple[int, ...]] = Counter()
    for plane in (steps, steps.T):
        for line in plane.tolist():
            for start in range(len(line) - 3):
                row = tuple(line[start : start + 4])
                negative = tuple(-step for step in row)
                found[min(row, row[::-1], negative, negative[::-1])] += 1
    return found


def test_rows_of_residuals_are_counted_as_by_hand() -> None:
    luminance = IMAGES[0].astype(np.float64) @ (0.299, 0.587, 0.114)
    x = luminance[1:-1]  # the 3×3 square needs a line above and below
    residuals = {
        0: (x[:, 2:-1] - x[:, 1:-2]) / 2,
        1: (x[:, :-3] - 2 * x[:, 1:-2] + x[:, 2:-1]) / 2,
        2: (x[:, 3:] - 3 * x[:, 2:-1] + 3 * x[:, 1:-2] - x[:, :-3]) / 3,
    }
    counts = counted(IMAGES)[0]
    for kind, residual in residuals.items():
        expected = sorted(by_hand(residual).values())
        np.testing.assert_allclose(sorted(counts[kind][counts[kind] > 0.5]), expected, atol=1e-3)


def test_every_row_of_every_kind_is_counted_once() -> None:
    lines, columns = 9 - 2, 9 - 3  # where the 3×4 taps fit
    rows = lines * (columns - 3) + (lines - 3) * columns
    np.testing.assert_allclose(counted(IMAGES).sum(axis=-1), rows, rtol=1e-5)


def test_brightness_alone_changes_no_count() -> None:
    threes = 3 * IMAGES[..., :1].repeat(3, axis=-1)  # the parabola's residuals are whole steps, not halves
    np.testing.assert_allclose(counted(threes + 50)[:, 2], counted(threes)[:, 2], atol=1e-3)


def test_a_flat_picture_has_one_kind_of_row() -> None:
    counts = counted(np.full((1, 9, 9, 3), 128, np.float32))[0]
    assert (counts > 0.5).sum(axis=-1).tolist() == [1] * 12


@pytest.mark.parametrize("on_gpu", [False, True])
def test_both_ways_of_counting_give_the_same(on_gpu: bool) -> None:
    numbers = np.random.default_rng(1).integers(0, 7, (3, 50)).astype(np.int32)
    expected = [np.bincount(line, minlength=7) for line in numbers]
    np.testing.assert_array_equal(occurrences(numbers, 7, on_gpu).numpy(), expected)


def test_each_image_is_learned_by_one_half_and_answered_by_both() -> None:
    import tensorflow as tf

    network = build_network("textured", (4, 8), 32, 0.9)
    both = tf.keras.Model(network.input, network.get_layer("shapes_and_texture").output)
    images = np.random.default_rng(5).integers(0, 256, (40, 32, 32, 3)).astype(np.float32)

    def heard(training: bool) -> npt.NDArray[np.bool_]:
        features = both(images, training=training).numpy()
        return np.stack([(features[:, :8] != 0).any(axis=1), (features[:, 8:] != 0).any(axis=1)])

    assert heard(False).all()
    halves = heard(True)
    assert (halves.sum(axis=0) == 1).all()
    assert 5 < halves[0].sum() < 35


def test_a_saved_network_needs_no_code_of_ours(tmp_path: Path) -> None:
    import tensorflow as tf

    network = build_network("textured", (4, 8), 32, 0.9)
    network.save(tmp_path / "network.h5", include_optimizer=False)
    images = np.random.default_rng(5).integers(0, 256, (4, 32, 32, 3)).astype(np.float32)
    loaded = tf.keras.models.load_model(tmp_path / "network.h5", compile=False)
    np.testing.assert_array_equal(loaded.predict_on_batch(images), network.predict_on_batch(images))


def test_counts_are_taken_in_float32_whatever_the_precision() -> None:
    import tensorflow as tf

    images = np.random.default_rng(5).integers(0, 256, (4, 32, 32, 3)).astype(np.float32)
    expected = counted(images)
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        found = counted(images)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    np.testing.assert_array_equal(found, expected)
