"""A network and a pool of images in, raw scores out."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from fakeface.inputs import ImagePool, scoring_dataset
from fakeface.progress import progress

if TYPE_CHECKING:
    import tensorflow as tf

Scores: TypeAlias = npt.NDArray[np.float64]


def score_pool(model: tf.keras.Model, pool: ImagePool, batch_size: int, what: str) -> Scores:
    """Return the network's raw P(fake) for each image of the pool, (N,) float64 in [0, 1], before calibration."""
    scores = []
    with progress(f"scoring {what}", len(pool)) as advance:
        for images, _ in scoring_dataset(pool, batch_size):
            scores.append(np.asarray(model.predict_on_batch(images))[:, 1].astype(np.float64))
            advance(len(images))
    return np.concatenate(scores) if scores else np.empty(0)
