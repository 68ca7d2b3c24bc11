"""Learn what the finest texture says of an image: a small layer on counts that are kept, for many passes over them.

A network that learns step by step sees an image once an epoch, which is too seldom for this layer
(docs/generalization.md, sixth series); from counts that are kept it learns thousands of times a second.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fakeface.calibration import fit_slopes_and_bias
from fakeface.errors import UserError
from fakeface.inputs import ImagePool, Indices, scoring_dataset, training_dataset
from fakeface.params import Params
from fakeface.progress import progress
from fakeface.stopping import stops_between_steps

if TYPE_CHECKING:
    import tensorflow as tf

    from fakeface.params import Texture

Counts = npt.NDArray[np.float32]
_LEAST_SPREAD = 0.5  # of the root of a count that varies by chance alone (Poisson); also of one that never varied here


@dataclass(frozen=True)
class KeptCounts:
    """`texture_counts` (N, FEATURES) float32 and labels (N,) uint8; the first `plain` are of pictures as they are."""

    counts: Counts
    labels: npt.NDArray[np.uint8]
    plain: int


def fit_texture(
    network: tf.keras.Model, params: Params, stage: str, training: ImagePool, validation: ImagePool
) -> float:
    """Fill the layers of `network` on `texture_counts`, from counts of images of `training`, half of them augmented.

    It learns from `of_alike_files`; where there are none, the layers stay as they are, and that is said. How much they
    add to the other half's logits is fitted on `validation`, as a calibration is. Returns how many seconds it took.

    Raises:
        UserError: the loss is no longer a finite number.
        KeyboardInterrupt, SystemExit: asked for by a signal; raised between two steps.
    """
    began = time.perf_counter()
    try:
        with stops_between_steps() as stop_if_asked:
            alike = of_alike_files(training)
            if len(alike):
                print(f"{stage} texture: learned from {', '.join(np.unique(alike.sources))}", flush=True)
                _fill(network, params, stage, alike, stop_if_asked)
            else:
                print(f"{stage} texture: not learned, as no real file has the size of a fake one", flush=True)
    except (KeyboardInterrupt, SystemExit):
        print(f"{stage}: stopped while it learned the texture; the epochs before it are kept.", file=sys.stderr)
        raise
    fit_share(network, params, stage, validation)
    return time.perf_counter() - began


def _fill(
    network: tf.keras.Model, params: Params, stage: str, training: ImagePool, stop_if_asked: Callable[[], None]
) -> None:
    from fakeface.models import TEXTURE_LOGITS, TEXTURE_UNITS

    kept = kept_counts(network, params, stage, training, stop_if_asked)
    middle, spread = _standardised(kept.counts)
    kernel, bias, *answer = _learned(kept, params, stage, stop_if_asked)
    folded = kernel / spread[:, None]
    network.get_layer(TEXTURE_UNITS).set_weights([folded, bias - middle @ folded])
    network.get_layer(TEXTURE_LOGITS).set_weights(answer)


def of_alike_files(pool: ImagePool) -> ImagePool:
    """Return the images of sources whose files mostly have a size that files of the other label have too.

    Where photographs come in a size that no fake comes in, they come from elsewhere, and their finest texture tells
    where from and not what made them (docs/generalization.md, eighth series). Where sizes are not known: all of `pool`.
    """
    sizes = pool.file_sizes()
    if sizes is None:
        return pool
    usual: dict[int, dict[str, tuple[int, int]]] = {0: {}, 1: {}}
    for source in np.unique(pool.sources):
        of_source = pool.sources == source
        found, times = np.unique(sizes[of_source], axis=0, return_counts=True)
        width, height = found[times.argmax()]
        usual[int(pool.labels[of_source][0])][str(source)] = (int(width), int(height))
    shared = set(usual[0].values()) & set(usual[1].values())
    alike = [source for of_label in usual.values() for source, size in of_label.items() if size in shared]
    return pool.where(np.isin(pool.sources, alike))


def kept_counts(
    network: tf.keras.Model,
    params: Params,
    stage: str,
    training: ImagePool,
    stop_if_asked: Callable[[], None] = lambda: None,
) -> KeptCounts:
    """Count the batches that the first `copies` epochs of a stage draw, plain, and then the same epochs' augmented.

    Plain is as the files came, but for the recipe's step `resave`, by which no file's size and quality tells its label;
    without that step one epoch of them is all there is. No more than `at_most` images are counted (two batches at
    least), and half of these plain at most.
    """
    import tensorflow as tf

    from fakeface.augment import build_augmentation, file_steps
    from fakeface.models import TEXTURE_UNITS

    recipe, settings = params.chosen_recipe(), params.stage_settings(stage)
    size, all_steps = settings.batch_size, recipe.augmentation_steps(stage)
    plain, augmented = images_counted(params, stage, len(training))

    def drawn(augmentation: Sequence[Mapping[str, Any]], images: int) -> tf.data.Dataset:
        augment = build_augmentation(augmentation, params.seed)
        order = (size, settings.steps(len(training)), range(_chosen(params).copies), recipe.balance, params.seed)
        return training_dataset(training, augment, *order).take(images // size)

    batches = drawn(file_steps(all_steps), plain).concatenate(drawn(all_steps, augmented))
    counting = tf.keras.Model(network.input, network.get_layer(TEXTURE_UNITS).input)
    counts = np.empty((plain + augmented, counting.output_shape[1]), np.float32)
    labels = np.empty(len(counts), np.uint8)
    with progress(f"{stage}: counting textures", len(counts)) as advance:
        for start, (images, of_images) in zip(range(0, len(counts), size), batches, strict=True):
            counts[start : start + size] = counting.predict_on_batch(images)
            labels[start : start + size] = of_images
            advance(size)
            stop_if_asked()
    return KeptCounts(counts, labels, plain)


def images_counted(params: Params, stage: str, images: int) -> tuple[int, int]:
    """Return how many plain and how many augmented images `kept_counts` counts, from a pool of `images`."""
    from fakeface.augment import file_steps

    settings, chosen = params.stage_settings(stage), _chosen(params)
    size, steps, most = settings.batch_size, settings.steps(images), chosen.at_most // settings.batch_size
    plain_epochs = chosen.copies if file_steps(params.chosen_recipe().augmentation_steps(stage)) else 1
    plain = max(1, min(plain_epochs * steps, most // 2))
    return plain * size, max(1, min(chosen.copies * steps, most - plain)) * size


def _chosen(params: Params) -> Texture:
    """Return the recipe's settings; a ValueError where it has none is a mistake of the caller."""
    chosen = params.chosen_recipe().texture
    if chosen is None:
        raise ValueError(f"the recipe '{params.recipe}' has no texture to learn")
    return chosen


