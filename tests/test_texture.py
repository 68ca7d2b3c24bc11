"""The texture that a network counts, against counting by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fakeface.device import quiet_tensorflow
from fakeface.models import build_network
from fakeface.texture import FEATURES, occurrences, texture_counts

quiet_tensorflow()

IMAGES = np.random.default_rng(3).integers(90, 110, (2, 9, 9, 3)).astype(np.float32)
ROWS, TRIPLES = 12 * 169, 4 * 172


def counted(images: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The counts of rows, (N, 12, 169), and of triples, (N, 4, 172), of the network's part alone."""
    import tensorflow as tf

    inputs = tf.keras.Input(images.shape[1:])
    roots = tf.keras.Model(inputs, texture_counts(inputs)).predict_on_batch(images)
    assert roots.shape == (len(images), FEATURES) == (len(images), ROWS + TRIPLES)
    counts = np.asarray(roots, np.float64) ** 2
    return counts[:, :ROWS].reshape(len(images), 12, 169), counts[:, ROWS:].reshape(len(images), 4, 172)


STEPS = {0: 2, 1: 2, 2: 3, 3: 1}  # of luminance, red, green and blue, in grey levels, by the number of their kind
LUMINANCE = {2: (153, 301, 58), 3: (102, 200, 39), 1: (306, 601, 117)}  # of 1,024, by the step: JFIF's in whole numbers
PLAIN = {2: 512, 3: 341, 1: 1024}  # of 1,024, by the step: a grey level of red, green or blue


def along_lines(x: npt.NDArray[Any]) -> dict[int, npt.NDArray[Any]]:
    """Residuals of a plane (rows, columns) along its lines by the number of their kind; of the square, four times."""
    line, above, below = x[1:-1], x[:-2], x[2:]  # the 3×3 square needs a line above and below
    return {
        0: line[:, 2:-1] - line[:, 1:-2],
        1: line[:, :-3] - 2 * line[:, 1:-2] + line[:, 2:-1],
        2: line[:, 3:] - 3 * line[:, 2:-1] + 3 * line[:, 1:-2] - line[:, :-3],
        3: sum(2 * each[:, 1:-2] - each[:, :-3] - each[:, 2:-1] for each in (above, below))
        + 2 * (line[:, :-3] + line[:, 2:-1])
        - 4 * line[:, 1:-2],
    }


def in_luminance(image: npt.NDArray[Any], kind: int) -> npt.NDArray[np.int64]:
    """Residuals of one kind of an image of whole numbers, in 1,024ths of a step; of the square, in 4,096ths."""
    return along_lines(image.astype(np.int64) @ np.array(LUMINANCE[STEPS[kind]]))[kind]


def kinds_by_hand(found: list[tuple[int, ...]], mirrored: bool) -> list[int]:
    """How often each tuple of steps stands in `found`, up to sign and perhaps mirror, in rising order."""
    kinds: Counter[tuple[int, ...]] = Counter()
    for steps in found:
        negative = tuple(-step for step in steps)
        kinds[min(steps, negative, *((steps[::-1], negative[::-1]) if mirrored else ()))] += 1
    return sorted(kinds.values())


def in_steps(residuals: npt.NDArray[np.float64], farthest: int) -> npt.NDArray[np.int64]:
    return np.clip(np.rint(residuals), -farthest, farthest).astype(int)


def test_rows_of_residuals_are_counted_as_by_hand() -> None:
    counts = counted(IMAGES)[0][0]
    for kind in STEPS:
        views = [in_luminance(view, kind) for view in (IMAGES[0], IMAGES[0].transpose(1, 0, 2))]
        planes = [in_steps(view / (4096 if kind == 3 else 1024), 2).tolist() for view in views]
        rows = [tuple(line[start : start + 4]) for plane in planes for line in plane for start in range(len(line) - 3)]
        np.testing.assert_allclose(sorted(counts[kind][counts[kind] > 0.5]), kinds_by_hand(rows, True), atol=1e-3)


def test_colours_at_one_place_are_counted_as_by_hand() -> None:
    image = IMAGES[0].astype(np.float64)
    counts = counted(IMAGES)[1][0]
    for kind in STEPS:
        triples: list[tuple[int, ...]] = []
        for view in (image, image.transpose(1, 0, 2)):
            each = [along_lines(view[..., colour])[kind] * PLAIN[STEPS[kind]] for colour in range(3)]
            colours = [in_steps(plain / (4096 if kind == 3 else 1024), 3) for plain in each]
            triples += [tuple(each) for each in np.stack(colours, axis=-1).reshape(-1, 3).tolist()]
        np.testing.assert_allclose(sorted(counts[kind][counts[kind] > 0.5]), kinds_by_hand(triples, False), atol=1e-3)


