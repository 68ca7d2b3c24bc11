"""A network and a pool of images in, raw scores out."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from fakeface.data.image_pool import ImagePool
from fakeface.data.input_pipeline import build_scoring_dataset
from fakeface.system.progress import show_progress

if TYPE_CHECKING:
    import tensorflow as tf

Scores: TypeAlias = npt.NDArray[np.float64]


def predict_raw_scores(model: tf.keras.Model, images: npt.ArrayLike) -> Scores:
    """Return the network's raw P(fake), (N,) float64 in [0, 1], of images (N, S, S, 3) in 0..255.

    A softmax in float32 tells logits near 16 apart in its small part alone: what lies near 1 is taken from the other.
    """
    real, fake = np.asarray(model.predict_on_batch(np.asarray(images, np.float32)), np.float64).T
    return np.where(fake > real, 1 - real, fake)


def score_pool(model: tf.keras.Model, pool: ImagePool, batch_size: int, what: str) -> Scores:
    """Return the network's raw P(fake) for each image of the pool, (N,) float64 in [0, 1], before calibration."""
    scores = []
    with show_progress(f"scoring {what}", len(pool)) as advance:
        for images, _ in build_scoring_dataset(pool, batch_size):
            scores.append(predict_raw_scores(model, images))
            advance(len(images))
    return np.concatenate(scores) if scores else np.empty(0)