def _standardised(counts: Counts) -> tuple[Counts, Counts]:
    """Take each kind's mean off in place and divide by its spread; returns both, (FEATURES,) each."""
    middle, spread = np.empty((2, counts.shape[1]), np.float32)
    for some in np.array_split(np.arange(counts.shape[1]), 32):  # numpy copies all that it takes a spread of
        of_some = counts[:, some[0] : some[-1] + 1]
        middle[some], spread[some] = of_some.mean(axis=0), np.maximum(of_some.std(axis=0), np.float32(_LEAST_SPREAD))
        of_some -= middle[some]
        of_some /= spread[some]
    return middle, spread


def _learned(kept: KeptCounts, params: Params, stage: str, stop_if_asked: Callable[[], None]) -> list[Counts]:
    """Return kernel and bias of the units, and of the answer, learned from standardised counts."""
    from fakeface.training_callbacks import draw_anew

    lr, chosen = params.stage_settings(stage).lr, _chosen(params)
    each = _halves(kept)
    steps = max(1, len(each) // chosen.batch_size)
    layers = _layers(kept.counts.shape[1], chosen.units, params.seed, lr * chosen.rate, steps * chosen.passes)
    order = np.random.default_rng(params.seed)
    with progress(f"{stage}: texture's training steps", steps * chosen.passes) as advance:
        for number in range(chosen.passes):
            draw_anew(layers, params.seed, number)
            losses = []
            for batch in np.array_split(order.permutation(each), steps):
                losses.append(layers.train_on_batch(kept.counts[batch], kept.labels[batch]))
                advance(1)
                stop_if_asked()
            if not math.isfinite(losses[-1]):
                raise UserError(
                    f"{stage}: the loss of the texture's layer is {losses[-1]} at learning rate {lr:g}; choose a "
                    f"smaller rate, for example -S stages.{stage}.lr={lr / 10:g}."
                )
    print(f"{stage} texture, pass {chosen.passes}/{chosen.passes}: loss {np.mean(losses):.4f}", flush=True)
    return list(layers.get_weights())


def _halves(kept: KeptCounts) -> Indices:
    """Return positions of a pass: each augmented image once, and as many plain ones, in turns."""
    augmented = np.arange(kept.plain, len(kept.labels))
    return np.concatenate([np.resize(np.arange(kept.plain), len(augmented)), augmented])


def _layers(features: int, units: int, seed: int, lr: float, steps: int) -> tf.keras.Model:
    import tensorflow as tf
    from tensorflow.keras import layers

    def fresh(number: int) -> Any:
        return tf.keras.initializers.GlorotUniform(seed=seed + number)

    network = tf.keras.Sequential(
        [
            tf.keras.Input((features,)),
            layers.Dropout(0.1, dtype="float32", name="texture_dropout"),
            layers.Dense(units, "relu", kernel_initializer=fresh(0), dtype="float32"),
            layers.Dropout(0.4, dtype="float32", name="texture_units_dropout"),
            layers.Dense(2, "softmax", kernel_initializer=fresh(1), dtype="float32"),
        ]
    )
    rate = tf.keras.optimizers.schedules.CosineDecay(lr, steps, alpha=0.01)
    network.compile(tf.keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    return network


def fit_share(network: tf.keras.Model, params: Params, stage: str, validation: ImagePool) -> None:
    """Scale the texture's logits so that their sum with the other half's is best on validation images.

    Both slopes of a Platt scaling of two logits are fitted, and their ratio is the scale. The images come in every kind
    of file, by the recipe's step `resave`, or this half would be trusted as files of known kinds deserve it.
    """
    from fakeface.augment import file_augmentation
    from fakeface.models import TEXTURE_LOGITS, logits_of_halves

    if len(np.unique(validation.labels)) < 2:
        return
    recipe, halves = params.chosen_recipe(), logits_of_halves(network, params.chosen_recipe().mirrored_view)
    augment = file_augmentation(recipe.augmentation_steps(stage), params.seed)
    batches = scoring_dataset(validation, params.validation_batch_size, augment=augment)
    logits = []
    with progress(f"{stage}: weighing the texture on validation images", len(validation)) as advance:
        for images, _ in batches:
            logits.append(np.stack([answer[:, 1] - answer[:, 0] for answer in halves.predict_on_batch(images)], axis=1))
            advance(len(images))
    of_both = np.concatenate(logits).astype(np.float64)
    (of_shapes, of_texture), _ = fit_slopes_and_bias(validation.labels, of_both)
    layer = network.get_layer(TEXTURE_LOGITS)
    layer.set_weights([each * np.float32(of_texture / of_shapes) for each in layer.get_weights()])
