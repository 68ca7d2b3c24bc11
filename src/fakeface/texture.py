"""How often residuals stand together as they do: what the finest texture of a picture is like, whatever it shows.

Counted are four residuals in a row, submodels of the rich models of Fridrich and Kodovský (IEEE Transactions on
Information Forensics and Security 7(3), 2012, 868-882), and the three colours' residuals at one place, as in the colour
rich models of Goljan, Fridrich and Cogranne (IEEE WIFS 2014): both were made to find what a steganographer changes in a
photograph. They are written as layers with fixed weights and plain operations of TensorFlow, so that a saved network
needs no code of ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FEATURES = 2716  # of 12 kinds of residual 169 kinds of four in a row, and of 4 kinds 172 kinds of three colours
_TO_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])  # JFIF
# Taps over 3 rows and 4 columns: what a neighbour, the line and the parabola through neighbours, and the 3×3 square
# leave unexplained of a pixel; and the step that it is counted in, in grey levels (half of it for chroma)
_TAPS = (
    (((0, 0, 0, 0), (0, -1, 1, 0), (0, 0, 0, 0)), 2.0),
    (((0, 0, 0, 0), (1, -2, 1, 0), (0, 0, 0, 0)), 2.0),
    (((0, 0, 0, 0), (-1, 3, -3, 1), (0, 0, 0, 0)), 3.0),
    (((-0.25, 0.5, -0.25, 0), (0.5, -1, 0.5, 0), (-0.25, 0.5, -0.25, 0)), 1.0),
)
_COLOURS = 3
# Of a weight, in steps: sums over pixels of 0 to 255 are then exact in float32 in whatever order they are taken, so
# that a residual which lies just between two steps is counted alike in training, evaluation and serving
_UNIT = 1 / 1024
_KINDS = len(_TAPS) * _COLOURS
# Residuals that stand together, and how many steps off zero one is told apart; one beyond is counted as the farthest
_ROW, _ROW_FARTHEST = 4, 2
_TRIPLE, _TRIPLE_FARTHEST = _COLOURS, 3

# In spreads from the mean. A picture changed as few were, such as one halved and enlarged, lies far out in many counts
# at once, and the layer said of it what no image had taught it (docs/generalization.md, twelfth series)
_FARTHEST_COUNT = 2.0


def limited(standardised: Any) -> Any:
    """Return standardised counts, float32 (batch, FEATURES), cut off where images of the training seldom are."""
    import tensorflow as tf

    return tf.clip_by_value(standardised, -_FARTHEST_COUNT, _FARTHEST_COUNT)


def texture_counts(images: Any) -> Any:
    """Return roots of the counts of each kind, float32 (batch, FEATURES), of images (batch, S, S, 3) in 0..255.

    Taps and rows lie along the picture's lines and, counted together with these, along its columns. A row, its mirror
    image and its negative are of one kind, and so are three colours and their negative. The root of a count has about
    the same noise, whatever the count is.
    """
    import tensorflow as tf
    from tensorflow.keras import layers

    fixed: dict[str, Any] = {"trainable": False, "dtype": "float32"}  # float32 whatever the precision policy
    of_picture = layers.Conv2D(_KINDS, (3, 4), use_bias=False, name="texture_residuals", **fixed)
    of_colours = layers.Conv2D(_KINDS, (3, 4), use_bias=False, name="texture_colour_residuals", **fixed)
    rows = layers.DepthwiseConv2D((1, _ROW), name="texture_rows", **fixed)
    triples = layers.Conv2D(len(_TAPS), 1, name="texture_triples", **fixed)
    counts_of_rows, counts_of_triples = [], []
    for view in (images, tf.transpose(images, (0, 2, 1, 3))):
        in_rows, in_colours = _steps(of_picture(view), _ROW_FARTHEST), _steps(of_colours(view), _TRIPLE_FARTHEST)
        counts_of_rows.append(_counted(rows(in_rows), _KINDS * _arrangements(_ROW, _ROW_FARTHEST)))
        counts_of_triples.append(_counted(triples(in_colours), len(_TAPS) * _arrangements(_TRIPLE, _TRIPLE_FARTHEST)))
    for layer, kernel in zip((of_picture, of_colours), _residual_kernels(), strict=True):
        layer.set_weights([kernel])
    rows.set_weights(_row_numbering())
    triples.set_weights(_triple_numbering())
    kinds = []
    for name, counts, residuals_counted, alike in (
        ("texture_rows_alike", counts_of_rows, _KINDS, _alike(_ROW, _ROW_FARTHEST, mirrored=True)),
        ("texture_triples_alike", counts_of_triples, len(_TAPS), _alike(_TRIPLE, _TRIPLE_FARTHEST, mirrored=False)),
    ):
        together = layers.Dense(alike.shape[1], use_bias=False, name=name, **fixed)
        summed = together(tf.reshape(tf.add_n(counts), (-1, residuals_counted, len(alike))))
        together.set_weights([alike])
        kinds.append(tf.reshape(summed, (-1, residuals_counted * alike.shape[1])))
    return tf.sqrt(tf.concat(kinds, axis=-1))


def _steps(residuals: Any, farthest: int) -> Any:
    import tensorflow as tf

    return tf.clip_by_value(tf.round(residuals), -float(farthest), float(farthest))


def _counted(numbers: Any, bins: int) -> Any:
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


def _arrangements(places: int, farthest: int) -> int:
    return int((2 * farthest + 1) ** places)


def _residual_kernels() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Each of _TAPS on luminance and both chromas, and on red, green and blue, in its steps: (3, 4, 3, 12) each."""

    def residual(taps: Any, colour: npt.NDArray[np.float64], step: float) -> npt.NDArray[np.float64]:
        return np.multiply.outer(np.array(taps), np.rint(colour / (step * _UNIT)) * _UNIT)

    converted = [
        residual(taps, colour, step if number == 0 else step / 2)
        for number, colour in enumerate(_TO_YCBCR)
        for taps, step in _TAPS
    ]
    plain = [residual(taps, colour, step) for taps, step in _TAPS for colour in np.eye(_COLOURS)]
    return np.stack(converted, axis=-1).astype(np.float32), np.stack(plain, axis=-1).astype(np.float32)


