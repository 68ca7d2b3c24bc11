"""Learn what the finest texture says of an image: a small layer on counts that are kept, for many passes over them.

A network that learns step by step sees an image once an epoch, which is too seldom for this layer
(docs/generalization.md, sixth series); from counts that are kept it learns thousands of times a second.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from fakeface.calibration import fit_slopes_and_bias
from fakeface.errors import UserError
from fakeface.inputs import ImagePool, Indices, scoring_dataset, stage_seed, training_dataset
from fakeface.params import Params
from fakeface.progress import progress
from fakeface.stopping import stops_between_steps
from fakeface.texture import limited

if TYPE_CHECKING:
    import tensorflow as tf

    from fakeface.params import Texture, TextureLearning

Counts = npt.NDArray[np.float32]
# Shares of the counts and of the units that a step leaves out (docs/generalization.md, eleventh series)
_COUNTS_DROPPED, _UNITS_DROPPED = 0.2, 0.1
_ALIKE = 0.5  # see of_alike_files
_LEAST_SPREAD = 0.5  # of the root of a count that varies by chance alone (Poisson); also of one that never varied here


@dataclass(frozen=True)
class KeptCounts:
    """`texture_counts` (N, FEATURES) float32 and labels (N,) uint8, of one kind of images after the other.

    `kinds`: how many are of images as they are, of images saved again, and of augmented ones.
    """

    counts: Counts
    labels: npt.NDArray[np.uint8]
    kinds: tuple[int, int, int]


def fit_texture(
    network: tf.keras.Model, params: Params, stage: str, training: ImagePool, validation: ImagePool
) -> float:
    """Fill the layers of `network` on `texture_counts`, from counts of images of `training`, changed and as they are.

    It learns from `of_alike_files`, and goes on from what a stage before has learned, unless that is worse than even
    odds here; the counts' moments stay those of the stage that learned it anew. Where there are no such files the
    layers stay as they are, and that is said. How much they add to the other half's logits is fitted on `validation`,
    as a calibration is. Returns how many seconds it took.

    Raises:
        UserError: the loss is no longer a finite number.
        KeyboardInterrupt, SystemExit: asked for by a signal; raised between two steps.
    """
    began = time.perf_counter()
    try:
        with stops_between_steps() as stop_if_asked:
            alike = of_alike_files(training)
            if len(alike):
                how = "goes on learning" if has_learned(network) else "learned"
                as_they_are = seen_as_they_are(params, stage, alike)
                print(f"{stage} texture: {how} from {_in_words(alike, as_they_are)}", flush=True)
                _fill(network, params, stage, alike, as_they_are, stop_if_asked)
            else:
                kept = " and left as it was" if has_learned(network) else ""
                print(f"{stage} texture: not learned{kept}, as no real file has the size of a fake one", flush=True)
    except (KeyboardInterrupt, SystemExit):
        print(f"{stage}: stopped while it learned the texture; the epochs before it are kept.", file=sys.stderr)
        raise
    fit_share(network, params, stage, validation)
    return time.perf_counter() - began


def _in_words(alike: ImagePool, as_they_are: ImagePool) -> str:
    """Name the sources learned from, and those whose images are looked at as they are, where these are not all."""
    sources, unchanged = (", ".join(np.unique(each.sources)) for each in (alike, as_they_are))
    if unchanged == sources:
        return sources
    return f"{sources}; as they are: {unchanged or 'none, as real files are coded otherwise than fake ones'}"


def has_learned(network: tf.keras.Model) -> bool:
    """Tell whether the layers on the texture say anything; fresh ones, and ones found useless, do not."""
    from fakeface.models import TEXTURE_LOGITS

    return any(each.any() for each in network.get_layer(TEXTURE_LOGITS).get_weights())


def _fill(
    network: tf.keras.Model,
    params: Params,
    stage: str,
    training: ImagePool,
    as_they_are: ImagePool,
    stop_if_asked: Callable[[], None],
) -> None:
    from fakeface.models import TEXTURE_LOGITS, TEXTURE_SPREADS, TEXTURE_UNITS

    spreads, units, logits = (network.get_layer(each) for each in (TEXTURE_SPREADS, TEXTURE_UNITS, TEXTURE_LOGITS))
    before = [*units.get_weights(), *logits.get_weights()] if has_learned(network) else None
    learning = texture_learning(params, before is not None)
    kept = kept_counts(network, params, stage, training, as_they_are, learning.copies, stop_if_asked)
    if before is not None:
        _standardise(kept.counts, *spreads.get_weights())
        if _log_loss(before, kept) > math.log(2):
            # `again` is too short to mend it; seen where a share made the logits of a sure layer hundreds
            print(f"{stage} texture: learned anew, as the one before tells less than even odds do", flush=True)
            before, learning = None, texture_learning(params, False)
            kept = kept_counts(network, params, stage, training, as_they_are, learning.copies, stop_if_asked)
    if before is None:
        spreads.set_weights(_moments(kept.counts))
        _standardise(kept.counts, *spreads.get_weights())
    kernel, bias, *answer = _learned(kept, params, stage, learning, before, stop_if_asked)
    units.set_weights([kernel, bias])
    logits.set_weights(answer)


def _log_loss(weights: list[Counts], kept: KeptCounts) -> float:
    """Return the mean log loss of units and answer of these weights on standardised counts."""
    kernel, bias, answer, answer_bias = weights
    both = np.maximum(kept.counts @ kernel + bias, 0) @ answer + answer_bias
    towards_fake = (both[:, 1] - both[:, 0]).astype(np.float64)
    return float(np.mean(np.logaddexp(0, towards_fake) - kept.labels * towards_fake))


def of_alike_files(pool: ImagePool, coded: bool = False) -> ImagePool:
    """Return the images of sources whose files have the sizes that files of a source of the other label have too.

    Where photographs come in a size that no fake comes in, they come from elsewhere, and their finest texture tells
    where from and not what made them (docs/generalization.md, eighth series). With `coded`, sizes and codings, which
    leave their marks too. Two sources are alike when the shares that the forms of files have in both (the smaller of
    the two shares, summed over forms) come to half or more. Where forms are not known: all of `pool`.
    """
    forms = pool.file_forms(coded)
    if forms is None:
        return pool
    shares: dict[int, dict[str, dict[str, float]]] = {0: {}, 1: {}}
    for source in np.unique(pool.sources):
        of_source = pool.sources == source
        known = Counter(form for form in forms[of_source] if form)
        of_label = shares[int(pool.labels[of_source][0])]
        of_label[str(source)] = {form: count / of_source.sum() for form, count in known.items()}
    alike: set[str] = set()
    for (real, of_real), (fake, of_fake) in itertools.product(shares[0].items(), shares[1].items()):
        if sum(min(share, of_fake.get(form, 0.0)) for form, share in of_real.items()) >= _ALIKE:
            alike |= {real, fake}
    return pool.where(np.isin(pool.sources, sorted(alike)))


def seen_as_they_are(params: Params, stage: str, training: ImagePool) -> ImagePool:
    """Return the images that may be learned from unchanged: of files coded alike, where the recipe saves files again.

    Else what `resave` hides, how files are coded, would tell the label in these.
    """
    from fakeface.augment import file_steps

    hides_coding = bool(file_steps(params.chosen_recipe().augmentation_steps(stage)))
    return of_alike_files(training, coded=True) if hides_coding else training


def kept_counts(
    network: tf.keras.Model,
    params: Params,
    stage: str,
    training: ImagePool,
    as_they_are: ImagePool,
    copies: int,
    stop_if_asked: Callable[[], None] = lambda: None,
) -> KeptCounts:
    """Count batches of three kinds: one epoch of `as_they_are` and, of `training`, `copies` saved again and augmented.

    Saved again is after the recipe's step `resave` alone, by which no file's size and quality tells its label. A second
    epoch of images as they are would count nearly all of them again. No more than `at_most` images are counted (one
    batch of each kind at least), and of each kind its share of these at most.
    """
    import tensorflow as tf

    from fakeface.augment import build_augmentation, file_steps
    from fakeface.models import TEXTURE_SPREADS

    recipe, settings = params.chosen_recipe(), params.stage_settings(stage)
    size, all_steps, seed = settings.batch_size, recipe.augmentation_steps(stage), stage_seed(params.seed, stage)
    kinds = images_counted(params, stage, len(training), copies, len(as_they_are))

    def drawn(pool: ImagePool, augmentation: Sequence[Mapping[str, Any]], images: int) -> tf.data.Dataset:
        augment = build_augmentation(augmentation, seed)
        order = (size, settings.steps(len(pool)), range(copies), recipe.balance, seed)
        return training_dataset(pool, augment, *order).take(images // size)

    pools = (as_they_are, training, training)
    steps: tuple[Sequence[Mapping[str, Any]], ...] = ((), file_steps(all_steps), all_steps)
    of_kinds = [drawn(*each) for each in zip(pools, steps, kinds, strict=True) if each[-1]]
    counting = tf.keras.Model(network.input, network.get_layer(TEXTURE_SPREADS).input)
    counts = np.empty((sum(kinds), counting.output_shape[1]), np.float32)
    labels = np.empty(len(counts), np.uint8)
    with progress(f"{stage}: counting textures", len(counts)) as advance:
        batches = itertools.chain(*of_kinds)
        for start, (images, of_images) in zip(range(0, len(counts), size), batches, strict=True):
            counts[start : start + size] = counting.predict_on_batch(images)
            labels[start : start + size] = of_images
            advance(size)
            stop_if_asked()
    return KeptCounts(counts, labels, kinds)


def images_counted(
    params: Params, stage: str, images: int, copies: int, as_they_are: int | None = None
) -> tuple[int, int, int]:
    """Return how many images of each kind (`KeptCounts`) `kept_counts` counts, from a pool of `images`.

    `as_they_are`: how many of these may be seen unchanged; None for all.
    """
    from fakeface.augment import file_steps

    settings = params.stage_settings(stage)
    size, most = settings.batch_size, _chosen(params).at_most // settings.batch_size
    epoch, unchanged = settings.steps(images), images if as_they_are is None else as_they_are
    saves_again = bool(file_steps(params.chosen_recipe().augmentation_steps(stage)))
    wanted = (settings.steps(unchanged) if unchanged else 0, copies * epoch if saves_again else 0, copies * epoch)
    batches: list[int] = []
    for number, each in enumerate(wanted):
        share = (most - sum(batches)) // np.count_nonzero(wanted[number:])
        batches.append(max(1, min(each, share)) if each else 0)
    first, second, third = (each * size for each in batches)
    return first, second, third


def texture_learning(params: Params, goes_on: bool) -> TextureLearning:
    """Return the recipe's settings of a layer that starts anew, or of one that goes on from a stage before."""
    chosen = _chosen(params)
    return chosen.again if goes_on else chosen


