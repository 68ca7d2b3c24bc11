"""What metrics.json holds: each stage in and out of its domain, each source, and each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fakeface.config.params import Pair
from fakeface.constants import FINAL_STAGE, MACRO, SHARED_DEGRADATION, STAGES
from fakeface.evaluation.predictions import Evaluation
from fakeface.evaluation.source_pairs import select_pair_rows
from fakeface.metrics.bootstrap import bootstrap_intervals
from fakeface.metrics.by_source import report_evaluation
from fakeface.metrics.classification import compute_binary_metrics, compute_coverage

_PAIR_KEYS = ("balanced_accuracy", "roc_auc")


def compute_evaluation_metrics(
    evaluation: Evaluation,
    pairs: Mapping[str, Pair],
    robustness: Sequence[Mapping[str, Any]],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Return what reports/metrics.json holds: the last stage held out, every stage in and out of its domain, and pairs.

    A pair is left out when one of its sources is not in this data.
    """
    heldout, final = evaluation.heldout, evaluation.calibrations[FINAL_STAGE]
    reports = {
        stage: report_evaluation(
            heldout.sources.tolist(), heldout.labels, heldout.scores[stage], calibration.threshold, resamples, seed
        )
        for stage, calibration in evaluation.calibrations.items()
    }
    report = reports[FINAL_STAGE]
    report["source_pairs"] = report.pop("pairs")
    of_pairs = {
        stage: _compute_pair_metrics(evaluation, pairs, stage, resamples if stage == FINAL_STAGE else 0, seed)
        for stage in STAGES
    }
    report["pairs"] = of_pairs[FINAL_STAGE]
    report["pairs_macro"] = _average_pairs(report["pairs"])
    report["pairs_pooled"] = _compute_pooled_pairs(evaluation, pairs)
    band = {name: getattr(final, name) for name in ("abstention_low", "abstention_high", "target_accuracy")}
    answered = compute_coverage(
        heldout.labels, heldout.scores[FINAL_STAGE], final.threshold, final.abstention_low, final.abstention_high
    )
    report["coverage"] = band | answered
    report["stages"] = {
        stage: _compute_own_test_metrics(evaluation, stage, resamples, seed)
        | {"heldout": reports[stage]["generalization"]}
        | {name: reports[stage][name] for name in ("macro", "sources")}
        | _summarize_pairs(of_pairs[stage])
        for stage in STAGES
    }
    report["robustness"] = {row["perturbation"]: _select_cell(row) for row in robustness if row["set"] == MACRO}
    if probe := report["robustness"].get(SHARED_DEGRADATION):
        report["shortcut_probe"] = probe
    return report


def _select_cell(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("balanced_accuracy", "roc_auc", "change") if row[name] is not None}


def _compute_own_test_metrics(evaluation: Evaluation, stage: str, resamples: int, seed: int) -> dict[str, Any]:
    """Return a stage's own test part right after it, and after the last stage, so that forgetting shows."""
    own = evaluation.tests[stage]
    by_checkpoint: dict[str, dict[str, Any]] = {}
    for by in {stage, FINAL_STAGE}:
        rows = own.labels, own.scores[by], evaluation.calibrations[by].threshold
        intervals = bootstrap_intervals(*rows, sources=own.sources.tolist(), resamples=resamples, seed=seed)
        by_checkpoint[by] = compute_binary_metrics(*rows) | {"interval": intervals}
    return {"test": by_checkpoint[stage], "test_after_last_stage": by_checkpoint[FINAL_STAGE]}


def _summarize_pairs(of_pairs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return balanced accuracy and ROC AUC of every pair with a stage's checkpoint, and their means."""
    return {
        "pairs": {name: {key: row[key] for key in _PAIR_KEYS} for name, row in of_pairs.items()},
        "pairs_macro": _average_pairs(of_pairs),
    }


def _compute_pair_metrics(
    evaluation: Evaluation, pairs: Mapping[str, Pair], stage: str, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Return `compute_binary_metrics` of every pair with one stage's checkpoint, and intervals."""
    threshold = evaluation.calibrations[stage].threshold
    names, labels, scores = _concat_sets(evaluation, stage)
    found: dict[str, dict[str, Any]] = {}
    for name, rows in select_pair_rows(names, labels, pairs).items():
        found[name] = dict(compute_binary_metrics(labels[rows], scores[rows], threshold))
        if resamples:
            found[name]["interval"] = bootstrap_intervals(
                labels[rows], scores[rows], threshold, sources=names[rows].tolist(), resamples=resamples, seed=seed
            )
    return found


def _compute_pooled_pairs(evaluation: Evaluation, pairs: Mapping[str, Pair]) -> dict[str, float]:
    """Return `compute_binary_metrics` after the last stage of every face that is in some pair, each once."""
    names, labels, scores = _concat_sets(evaluation, FINAL_STAGE)
    of_pairs = select_pair_rows(names, labels, pairs)
    if not of_pairs:
        return {}
    rows = np.logical_or.reduce(list(of_pairs.values()))
    return dict(compute_binary_metrics(labels[rows], scores[rows], evaluation.threshold))


def _concat_sets(
    evaluation: Evaluation, stage: str
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Return names as evaluate.pairs has them, labels and one stage's scores, (N,) each."""
    sets = evaluation.sets()
    return (
        np.concatenate([each.face_names for each in sets]),
        np.concatenate([each.labels for each in sets]),
        np.concatenate([each.scores[stage] for each in sets]),
    )


def _average_pairs(of_pairs: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean over the pairs, each weighing the same, and 1 - balanced accuracy as `error`."""
    if not of_pairs:
        return {}
    means = {key: float(np.mean([row[key] for row in of_pairs.values()])) for key in _PAIR_KEYS}
    return means | {"error": 1 - means["balanced_accuracy"]}
