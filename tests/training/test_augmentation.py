"""Each step of the augmentation against the library that it stands for, and inside tf.data."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage

from fakeface.config.augmentation_operations import OPERATIONS, check_steps
from fakeface.models.device import quiet_tensorflow
from fakeface.system.errors import UserError
from fakeface.training.augmentation import numpy_ops

quiet_tensorflow()
import tensorflow as tf  # noqa: E402

from fakeface.training.augmentation import tensor_ops  # noqa: E402
from fakeface.training.augmentation.build_augmentation import build_augmentation  # noqa: E402
from fakeface.training.augmentation.geometry import center_transform  # noqa: E402
from tests.support.augmentation_images import SIZE, Images, column, distance, photos, run_eagerly, run_in_tf_data  # noqa: E402

# ------------------------------------------------------------------------------------------- what params.yaml may say


def test_a_short_step_is_filled_in_and_stays_as_it_is_when_checked_again() -> None:
    steps = check_steps([{"op": "gaussian_blur", "sigma": 0.5}, {"op": "jpeg", "quality": 75}, {"op": "flip"}])
    assert steps[0] == {"op": "gaussian_blur", "sigma": (0.0, 0.5), "probability": 1.0, "backend": "imgaug"}
    assert steps[1]["quality"] == (75.0, 75.0)
    assert steps[2] == {"op": "flip", "probability": 0.5}
    assert check_steps(steps) == steps


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([{"op": "blurr"}], ["augmentation[0].op", "'blurr'", "gaussian_blur"]),
        ([{"op": "flip"}, {"op": "rotate", "degree": 20}], ["augmentation[1].degree", "rotate", "degrees"]),
        ([{"op": "rotate", "degrees": "20"}], ["degrees", "'20'", "a number from 0 to 180"]),
        ([{"op": "rotate", "degrees": True}], ["degrees", "True"]),
        ([{"op": "rotate", "degrees": float("nan")}], ["degrees", "nan"]),
        ([{"op": "flip", "probability": 30}], ["probability", "30", "from 0 to 1"]),
        ([{"op": "jpeg", "quality": [90, 30]}], ["quality", "[90, 30]"]),
        ([{"op": "jpeg", "quality": [0, 30]}], ["quality", "[0, 30]", "from 1 to 100"]),
        ([{"op": "jpeg", "backend": "pillow"}], ["backend", "'pillow'", "opencv, tensorflow"]),
        ([{"op": "brightness", "low": 1.5}], ["low", "1.5", "1.3"]),
        ([{"op": "gaussian_filter2d", "size": 4}], ["size", "4", "odd"]),
        ([{"op": "gaussian_filter2d", "size": 3.5}], ["size", "3.5", "whole"]),
        (["flip"], ["augmentation[0]", "{op: flip}"]),
        ({"op": "flip"}, ["augmentation", "list"]),
    ],
)
def test_a_wrong_step_is_named_with_what_would_be_right(steps: Any, words: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        check_steps(steps)
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_checking_steps_does_not_load_tensorflow() -> None:
    code = (
        "import sys, fakeface.config.augmentation_operations; sys.exit(bool({'tensorflow', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --------------------------------------------------------------------------------------------- each operation on arrays


def test_mirror_swaps_left_and_right() -> None:
    images = photos()
    assert np.array_equal(numpy_ops.mirror(images, np.zeros((8, 0))), images[:, :, ::-1])


@pytest.mark.parametrize("factor", [0.5, 0.93, 1.0, 1.3])
def test_brightness_is_that_of_imagedatagenerator(factor: float) -> None:
    from keras.src.preprocessing.image import apply_brightness_shift

    images = photos()
    expected = [apply_brightness_shift(image.astype(np.float32), factor, scale=False) for image in images]
    factors = column(*[factor] * 8)
    assert np.array_equal(numpy_ops.brightness(images, factors), expected)
    fractions = images.astype(np.float32) + np.float32(0.4)
    assert np.array_equal(numpy_ops.brightness(fractions.clip(0, 255), factors), expected)


def test_gamma_bends_the_middle_tones_and_keeps_black_and_white() -> None:
    images = np.repeat(np.array([0, 64, 255], np.uint8), 3).reshape(1, 1, 3, 3)
    darker, same, lighter = (numpy_ops.gamma(images, column(power))[0, 0, :, 0] for power in (2.0, 1.0, 0.5))
    assert darker.tolist() == [0, 16, 255]  # 255 × (64/255)²
    assert same.tolist() == [0, 64, 255]
    assert lighter.tolist() == [0, 128, 255]


def test_gamma_is_drawn_evenly_to_both_sides() -> None:
    images = np.full((400, 1, 1, 3), 128, np.uint8)
    levels = run_eagerly([{"op": "gamma", "strength": 0.5}], images)[:, 0, 0, 0].astype(float)
    exponents = np.log(levels / 255) / np.log(128 / 255)
    assert np.log(exponents).min() == pytest.approx(-0.5, abs=0.03)
    assert np.log(exponents).max() == pytest.approx(0.5, abs=0.03)
    assert abs(np.log(exponents).mean()) < 0.05


@pytest.mark.parametrize(
    ("operation", "enhancer"), [(numpy_ops.contrast, ImageEnhance.Contrast), (numpy_ops.saturation, ImageEnhance.Color)]
)
@pytest.mark.parametrize("factor", [0.0, 0.7, 1.3])
def test_contrast_and_saturation_are_pillows_within_two_levels(
    operation: Callable[[Images, Images], Images], enhancer: Any, factor: float
) -> None:
    images = photos()
    expected = [np.asarray(enhancer(Image.fromarray(image)).enhance(factor)) for image in images]
    assert distance(operation(images, column(*[factor] * 8)), expected) <= 2


def test_grey_has_three_equal_channels_of_pillows_luma_within_one_level() -> None:
    images = photos()
    grey = numpy_ops.grey(images, np.zeros((8, 0)))
    expected = [np.asarray(Image.fromarray(image).convert("L").convert("RGB")) for image in images]
    assert distance(grey, expected) <= 1
    assert np.array_equal(grey[..., 0], grey[..., 2])


def test_noise_has_the_sigma_asked_for_and_its_seed_decides_it() -> None:
    grey_images = np.full((3, SIZE, SIZE, 3), 128, np.uint8)
    noisy = numpy_ops.noise(grey_images, np.array([[6, 1], [6, 1], [6, 2]], np.float64)).astype(float)
    assert noisy.std(axis=(1, 2, 3)) == pytest.approx([6, 6, 6], rel=0.05)
    assert noisy.mean() == pytest.approx(128, abs=0.2)
    assert np.array_equal(noisy[0], noisy[1])
    assert abs(np.corrcoef(noisy[0].ravel(), noisy[2].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
def test_blur_is_a_gaussian_within_one_level(sigma: float) -> None:
    images = photos()
    expected = ndimage.gaussian_filter(images.astype(float), (0, sigma, sigma, 0), mode="mirror", truncate=6)
    assert distance(numpy_ops.blur(images.astype(np.float32), column(*[sigma] * 8)), expected) <= 1
    assert distance(numpy_ops.blur(images, column(*[sigma] * 8)), expected) <= 2


@pytest.mark.parametrize("quality", [30, 75, 100])
def test_jpeg_is_what_pillow_writes_and_reads_in_both_backends(quality: int) -> None:
    def through_pillow(image: Images) -> Images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    images = photos()
    expected = [through_pillow(image) for image in images]
    qualities = column(*[quality] * 8)
    assert distance(numpy_ops.jpeg(images, qualities), expected) <= 1
    assert distance(tensor_ops.jpeg(tf.constant(images), tf.constant(qualities)), expected) <= 1
    assert distance(expected, images) > 1


def test_resample_is_pillows_antialiased_resize_down_and_up() -> None:
    image = photos(1)[0]
    drawn = np.array([[0.5, list(numpy_ops.RESAMPLING_KERNELS).index("bicubic")]])
    pillow_image = Image.fromarray(image)
    small = pillow_image.resize((SIZE // 2, SIZE // 2), Image.Resampling.BICUBIC)
    expected = np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    assert np.array_equal(numpy_ops.resample(image[np.newaxis], drawn)[0], expected)


# ------------------------------------------------------------------------ the notebook's libraries and their stand-ins


@pytest.mark.parametrize(("size", "sigma"), [(3, 1.0), (5, 0.7)])
def test_gaussian_filter2d_equals_tensorflow_addons(size: int, sigma: float) -> None:
    from tensorflow_addons.image import gaussian_filter2d

    images = photos()
    floats = images.astype(np.float32)
    expected = gaussian_filter2d(floats, (size, size), sigma).numpy()
    drawn = np.array([[size, sigma]] * 8)
    assert distance(tensor_ops.gaussian_filter2d(tf.constant(floats), size, sigma), expected) < 0.001
    assert distance(numpy_ops.gaussian_filter2d(floats, drawn), expected) < 0.001
    assert distance(tensor_ops.gaussian_filter2d(tf.constant(images), size, sigma), expected) < 0.51
    assert distance(numpy_ops.gaussian_filter2d(images, drawn), expected) <= 1
    assert distance(expected, images) > 1


@pytest.mark.parametrize("high", [0.5, 4.0])
def test_gaussian_blur_equals_imgaug_for_every_sigma(high: float) -> None:
    from imgaug import augmenters as iaa

    sigmas = np.array([0, 0.0009, 0.0011, 0.2, 0.35, 0.5 * high, 0.8 * high, high])
    images = photos()
    floats = images.astype(np.float32)
    expected = [iaa.GaussianBlur(sigma=sigma).augment_image(image) for image, sigma in zip(floats, sigmas, strict=True)]
    radius = numpy_ops.imgaug_kernel_size(high) // 2
    drawn = tf.constant(column(*sigmas))
    assert distance(numpy_ops.imgaug_gaussian_blur(floats, column(*sigmas)), expected) < 0.001
    assert distance(tensor_ops.gaussian_blur(tf.constant(floats), drawn, radius), expected) < 0.001
    assert distance(numpy_ops.gaussian_blur(floats, column(*sigmas)), expected) < 0.001
    assert distance(tensor_ops.gaussian_blur(tf.constant(images), drawn, radius), expected) < 0.51
    assert distance(numpy_ops.gaussian_blur(images, column(*sigmas)), expected) <= 1


def test_jpeg_compression_equals_imgaug() -> None:
    from imgaug import augmenters as iaa

    images = photos()
    compressions = column(50, 51.7, 55, 60, 64.999, 0, 90, 100)
    expected = [
        iaa.JpegCompression(compression=(value, value)).augment_image(image)
        for image, value in zip(images, compressions[:, 0], strict=True)
    ]
    assert np.array_equal(numpy_ops.imgaug_jpeg_compression(images, compressions), expected)
    assert distance(numpy_ops.jpeg_compression(images, compressions), expected) <= 1


@pytest.mark.parametrize(
    ("theta", "tx", "ty"), [(0, 0, 0), (20, 0, 0), (-13.7, 0, 0), (0, 11.52, -7.3), (17, -9.1, 11.5)]
)
def test_warp_equals_imagedatagenerators_affine(theta: float, tx: float, ty: float) -> None:
    from keras.src.preprocessing.image import apply_affine_transform

    images = photos(2).astype(np.float32)
    expected = [
        apply_affine_transform(image, theta, tx, ty, row_axis=0, col_axis=1, channel_axis=2, fill_mode="nearest")
        for image in images
    ]
    cos, sin = np.cos(np.deg2rad(theta)), np.sin(np.deg2rad(theta))
    matrix = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.array([[1, 0, tx], [0, 1, ty], [0, 0, 1]])
    matrices = center_transform(tf.constant([matrix, matrix]), tf.constant(images.shape))
    assert distance(tensor_ops.warp(tf.constant(images), matrices), expected) < 0.01
    # OpenCV rounds positions to 1/32 pixel, so an error is at most 1/32 of the step between two neighbouring pixels.
    steepest = max(np.abs(np.diff(images, axis=1)).max(), np.abs(np.diff(images, axis=2)).max())
    difference = np.abs(numpy_ops.warp(images, matrices.numpy()) - np.array(expected))
    assert difference.max() <= 1 + steepest / 32
    assert difference.mean() < 0.25


# ------------------------------------------------------------------------------------------------ operations in recipes

ONE_STEP_RECIPES = [
    {"op": operation, "probability": 1.0, **({"backend": backend} if backend else {})}
    for operation, arguments in OPERATIONS.items()
    for backend in (arguments["backend"].words if "backend" in arguments else [None])
]


@pytest.mark.parametrize("step", ONE_STEP_RECIPES, ids=lambda step: "-".join(str(value) for value in step.values()))
def test_operation_inside_tf_data_on_two_threads_is_the_same_as_alone_and_differs_by_step(step: dict[str, Any]) -> None:
    images = photos(16, size=32)
    before = images.copy()
    batches = run_in_tf_data([step], images, count=2, threads=2)
    for number, batch in enumerate(batches):
        # A compiled graph may sum in another order than the same operations one by one.
        tolerance = 1e-3 if batch.dtype == np.float32 else 0
        assert distance(batch, run_eagerly([step], images, key=(0, number))) <= tolerance
        assert batch.shape == images.shape
        assert batch.dtype in (np.uint8, np.float32)
        assert batch.min() >= 0
        assert batch.max() <= 255 + tolerance
        assert distance(batch, images) > 0
    is_random = step["op"] not in ("gaussian_filter2d", "grey", "flip")  # with probability 1 these have nothing to draw
    assert (distance(batches[0], batches[1]) > 0) is is_random
    assert np.array_equal(images, before)


@pytest.mark.parametrize(
    "step", [{"op": name} for name in OPERATIONS if name not in ("gaussian_filter2d",)], ids=lambda step: step["op"]
)
def test_each_image_of_a_batch_has_its_own_draw(step: dict[str, Any]) -> None:
    same: Images = np.repeat(photos(1, size=32), 32, axis=0)
    results = run_eagerly([step], same)
    assert len(np.unique(results.reshape(32, -1), axis=0)) > 1


def test_seed_epoch_and_step_each_decide_the_batch() -> None:
    images = photos()
    steps: list[dict[str, Any]] = [{"op": "flip"}, {"op": "brightness"}, {"op": "noise", "probability": 1}]
    results = [
        run_eagerly(steps, images, seed, key) for seed, key in [(7, (0, 0)), (8, (0, 0)), (7, (1, 0)), (7, (0, 1))]
    ]
    assert all(distance(one, other) > 0 for n, one in enumerate(results) for other in results[n + 1 :])
    assert np.array_equal(results[0], run_eagerly(steps, images, 7, (0, 0)))


@pytest.mark.parametrize("backend", ["opencv", "tensorflow"])
def test_only_the_chosen_share_of_images_is_touched(backend: str) -> None:
    images = np.tile(photos(1, size=16), (400, 1, 1, 1))
    results = run_eagerly([{"op": "jpeg", "quality": [30, 60], "probability": 0.3, "backend": backend}], images)
    touched = (results != images).any(axis=(1, 2, 3))
    assert 0.2 < touched.mean() < 0.4
    untouched = run_eagerly([{"op": "jpeg", "probability": 0, "backend": backend}], images)
    assert np.array_equal(untouched, images)


def test_no_step_leaves_the_images_alone() -> None:
    images = photos()
    assert np.array_equal(run_eagerly([], images), images)


def test_a_step_that_is_switched_off_leaves_the_draws_of_the_others_as_they_were() -> None:
    off: dict[str, Any] = {"op": "random_zoom", "low": 0.5, "probability": 0.0}
    on: list[dict[str, Any]] = [{"op": "flip"}, {"op": "brightness"}]
    expected = run_eagerly(on, photos())
    np.testing.assert_array_equal(run_eagerly([on[0], off, on[1]], photos()), expected)


def test_recipe_takes_batches_of_unknown_and_uneven_size() -> None:
    steps = [{"op": "flip"}, {"op": "rotate"}, {"op": "gaussian_blur", "backend": "tensorflow"}, {"op": "jpeg"}]
    augment = build_augmentation(steps, 1)
    batches = tf.data.Dataset.from_tensor_slices(photos(5)).batch(3)
    dataset = batches.map(lambda images: augment(images, tf.constant([0, 0], tf.int64)))
    assert [len(batch) for batch in dataset] == [3, 2]
    assert dataset.element_spec.shape.as_list() == [None, SIZE, SIZE, 3]


def test_the_notebooks_recipe_is_the_same_with_any_backend() -> None:
    def recipe(geometry: str, blur: str) -> list[dict[str, Any]]:
        affine = [{"op": "rotate", "backend": geometry}, {"op": "shift", "backend": geometry}, {"op": "flip"}]
        return [*affine, {"op": "brightness"}, {"op": "gaussian_blur", "backend": blur}]

    images = photos()
    reference = run_eagerly(recipe("tensorflow", "imgaug"), images)
    assert reference.dtype == np.float32
    for geometry, blur in [("opencv", "imgaug"), ("opencv", "opencv"), ("tensorflow", "tensorflow")]:
        difference = np.abs(run_eagerly(recipe(geometry, blur), images).astype(float) - reference)
        assert difference.mean() < 0.6
        assert difference.max() <= 6


# ------------------------------------------------------------------------------------------------ in a whole process


def test_a_process_with_an_unfinished_iterator_ends_and_addons_keeps_quiet() -> None:
    code = """
from fakeface.models.device import quiet_tensorflow
quiet_tensorflow()
import numpy as np, tensorflow as tf
from fakeface.training.augmentation.build_augmentation import build_augmentation  # noqa: E402
from fakeface.data.image_pool import gather_pool
from fakeface.data.input_pipeline import build_training_dataset
from fakeface.data.image_store import Store
names = np.full(64, "train")
pool = gather_pool([Store(np.zeros((64, 64, 64, 3), np.uint8), np.zeros(64, np.uint8), names, names, names)], "train")
build_augmentation([{"op": "gaussian_filter2d"}], 1)(pool.gather(np.arange(64)), [0, 0])
augment = build_augmentation([{"op": "jpeg_compression"}], 1)
batches = iter(build_training_dataset(pool, augment, 64, 10**4, range(10**4), "none", seed=1).prefetch(20))
next(batches)
next(batches)
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "")