def _chosen(params: Params) -> Texture:
    """Return the recipe's settings; a ValueError where it has none is a mistake of the caller."""
    chosen = params.chosen_recipe().texture
    if chosen is None:
        raise ValueError(f"the recipe '{params.recipe}' has no texture to learn")
    return chosen


def _moments(counts: Counts) -> tuple[Counts, Counts]:
    """Return each kind's mean and variance, (FEATURES,) each."""
    mean, variance = np.empty((2, counts.shape[1]), np.float32)
    for some in _some_columns(counts):
        mean[some], variance[some] = counts[:, some].mean(axis=0), counts[:, some].var(axis=0)
    return mean, np.maximum(variance, np.float32(_LEAST_SPREAD**2))


def _standardise(counts: Counts, mean: Counts, variance: Counts) -> None:
    """Do in place what a network's layers do before the units: by `mean` and `variance`, and no farther out."""
    for some in _some_columns(counts):
        counts[:, some] = limited((counts[:, some] - mean[some]) / np.sqrt(variance[some]))


def _some_columns(counts: Counts) -> list[slice]:
    """Return slices of all columns; numpy copies all that it takes moments of at once."""
    edges = np.linspace(0, counts.shape[1], 33).astype(int)
    return [slice(int(start), int(end)) for start, end in itertools.pairwise(edges)]


