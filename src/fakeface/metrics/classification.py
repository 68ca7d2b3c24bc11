"""Scores and labels in, metrics out.

A score is the probability of fake, in [0, 1]; fake (1) is the positive class; `score >= threshold` is the answer fake.
Nothing here is fitted: threshold and calibration come from `metrics.calibration`, which sees validation rows alone.
What a set cannot define (a ROC curve of real faces only) is left out of its metrics, so that no NaN reaches a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fakeface.constants import FAKE, LABELS, REAL
from fakeface.system.errors import UserError

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Interval: TypeAlias = dict[str, float]

PROBABILITY_CLIP = 1e-7  # Keras' epsilon, so that a loss here is the loss that training prints
CALIBRATION_BINS = 15  # as in Guo et al. 2017, "On Calibration of Modern Neural Networks"
FALSE_POSITIVE_RATES = {"tpr_at_1_fpr": 0.01, "tpr_at_5_fpr": 0.05}
CONFIDENCE = 0.95
ROUNDING = 1e-9  # a rate that equals a bound up to rounding has met it


def validate_labels_and_scores(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Ints, Floats]:
    """Labels (N,) as int64 and scores (N,) as float64.

    Raises:
        ValueError: shapes are unequal or wrong, labels beyond 0 and 1, or scores beyond [0, 1].
        UserError: there is no row, or a score is not finite.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must be one-dimensional and of one length")
    if labels.size == 0:
        raise UserError("There is no score to evaluate; check that the evaluated sources hold images.")
    if not np.isin(labels, (REAL, FAKE)).all():
        raise ValueError("labels must be 0 (real) or 1 (fake)")
    broken = int(np.count_nonzero(~np.isfinite(scores)))
    if broken:
        raise UserError(
            f"{broken} of {scores.size} scores are not finite, so the model has diverged; train again with a lower lr."
        )
    if scores.min() < 0 or scores.max() > 1:
        raise ValueError("scores must be probabilities in [0, 1]")
    return labels.astype(np.int64), scores


def source_balanced_weights(labels: npt.ArrayLike, sources: Sequence[str] | None = None) -> Floats:
    """Weights (N,) of sum 1 under which both classes weigh the same, and so do the sources inside a class.

    Without `sources` only the classes are balanced. Under these weights accuracy is balanced accuracy, and a constant
    answer gets 0.5 (1.0 where there is only one class).
    """
    labels = np.asarray(labels, np.int64)
    cell_of_row, class_of_cell, sizes = number_strata(labels, sources)
    cells_per_class = np.bincount(class_of_cell, minlength=2)
    weight_of_cell = 1 / (sizes * cells_per_class[class_of_cell] * np.count_nonzero(cells_per_class))
    return np.asarray(weight_of_cell[cell_of_row], np.float64)


def compute_binary_metrics(
    labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float, weights: npt.ArrayLike | None = None
) -> dict[str, float]:
    """Metrics of scores (N,) against labels (N,), optionally with a weight for each row.

    Always: accuracy, loss (log loss, natural logarithm), brier (Brier 1950), ece, n_real, n_fake; real_accuracy and
    fake_accuracy for the classes present; with both classes also balanced_accuracy, roc_auc, average_precision and
    tpr_at_1_fpr, tpr_at_5_fpr (the highest share of fakes caught while at most 1 % or 5 % of the reals are accused).
    """
    labels, scores = validate_labels_and_scores(labels, scores)
    weights = np.ones(scores.size) if weights is None else np.asarray(weights, np.float64)
    correct = (scores >= threshold) == labels
    real, fake = labels == REAL, labels == FAKE
    metrics: dict[str, float] = {
        "accuracy": float(np.average(correct, weights=weights)),
        "loss": float(np.average(compute_log_losses(labels, scores), weights=weights)),
        "brier": float(np.average((scores - labels) ** 2, weights=weights)),
        "ece": compute_calibration_error(labels, scores, weights),
        "n_real": int(real.sum()),
        "n_fake": int(fake.sum()),
    }
    if real.any():
        metrics["real_accuracy"] = float(np.average(correct[real], weights=weights[real]))
    if fake.any():
        metrics["fake_accuracy"] = float(np.average(correct[fake], weights=weights[fake]))
    if real.any() and fake.any():
        metrics["balanced_accuracy"] = (metrics["real_accuracy"] + metrics["fake_accuracy"]) / 2
        metrics |= _compute_ranking_metrics(labels, scores, weights)
    return metrics


def _compute_ranking_metrics(labels: Ints, scores: Floats, weights: Floats) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    false_rates, true_rates, _ = roc_curve(labels, scores, sample_weight=weights, drop_intermediate=False)
    return {
        "roc_auc": float(roc_auc_score(labels, scores, sample_weight=weights)),
        "average_precision": float(average_precision_score(labels, scores, sample_weight=weights)),
    } | {name: float(true_rates[false_rates <= bound + ROUNDING].max()) for name, bound in FALSE_POSITIVE_RATES.items()}


