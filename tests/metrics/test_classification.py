from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as reference

from fakeface.metrics.bootstrap import bootstrap_intervals, compute_weighted_metrics
from fakeface.metrics.by_source import (
    average_over_sources,
    compute_wilson_interval,
    evaluate_pairs,
    evaluate_sources,
    report_evaluation,
)
from fakeface.metrics.classification import (
    compute_binary_metrics,
    compute_calibration_error,
    compute_coverage,
    list_confusion_cells,
    list_reliability_bins,
    list_roc_points,
    source_balanced_weights,
)
from fakeface.system.errors import UserError

# Six faces by hand: two reals right, one real wrong, two fakes right, one fake wrong.
LABELS = [0, 0, 0, 1, 1, 1]
SCORES = [0.1, 0.2, 0.8, 0.9, 0.7, 0.3]


@pytest.fixture(autouse=True)
def _no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def a_scored_set(n: int, seed: int = 0, fake_share: float = 0.7, digits: int | None = None) -> tuple[Any, Any]:
    """Labels and overlapping scores; few `digits` make many equal scores."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < fake_share).astype(int)
    scores = 1 / (1 + np.exp(-(rng.normal(size=n) + 2 * labels - 1)))
    return labels, scores if digits is None else scores.round(digits)


def numbers_in(nested: Any) -> Iterator[float]:
    if isinstance(nested, dict):
        for value in nested.values():
            yield from numbers_in(value)
    elif not isinstance(nested, str):
        yield nested


def test_compute_binary_metrics_equals_metrics_by_hand() -> None:
    metrics = compute_binary_metrics(LABELS, SCORES, 0.5)
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["real_accuracy"] == pytest.approx(2 / 3)
    assert metrics["fake_accuracy"] == pytest.approx(2 / 3)
    assert metrics["balanced_accuracy"] == pytest.approx(2 / 3)
    # Of the nine real-fake pairs, (0.8, 0.7) and (0.8, 0.3) are the wrong way round.
    assert metrics["roc_auc"] == pytest.approx(7 / 9)
    # Fakes stand at ranks 1, 3 and 4.
    assert metrics["average_precision"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 4) / 3)
    likelihoods = [0.9, 0.8, 0.2, 0.9, 0.7, 0.3]
    assert metrics["loss"] == pytest.approx(-sum(math.log(p) for p in likelihoods) / 6)
    assert metrics["brier"] == pytest.approx(sum((1 - p) ** 2 for p in likelihoods) / 6)
    # Each score has a bin of its own, so every row is as wrong as its distance from its label.
    assert metrics["ece"] == pytest.approx((0.1 + 0.2 + 0.8 + 0.1 + 0.3 + 0.7) / 6)
    assert metrics["tpr_at_1_fpr"] == metrics["tpr_at_5_fpr"] == pytest.approx(1 / 3)
    assert (metrics["n_real"], metrics["n_fake"]) == (3, 3)


@pytest.mark.parametrize("digits", [None, 2, 1])
def test_compute_binary_metrics_equals_scikit_learn(digits: int | None) -> None:
    labels, scores = a_scored_set(500, digits=digits)
    metrics = compute_binary_metrics(labels, scores, 0.4)
    answers = (scores >= 0.4).astype(int)
    assert metrics["accuracy"] == pytest.approx(reference.accuracy_score(labels, answers))
    assert metrics["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, answers))
    assert metrics["fake_accuracy"] == pytest.approx(reference.recall_score(labels, answers))
    assert metrics["loss"] == pytest.approx(reference.log_loss(labels, scores.clip(1e-7, 1 - 1e-7)))
    assert metrics["brier"] == pytest.approx(reference.brier_score_loss(labels, scores))
    assert metrics["roc_auc"] == pytest.approx(reference.roc_auc_score(labels, scores))
    assert metrics["average_precision"] == pytest.approx(reference.average_precision_score(labels, scores))


def test_compute_binary_metrics_tpr_is_the_best_within_the_fpr() -> None:
    labels = [0] * 100 + [1] * 4
    scores = [0.9, 0.8, *[0.1] * 98, 0.95, 0.85, 0.75, 0.05]
    metrics = compute_binary_metrics(labels, scores, 0.5)
    assert metrics["tpr_at_1_fpr"] == pytest.approx(2 / 4)  # one real of a hundred may stand above: at 0.85
    assert metrics["tpr_at_5_fpr"] == pytest.approx(3 / 4)


def test_compute_binary_metrics_calls_a_score_at_the_threshold_fake() -> None:
    assert compute_binary_metrics([1, 0], [0.5, 0.5], 0.5)["fake_accuracy"] == 1


def test_compute_calibration_error_weighs_each_bin_by_its_rows() -> None:
    labels, scores = [0, 1, 1, 1], [0.95, 0.97, 0.98, 0.30]
    expected = (3 * abs((0.95 + 0.97 + 0.98) / 3 - 2 / 3) + 1 * abs(0.30 - 1)) / 4
    assert compute_calibration_error(labels, scores) == pytest.approx(expected)
    assert compute_calibration_error([0, 1], [0.0, 1.0]) == 0
    assert [row["n"] for row in list_reliability_bins(labels, scores)] == [1, 3]
    assert list_reliability_bins(labels, scores)[1]["fake_share"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(("label", "present", "absent"), [(0, "real", "fake"), (1, "fake", "real")])
def test_compute_binary_metrics_of_one_class_has_only_what_is_defined(label: int, present: str, absent: str) -> None:
    report = report_evaluation(["lfw"] * 3, [label] * 3, [0.0, 0.6, 1.0], 0.5)
    metrics = report["generalization"]
    assert metrics[f"{present}_accuracy"] == metrics["accuracy"]
    undefined = {f"{absent}_accuracy", "balanced_accuracy", "roc_auc", "average_precision", "tpr_at_1_fpr"}
    assert not undefined & set(metrics)
    assert not undefined & set(metrics["interval"])
    assert metrics["majority_class_accuracy"] == 1
    assert report["pairs"] == {}
    assert list_roc_points([label] * 3, [0.0, 0.6, 1.0]) == []
    json.dumps(report, allow_nan=False)


def test_compute_binary_metrics_of_a_constant_answer_is_chance() -> None:
    sources = ["ffhq"] * 20 + ["stylegan"] * 70 + ["stylegan2"] * 10
    labels = [0] * 20 + [1] * 80
    summaries = average_over_sources(sources, labels, [0.9] * 100, 0.5)
    assert summaries["pooled"]["accuracy"] == summaries["pooled"]["majority_class_accuracy"] == pytest.approx(0.8)
    assert summaries["macro"]["accuracy"] == summaries["macro"]["majority_class_accuracy"] == pytest.approx(0.5)
    assert summaries["macro"]["roc_auc"] == pytest.approx(0.5)


def test_source_balanced_weights_give_sources_equal_weight() -> None:
    sources = ["ffhq"] * 4 + ["stylegan"] * 90 + ["stylegan2"] * 10
    labels = [0] * 4 + [1] * 100
    scores = [0.1, 0.2, 0.3, 0.6] + [0.9] * 90 + [0.2] * 10
    macro = average_over_sources(sources, labels, scores, 0.5)["macro"]
    assert macro["real_accuracy"] == pytest.approx(3 / 4)
    assert macro["fake_accuracy"] == pytest.approx((1 + 0) / 2)
    assert (macro["accuracy"], macro["balanced_accuracy"]) == pytest.approx(((3 / 4 + 1 / 2) / 2,) * 2)
    pairs = evaluate_pairs(sources, labels, scores, 0.5)
    assert macro["roc_auc"] == pytest.approx(np.mean([pair["roc_auc"] for pair in pairs.values()]))
    assert (macro["n_real"], macro["n_fake"]) == (4, 100)


def test_source_balanced_weights_keep_classes_of_a_mixed_source_apart() -> None:
    weights = source_balanced_weights([0, 1, 1, 1, 0], ["hard", "hard", "hard", "stylegan", "lfw"])
    np.testing.assert_allclose(weights, [1 / 4, 1 / 8, 1 / 8, 1 / 4, 1 / 4])


def test_evaluate_sources_gives_accuracy_and_scores_of_each() -> None:
    rows = evaluate_sources(["lfw", "lfw", "stylegan", "hard", "hard"], [0, 0, 1, 0, 1], [0.2, 0.6, 0.9, 0.1, 0.4], 0.5)
    assert list(rows) == ["hard", "lfw", "stylegan"]
    assert rows["lfw"]["accuracy"] == 0.5
    assert (rows["lfw"]["label"], rows["stylegan"]["label"], rows["hard"]["label"]) == ("real", "fake", "both")
    assert rows["lfw"]["mean_score"] == pytest.approx(0.4)
    assert rows["lfw"]["quantiles"]["q50"] == pytest.approx(0.4)
    assert [row["n"] for row in rows.values()] == [2, 2, 1]


def test_compute_wilson_interval_stays_open_at_one() -> None:
    interval = compute_wilson_interval(10, 10)
    assert interval["low"] == pytest.approx(0.7225, abs=1e-4)  # 1 / (1 + 1.96² / 10)
    assert interval["high"] == pytest.approx(1)
    assert compute_wilson_interval(5, 10)["low"] == pytest.approx(0.2366, abs=1e-4)


@pytest.mark.parametrize("digits", [None, 1])
@pytest.mark.parametrize("weighted", [False, True])
def test_compute_weighted_metrics_equals_compute_binary_metrics(digits: int | None, weighted: bool) -> None:
    labels, scores = a_scored_set(300, seed=3, digits=digits)
    order = np.argsort(-scores, kind="stable")
    labels, scores = labels[order], scores[order]
    weights = np.random.default_rng(0).integers(0, 3, 300) * 0.5 if weighted else np.ones(300)
    by_weights = compute_weighted_metrics(labels, scores, 0.5, np.stack([weights, weights]))
    plain = compute_binary_metrics(labels, scores, 0.5, weights)
    assert set(by_weights) == set(plain) - {"n_real", "n_fake"}
    for name, values in by_weights.items():
        assert values == pytest.approx([plain[name]] * 2), name


def test_bootstrap_intervals_are_as_wide_as_statistics_says() -> None:
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 1], 400)
    scores = np.where(rng.random(800) < 0.9, labels * 0.8 + 0.1, 0.9 - labels * 0.8)
    share = compute_binary_metrics(labels, scores, 0.5)["real_accuracy"]
    interval = bootstrap_intervals(labels, scores, 0.5, seed=1)["real_accuracy"]
    half = 1.96 * math.sqrt(share * (1 - share) / 400)
    assert interval["low"] == pytest.approx(share - half, abs=0.006)
    assert interval["high"] == pytest.approx(share + half, abs=0.006)


def test_bootstrap_intervals_hold_the_estimate_and_repeat_by_seed() -> None:
    labels, scores = a_scored_set(400, seed=2)
    sources = [f"source {i % 3}" for i in range(400)]
    estimate = compute_binary_metrics(labels, scores, 0.5)
    intervals = bootstrap_intervals(labels, scores, 0.5, sources=sources, seed=4)
    for name in set(intervals) - {"ece"}:
        assert intervals[name]["low"] <= estimate[name] <= intervals[name]["high"], name
        assert intervals[name]["low"] < intervals[name]["high"], name
    assert intervals == bootstrap_intervals(labels, scores, 0.5, sources=sources, seed=4)
    assert intervals != bootstrap_intervals(labels, scores, 0.5, sources=sources, seed=5)


def test_bootstrap_intervals_resample_inside_each_source() -> None:
    # Two sources, one always right and one always wrong: redrawing across them would move the accuracy.
    labels, scores, sources = [1] * 40, [0.9] * 30 + [0.1] * 10, ["stylegan"] * 30 + ["stylegan2"] * 10
    inside = bootstrap_intervals(labels, scores, 0.5, sources=sources)["accuracy"]
    across = bootstrap_intervals(labels, scores, 0.5)["accuracy"]
    assert inside == {"low": 0.75, "high": 0.75}
    assert across["low"] < 0.75 < across["high"]


def test_bootstrap_intervals_in_chunks_equal_those_at_once() -> None:
    labels, scores = a_scored_set(20_000, seed=6)
    interval = bootstrap_intervals(labels, scores, 0.5, resamples=60)["roc_auc"]
    assert interval["low"] < reference.roc_auc_score(labels, scores) < interval["high"]
    assert interval["high"] - interval["low"] < 0.02


def test_report_evaluation_is_json_with_every_key() -> None:
    labels, scores = a_scored_set(120, seed=7)
    sources = np.where(labels == 0, "lfw", np.where(np.arange(120) % 2, "stylegan", "stylegan2"))
    report = report_evaluation(list(sources), labels, scores, 0.45, seed=1)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert {"accuracy", "balanced_accuracy", "roc_auc", "average_precision", "loss", "n_real", "n_fake"} <= set(
        report["generalization"]
    )
    assert report["generalization"]["interval"]["roc_auc"]["low"] < report["generalization"]["roc_auc"]
    assert {name: row["label"] for name, row in report["sources"].items()} == {
        "lfw": "real",
        "stylegan": "fake",
        "stylegan2": "fake",
    }
    assert set(report["pairs"]) == {"lfw vs stylegan", "lfw vs stylegan2"}
    assert all(type(number) in (int, float) and math.isfinite(number) for number in numbers_in(report))
    assert report == report_evaluation(list(sources), labels, scores, 0.45, seed=1)


def test_compute_coverage_reports_what_a_band_leaves() -> None:
    row = compute_coverage([0, 0, 1, 1, 1], [0.1, 0.45, 0.55, 0.9, 0.2], 0.5, 0.4, 0.6)
    assert row["coverage"] == pytest.approx(3 / 5)
    assert row["accuracy"] == pytest.approx(2 / 3)
    assert row["balanced_accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    assert (row["real_coverage"], row["fake_coverage"], row["n_answered"]) == pytest.approx((1 / 2, 2 / 3, 3))
    assert compute_coverage([0, 1], [0.5, 0.5], 0.5, 0.5, 0.5)["coverage"] == 1
    assert compute_coverage([0, 1], [0.0, 1.0], 0.5, 0.0, 1.0) == {
        "coverage": 0,
        "n_answered": 0,
        "real_coverage": 0,
        "fake_coverage": 0,
    }


def test_list_roc_points_thinned_keeps_the_curve() -> None:
    labels, scores = a_scored_set(5000, seed=8)
    points = list_roc_points(labels, scores, max_points=100)
    assert 50 < len(points) <= 100
    assert (points[0]["fpr"], points[0]["tpr"]) == (0, 0)
    assert (points[-1]["fpr"], points[-1]["tpr"]) == (1, 1)
    area = reference.auc([point["fpr"] for point in points], [point["tpr"] for point in points])
    assert area == pytest.approx(reference.roc_auc_score(labels, scores), abs=0.003)
    chosen = points[40]
    called_fake = scores >= chosen["threshold"]
    assert called_fake[labels == 1].mean() == pytest.approx(chosen["tpr"])
    assert called_fake[labels == 0].mean() == pytest.approx(chosen["fpr"])


def test_list_confusion_cells_counts_as_the_confusion_matrix() -> None:
    rows = list_confusion_cells(LABELS, SCORES, 0.5)
    assert rows.count({"actual": "real", "predicted": "fake"}) == 1
    assert rows.count({"actual": "fake", "predicted": "fake"}) == 2
    assert len(rows) == 6


def test_validate_labels_and_scores_refuses_scores_that_are_not_finite() -> None:
    with pytest.raises(UserError, match=r"2 of 3 scores are not finite.*lower lr"):
        compute_binary_metrics([0, 1, 1], [0.5, float("nan"), float("inf")], 0.5)
    with pytest.raises(UserError, match="no score"):
        compute_binary_metrics([], [], 0.5)


@pytest.mark.parametrize(
    ("labels", "scores"), [([0, 1], [0.5]), ([0, 2], [0.5, 0.5]), ([0, 1], [0.5, 1.5]), ([[0]], [[0.5]])]
)
def test_validate_labels_and_scores_raises_for_wrong_shapes_and_values(labels: Any, scores: Any) -> None:
    with pytest.raises(ValueError, match=r"labels|scores"):
        compute_binary_metrics(labels, scores, 0.5)
    with pytest.raises(ValueError, match="sources"):
        source_balanced_weights([0, 1], ["lfw"])


def test_metrics_import_no_tensorflow() -> None:
    imported = "fakeface.metrics.classification, fakeface.metrics.calibration"
    code = f"import sys, {imported}; assert not {{'tensorflow', 'sklearn'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
