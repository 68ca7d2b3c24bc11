"""Metrics of each source, of each pair of sources, and over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fakeface.constants import FAKE, LABELS, REAL
from fakeface.metrics.bootstrap import bootstrap_intervals
from fakeface.metrics.classification import (
    Floats,
    Interval,
    Ints,
    compute_binary_metrics,
    source_balanced_weights,
    validate_labels_and_scores,
)

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}


_NORMAL_QUANTILE = 1.959963984540054  # of 0.975: a two-sided 95 % interval


def compute_wilson_interval(correct: int, n: int) -> Interval:
    """95 % interval of a proportion, of use at 0 and 1 too (Wilson 1927)."""
    share, z2 = correct / n, _NORMAL_QUANTILE**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _NORMAL_QUANTILE * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return {"low": max(0.0, float(centre - half)), "high": min(1.0, float(centre + half))}


def evaluate_sources(
    sources: Sequence[str], labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float
) -> dict[str, dict[str, Any]]:
    """A row for each source, by name: label, n, accuracy with Wilson's interval, mean score and score quantiles.

    `label` is "real", "fake", or "both" for a source that mixes them.
    """
    labels, scores = validate_labels_and_scores(labels, scores)
    names = np.asarray(sources, dtype=str)
    correct = (scores >= threshold) == labels
    return {
        str(name): _describe_source(labels[names == name], scores[names == name], correct[names == name])
        for name in np.unique(names)
    }


def _describe_source(labels: Ints, scores: Floats, correct: npt.NDArray[np.bool_]) -> dict[str, Any]:
    present = [name for name, label in LABELS.items() if (labels == label).any()]
    return {
        "label": present[0] if len(present) == 1 else "both",
        "n": int(labels.size),
        "accuracy": float(correct.mean()),
        "interval": compute_wilson_interval(int(correct.sum()), labels.size),
        "mean_score": float(scores.mean()),
        "quantiles": {name: float(np.quantile(scores, level)) for name, level in QUANTILES.items()},
    }


def evaluate_pairs(
    sources: Sequence[str], labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float
) -> dict[str, dict[str, float]]:
    """`compute_binary_metrics` of each source of real faces against each source of fakes, named "REAL vs FAKE".

    This is where a generator shows that is missed, or a camera that is taken for one: pooling hides both.
    """
    labels, scores = validate_labels_and_scores(labels, scores)
    names = np.asarray(sources, dtype=str)
    pairs = {}
    for real in np.unique(names[labels == REAL]):
        for fake in np.unique(names[labels == FAKE]):
            rows = ((names == real) & (labels == REAL)) | ((names == fake) & (labels == FAKE))
            pairs[f"{real} vs {fake}"] = compute_binary_metrics(labels[rows], scores[rows], threshold)
    return pairs


def average_over_sources(
    sources: Sequence[str],
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    threshold: float,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """{"pooled", "macro"}: `compute_binary_metrics` and "interval" over all rows, and with `source_balanced_weights`.

    `majority_class_accuracy` is what the better of "always real" and "always fake" would get: an accuracy near it says
    nothing. Pooled it is the larger class's share; macro it is 0.5.
    """
    labels, scores = validate_labels_and_scores(labels, scores)
    summaries = {}
    for name, weights in (("pooled", np.ones(labels.size)), ("macro", source_balanced_weights(labels, sources))):
        fake_share = float(np.average(labels, weights=weights))
        summaries[name] = compute_binary_metrics(labels, scores, threshold, weights) | {
            "majority_class_accuracy": round(max(fake_share, 1 - fake_share), 12),
            "interval": bootstrap_intervals(
                labels, scores, threshold, sources=sources, weights=weights, resamples=resamples, seed=seed
            ),
        }
    return summaries


def report_evaluation(
    sources: Sequence[str],
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    threshold: float,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """All of one evaluated set, ready for JSON: threshold, generalization (pooled), macro, sources and pairs.

    `sources`, `labels` and `scores` are (N,); see the three functions above for the parts.
    """
    summaries = average_over_sources(sources, labels, scores, threshold, resamples, seed)
    return {
        "threshold": float(threshold),
        "generalization": summaries["pooled"],
        "macro": summaries["macro"],
        "sources": evaluate_sources(sources, labels, scores, threshold),
        "pairs": evaluate_pairs(sources, labels, scores, threshold),
    }
