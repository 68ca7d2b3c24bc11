"""How often residuals stand together as they do: what the finest texture of a picture is like, whatever it shows.

Counted are four residuals in a row, submodels of the rich models of Fridrich and Kodovský (IEEE Transactions on
Information Forensics and Security 7(3), 2012, 868-882), two neighbouring residuals of one colour beside the two of
another, and the three colours' residuals at one place, both after the colour rich models of Goljan, Fridrich and
Cogranne (IEEE WIFS 2014): all made to find what a steganographer changes in a photograph. They are written as layers
with fixed weights and plain operations of TensorFlow, so that a saved network needs no code of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Kernel: TypeAlias = npt.NDArray[np.float32]
Taps: TypeAlias = tuple[tuple[float, ...], ...]
Places: TypeAlias = tuple[tuple[int, int], ...]  # (column, number of the residual) of each that is counted together

_COLOURS = 3
_TO_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])  # JFIF
_TO_RGB = np.eye(_COLOURS)
# Of a weight, in steps: sums over pixels of 0 to 255 are then exact in float32 in whatever order they are taken, so
# that a residual which lies just between two steps is counted alike in training, evaluation and serving
_UNIT = 1 / 1024

# Taps over lines and columns: what a neighbour, the line through neighbours and the 3×3 square leave unexplained of a
# pixel; and a neighbour in the picture halved by means of 2×2
_NEIGHBOUR = ((0, 0, 0), (0, -1, 1), (0, 0, 0))
_LINE = ((0, 0, 0), (1, -2, 1), (0, 0, 0))
_SQUARE = ((-0.25, 0.5, -0.25), (0.5, -1, 0.5), (-0.25, 0.5, -0.25))
_HALVED_NEIGHBOUR = ((-0.25, -0.25, 0.25, 0.25), (-0.25, -0.25, 0.25, 0.25))


class _Arrangement(NamedTuple):
    """Residuals that are counted together, and which of their arrangements are of one kind."""

    farthest: int  # steps off zero that are told apart; one beyond is counted as the farthest
    mirrored: tuple[int, ...]  # the order in which they stand in the mirrored picture

    @property
    def bins(self) -> int:
        return int((2 * self.farthest + 1) ** len(self.mirrored))


_ROW = _Arrangement(2, (3, 2, 1, 0))
_PAIRS = _Arrangement(2, (1, 0, 3, 2))
_TRIPLE = _Arrangement(3, (0, 1, 2))


class _Residuals(NamedTuple):
    """Residuals of a picture by the same layer, and what is counted of them, by its name.

    `kinds`: taps, a matrix to three colours, and the step they are counted in, in grey levels; half of it for chroma,
    which varies less.
    """

    name: str
    stride: int
    kinds: tuple[tuple[Taps, npt.NDArray[np.float64], float], ...]
    counted: tuple[tuple[str, _Arrangement, tuple[Places, ...]], ...]


def _rows(residuals: int) -> tuple[Places, ...]:
    return tuple(tuple((column, number) for column in range(4)) for number in range(residuals))


def _pairs() -> tuple[Places, ...]:
    return tuple(((0, one), (1, one), (0, other), (1, other)) for one, other in ((0, 1), (0, 2), (1, 2)))


def _triples(kinds: int) -> tuple[Places, ...]:
    starts = range(0, _COLOURS * kinds, _COLOURS)
    return tuple(tuple((0, start + colour) for colour in range(_COLOURS)) for start in starts)


# Found on validation images (docs/generalization.md, fourteenth series)
_COUNTED = (
    _Residuals(
        "residuals",
        1,
        ((_NEIGHBOUR, _TO_YCBCR, 4), (_LINE, _TO_YCBCR, 4), (_SQUARE, _TO_YCBCR, 2)),
        (("rows", _ROW, _rows(9)), ("pairs", _PAIRS, _pairs())),
    ),
    _Residuals(
        "colour_residuals",
        1,
        ((_NEIGHBOUR, _TO_RGB, 2), (_LINE, _TO_RGB, 2)),
        (("triples", _TRIPLE, _triples(2)),),
    ),
    _Residuals("halved_residuals", 2, ((_HALVED_NEIGHBOUR, _TO_YCBCR, 2),), (("halved_pairs", _PAIRS, _pairs()),)),
    _Residuals(
        "halved_colour_residuals", 2, ((_HALVED_NEIGHBOUR, _TO_RGB, 4),), (("halved_triples", _TRIPLE, _triples(1)),)
    ),
)
FEATURES = 3051  # 169 kinds of row of 9 residuals and of pair of 3 + 3 colours, 172 kinds of triple of 2 + 1 taps

_FIXED: dict[str, Any] = {"trainable": False, "dtype": "float32"}  # whatever the precision policy

# In spreads from the mean. A picture changed as few were, such as one halved and enlarged, lies far out in many counts
# at once, and the layer said of it what no image had taught it (docs/generalization.md, twelfth series)
_FARTHEST_COUNT = 2.0


def limited(standardised: Any) -> Any:
    """Return standardised counts, float32 (batch, FEATURES), cut off where images of the training seldom are."""
    import tensorflow as tf

    return tf.clip_by_value(standardised, -_FARTHEST_COUNT, _FARTHEST_COUNT)


def texture_counts(images: Any) -> Any:
    """Return roots of the counts of each kind, float32 (batch, FEATURES), of images (batch, S, S, 3) in 0..255.

    Taps and rows lie along the picture's lines and, counted together with these, along its columns. What differs in
    sign alone is of one kind, and so is a row or a pair and its mirror image. The root of a count has about the same
    noise, whatever the count is.
    """
    import tensorflow as tf

    views = (images, tf.transpose(images, (0, 2, 1, 3)))
    return tf.sqrt(tf.concat([each for residuals in _COUNTED for each in _counts(views, residuals)], axis=-1))


def _counts(views: Sequence[Any], residuals: _Residuals) -> list[Any]:
    """Return the counts of both views together, float32 (batch, places × kinds) for each arrangement of residuals."""
    import tensorflow as tf
    from tensorflow.keras import layers

    kernel = _residual_kernel(residuals)
    layer = layers.Conv2D(
        kernel.shape[-1], kernel.shape[:2], residuals.stride, use_bias=False, name=f"texture_{residuals.name}", **_FIXED
    )
    of_views = [tf.round(layer(view)) for view in views]
    layer.set_weights([kernel])
    found = []
    for name, arrangement, places in residuals.counted:
        number, numbering = _numbering(f"texture_{name}", arrangement, places, kernel.shape[-1])
        farthest, bins = float(arrangement.farthest), len(places) * arrangement.bins
        numbers = [number(tf.clip_by_value(steps, -farthest, farthest)) for steps in of_views]
        number.set_weights(numbering)
        counted = tf.add_n([_occurrences_of_all(each, bins) for each in numbers])
        alike = _alike(arrangement)
        together = layers.Dense(alike.shape[1], use_bias=False, name=f"texture_{name}_alike", **_FIXED)
        summed = together(tf.reshape(counted, (-1, len(places), arrangement.bins)))
        together.set_weights([alike])
        found.append(tf.reshape(summed, (-1, len(places) * alike.shape[1])))
    return found


def _occurrences_of_all(numbers: Any, bins: int) -> Any:
    """Count the numbers (batch, rows, columns, kinds) of each picture."""
    import tensorflow as tf

    whole = tf.cast(numbers, tf.int32)
    return occurrences(tf.reshape(whole, (-1, int(np.prod(whole.shape[1:])))), bins)


def occurrences(numbers: Any, bins: int, on_gpu: bool | None = None) -> Any:
    """Return how often each number under `bins` occurs in each line of int32 (batch, N): float32 (batch, bins).

    `on_gpu`: for a GPU (None: where there is one). Its bincount refuses to run where a run has to be repeatable, and
    what runs there instead takes six times as long on a processor.
    """
    import tensorflow as tf

    if on_gpu is None:
        on_gpu = bool(tf.config.list_logical_devices("GPU"))
    if not on_gpu:
        return tf.math.bincount(numbers, minlength=bins, maxlength=bins, axis=-1, dtype=tf.float32)
    batch = tf.shape(numbers)[0]
    places = numbers + bins * tf.expand_dims(tf.range(batch), -1)
    counted = tf.math.unsorted_segment_sum(tf.ones_like(numbers, tf.float32), places, batch * bins)
    return tf.reshape(counted, (-1, bins))


def _residual_kernel(residuals: _Residuals) -> Kernel:
    """Return each of the taps in each of its three colours, in steps: (lines, columns, 3, residuals)."""
    each = []
    for taps, to_colours, step in residuals.kinds:
        for number, colour in enumerate(to_colours):
            own_step = step / 2 if to_colours is _TO_YCBCR and number else step
            each.append(np.multiply.outer(np.array(taps), np.rint(colour / (own_step * _UNIT)) * _UNIT))
    return np.asarray(np.stack(each, axis=-1), np.float32)


def _numbering(
    name: str, arrangement: _Arrangement, places: Sequence[Places], residuals: int
) -> tuple[Any, list[Kernel]]:
    """Return a layer, and weights for it, that reads steps as digits and has a first number for each kind."""
    from tensorflow.keras import layers

    digits = (2 * arrangement.farthest + 1) ** np.arange(len(arrangement.mirrored))[::-1]
    columns = 1 + max(column for of_kind in places for column, _ in of_kind)
    weights = np.zeros((1, columns, residuals, len(places)), np.float32)
    for kind, of_kind in enumerate(places):
        for (column, number), digit in zip(of_kind, digits, strict=True):
            weights[0, column, number, kind] = digit
    first = (np.arange(len(places)) * arrangement.bins + arrangement.farthest * digits.sum()).astype(np.float32)
    if np.array_equal(weights.any(axis=(0, 1)), np.eye(residuals)):  # of each its own: in a third of the time
        by_itself = np.einsum("lcrr->lcr", weights)[..., None]
        return layers.DepthwiseConv2D(by_itself.shape[:2], name=name, **_FIXED), [by_itself, first]
    return layers.Conv2D(len(places), (1, columns), name=name, **_FIXED), [weights, first]


def _alike(arrangement: _Arrangement) -> Kernel:
    """Return one where an arrangement (first axis) is of a kind (second axis): alike but for sign and mirroring."""
    shape = (2 * arrangement.farthest + 1,) * len(arrangement.mirrored)
    steps = np.stack(np.unravel_index(np.arange(arrangement.bins), shape))
    both = [steps, steps[list(arrangement.mirrored)]]
    variants = both + [2 * arrangement.farthest - each for each in both]
    least = np.min([np.ravel_multi_index(list(each), shape) for each in variants], axis=0)
    kinds, kind = np.unique(least, return_inverse=True)
    indicator: Kernel = np.eye(len(kinds), dtype=np.float32)[kind]
    return indicator
