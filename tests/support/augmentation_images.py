"""Photo-like images, and an augmentation run on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from fakeface.models.device import quiet_tensorflow

quiet_tensorflow()
import tensorflow as tf  # noqa: E402

from fakeface.training.augmentation.build_augmentation import build_augmentation  # noqa: E402

Images = npt.NDArray[Any]
SIZE = 64


def photos(count: int = 8, size: int = SIZE, seed: int = 0) -> Images:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(0, 1, (count, size, size, 3)), (0, 4, 4, 0), mode="wrap")
    images = 128 + smooth / smooth.std() * 45 + rng.normal(0, 2, smooth.shape)
    images[:, size // 3 : size // 2, size // 4 : -size // 4] += 60
    clipped: Images = images.clip(0, 255).astype(np.uint8)
    return clipped


def column(*values: float) -> npt.NDArray[np.float64]:
    return np.array(values, np.float64)[:, np.newaxis]


def distance(one: Any, other: Any) -> float:
    return float(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).max())


def run_eagerly(
    steps: Sequence[dict[str, Any]], images: Images, seed: int = 7, key: tuple[int, int] = (0, 0)
) -> Images:
    result: Images = build_augmentation(steps, seed)(images, tf.constant(key, tf.int64)).numpy()
    return result


def run_in_tf_data(steps: list[dict[str, Any]], images: Images, count: int, threads: int) -> list[Images]:
    augment = build_augmentation(steps, 7)
    keys = tf.data.Dataset.range(count).map(lambda step: tf.stack([tf.constant(0, tf.int64), step]))
    batches = tf.data.Dataset.from_tensors(images).repeat(count)
    dataset = tf.data.Dataset.zip((batches, keys)).map(augment, num_parallel_calls=threads)
    return [np.asarray(batch) for batch in dataset]
