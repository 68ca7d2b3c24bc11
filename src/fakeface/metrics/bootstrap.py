"""95 % intervals of metrics, from resamples of the images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fakeface.constants import FAKE
from fakeface.metrics.classification import (
    CALIBRATION_BINS,
    CONFIDENCE,
    FALSE_POSITIVE_RATES,
    ROUNDING,
    Floats,
    Interval,
    Ints,
    assign_bins,
    compute_log_losses,
    number_strata,
    validate_labels_and_scores,
)

_CHUNK_ENTRIES = 500_000  # resampled weights held at once: 4 MB, about a core's cache


def bootstrap_intervals(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    threshold: float,
    *,
    sources: Sequence[str] | None = None,
    weights: npt.ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """95 % percentile bootstrap intervals (Efron 1979) {metric: {"low", "high"}} of `compute_binary_metrics`' metrics.

    Rows are redrawn inside each class, and inside each source where `sources` (N,) are given, so that the counts of the
    evaluated set stay what they are. The same arguments give the same numbers. A rate of exactly 0 or 1 has an interval
    of no width (`evaluate_sources` states Wilson's instead), and a resample's ece is larger than the
    set's, by its noise.
    No resamples, no intervals.
    """
    if not resamples:
        return {}
    labels, scores = validate_labels_and_scores(labels, scores)
    weights = np.ones(scores.size) if weights is None else np.asarray(weights, np.float64)
    stratum_of_row, _, sizes = number_strata(labels, sources)
    order = np.argsort(-scores, kind="stable")
    labels, scores, weights, stratum_of_row = labels[order], scores[order], weights[order], stratum_of_row[order]
    rows_of_stratum = [np.flatnonzero(stratum_of_row == cell) for cell in range(sizes.size)]
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_ENTRIES // scores.size)
    parts = []
    for start in range(0, resamples, chunk):
        drawn = _resample_weights(rows_of_stratum, min(chunk, resamples - start), weights, rng)
        parts.append(compute_weighted_metrics(labels, scores, threshold, drawn))
    tail = (1 - CONFIDENCE) / 2
    intervals = {}
    for name in parts[0]:
        low, high = np.quantile(np.concatenate([part[name] for part in parts]), (tail, 1 - tail))
        intervals[name] = {"low": float(low), "high": float(high)}
    return intervals


def _resample_weights(rows_of_stratum: list[Ints], count: int, weights: Floats, rng: np.random.Generator) -> Floats:
    """Weights (count, N): how often each row is drawn, with replacement inside its cell, times its own weight."""
    drawn = np.empty((count, weights.size))
    for rows in rows_of_stratum:
        picks = rng.integers(0, rows.size, size=(count, rows.size)) + np.arange(count)[:, None] * rows.size
        drawn[:, rows] = np.bincount(picks.ravel(), minlength=count * rows.size).reshape(count, rows.size)
    return drawn * weights


def compute_weighted_metrics(labels: Ints, scores: Floats, threshold: float, weights: Floats) -> dict[str, Floats]:
    """`compute_binary_metrics` for many weightings (K, N) of the same rows at once, each metric as (K,).

    The rows must be sorted by falling score. This is what makes a thousand resamples cheap: one sort serves them all.
    """
    fake = labels == FAKE
    correct = (scores >= threshold) == labels
    totals = weights.sum(axis=1)
    terms = np.stack([correct, compute_log_losses(labels, scores), (scores - labels) ** 2], axis=1)
    sums = weights @ terms
    gaps = weights @ (np.eye(CALIBRATION_BINS)[assign_bins(scores)] * (labels - scores)[:, None])
    metrics = {
        "accuracy": sums[:, 0] / totals,
        "loss": sums[:, 1] / totals,
        "brier": sums[:, 2] / totals,
        "ece": np.abs(gaps).sum(axis=1) / totals,
    }
    for name, rows in (("real_accuracy", ~fake), ("fake_accuracy", fake)):
        if rows.any():
            metrics[name] = (weights @ (correct & rows).astype(float)) / (weights @ rows.astype(float))
    if fake.any() and not fake.all():
        metrics["balanced_accuracy"] = (metrics["real_accuracy"] + metrics["fake_accuracy"]) / 2
        metrics |= _compute_weighted_ranking_metrics(fake, scores, weights)
    return metrics


def _compute_weighted_ranking_metrics(
    fake: npt.NDArray[np.bool_], scores: Floats, weights: Floats
) -> dict[str, Floats]:
    """ROC AUC by trapezoids, average precision by steps, and TPR under a bound of the FPR; equal scores move as one."""
    tp = np.cumsum(weights * fake, axis=1)
    fp = np.cumsum(weights, axis=1) - tp
    ends = np.append(np.flatnonzero(np.diff(scores)), scores.size - 1)
    if ends.size < scores.size:
        tp, fp = tp[:, ends], fp[:, ends]
    fakes, reals = tp[:, -1], fp[:, -1]
    new_tp = np.diff(tp, axis=1, prepend=0)
    new_fp = np.diff(fp, axis=1, prepend=0)
    precision = tp / np.maximum(tp + fp, np.finfo(float).tiny)
    metrics = {
        "roc_auc": (new_fp * (tp - new_tp / 2)).sum(axis=1) / (fakes * reals),
        "average_precision": (new_tp * precision).sum(axis=1) / fakes,
    }
    for name, bound in FALSE_POSITIVE_RATES.items():
        allowed = (fp <= (bound + ROUNDING) * reals[:, None]).sum(axis=1)
        reached = np.take_along_axis(tp, np.maximum(allowed - 1, 0)[:, None], axis=1)[:, 0]
        metrics[name] = np.where(allowed > 0, reached, 0) / fakes
    return metrics
