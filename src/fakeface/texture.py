"""How often four residuals stand in a row: what the finest texture of a picture is like, whatever the picture shows.

These are submodels of the rich models of Fridrich and Kodovský (IEEE Transactions on Information Forensics and Security
7(3), 2012, 868-882), which were made to find what a steganographer changes in a photograph. They are written as layers
with fixed weights and plain operations of TensorFlow, so that a saved network needs no code of ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FEATURES = 2028  # 12 kinds of residual, and 169 kinds of four in a row of each
_FARTHEST = 2  # steps; a residual beyond is counted as this one
_STEPS = 2 * _FARTHEST + 1
_IN_A_ROW = 4
_ROWS = _STEPS**_IN_A_ROW
_TO_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])  # JFIF
# Taps over 3 rows and 4 columns: what a neighbour, the line and the parabola through neighbours, and the 3×3 square
# leave unexplained of a pixel; and the step that it is counted in, in grey levels (half of it for chroma)
_TAPS = (
    (((0, 0, 0, 0), (0, -1, 1, 0), (0, 0, 0, 0)), 2.0),
    (((0, 0, 0, 0), (1, -2, 1, 0), (0, 0, 0, 0)), 2.0),
    (((0, 0, 0, 0), (-1, 3, -3, 1), (0, 0, 0, 0)), 3.0),
    (((-0.25, 0.5, -0.25, 0), (0.5, -1, 0.5, 0), (-0.25, 0.5, -0.25, 0)), 1.0),
)
_KINDS = len(_TAPS) * len(_TO_YCBCR)


def texture_counts(images: Any) -> Any:
    """Return roots of the counts of each kind of row, float32 (batch, FEATURES), of images (batch, S, S, 3) in 0..255.

    Rows to the right and downwards are counted together, and so are a row, its mirror image and its negative. The root
    of a count has about the same noise, whatever the count is.
    """
    import tensorflow as tf
    from tensorflow.keras import layers

    fixed: dict[str, Any] = {"trainable": False, "dtype": "float32"}  # float32 whatever the precision policy
    residuals = layers.Conv2D(_KINDS, (3, 4), use_bias=False, name="texture_residuals", **fixed)
    steps = tf.clip_by_value(tf.round(residuals(images)), -float(_FARTHEST), float(_FARTHEST))
    residuals.set_weights([_residual_kernel()])
    counts = []
    for name, shape in (("right", (1, _IN_A_ROW)), ("down", (_IN_A_ROW, 1))):
        numbers = layers.DepthwiseConv2D(shape, name=f"texture_{name}", **fixed)
        rows = tf.cast(numbers(steps), tf.int32)
        numbers.set_weights(_numbering(shape))
        counts.append(occurrences(tf.reshape(rows, (-1, int(np.prod(rows.shape[1:])))), _KINDS * _ROWS))
    alike = _alike()
    together = layers.Dense(alike.shape[1], use_bias=False, name="texture_alike", **fixed)
    summed = together(tf.reshape(tf.add_n(counts), (-1, _KINDS, _ROWS)))
    together.set_weights([alike])
    return tf.sqrt(tf.reshape(summed, (-1, FEATURES)))


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


def _residual_kernel() -> npt.NDArray[np.float32]:
    """Each of _TAPS on luminance, then on both chromas, in its steps: (3, 4, 3, 12)."""
    kernel: list[npt.NDArray[np.float64]] = [
        np.multiply.outer(np.array(taps), colour) / (step if number == 0 else step / 2)
        for number, colour in enumerate(_TO_YCBCR)
        for taps, step in _TAPS
    ]
    together: npt.NDArray[np.float32] = np.stack(kernel, axis=-1).astype(np.float32)
    return together


def _numbering(shape: tuple[int, int]) -> list[npt.NDArray[np.float32]]:
    """Weights that read four steps as digits, and a first number for each kind of residual."""
    digits = _STEPS ** np.arange(_IN_A_ROW)[::-1]
    weights = np.broadcast_to(digits[:, None], (_IN_A_ROW, _KINDS)).reshape(*shape, _KINDS, 1)
    first = np.arange(_KINDS) * _ROWS + _FARTHEST * digits.sum()
    return [weights.astype(np.float32), first.astype(np.float32)]


def _alike() -> npt.NDArray[np.float32]:
    """One where a row (first axis, 625) counts as a kind (second axis, 169): rows alike but for mirror and sign."""
    shape = (_STEPS,) * _IN_A_ROW
    rows = np.stack(np.unravel_index(np.arange(_ROWS), shape))
    variants = rows, rows[::-1], _STEPS - 1 - rows, (_STEPS - 1 - rows)[::-1]
    least = np.min([np.ravel_multi_index(list(each), shape) for each in variants], axis=0)
    kinds, kind = np.unique(least, return_inverse=True)
    indicator: npt.NDArray[np.float32] = np.eye(len(kinds), dtype=np.float32)[kind]
    return indicator
