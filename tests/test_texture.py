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

SIDE = 13
# One whose residuals are mostly a few steps off zero, and one where they are many, also when it is halved
IMAGES = np.stack(
    [np.random.default_rng(3).integers(90, high, (SIDE, SIDE, 3)) for high in (110, 150)], dtype=np.float32
)
# How red, green and blue weigh in each colour, of 1,024, by the step that residuals are counted in: JFIF's, and plain
COLOURS = {
    "luminance, steps of 4": (77, 150, 29),
    "blue chroma, steps of 2": (-86, -170, 256),
    "red chroma, steps of 2": (256, -214, -42),
    "luminance, steps of 2": (153, 301, 58),
    "blue chroma, steps of 1": (-173, -339, 512),
    "red chroma, steps of 1": (512, -429, -83),
    "red, steps of 2": (512, 0, 0),
    "green, steps of 2": (0, 512, 0),
    "blue, steps of 2": (0, 0, 512),
    "red, steps of 4": (256, 0, 0),
    "green, steps of 4": (0, 256, 0),
    "blue, steps of 4": (0, 0, 256),
}
WIDE = ("luminance, steps of 4", "blue chroma, steps of 2", "red chroma, steps of 2")
NARROW = ("luminance, steps of 2", "blue chroma, steps of 1", "red chroma, steps of 1")
PLAIN = ("red, steps of 2", "green, steps of 2", "blue, steps of 2")
PLAIN_WIDE = ("red, steps of 4", "green, steps of 4", "blue, steps of 4")
# By the layer: each residual's taps and colour
RESIDUALS = {
    "residuals": [(taps, c) for taps, of in (("neighbour", WIDE), ("line", WIDE), ("square", NARROW)) for c in of],
    "colour_residuals": [(taps, colour) for taps in ("neighbour", "line") for colour in PLAIN],
    "halved_residuals": [("halved", colour) for colour in NARROW],
    "halved_colour_residuals": [("halved", colour) for colour in PLAIN_WIDE],
}
# What is counted, in this order: by which layer, how many kinds of residuals, and of how many kinds each
COUNTED = {
    "rows": ("residuals", 9, 169),
    "pairs": ("residuals", 3, 169),
    "triples": ("colour_residuals", 2, 172),
    "halved_pairs": ("halved_residuals", 3, 169),
    "halved_triples": ("halved_colour_residuals", 1, 172),
}
TWO_COLOURS = ((0, 1), (0, 2), (1, 2))


def counted(images: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float64]]:
    """The counts (N, kinds of residuals, kinds) by their name, of the network's part alone."""
    import tensorflow as tf

    inputs = tf.keras.Input(images.shape[1:])
    roots = tf.keras.Model(inputs, texture_counts(inputs)).predict_on_batch(images)
    assert roots.shape == (len(images), FEATURES)
    ends = np.cumsum([residuals * kinds for _, residuals, kinds in COUNTED.values()])
    assert ends[-1] == FEATURES
    parts = np.split(np.asarray(roots, np.float64) ** 2, ends[:-1], axis=1)
    shapes = [(len(images), residuals, kinds) for _, residuals, kinds in COUNTED.values()]
    return {name: part.reshape(shape) for name, part, shape in zip(COUNTED, parts, shapes, strict=True)}


