"""Augmentation of NumPy batches with OpenCV, Pillow and imgaug; no TensorFlow, and no randomness.

Every operation is `operation(images, drawn)`: images (B, H, W, 3) RGB, uint8 or float32 in 0..255, and what was drawn,
one row of numbers an image, float64 (B, k). It gives images of the same shape and type (uint8 rounded) and leaves its
input as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Images = npt.NDArray[Any]
Drawn = npt.NDArray[np.float64]

RESAMPLING_KERNELS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def mirror(images: Images, _drawn: Drawn) -> Images:
    """Swap left and right."""
    return _each(images, _drawn, lambda image, _row: cv2.flip(image, 1))


def warp(images: Images, matrices: Drawn) -> Images:
    """Sample each image at matrix · (x, y, 1) for every pixel (x, y), bilinear, nearest pixel beyond the border.

    A matrix is six numbers, row by row. OpenCV rounds positions to 1/32 pixel.
    """

    def sample(image: Images, matrix: Drawn) -> Images:
        size = (image.shape[1], image.shape[0])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(image, matrix.reshape(2, 3), size, flags=flags, borderMode=cv2.BORDER_REPLICATE)

    return _each(images, matrices, sample)


def brightness(images: Images, factors: Drawn) -> Images:
    """Multiply by a factor and cut at 255, down to whole levels as Pillow's ImageEnhance.Brightness (Keras uses it)."""
    return _each(images, factors, lambda image, row: _through_table(image, _blend_table(0.0, row[0])))


def contrast(images: Images, factors: Drawn) -> Images:
    """Spread levels around the image's mean grey, as Pillow's ImageEnhance.Contrast."""

    def spread(image: Images, row: Drawn) -> Images:
        mean = np.floor(_grey_levels(image).mean() + 0.5)
        return _through_table(image, _blend_table(float(mean), row[0]))

    return _each(images, factors, spread)


def gamma(images: Images, exponents: Drawn) -> Images:
    """Raise each value, as a share of 255, to a power: above 1 the middle tones darken, black and white stay."""
    shares = np.arange(256) / 255
    return _each(images, exponents, lambda image, row: _through_table(image, _rounded(255 * shares ** row[0])))


def saturation(images: Images, factors: Drawn) -> Images:
    """Mix each image with its grey version: 0 is grey, 1 unchanged, as Pillow's ImageEnhance.Color."""

    def mix(image: Images, row: Drawn) -> Images:
        grey_image = cv2.cvtColor(_grey_levels(image), cv2.COLOR_GRAY2RGB)
        return cv2.addWeighted(image, row[0], grey_image, 1 - row[0], 0)

    return _within_levels(_each(images, factors, mix))


def grey(images: Images, _drawn: Drawn) -> Images:
    """Replace the three channels by their luma (ITU-R 601)."""
    return _each(images, _drawn, lambda image, _row: cv2.cvtColor(_grey_levels(image), cv2.COLOR_GRAY2RGB))


def noise(images: Images, drawn: Drawn) -> Images:
    """Add Gaussian noise, independent for each value; drawn: its standard deviation in levels, and a seed."""

    def add(image: Images, row: Drawn) -> Images:
        generator = np.random.Generator(np.random.SFC64(int(row[1])))
        sum_ = image + generator.standard_normal(image.shape, dtype=np.float32) * np.float32(row[0])
        return _to_type(sum_.clip(0, 255), image.dtype)

    return _each(images, drawn, add)


def blur(images: Images, sigmas: Drawn) -> Images:
    """Gaussian blur, kernel as wide as OpenCV takes it for the sigma (at least three sigmas each way)."""

    def soften(image: Images, row: Drawn) -> Images:
        return image if row[0] <= 0 else cv2.GaussianBlur(image, (0, 0), row[0], borderType=cv2.BORDER_REFLECT_101)

    return _each(images, sigmas, soften)


def gaussian_filter2d(images: Images, drawn: Drawn) -> Images:
    """OpenCV's counterpart of TensorFlow Addons' gaussian_filter2d; drawn: kernel size (odd) and sigma."""

    def soften(image: Images, row: Drawn) -> Images:
        return cv2.GaussianBlur(image, (int(row[0]), int(row[0])), row[1], borderType=cv2.BORDER_REFLECT_101)

    return _each(images, drawn, soften)


