"""Stores of decoded images → batches for TensorFlow, in an order that only the seed and the step decide."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fakeface.data.image_pool import ImagePool, Indices
from fakeface.system.interpreter_shutdown import CALLS

if TYPE_CHECKING:
    import tensorflow as tf


MAX_PARALLEL_CALLS = 16  # batches that are made side by side: each takes its memory, and Python's lock allows few more


@dataclass(frozen=True)
class BatchShard:
    """What one process reads of every batch: `count` of `of` equal parts, from the part `first` on."""

    first: int = 0
    count: int = 1
    of: int = 1

    def locate(self, number: int) -> tuple[int, int]:
        """Return the batch of the `number`-th part that this process reads, and which part of that batch it is."""
        return number // self.count, self.first + number % self.count


WHOLE = BatchShard()


def derive_stage_seed(seed: int, stage: str) -> int:
    """Return the seed of a stage's batches, their augmentation and its dropout, below 2³²; no two stages share one."""
    return int.from_bytes(hashlib.sha256(f"{seed} {stage}".encode()).digest()[:4], "big")


def draw_epoch_batches(pool: ImagePool, batch_size: int, steps: int, balance: str, seed: int, epoch: int) -> Indices:
    """Return the positions of one epoch's batches, (steps, batch_size).

    balance `none`: a random order of all images, started anew when they run out. balance `source`: half of each batch
    is real and half fake, and within a class every source comes equally often.
    """
    rng = np.random.default_rng([seed, epoch])
    if balance == "none":
        return _repeat_shuffled(np.arange(len(pool)), steps * batch_size, rng).reshape(steps, batch_size)
    fakes = batch_size // 2
    halves = []
    for label, width in ((0, batch_size - fakes), (1, fakes)):
        of_class = np.flatnonzero(pool.labels == label)
        names = np.unique(pool.sources[of_class])
        quota = -(-steps * width // len(names))
        by_source = [_repeat_shuffled(of_class[pool.sources[of_class] == name], quota, rng) for name in names]
        mixed = np.stack(by_source, axis=1).reshape(-1)[: steps * width]
        halves.append(mixed.reshape(steps, width))
    return np.concatenate(halves, axis=1)


def _repeat_shuffled(positions: Indices, count: int, rng: np.random.Generator) -> Indices:
    rounds = [rng.permutation(positions) for _ in range(-(-count // len(positions)))]
    order: Indices = np.concatenate(rounds)[:count]
    return order


def build_training_dataset(
    pool: ImagePool,
    augment: Callable[..., Any],
    batch_size: int,
    steps_per_epoch: int,
    epochs: range,
    balance: str,
    seed: int,
    share: BatchShard = WHOLE,
) -> tf.data.Dataset:
    """Return batches (images float32 (B, S, S, 3) in 0..255, labels (B,)) of some epochs, counted from 0.

    Batch and augmentation depend on the seed, the epoch and the step alone, so a resumed training sees what an
    uninterrupted one would have seen. With `share`, its parts of each batch in their order, as they are in the whole.
    """
    import tensorflow as tf

    order = lru_cache(2)(partial(draw_epoch_batches, pool, batch_size, steps_per_epoch, balance, seed))
    size = batch_size // share.of

    def positions(number: int) -> Indices:
        step, part = share.locate(number)
        batch: Indices = order(step // steps_per_epoch)[step % steps_per_epoch]
        return batch[part * size : (part + 1) * size]

    read = _make_read_op(pool, size, positions)

    def batch(number: Any) -> tuple[Any, Any]:
        images, labels = read(number)
        step, part = share.locate(number)
        key = tf.stack([tf.constant(seed, tf.int64), step])
        augmented = augment(images, key) if share.of == 1 else augment(images, key, part * size, batch_size)
        return tf.cast(augmented, tf.float32), labels

    parts = steps_per_epoch * share.count
    numbers = tf.data.Dataset.range(epochs.start * parts, epochs.stop * parts)
    batch = tf.autograph.experimental.do_not_convert(batch)  # plain TensorFlow; converting it takes a second
    batches = numbers.map(batch, num_parallel_calls=_num_parallel_calls(), deterministic=True)
    return _disable_autotune(batches.prefetch(2 + 2 * share.count))


def count_scoring_steps(pool: ImagePool, batch_size: int) -> int:
    """Return how many batches the pool has, the last one perhaps a small one."""
    return -(-len(pool) // batch_size)


def build_scoring_dataset(pool: ImagePool, batch_size: int, share: BatchShard = WHOLE) -> tf.data.Dataset:
    """Return batches (images float32 in 0..255, labels) of the whole pool in its order, once, as they are.

    With `share`, its parts of each batch; they differ by an image where the batch cannot be divided equally.
    """
    import tensorflow as tf

    def positions(number: int) -> Indices:
        step, part = share.locate(number)
        batch = np.arange(step * batch_size, min((step + 1) * batch_size, len(pool)))
        parts: list[Indices] = np.array_split(batch, share.of)
        return parts[part]

    read = _make_read_op(pool, None, positions)

    def batch(number: Any) -> tuple[Any, Any]:
        images, labels = read(number)
        return tf.cast(images, tf.float32), labels

    numbers = tf.data.Dataset.range(count_scoring_steps(pool, batch_size) * share.count)
    batch = tf.autograph.experimental.do_not_convert(batch)
    return _disable_autotune(numbers.map(batch).prefetch(4))


def _num_parallel_calls() -> int:
    return min(MAX_PARALLEL_CALLS, max(2, os.cpu_count() or 1))


def _disable_autotune(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Return the batches without tf.data's tuner, which has nothing to tune where every width is given.

    Its thread sleeps 10, 20, 40 ms and so on, up to a minute, and an iterator that ends waits until it is awake.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def _make_read_op(
    pool: ImagePool, batch_size: int | None, positions_of: Callable[[int], Indices]
) -> Callable[[Any], Any]:
    """Return the operation batch number -> (images uint8 (batch_size, S, S, 3), labels uint8 (batch_size,)).

    A function for tf.data's `map`, not a generator: an iterator over a generator that is alive when the process ends
    calls Python once more, too late, and the process hangs.
    """
    import tensorflow as tf

    size = pool.stores[0].images.shape[1]

    def read(number: Any) -> tuple[Any, Any]:
        with CALLS:
            positions = positions_of(int(number))
            return pool.gather(positions), pool.labels[positions]

    def operation(number: Any) -> tuple[Any, Any]:
        images, labels = tf.numpy_function(read, [number], (tf.uint8, tf.uint8), stateful=False)
        return tf.ensure_shape(images, (batch_size, size, size, 3)), tf.ensure_shape(labels, (batch_size,))

    return operation