def compute_log_losses(labels: Ints, scores: Floats) -> Floats:
    """Return the log loss (N,) in nats of each score."""
    likelihood = np.where(labels == FAKE, scores, 1 - scores)
    return np.asarray(-np.log(np.clip(likelihood, PROBABILITY_CLIP, 1 - PROBABILITY_CLIP)), np.float64)


def compute_calibration_error(
    labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> float:
    """Mean over the rows of |share of fakes − mean score| in the row's bin, in [0, 1].

    15 equal-width bins [k/15, (k+1)/15) of the probability of fake: Naeini et al. 2015, "Obtaining Well Calibrated
    Probabilities Using Bayesian Binning", with the bin count of Guo et al. 2017.
    """
    labels, scores = validate_labels_and_scores(labels, scores)
    weights = np.ones(scores.size) if weights is None else np.asarray(weights, np.float64)
    gaps = np.bincount(assign_bins(scores), weights=weights * (labels - scores), minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / weights.sum())


def assign_bins(scores: Floats) -> Ints:
    """Return the calibration bin (N,), 0 to CALIBRATION_BINS - 1, of each score."""
    return np.minimum((scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def list_reliability_bins(labels: npt.ArrayLike, scores: npt.ArrayLike) -> list[dict[str, float]]:
    """For each of the 15 score bins that holds a row: low, high (its edges), mean_score, fake_share, n."""
    labels, scores = validate_labels_and_scores(labels, scores)
    bins = assign_bins(scores)
    return [
        {
            "low": k / CALIBRATION_BINS,
            "high": (k + 1) / CALIBRATION_BINS,
            "mean_score": float(scores[bins == k].mean()),
            "fake_share": float(labels[bins == k].mean()),
            "n": int((bins == k).sum()),
        }
        for k in np.unique(bins)
    ]


def is_abstained(scores: npt.ArrayLike, low: float, high: float) -> npt.NDArray[np.bool_]:
    """True (N,) where a score lies in the abstention band [low, high]; a band of no width holds no score."""
    scores = np.asarray(scores, np.float64)
    return (scores >= low) & (scores <= high) & (low < high)


def compute_coverage(
    labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float, low: float, high: float
) -> dict[str, float]:
    """What an abstention band [low, high], chosen elsewhere (`calibration.fit_abstention_band`), does to these rows.

    The coverage is the share of rows that get an answer, in [0, 1]; accuracy and balanced_accuracy, where defined, are
    those of the answers; real_coverage and fake_coverage are each class's own share.
    """
    labels, scores = validate_labels_and_scores(labels, scores)
    sure = ~is_abstained(scores, low, high)
    row: dict[str, float] = {"coverage": float(sure.mean()), "n_answered": int(sure.sum())}
    for name, label in LABELS.items():
        if (labels == label).any():
            row[f"{name}_coverage"] = float(sure[labels == label].mean())
    if sure.any():
        answered = compute_binary_metrics(labels[sure], scores[sure], threshold)
        row |= {name: answered[name] for name in ("accuracy", "balanced_accuracy") if name in answered}
    return row


def list_roc_points(labels: npt.ArrayLike, scores: npt.ArrayLike, max_points: int = 200) -> list[dict[str, float]]:
    """At most `max_points` rows fpr, tpr, threshold of the ROC curve, (0, 0) and (1, 1) among them.

    The points that stay are spread evenly along the curve. Empty where there is only one class.
    """
    labels, scores = validate_labels_and_scores(labels, scores)
    if labels.min() == labels.max():
        return []
    from sklearn.metrics import roc_curve

    false_rates, true_rates, thresholds = roc_curve(labels, scores)
    length = np.append(0, np.cumsum(np.diff(false_rates) + np.diff(true_rates)))
    stops = np.linspace(0, length[-1], min(max_points, length.size))
    kept = np.unique(np.searchsorted(length, stops - ROUNDING).clip(0, length.size - 1))
    thresholds = np.minimum(thresholds, 1.0)  # the first is infinite, "above every score": not a number for a file
    return [
        {"fpr": float(false_rates[i]), "tpr": float(true_rates[i]), "threshold": float(thresholds[i])} for i in kept
    ]


def list_confusion_cells(labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float) -> list[dict[str, str]]:
    """One row an image, actual and predicted, each "real" or "fake": what DVC's confusion plot counts."""
    labels, scores = validate_labels_and_scores(labels, scores)
    names = {label: name for name, label in LABELS.items()}
    answers = (scores >= threshold).astype(int)
    return [
        {"actual": names[int(actual)], "predicted": names[int(answer)]}
        for actual, answer in zip(labels, answers, strict=True)
    ]


def number_strata(labels: Ints, sources: Sequence[str] | None) -> tuple[Ints, Ints, Ints]:
    """Each row's cell (class within source), each cell's class, and each cell's size."""
    source_of_row = np.zeros(labels.size, np.int64)
    if sources is not None:
        if len(sources) != labels.size:
            raise ValueError(f"{len(sources)} sources for {labels.size} labels")
        source_of_row = np.unique(np.asarray(sources, dtype=str), return_inverse=True)[1]
    cells, cell_of_row, sizes = np.unique(source_of_row * 2 + labels, return_inverse=True, return_counts=True)
    return cell_of_row, cells % 2, sizes