def along_lines(x: npt.NDArray[np.int64], taps: str) -> npt.NDArray[np.int64]:
    """Four times the residuals of a plane (rows, columns) along its lines."""
    line, above, below = x[1:-1], x[:-2], x[2:]  # whole ones of 3×3
    if taps == "neighbour":
        return 4 * (line[:, 2:] - line[:, 1:-1])
    if taps == "line":
        return 4 * (line[:, :-2] + line[:, 2:]) - 8 * line[:, 1:-1]
    if taps == "square":
        sides = sum(2 * each[:, 1:-1] - each[:, :-2] - each[:, 2:] for each in (above, below))
        return np.asarray(sides + 2 * (line[:, :-2] + line[:, 2:]) - 4 * line[:, 1:-1])
    rows, columns = (side // 2 * 2 for side in x.shape)
    fours = x[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).sum(axis=(1, 3))
    return np.asarray(fours[:, 1:] - fours[:, :-1], np.int64)


def in_parts(image: npt.NDArray[Any], layer: str) -> npt.NDArray[np.int64]:
    """All residuals of a layer of an image of whole numbers, (rows, columns, residuals), in 4,096ths of a step."""
    whole = image.astype(np.int64)
    each = [along_lines(whole @ np.array(COLOURS[colour]), taps) for taps, colour in RESIDUALS[layer]]
    return np.stack(each, axis=-1)


def arranged(steps: npt.NDArray[np.int64], name: str, kind: int) -> list[tuple[int, ...]]:
    """The tuples that are counted together, of steps (rows, columns, residuals)."""
    lines, columns = steps.shape[:2]
    if name == "rows":
        return [tuple(steps[y, x : x + 4, kind].tolist()) for y in range(lines) for x in range(columns - 3)]
    if name.endswith("triples"):
        return [tuple(each) for each in steps[..., 3 * kind : 3 * kind + 3].reshape(-1, 3).tolist()]
    one, other = TWO_COLOURS[kind]
    pairs = np.stack([steps[:, at : columns - 1 + at, each] for each in (one, other) for at in (0, 1)], axis=-1)
    return [tuple(each) for each in pairs.reshape(-1, 4).tolist()]


def kinds_by_hand(found: list[tuple[int, ...]], name: str) -> list[int]:
    """How often each tuple of steps stands in `found`, up to sign and, but of colours at one place, mirror image."""
    kinds: Counter[tuple[int, ...]] = Counter()
    for steps in found:
        a, b, c, *d = steps
        mirrored = steps if not d else (d[0], c, b, a) if name == "rows" else (b, a, d[0], c)
        kinds[min(sign for each in (steps, mirrored) for sign in (each, tuple(-step for step in each)))] += 1
    return sorted(kinds.values())


@pytest.mark.parametrize("name", COUNTED)
def test_residuals_that_stand_together_are_counted_as_by_hand(name: str) -> None:
    layer, residuals, _ = COUNTED[name]
    farthest = 3 if name.endswith("triples") else 2
    counts = counted(IMAGES)[name]
    for image, of_image in zip(IMAGES, counts, strict=True):
        views = [in_parts(view, layer) / 4096 for view in (image, image.transpose(1, 0, 2))]
        steps = [np.clip(np.rint(view), -farthest, farthest).astype(np.int64) for view in views]
        for kind in range(residuals):
            found = [each for view in steps for each in arranged(view, name, kind)]
            np.testing.assert_allclose(
                sorted(of_image[kind][of_image[kind] > 0.5]), kinds_by_hand(found, name), atol=1e-3
            )


def test_residuals_are_exact_whatever_the_order_of_their_sums() -> None:
    """Else one that lies between two steps is counted as one or the other by chance, as where a greyish edge is odd."""
    import tensorflow as tf

    images = np.random.default_rng(6).integers(0, 256, (2, 64, 64, 1)).repeat(3, axis=-1).astype(np.float32)
    images[1] = np.random.default_rng(7).integers(0, 256, (64, 64, 3))
    inputs = tf.keras.Input(images.shape[1:])
    network = tf.keras.Model(inputs, texture_counts(inputs))
    layers = [network.get_layer(f"texture_{name}").output for name in RESIDUALS]
    for name, found in zip(RESIDUALS, tf.keras.Model(inputs, layers).predict_on_batch(images), strict=True):
        np.testing.assert_array_equal(found * 4096, [in_parts(image, name) for image in images])


def test_every_place_is_counted_once_along_lines_and_once_along_columns() -> None:
    places = SIDE - 2  # of a side, where 3×3 taps fit; of the picture halved, 6 lines of 5
    sums = {name: of_kinds.sum(axis=-1) for name, of_kinds in counted(IMAGES).items()}
    np.testing.assert_allclose(sums["rows"], 2 * places * (places - 3), rtol=1e-5)
    np.testing.assert_allclose(sums["pairs"], 2 * places * (places - 1), rtol=1e-5)
    np.testing.assert_allclose(sums["triples"], 2 * places * places, rtol=1e-5)
    np.testing.assert_allclose(sums["halved_pairs"], 2 * 6 * (5 - 1), rtol=1e-5)
    np.testing.assert_allclose(sums["halved_triples"], 2 * 6 * 5, rtol=1e-5)


def test_brightness_alone_changes_no_count() -> None:
    expected = counted(IMAGES)
    for name, of_kinds in counted(IMAGES + 20).items():
        np.testing.assert_array_equal(of_kinds, expected[name])


@pytest.mark.parametrize("turn", ["mirrored", "turned by 90 degrees"])
def test_a_turned_picture_has_the_same_counts(turn: str) -> None:
    images = np.random.default_rng(4).integers(90, 130, (2, 12, 12, 3)).astype(np.float32)
    turned = images[:, :, ::-1] if turn == "mirrored" else images.transpose(0, 2, 1, 3)
    expected = counted(images)
    for name, of_kinds in counted(turned).items():
        if turn != "mirrored" or name.startswith("halved"):
            np.testing.assert_allclose(of_kinds, expected[name], atol=1e-3)
    # a neighbour is taken on one side, so at the picture's edge others are; the line and the square are symmetric
    for name, symmetric in (("rows", slice(3, None)), ("triples", slice(1, None))):
        np.testing.assert_allclose(counted(turned)[name][:, symmetric], expected[name][:, symmetric], atol=1e-3)


def test_a_flat_picture_has_one_kind_of_each() -> None:
    for of_kinds in counted(np.full((1, 9, 9, 3), 128, np.float32)).values():
        assert ((of_kinds[0] > 0.5).sum(axis=-1) == 1).all()


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
    for name, of_kinds in found.items():
        np.testing.assert_array_equal(of_kinds, expected[name])
