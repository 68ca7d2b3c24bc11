from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fakeface.metrics.calibration import (
    SLOPE_BOUNDS,
    Calibration,
    fit_abstention_band,
    fit_calibration,
    fit_slope_and_bias,
    logit,
    sigmoid,
)
from fakeface.metrics.classification import compute_binary_metrics, compute_calibration_error, compute_coverage
from fakeface.system.errors import UserError


def drawn_rows(n: int, slope: float, bias: float, seed: int = 0) -> tuple[Any, Any]:
    """Labels and a model's scores whose true calibration is sigmoid(slope · logit(score) + bias)."""
    rng = np.random.default_rng(seed)
    scores = sigmoid(rng.normal(scale=2, size=n))
    return (rng.random(n) < sigmoid(slope * logit(scores) + bias)).astype(int), scores


def fitted(labels: Any, scores: Any, **settings: Any) -> Calibration:
    return fit_calibration(["valid"] * len(labels), ["ffhq"] * len(labels), labels, scores, **settings)


def test_fit_slope_and_bias_finds_known_values_again() -> None:
    labels, scores = drawn_rows(40_000, slope=0.5, bias=0.0)
    slope, bias = fit_slope_and_bias(labels, scores)
    assert slope == pytest.approx(0.5, abs=0.02)
    assert bias == pytest.approx(0, abs=0.03)


def test_fit_slope_and_bias_equals_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    labels = np.arange(4000) % 2
    logits = rng.normal(size=4000) * 3 + (labels - 0.5) * 2
    slope, bias = fit_slope_and_bias(labels, sigmoid(logits))
    other = LogisticRegression(C=1e9).fit(logits[:, None], labels)
    assert slope == pytest.approx(other.coef_[0][0], abs=0.01)  # Platt's targets differ by 1 of 2,002
    assert bias == pytest.approx(other.intercept_[0], abs=0.01)


def test_fit_calibration_corrects_an_overconfident_model_on_other_rows() -> None:
    labels, scores = drawn_rows(4000, slope=0.4, bias=0.0)
    later_labels, later_scores = drawn_rows(4000, slope=0.4, bias=0.0, seed=1)
    calibrated = fitted(labels, scores).apply(later_scores)
    assert compute_calibration_error(later_labels, later_scores) > 0.1
    assert compute_calibration_error(later_labels, calibrated) < 0.03
    before, after = (compute_binary_metrics(later_labels, values, 0.5) for values in (later_scores, calibrated))
    assert after["loss"] < before["loss"]
    assert after["roc_auc"] == pytest.approx(before["roc_auc"])


def test_fit_calibration_ignores_class_counts() -> None:
    labels, scores = drawn_rows(8000, slope=1.0, bias=0.0)
    rare = (labels == 1) | (np.arange(8000) % 10 == 0)
    balanced, imbalanced = fitted(labels, scores), fitted(labels[rare], scores[rare])
    assert imbalanced.bias == pytest.approx(balanced.bias, abs=0.25)  # the log of the odds of the counts is 2.3
    assert imbalanced.slope == pytest.approx(balanced.slope, abs=0.15)


def line_of(calibration: Calibration) -> float:
    """The model's own logit from which on a face is fake."""
    return float((logit(calibration.threshold) - calibration.bias) / calibration.slope)


def best_line(labels: Any, scores: Any) -> float:
    """The model's own logit of highest balanced accuracy on these rows."""
    real, fake = ((labels == label) / (labels == label).sum() for label in (0, 1))
    order = np.argsort(scores)
    return float(logit(scores[order[np.argmax(np.cumsum((real - fake)[order]))]]))


@pytest.mark.parametrize("shift", [-1.5, 0.0, 2.0])
def test_fit_calibration_threshold_is_where_fake_becomes_likelier(shift: float) -> None:
    labels, scores = drawn_rows(20_000, slope=0.6, bias=0.6 * shift)
    assert line_of(fitted(labels, scores)) == pytest.approx(best_line(labels, scores), abs=0.3)


def test_fit_calibration_threshold_moves_less_than_the_best_one_of_each_draw() -> None:
    draws = [drawn_rows(1000, slope=0.6, bias=0.0, seed=seed) for seed in range(40)]
    even = [line_of(fitted(*draw)) for draw in draws]
    assert np.std(even) < 0.6 * np.std([best_line(*draw) for draw in draws])


def test_fit_calibration_threshold_ignores_a_large_class() -> None:
    labels = np.repeat([0, 1], [50, 950])
    scores = np.concatenate([np.linspace(0, 0.6, 50), np.linspace(0.4, 1, 950)])
    assert 0.42 < sigmoid(line_of(fitted(labels, scores))) < 0.58


def test_fit_abstention_band_reaches_the_target_and_no_further() -> None:
    labels, scores = drawn_rows(4000, slope=1.0, bias=0.0)
    low, high = fit_abstention_band(labels, scores, 0.5, 0.95)
    assert low < 0.5 < high
    assert low == pytest.approx(1 - high)  # as far in logits on both sides of 0.5
    reached = compute_coverage(labels, scores, 0.5, low, high)
    assert reached["accuracy"] == pytest.approx(0.95, abs=0.01)
    narrower = compute_coverage(labels, scores, 0.5, low + 0.05, high - 0.05)
    assert narrower["accuracy"] < 0.95
    assert 0.2 < reached["coverage"] < narrower["coverage"]


