"""Recipes of augmentation: the steps of params.yaml as one function over batches, for tf.data.

Every number that is drawn comes from TensorFlow's stateless generators, so a batch depends on the seeds alone: not on
threads, and not on the batches before it. Drawing and applying are apart: an operation takes what was drawn as an
argument, and its backends, given the same draw, agree within the tolerances that its tests state.

The notebook's order is Keras': ImageDataGenerator first transforms (affine, then flip, then brightness), then calls
the preprocessing_function (the blur), then rescales; so its recipe lists rotate, shift, flip, brightness, blur.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, cast

import cv2
import numpy as np
import tensorflow as tf

from fakeface.config.augmentation_operations import check_steps
from fakeface.system.interpreter_shutdown import CALLS
from fakeface.training.augmentation import numpy_ops, tensor_ops
from fakeface.training.augmentation.draws import (
    Step,
    Tensor,
    draw_nothing,
    draw_uniform,
    make_integer_draw,
    make_uniform_draw,
    stack_draws,
)
from fakeface.training.augmentation.geometry import GEOMETRY, make_geometry, merge_geometry

Augmentation = Callable[..., Tensor]


_Drawn = tuple[Step, Tensor, Tensor]  # step, bool (B,): which images it changes, float64 (B, k): by how much


def build_augmentation(steps: Sequence[Mapping[str, Any]], seed: int) -> Augmentation:
    """Make `augment(images, step_seed)` out of steps such as [{"op": "flip"}, {"op": "jpeg", "probability": 0.3}].

    images: uint8 (B, H, W, 3), 0..255; step_seed: int64 (2,), for example (epoch, step). Gives images of that shape
    in 0..255: uint8, or float32 after gaussian_filter2d by Addons and gaussian_blur by imgaug. Each image has its own
    draw, and the same draw whatever the backend. `augment(images, step_seed, first, whole)` does with a part of a batch
    of `whole` images, from number `first` on, what it would do with it in the whole.

    Raises:
        UserError: an operation or argument is unknown.
    """
    plan = _plan([step for step in check_steps(steps) if step.get("probability", 1) > 0])
    cv2.setNumThreads(1)  # images are small, and tf.data already runs batches side by side

    def augment(images: Tensor, step_seed: Tensor, first: Tensor = 0, whole: int | None = None) -> Tensor:
        images = tf.convert_to_tensor(images)
        shape = tf.shape(images)
        seed_here = tf.random.experimental.stateless_fold_in(tf.cast(step_seed, tf.int64), tf.constant(seed, tf.int64))
        seeds = tf.random.experimental.stateless_split(seed_here, max(1, len(plan)))
        if whole is None:
            drawn = [_draw(step, seeds[index], shape) for index, step in enumerate(plan)]
        else:
            for_all = tf.concat([[whole], shape[1:]], axis=0)
            drawn = [_take_part(_draw(step, seeds[index], for_all), first, shape[0]) for index, step in enumerate(plan)]
        for on_tensors, neighbours in groupby(drawn, key=lambda item: item[0].on_tensors):
            run = _run_on_tensors if on_tensors else _run_on_arrays
            images = run(images, list(neighbours))
        return images

    return cast(Augmentation, tf.autograph.experimental.do_not_convert(augment))


def _draw(step: Step, seed: Tensor, shape: Tensor) -> _Drawn:
    seeds = tf.random.experimental.stateless_split(seed, 2)
    chosen = tf.random.stateless_uniform(shape[:1], seeds[0]) < step.probability
    return step, chosen, step.draw(seeds[1], shape)


def _take_part(drawn: _Drawn, first: Tensor, count: Tensor) -> _Drawn:
    step, chosen, values = drawn
    return step, chosen[first : first + tf.cast(count, tf.int64)], values[first : first + tf.cast(count, tf.int64)]


def _run_on_arrays(images: Tensor, drawn: Sequence[_Drawn]) -> Tensor:
    steps = [step for step, _, _ in drawn]

    def run(batch: numpy_ops.Images, *numbers: Any) -> numpy_ops.Images:
        with CALLS as process_goes_on:
            for step, chosen, values in zip(steps, numbers[::2], numbers[1::2], strict=True):
                batch = _apply_to_chosen(step, batch, chosen & process_goes_on, values)
            return batch

    dtype = tf.float32 if any(step.gives_floats for step in steps) else images.dtype
    numbers = [part for _, chosen, values in drawn for part in (chosen, values)]
    # Declared stateless, or tf.data would give up running it in parallel when determinism is asked for.
    return tf.ensure_shape(tf.numpy_function(run, [images, *numbers], dtype, stateful=False), images.shape)


def _apply_to_chosen(step: Step, batch: numpy_ops.Images, chosen: Any, values: numpy_ops.Drawn) -> numpy_ops.Images:
    batch = batch.astype(np.float32, copy=False) if step.gives_floats else batch
    if chosen.all():
        return cast(numpy_ops.Images, step.apply(batch, values))
    if chosen.any():
        batch = batch.copy()
        batch[chosen] = step.apply(batch[chosen], values[chosen])
    return batch


def _run_on_tensors(images: Tensor, drawn: Sequence[_Drawn]) -> Tensor:
    for step, chosen, values in drawn:
        images = tf.cast(images, tf.float32) if step.gives_floats else images
        images = step.apply(images, values) if step.probability == 1 else _scatter(step, images, chosen, values)
    return images


def _scatter(step: Step, images: Tensor, chosen: Tensor, values: Tensor) -> Tensor:
    def changed() -> Tensor:
        some = step.apply(tf.boolean_mask(images, chosen), tf.boolean_mask(values, chosen))
        return tf.tensor_scatter_nd_update(images, tf.where(chosen), some)

    return tf.cond(tf.reduce_any(chosen), changed, lambda: images)  # convolutions refuse an empty batch


# ------------------------------------------------------------------------------------------ from params.yaml to steps


def _plan(steps: Sequence[Mapping[str, Any]]) -> list[Step]:
    planned: list[Step] = []
    for neighbours in merge_geometry(steps):
        if neighbours[0]["op"] not in GEOMETRY:
            planned.append(_MAKERS.get(neighbours[0]["op"], _make_plain)(neighbours[0]))
        elif len(neighbours) == 1 and neighbours[0]["op"] == "flip":
            planned.append(Step(draw_nothing, numpy_ops.mirror, probability=neighbours[0]["probability"]))
        else:
            planned.append(make_geometry(neighbours))
    return planned


# -------------------------------------------------------------------------------------------------------- what is drawn


def _make_plain(step: Mapping[str, Any]) -> Step:
    """Make a step of the NumPy operation of its name, which gets a number from low to high, or from its one range.

    Raises:
        NotImplementedError: it takes other arguments, which a maker of its own has to draw.
    """
    values = {name: value for name, value in step.items() if name not in ("op", "probability")}
    if set(values) == {"low", "high"}:
        values = {"range": (values["low"], values["high"])}
    if len(values) > 1 or not all(isinstance(value, tuple) for value in values.values()):
        raise NotImplementedError(f"{step['op']} needs a maker in _MAKERS, because it takes {', '.join(values)}")
    draw = make_uniform_draw(*values.popitem()[1]) if values else draw_nothing
    return Step(draw, getattr(numpy_ops, step["op"]), probability=step["probability"])


def _make_gamma(step: Mapping[str, Any]) -> Step:
    def draw(seed: Tensor, shape: Tensor) -> Tensor:
        return tf.exp(draw_uniform(seed, shape, -step["strength"], step["strength"]))[:, tf.newaxis]

    return Step(draw, numpy_ops.gamma, probability=step["probability"])


def _make_noise(step: Mapping[str, Any]) -> Step:
    seeds = make_integer_draw(0, 2**48)
    return Step(stack_draws(make_uniform_draw(*step["sigma"]), seeds), numpy_ops.noise, probability=step["probability"])


def _make_resample(step: Mapping[str, Any]) -> Step:
    draw = stack_draws(make_uniform_draw(step["low"], step["high"]), _make_kernel_draw(step["kernel"]))
    return Step(draw, numpy_ops.resample, probability=step["probability"])


def _make_kernel_draw(kernel: str) -> Callable[[Tensor, Tensor], Tensor]:
    kernels = list(numpy_ops.RESAMPLING_KERNELS)
    first, last = (0, len(kernels) - 1) if kernel == "any" else (kernels.index(kernel),) * 2
    return make_integer_draw(first, last)


def _make_jpeg(step: Mapping[str, Any]) -> Step:
    on_tensors = step["backend"] == "tensorflow"
    apply = tensor_ops.jpeg if on_tensors else numpy_ops.jpeg
    return Step(make_integer_draw(*step["quality"]), apply, on_tensors, probability=step["probability"])


def _make_jpeg_compression(step: Mapping[str, Any]) -> Step:
    apply = numpy_ops.imgaug_jpeg_compression if step["backend"] == "imgaug" else numpy_ops.jpeg_compression
    return Step(make_uniform_draw(*step["compression"]), apply, probability=step["probability"])


def _make_gaussian_blur(step: Mapping[str, Any]) -> Step:
    draw, probability = make_uniform_draw(*step["sigma"]), step["probability"]
    if step["backend"] == "imgaug":
        return Step(draw, numpy_ops.imgaug_gaussian_blur, gives_floats=True, probability=probability)
    if step["backend"] == "opencv":
        return Step(draw, numpy_ops.gaussian_blur, probability=probability)
    radius = numpy_ops.imgaug_kernel_size(step["sigma"][1]) // 2
    return Step(
        draw, lambda images, sigmas: tensor_ops.gaussian_blur(images, sigmas, radius), True, probability=probability
    )


def _make_gaussian_filter2d(step: Mapping[str, Any]) -> Step:
    size, sigma, probability = step["size"], step["sigma"], step["probability"]
    if step["backend"] == "opencv":
        draw = stack_draws(make_uniform_draw(size, size), make_uniform_draw(sigma, sigma))
        return Step(draw, numpy_ops.gaussian_filter2d, probability=probability)
    if step["backend"] == "tensorflow":
        apply = lambda images, _drawn: tensor_ops.gaussian_filter2d(images, size, sigma)  # noqa: E731
        return Step(draw_nothing, apply, True, probability=probability)
    addons_filter = _addons_gaussian_filter2d()
    apply = lambda images, _drawn: addons_filter(images, (size, size), sigma)  # noqa: E731
    return Step(draw_nothing, apply, True, gives_floats=True, probability=probability)


def _addons_gaussian_filter2d() -> Callable[..., Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Addons announces the end of its life at every import
        from tensorflow_addons.image import gaussian_filter2d as addons_filter
    return cast(Callable[..., Tensor], addons_filter)


# What draws otherwise than `_make_plain` does
_MAKERS: Mapping[str, Callable[[Mapping[str, Any]], Step]] = {
    "gamma": _make_gamma,
    "noise": _make_noise,
    "resample": _make_resample,
    "jpeg": _make_jpeg,
    "jpeg_compression": _make_jpeg_compression,
    "gaussian_blur": _make_gaussian_blur,
    "gaussian_filter2d": _make_gaussian_filter2d,
}
