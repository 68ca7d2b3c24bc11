"""Augmentation of batches in TensorFlow alone: the same results as the libraries that the notebook used; no randomness.

Every operation is `operation(images, drawn)`: images (B, H, W, 3), uint8 or float32 in 0..255, and what was drawn,
float64 (B, k). It gives images of the same shape and type (uint8 rounded). augment_arrays has the same in OpenCV, much
faster on a CPU; these need no Python while they run.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from fakeface.training.augmentation.numpy_ops import IMGAUG_SMALLEST_SIGMA

Tensor = Any  # TensorFlow has no type hints


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """As augment_arrays.warp, with exact positions (equal to Keras' apply_affine_transform within 0.01 levels)."""
    transforms = tf.pad(tf.cast(matrices, tf.float32), [[0, 0], [0, 2]])
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=transforms,
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    return _as_type_of(images, tf.ensure_shape(warped, images.shape))


def gaussian_filter2d(images: Tensor, size: int, sigma: float) -> Tensor:
    """As TensorFlow Addons' function of that name: one size × size kernel, reflected borders; in two passes."""
    sigmas = tf.fill(tf.shape(images)[:1], tf.constant(sigma, tf.float32))
    return _as_type_of(images, _blur_in_two_passes(images, _gaussian_kernels(sigmas, size // 2)))


def gaussian_blur(images: Tensor, sigmas: Tensor, radius: int) -> Tensor:
    """As imgaug's GaussianBlur: each image has its own kernel, as wide as imgaug makes it, at most 2 radius + 1."""
    sigmas = tf.cast(sigmas[:, 0], tf.float32)
    factors = tf.where(sigmas < 3, 3.3, tf.where(sigmas < 5, 2.9, 2.6))
    radii = tf.floor(tf.maximum(tf.floor(factors * sigmas), 5.0) / 2)  # as augment_arrays.imgaug_kernel_size
    radii = tf.where(sigmas > IMGAUG_SMALLEST_SIGMA, radii, 0.0)
    kernels = _gaussian_kernels(tf.maximum(sigmas, IMGAUG_SMALLEST_SIGMA), radius, radii)
    return _as_type_of(images, _blur_in_two_passes(images, kernels))


def jpeg(images: Tensor, qualities: Tensor) -> Tensor:
    """As augment_arrays.jpeg, with TensorFlow's encoder."""

    def encode_and_decode(image_and_quality: tuple[Tensor, Tensor]) -> Tensor:
        image, quality = image_and_quality
        encoded = tf.raw_ops.EncodeJpegVariableQuality(images=image, quality=quality)
        return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")

    levels = tf.cast(tf.round(images), tf.uint8) if images.dtype.is_floating else images
    pairs = (levels, tf.cast(qualities[:, 0], tf.int32))
    results = tf.map_fn(encode_and_decode, pairs, fn_output_signature=tf.uint8)
    return tf.cast(tf.ensure_shape(results, images.shape), images.dtype)


def _gaussian_kernels(sigmas: Tensor, radius: int, radii: Tensor | None = None) -> Tensor:
    positions = tf.range(-radius, radius + 1, dtype=tf.float32)[tf.newaxis]
    weights = tf.exp(-(positions**2) / (2 * sigmas[:, tf.newaxis] ** 2))
    if radii is not None:
        weights = tf.where(tf.abs(positions) <= radii[:, tf.newaxis], weights, 0.0)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def _blur_in_two_passes(images: Tensor, kernels: Tensor) -> Tensor:
    # Images become channels, so that one depthwise convolution holds a kernel for each image.
    batch, height, width, channels = tf.unstack(tf.shape(images))
    radius = kernels.shape[1] // 2
    planes = tf.transpose(tf.cast(images, tf.float32), [1, 2, 0, 3])
    planes = tf.reshape(planes, [1, height, width, batch * channels])
    planes = tf.pad(planes, [[0, 0], [radius, radius], [radius, radius], [0, 0]], "REFLECT")
    taps = tf.repeat(tf.transpose(kernels), channels, axis=1)
    planes = tf.nn.depthwise_conv2d(planes, taps[:, tf.newaxis, :, tf.newaxis], [1, 1, 1, 1], "VALID")
    planes = tf.nn.depthwise_conv2d(planes, taps[tf.newaxis, :, :, tf.newaxis], [1, 1, 1, 1], "VALID")
    blurred = tf.transpose(tf.reshape(planes, [height, width, batch, channels]), [2, 0, 1, 3])
    return tf.ensure_shape(blurred, images.shape)


def _as_type_of(images: Tensor, result: Tensor) -> Tensor:
    if images.dtype.is_floating:
        return result
    return tf.cast(tf.round(tf.clip_by_value(result, 0.0, 255.0)), images.dtype)