def _learned(
    kept: KeptCounts,
    params: Params,
    stage: str,
    learning: TextureLearning,
    start: list[Counts] | None,
    stop_if_asked: Callable[[], None],
) -> list[Counts]:
    """Return kernel and bias of the units, and of the answer, learned from standardised counts; from `start` on."""
    from fakeface.training_callbacks import draw_anew

    lr, chosen = params.stage_settings(stage).lr, _chosen(params)
    each = _one_pass(kept, learning.copies)
    steps = max(1, len(each) // chosen.batch_size)
    layers = _layers(kept.counts.shape[1], chosen.units, params.seed)
    if start is not None:
        layers.set_weights(start)
    step = _training_step(layers, kept, lr * learning.rate, steps * learning.passes)
    seed = stage_seed(params.seed, stage)
    order = np.random.default_rng(seed)
    with progress(f"{stage}: texture's training steps", steps * learning.passes) as advance:
        for number in range(learning.passes):
            draw_anew(layers, seed, number)
            losses = []
            for batch in np.array_split(order.permutation(each), steps):
                losses.append(float(step(batch)))
                advance(1)
                stop_if_asked()
            if not math.isfinite(losses[-1]):
                raise UserError(
                    f"{stage}: the loss of the texture's layer is {losses[-1]} at learning rate {lr:g}; choose a "
                    f"smaller rate, for example -S stages.{stage}.lr={lr / 10:g}."
                )
    print(f"{stage} texture, pass {learning.passes}/{learning.passes}: loss {np.mean(losses):.4f}", flush=True)
    return list(layers.get_weights())


def _one_pass(kept: KeptCounts, copies: int) -> Indices:
    """Return positions in which images as they are come as often as all others, and the other kinds equally often.

    A pass has the same length whatever kinds there are, and no image as it is comes oftener than where all files are
    coded alike: where few are, the other kinds take the rest.
    """
    as_they_are, *others = np.split(np.arange(len(kept.labels)), np.cumsum(kept.kinds)[:-1])
    length = 4 * max(kept.kinds[1:])
    shown = np.resize(as_they_are, min(length // 2, 2 * copies * len(as_they_are)))
    changed = [of_kind for of_kind in others if len(of_kind)]
    of_each = (length - len(shown)) // len(changed)
    return np.concatenate([shown, *(np.resize(of_kind, of_each) for of_kind in changed)])


def _layers(features: int, units: int, seed: int) -> tf.keras.Model:
    import tensorflow as tf
    from tensorflow.keras import layers

    def fresh(number: int) -> Any:
        return tf.keras.initializers.GlorotUniform(seed=seed + number)

    return tf.keras.Sequential(
        [
            tf.keras.Input((features,)),
            layers.Dropout(_COUNTS_DROPPED, dtype="float32", name="texture_dropout"),
            layers.Dense(units, "relu", kernel_initializer=fresh(0), dtype="float32"),
            layers.Dropout(_UNITS_DROPPED, dtype="float32", name="texture_units_dropout"),
            layers.Dense(2, kernel_initializer=fresh(1), dtype="float32"),
        ]
    )


def _training_step(layers: tf.keras.Model, kept: KeptCounts, lr: float, steps: int) -> Callable[[Indices], Any]:
    """Return a function that trains on the counts at some positions, and gives their loss.

    Keras' own step wants the counts of each batch handed over anew, which takes nearly as long as to learn from them.
    """
    import tensorflow as tf

    counts, labels = tf.constant(kept.counts), tf.constant(kept.labels)
    optimizer = tf.keras.optimizers.Adam(tf.keras.optimizers.schedules.CosineDecay(lr, steps, alpha=0.01))
    optimizer.build(layers.trainable_variables)
    loss_of = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.int64)])  # type: ignore[untyped-decorator]
    def step(positions: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(tf.gather(labels, positions), layers(tf.gather(counts, positions), training=True))
        gradients = tape.gradient(loss, layers.trainable_variables)
        optimizer.apply_gradients(zip(gradients, layers.trainable_variables, strict=True))
        return loss

    return cast(Callable[[Indices], Any], step)


def fit_share(network: tf.keras.Model, params: Params, stage: str, validation: ImagePool) -> None:
    """Scale the texture's logits so that their sum with the other half's is best on validation images.

    Both slopes of a Platt scaling of two logits are fitted, and their ratio is the scale. The images come in every kind
    of file, by the recipe's step `resave`, or this half would be trusted as files of known kinds deserve it. Nothing is
    fitted where the texture says nothing, or validation has one label.
    """
    from fakeface.augment import file_augmentation
    from fakeface.models import TEXTURE_LOGITS, logits_of_halves

    if len(np.unique(validation.labels)) < 2 or not has_learned(network):
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