def test_residuals_are_exact_whatever_the_order_of_their_sums() -> None:
    """Else one that lies between two steps is counted as one or the other by chance, as where a greyish edge is odd."""
    import tensorflow as tf

    images = np.random.default_rng(6).integers(0, 256, (2, 64, 64, 1)).repeat(3, axis=-1).astype(np.float32)
    images[1] = np.random.default_rng(7).integers(0, 256, (64, 64, 3))
    inputs = tf.keras.Input(images.shape[1:])
    network = tf.keras.Model(inputs, texture_counts(inputs))
    layers = [network.get_layer(name).output for name in ("texture_residuals", "texture_colour_residuals")]
    in_rows, in_colours = tf.keras.Model(inputs, layers).predict_on_batch(images)
    for number, image in enumerate(images):
        for kind in STEPS:
            parts = 4096 if kind == 3 else 1024
            np.testing.assert_array_equal(in_rows[number, ..., kind] * parts, in_luminance(image, kind))
            for colour in range(3):
                plain = along_lines(image[..., colour].astype(np.int64))[kind] * PLAIN[STEPS[kind]]
                np.testing.assert_array_equal(in_colours[number, ..., 3 * kind + colour] * parts, plain)
    np.testing.assert_array_equal(in_rows * 4096, np.rint(in_rows * 4096))  # the chromas too


def test_every_row_and_every_place_is_counted_once_along_lines_and_once_along_columns() -> None:
    lines, columns = 9 - 2, 9 - 3  # where the 3×4 taps fit
    rows, triples = counted(IMAGES)
    np.testing.assert_allclose(rows.sum(axis=-1), 2 * lines * (columns - 3), rtol=1e-5)
    np.testing.assert_allclose(triples.sum(axis=-1), 2 * lines * columns, rtol=1e-5)


def test_brightness_alone_changes_no_count() -> None:
    threes = 3 * IMAGES[..., :1].repeat(3, axis=-1)  # the parabola's residuals are whole steps, not halves
    np.testing.assert_allclose(counted(threes + 50)[0][:, 2], counted(threes)[0][:, 2], atol=1e-3)


@pytest.mark.parametrize("turn", ["mirrored", "turned by 90 degrees"])
def test_a_turned_picture_has_the_same_counts(turn: str) -> None:
    # whole steps; the taps of four places are not symmetric about one, but what they are counted over is
    images = 6 * np.random.default_rng(4).integers(0, 9, (2, 9, 9, 1)).repeat(3, axis=-1).astype(np.float32)
    turned = images[:, :, ::-1] if turn == "mirrored" else images.transpose(0, 2, 1, 3)
    np.testing.assert_allclose(counted(turned)[0][:, 2], counted(images)[0][:, 2], atol=1e-3)


def test_a_flat_picture_has_one_kind_of_row() -> None:
    rows, triples = counted(np.full((1, 9, 9, 3), 128, np.float32))
    assert (rows[0] > 0.5).sum(axis=-1).tolist() == [1] * 12
    assert (triples[0] > 0.5).sum(axis=-1).tolist() == [1] * 4


@pytest.mark.parametrize("on_gpu", [False, True])
def test_both_ways_of_counting_give_the_same(on_gpu: bool) -> None:
    numbers = np.random.default_rng(1).integers(0, 7, (3, 50)).astype(np.int32)
    expected = [np.bincount(line, minlength=7) for line in numbers]
    np.testing.assert_array_equal(occurrences(numbers, 7, on_gpu).numpy(), expected)


def test_a_saved_network_needs_no_code_of_ours(tmp_path: Path) -> None:
    import tensorflow as tf

    network = build_network("residual", (4, 8), 32, 0.9, texture_units=8)
    for name, drawn in (("texture_logits", (0.0, 0.3)), ("texture_spreads", (1.0, 0.1))):
        layer, rng = network.get_layer(name), np.random.default_rng(6)
        layer.set_weights([rng.normal(*drawn, each.shape) for each in layer.get_weights()])
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
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