def test_fit_abstention_band_of_a_perfect_and_of_a_hopeless_model() -> None:
    assert fit_abstention_band([0, 1], [0.2, 0.8], 0.5) == (0.5, 0.5)
    assert fit_abstention_band([0, 1], [0.8, 0.2], 0.5) == (0.0, 1.0)
    assert Calibration(abstention_low=0.0, abstention_high=1.0).is_abstained([0.0, 0.5, 1.0]).all()
    assert not Calibration().is_abstained([0.0, 0.5, 1.0]).any()


def test_fit_abstention_band_equals_one_by_hand() -> None:
    labels, scores = [0, 0, 0, 1, 1, 1], [0.05, 0.2, 0.6, 0.45, 0.8, 0.95]
    low, high = fit_abstention_band(labels, scores, 0.5, 1.0)
    edge = float(sigmoid((logit(0.6) + logit(0.8)) / 2))
    assert (low, high) == pytest.approx((1 - edge, edge))


def test_fit_calibration_of_separated_classes_stays_bounded() -> None:
    labels, scores = np.repeat([0, 1], 500), np.repeat([0.0, 1.0], 500)
    calibration = fitted(labels, scores)
    assert SLOPE_BOUNDS[0] <= calibration.slope <= SLOPE_BOUNDS[1]
    calibrated = calibration.apply(scores)
    assert compute_binary_metrics(labels, calibrated, calibration.threshold)["accuracy"] == 1
    assert calibrated.max() == pytest.approx(501 / 502, abs=1e-4)  # Platt's target: no certainty out of 500 rows
    close = fitted(labels, np.repeat([0.499, 0.501], 500))
    assert close.slope == SLOPE_BOUNDS[1]
    assert close.threshold == pytest.approx(0.5)


def test_fit_calibration_never_inverts_a_model() -> None:
    labels, scores = np.repeat([0, 1], 50), np.repeat([0.9, 0.1], 50)
    calibration = fitted(labels, scores)
    assert calibration.slope == SLOPE_BOUNDS[0]
    assert (np.diff(calibration.apply([0.1, 0.5, 0.9])) > 0).all()


def test_fit_calibration_of_equal_scores_is_even_odds() -> None:
    assert fitted([0, 1, 1], [0.9, 0.9, 0.9]).apply([0.9]) == pytest.approx([0.5], abs=0.1)


def test_fit_calibration_of_one_class_leaves_the_scores() -> None:
    calibration = fitted([1, 1, 1], [0.2, 0.6, 0.9])
    assert (calibration.slope, calibration.bias, calibration.threshold) == (1, 0, 0.5)
    assert (calibration.n_real, calibration.n_fake) == (0, 3)
    np.testing.assert_allclose(calibration.apply([0.2, 0.6]), [0.2, 0.6])
    assert not calibration.is_abstained([0.5]).any()


@pytest.mark.parametrize("part", ["test", "heldout", "train"])
def test_fit_calibration_refuses_other_parts(part: str) -> None:
    with pytest.raises(ValueError, match=part):
        fit_calibration(["valid", "valid", part], ["ffhq"] * 3, [0, 1, 1], [0.1, 0.9, 0.8])
    with pytest.raises(ValueError, match="2 rows"):
        fit_calibration(["valid"] * 2, ["ffhq"] * 3, [0, 1, 1], [0.1, 0.9, 0.8])


def test_fit_calibration_reads_no_heldout_label() -> None:
    labels, scores = drawn_rows(600, slope=0.6, bias=0.5)
    rng = np.random.default_rng(1)
    parts = rng.choice(["train", "valid", "test", "heldout"], 600)

    def fit_from_table(table_labels: Any) -> Calibration:
        rows = parts == "valid"
        return fit_calibration(list(parts[rows]), ["ffhq"] * int(rows.sum()), table_labels[rows], scores[rows])

    expected = fit_from_table(labels)
    for _ in range(10):
        other = np.where(parts == "valid", labels, rng.integers(0, 2, 600))
        assert fit_from_table(other) == expected
    flipped = np.where(parts == "valid", 1 - labels, labels)
    assert fit_from_table(flipped) != expected


def test_calibration_json_round_trip_ignores_other_keys() -> None:
    labels, scores = drawn_rows(200, slope=0.7, bias=0.2)
    sources = ["utkface" if label == 0 else "stylegan" for label in labels]
    calibration = fit_calibration(["valid"] * 200, sources, labels, scores)
    stored = json.loads(json.dumps(calibration.to_json() | {"image_size": 128, "recipe": "seed"}))
    assert Calibration.from_json(stored) == calibration
    assert calibration.sources == ("stylegan", "utkface")
    assert calibration.n_real + calibration.n_fake == 200
    assert calibration.temperature == pytest.approx(1 / calibration.slope)
    with pytest.raises(dataclasses.FrozenInstanceError):
        calibration.threshold = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 1.5}, "out of range"),
        ({"slope": -1.0}, "out of range"),
        ({"bias": float("nan")}, "out of range"),
        ({"slope": "steep"}, "steep"),
        ({"abstention_low": 0.7}, "out of range"),
    ],
)
def test_calibration_from_json_names_a_broken_value(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Calibration.from_json(Calibration().to_json() | change)


def test_calibration_from_json_names_a_missing_value() -> None:
    stored = Calibration().to_json()
    del stored["threshold"]
    with pytest.raises(UserError, match=r"threshold.*train the stage again"):
        Calibration.from_json(stored)
