from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakeface.constants import MACRO, SHARED_DEGRADATION, UNCHANGED
from fakeface.evaluation import robustness
from fakeface.evaluation.robustness import PERTURBATIONS, list_robustness_cells, score_perturbed, stratified_sample

PIXEL_ERROR = 1  # rounding to whole grey levels


def faces(count: int = 3, size: int = 128) -> Any:
    """Pictures with smooth colour, a sharp disc and a little texture, no two alike."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size]
    pictures = []
    for index in range(count):
        ramp = np.stack([x * 1.2, y * 1.1, 200 - x], axis=-1)
        disc = ((x - size / 2) ** 2 + (y - size / 2) ** 2 < (20 + 5 * index) ** 2)[..., None] * 60
        pictures.append(ramp * 0.7 + disc + rng.normal(0, 4, (size, size, 3)))
    return np.clip(np.stack(pictures), 0, 255).astype(np.uint8)


def mean_change(first: Any, second: Any) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


def detail(images: Any) -> float:
    """Mean squared difference of neighbouring pixels: what a blur takes away."""
    return float(np.mean(np.diff(images.astype(float), axis=2) ** 2))


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_perturbation_is_repeatable_and_leaves_its_input(name: str) -> None:
    images = faces()
    given = images.copy()
    changed = PERTURBATIONS[name](images, 3)
    assert changed.shape == images.shape
    assert changed.dtype == np.uint8
    np.testing.assert_array_equal(images, given)
    assert not np.shares_memory(images, changed)
    np.testing.assert_array_equal(changed, PERTURBATIONS[name](images, 3))
    assert (mean_change(images, changed) == 0) == (name == UNCHANGED)
    one_by_one = np.concatenate([PERTURBATIONS[name](images[i : i + 1], 3) for i in range(len(images))])
    if not name.startswith("noise"):
        np.testing.assert_array_equal(changed, one_by_one)
    assert PERTURBATIONS[name](images[:0], 3).shape == (0, 128, 128, 3)


def test_perturbation_of_no_strength_changes_nothing() -> None:
    images = faces()
    for same in (
        robustness.blur(images, 0),
        robustness.rescale(images, 1),
        robustness.crop(images, 1),
        robustness.noise(images, 0, seed=1),
    ):
        np.testing.assert_array_equal(same, images)
    assert mean_change(robustness.jpeg(images, 100), images) < 3  # 4:2:0 halves the colour even here


@pytest.mark.parametrize(
    "names",
    [
        ["jpeg 95", "jpeg 90", "jpeg 75", "jpeg 50", "jpeg 30"],
        ["blur 0.5", "blur 1", "blur 2", "blur 3"],
        ["scale 2", "scale 0.75", "scale 0.5", "scale 0.25"],
        ["noise 2", "noise 5", "noise 10"],
        ["crop 0.9", "crop 0.75"],
    ],
)
def test_perturbation_of_more_strength_changes_more(names: list[str]) -> None:
    images = faces()
    changes = [mean_change(PERTURBATIONS[name](images, 0), images) for name in names]
    assert changes == sorted(changes)
    assert changes[0] < changes[-1]


def test_blur_of_a_point_is_the_gaussian_of_its_sigma() -> None:
    point = np.zeros((1, 65, 65, 3), np.uint8)
    point[0, 32, 32] = 255
    blurred = robustness.blur(np.repeat(point, 2, axis=0), 1.5)[1].astype(float)[..., 0]
    distance2 = (np.mgrid[0:65, 0:65] - 32.0) ** 2
    expected = 255 * np.exp(-distance2.sum(axis=0) / (2 * 1.5**2)) / (2 * np.pi * 1.5**2)
    assert np.abs(blurred - expected).max() <= PIXEL_ERROR


def test_blur_and_scale_take_detail_and_keep_the_light() -> None:
    images = faces()
    for name in ("blur 1", "scale 0.5"):
        changed = PERTURBATIONS[name](images, 0)
        assert detail(changed) < detail(images) / 2
        assert changed.mean() == pytest.approx(images.mean(), abs=0.5)


def test_rescale_is_antialiased() -> None:
    stripes = np.zeros((1, 128, 128, 3), np.uint8)
    stripes[:, :, ::2] = 255  # finer than half the size can hold: an even grey, not coarser stripes
    reduced = robustness.rescale(stripes, 0.5)[0, 16:-16, 16:-16]
    assert np.abs(reduced.astype(float) - 127.5).max() < 12


def test_noise_has_its_sigma_no_bias_and_another_field_for_each_image_and_seed() -> None:
    even = np.full((2, 128, 128, 3), 128, np.uint8)
    noisy = robustness.noise(even, 5, seed=1).astype(float) - 128
    assert noisy.std() == pytest.approx(5, rel=0.02)
    assert noisy.mean() == pytest.approx(0, abs=0.05)
    assert mean_change(noisy[0], noisy[1]) > 1
    assert mean_change(robustness.noise(even, 5, seed=1), robustness.noise(even, 5, seed=2)) > 1
    white = np.full((1, 8, 8, 3), 255, np.uint8)
    assert robustness.noise(white, 10, seed=1).min() > 150  # clipped, never wrapped to black


def test_crop_enlarges_the_middle() -> None:
    images = np.zeros((1, 128, 128, 3), np.uint8)
    images[:, 32:96, 32:96] = (200, 100, 50)
    cropped = robustness.crop(images, 0.5)
    assert (np.abs(cropped.astype(int) - (200, 100, 50)) <= PIXEL_ERROR).all()


def test_grey_is_the_luminance_of_jpeg() -> None:
    colours = np.zeros((1, 2, 2, 3), np.uint8)
    colours[0, 0, 0], colours[0, 0, 1], colours[0, 1, 0], colours[0, 1, 1] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 255
    expected = [[76, 150], [29, 255]]
    np.testing.assert_array_equal(robustness.grey(colours)[0], np.repeat(np.array(expected)[..., None], 3, axis=-1))


def test_jpeg_leaves_its_block_grid() -> None:
    noisy = robustness.noise(np.full((1, 128, 128, 3), 128, np.uint8), 20, seed=0)
    steps = np.abs(np.diff(robustness.jpeg(noisy, 30)[0].astype(float), axis=1)).mean(axis=(0, 2))
    assert steps[7::8].mean() > 1.2 * np.delete(steps, np.s_[7::8]).mean()


def test_score_perturbed_keeps_order_whatever_the_batch(tmp_path: Path) -> None:
    images = faces(7)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")

    def brightness(batch: Any) -> Any:
        assert len(batch) <= 3
        return batch.mean(axis=(1, 2, 3)) / 255

    scores = score_perturbed(brightness, mapped, PERTURBATIONS["grey"], batch_size=3)
    assert scores == pytest.approx(robustness.grey(images).mean(axis=(1, 2, 3)) / 255)


def test_list_robustness_cells_shows_what_a_perturbation_costs() -> None:
    # Fakes carry fine stripes and the detector sees nothing else: a blur must blind it, a crop need not.
    images = np.full((12, 128, 128, 3), 100, np.uint8)
    images[6:, :, ::2] = 160
    sources, labels = ["lfw"] * 6 + ["stylegan"] * 3 + ["stylegan2"] * 3, [0] * 6 + [1] * 6

    def stripes(batch: Any) -> Any:
        return np.clip(np.abs(np.diff(batch.astype(float), axis=2)).mean(axis=(1, 2, 3)) / 60, 0, 1)

    chosen = {name: PERTURBATIONS[name] for name in (UNCHANGED, "blur 2", "grey", SHARED_DEGRADATION)}
    reals = np.array(labels) == 0
    sets = {name: reals | (np.array(sources) == name) for name in ("stylegan", "stylegan2")}
    rows = list_robustness_cells(stripes, images, labels, sets, 0.5, perturbations=chosen)
    table = {(row["perturbation"], row["set"]): row for row in rows}
    assert set(table) == {(name, faces) for name in chosen for faces in (MACRO, "stylegan", "stylegan2")}
    assert table[UNCHANGED, MACRO]["balanced_accuracy"] == table["grey", MACRO]["balanced_accuracy"] == 1
    assert table["blur 2", MACRO]["balanced_accuracy"] == 0.5
    assert table["blur 2", "stylegan2"]["change"] == -0.5
    assert table["grey", MACRO]["change"] == 0
    assert (table["grey", "stylegan"]["n_real"], table["grey", "stylegan"]["n_fake"]) == (6, 3)
    assert table[SHARED_DEGRADATION, MACRO]["change"] <= -0.4


def test_list_robustness_cells_macro_is_the_mean_of_the_sets() -> None:
    images = np.zeros((6, 128, 128, 3), np.uint8)
    images[[1, 5]] = 255  # the detector calls white fake: set "missed" has one of its four fakes right
    sets = {
        "found": np.array([True, True, False, False, False, False]),
        "missed": np.array([True, False, True, True, True, True]),
    }
    rows = list_robustness_cells(
        lambda batch: batch.mean(axis=(1, 2, 3)) / 255,
        images,
        [0, 1, 1, 1, 1, 1],
        sets,
        0.5,
        perturbations={UNCHANGED: PERTURBATIONS[UNCHANGED]},
    )
    assert {row["set"]: row["balanced_accuracy"] for row in rows} == {"found": 1, "missed": 0.625, MACRO: 0.8125}


def test_list_robustness_cells_of_one_class_has_no_numbers() -> None:
    rows = list_robustness_cells(
        lambda batch: np.zeros(len(batch)),
        faces(),
        [0] * 3,
        {"lfw": np.ones(3, bool)},
        0.5,
        perturbations={"grey": PERTURBATIONS["grey"]},
    )
    assert [(row["set"], row["n_real"], row["balanced_accuracy"], row["roc_auc"]) for row in rows] == [
        (MACRO, 3, None, None),
        ("lfw", 3, None, None),
    ]


def test_stratified_sample_is_even_and_repeatable() -> None:
    sources = ["lfw"] * 50 + ["hard"] * 20 + ["hard"] * 3
    labels = [0] * 50 + [0] * 20 + [1] * 3
    rows = stratified_sample(sources, labels, at_most=10, seed=1)
    drawn = [(sources[row], labels[row]) for row in rows]
    assert (drawn.count(("lfw", 0)), drawn.count(("hard", 0)), drawn.count(("hard", 1))) == (10, 10, 3)
    assert list(rows) == sorted(set(rows))
    np.testing.assert_array_equal(rows, stratified_sample(sources, labels, at_most=10, seed=1))
    assert set(rows) != set(stratified_sample(sources, labels, at_most=10, seed=2))


def test_robustness_loads_opencv_only_to_blur() -> None:
    code = "import sys, fakeface.evaluation.robustness; assert not {'cv2', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