def gaussian_blur(images: Images, sigmas: Drawn) -> Images:
    """OpenCV's counterpart of imgaug's GaussianBlur: the same kernel width, and nothing for a sigma up to 0.001."""

    def soften(image: Images, row: Drawn) -> Images:
        if row[0] <= IMGAUG_SMALLEST_SIGMA:
            return image
        size = int(imgaug_kernel_size(row[0]))
        return cv2.GaussianBlur(image, (size, size), row[0], borderType=cv2.BORDER_REFLECT_101)

    return _each(images, sigmas, soften)


IMGAUG_SMALLEST_SIGMA = 1e-3


def imgaug_kernel_size(sigma: float) -> int:
    """The width of imgaug 0.4.0's Gaussian kernel: a multiple of sigma, at least 5, made odd."""
    multiple = 3.3 if sigma < 3 else 2.9 if sigma < 5 else 2.6
    size = int(max(multiple * sigma, 5))
    return size + 1 - size % 2


def imgaug_gaussian_blur(images: Images, sigmas: Drawn) -> Images:
    """What imgaug's GaussianBlur does once it has drawn its sigmas."""
    from imgaug.augmenters.blur import blur_gaussian_

    return _each(images, sigmas, lambda image, row: blur_gaussian_(image.copy(), row[0]))


def imgaug_jpeg_compression(images: Images, compressions: Drawn) -> Images:
    """What imgaug's JpegCompression does once it has drawn its compressions (0 best, 100 worst)."""
    from imgaug.augmenters.arithmetic import compress_jpeg

    return _each_bytes(images, compressions, lambda image, row: compress_jpeg(image, int(row[0])))


def jpeg_compression(images: Images, compressions: Drawn) -> Images:
    """Encode and decode as JPEG, the strength on imgaug's scale."""
    return jpeg(images, np.rint(1 + 99 * (1 - np.floor(compressions) / 101)))


def jpeg(images: Images, qualities: Drawn) -> Images:
    """Encode and decode as JPEG with a quality of 1..100, colour at half resolution as most software does."""
    return _each_bytes(images, qualities, lambda image, row: _through_jpeg(image, int(row[0])))


def resample(images: Images, drawn: Drawn) -> Images:
    """Scale down, antialiased, and back up; drawn: the factor, and which of RESAMPLING_KERNELS does both."""
    kernels = list(RESAMPLING_KERNELS.values())

    def down_and_up(image: Images, row: Drawn) -> Images:
        height, width = image.shape[:2]
        small = (max(1, round(width * row[0])), max(1, round(height * row[0])))
        kernel = kernels[int(row[1])]
        return np.asarray(Image.fromarray(image).resize(small, kernel).resize((width, height), kernel))

    return _each_bytes(images, drawn, down_and_up)


def _through_jpeg(image: Images, quality: int) -> Images:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def _each(images: Images, drawn: Drawn, operation: Callable[[Images, Drawn], Images]) -> Images:
    results = np.empty_like(images)
    for index, (image, row) in enumerate(zip(images, drawn, strict=True)):
        results[index] = operation(image, row)
    return results


def _each_bytes(images: Images, drawn: Drawn, operation: Callable[[Images, Drawn], Images]) -> Images:
    return _each(_to_type(images, np.dtype(np.uint8)), drawn, operation).astype(images.dtype, copy=False)


def _to_type(images: Images, dtype: np.dtype[Any]) -> Images:
    if dtype == np.uint8 and images.dtype != np.uint8:
        return np.rint(images).clip(0, 255).astype(np.uint8)
    return images.astype(dtype, copy=False)


def _within_levels(images: Images) -> Images:
    return images if images.dtype == np.uint8 else images.clip(0, 255)


def _grey_levels(image: Images) -> Images:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _blend_table(fixed: float, factor: float) -> npt.NDArray[np.uint8]:
    levels = np.float32(fixed) + np.float32(factor) * (np.arange(256, dtype=np.float32) - np.float32(fixed))
    return levels.clip(0, 255).astype(np.uint8)


def _rounded(levels: Drawn) -> npt.NDArray[np.uint8]:
    return np.rint(levels).astype(np.uint8)


def _through_table(image: Images, table: npt.NDArray[np.uint8]) -> Images:
    # Pillow works on whole levels, and Keras cuts fractions off before it asks Pillow.
    return cv2.LUT(image.astype(np.uint8, copy=False), table)