def _row_numbering() -> list[npt.NDArray[np.float32]]:
    """Weights that read four steps as digits, and a first number for each kind of residual."""
    digits = (2 * _ROW_FARTHEST + 1) ** np.arange(_ROW)[::-1]
    weights = np.broadcast_to(digits[:, None], (_ROW, _KINDS)).reshape(1, _ROW, _KINDS, 1)
    first = np.arange(_KINDS) * _arrangements(_ROW, _ROW_FARTHEST) + _ROW_FARTHEST * digits.sum()
    return [weights.astype(np.float32), first.astype(np.float32)]


def _triple_numbering() -> list[npt.NDArray[np.float32]]:
    """Weights that read one tap's steps in red, green and blue as digits, and a first number for each tap."""
    digits = (2 * _TRIPLE_FARTHEST + 1) ** np.arange(_TRIPLE)[::-1]
    weights = np.kron(np.eye(len(_TAPS)), digits[:, None])[None, None]
    first = np.arange(len(_TAPS)) * _arrangements(_TRIPLE, _TRIPLE_FARTHEST) + _TRIPLE_FARTHEST * digits.sum()
    return [weights.astype(np.float32), first.astype(np.float32)]


def _alike(places: int, farthest: int, mirrored: bool) -> npt.NDArray[np.float32]:
    """One where an arrangement (first axis) is of a kind (second axis): alike but for sign and perhaps mirroring."""
    shape = (2 * farthest + 1,) * places
    steps = np.stack(np.unravel_index(np.arange(_arrangements(places, farthest)), shape))
    negative = 2 * farthest - steps
    variants = [steps, negative, *([steps[::-1], negative[::-1]] if mirrored else [])]
    least = np.min([np.ravel_multi_index(list(each), shape) for each in variants], axis=0)
    kinds, kind = np.unique(least, return_inverse=True)
    indicator: npt.NDArray[np.float32] = np.eye(len(kinds), dtype=np.float32)[kind]
    return indicator
