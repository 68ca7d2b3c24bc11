"""Scores of every checkpoint on every set → reports/: metrics as JSON, rows and curves as CSV, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fakeface.config.params import Pair
from fakeface.constants import FINAL_STAGE, STAGES
from fakeface.evaluation.predictions import Evaluation
from fakeface.evaluation.robustness import EQUALISED, MACRO
from fakeface.evaluation.source_pairs import pair_rows
from fakeface.metrics.classification import binary_metrics, bootstrap_intervals, coverage, evaluation_report

_PAIR_KEYS = ("balanced_accuracy", "roc_auc")


def evaluation_metrics(
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
        stage: evaluation_report(
            heldout.sources.tolist(), heldout.labels, heldout.scores[stage], calibration.threshold, resamples, seed
        )
        for stage, calibration in evaluation.calibrations.items()
    }
    report = reports[FINAL_STAGE]
    report["source_pairs"] = report.pop("pairs")
    of_pairs = {
        stage: _pair_metrics(evaluation, pairs, stage, resamples if stage == FINAL_STAGE else 0, seed)
        for stage in STAGES
    }
    report["pairs"] = of_pairs[FINAL_STAGE]
    report["pairs_macro"] = _mean_of_pairs(report["pairs"])
    report["pairs_pooled"] = _pooled_pairs(evaluation, pairs)
    band = {name: getattr(final, name) for name in ("unsure_low", "unsure_high", "target_accuracy")}
    answered = coverage(
        heldout.labels, heldout.scores[FINAL_STAGE], final.threshold, final.unsure_low, final.unsure_high
    )
    report["coverage"] = band | answered
    report["stages"] = {
        stage: _own_test_metrics(evaluation, stage, resamples, seed)
        | {"heldout": reports[stage]["generalization"]}
        | {name: reports[stage][name] for name in ("macro", "sources")}
        | _stage_pairs(of_pairs[stage])
        for stage in STAGES
    }
    report["robustness"] = {row["perturbation"]: _cell(row) for row in robustness if row["set"] == MACRO}
    if probe := report["robustness"].get(EQUALISED):
        report["shortcut_probe"] = probe
    return report


def _cell(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("balanced_accuracy", "roc_auc", "change") if row[name] is not None}


def _own_test_metrics(evaluation: Evaluation, stage: str, resamples: int, seed: int) -> dict[str, Any]:
    """Return a stage's own test part right after it, and after the last stage, so that forgetting shows."""
    own = evaluation.tests[stage]
    by_checkpoint: dict[str, dict[str, Any]] = {}
    for by in {stage, FINAL_STAGE}:
        rows = own.labels, own.scores[by], evaluation.calibrations[by].threshold
        intervals = bootstrap_intervals(*rows, sources=own.sources.tolist(), resamples=resamples, seed=seed)
        by_checkpoint[by] = binary_metrics(*rows) | {"interval": intervals}
    return {"test": by_checkpoint[stage], "test_after_last_stage": by_checkpoint[FINAL_STAGE]}


def _stage_pairs(of_pairs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return balanced accuracy and ROC AUC of every pair with a stage's checkpoint, and their means."""
    return {
        "pairs": {name: {key: row[key] for key in _PAIR_KEYS} for name, row in of_pairs.items()},
        "pairs_macro": _mean_of_pairs(of_pairs),
    }


def _pair_metrics(
    evaluation: Evaluation, pairs: Mapping[str, Pair], stage: str, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Return `binary_metrics` of every pair with one stage's checkpoint, with intervals where there are resamples."""
    threshold = evaluation.calibrations[stage].threshold
    names, labels, scores = _rows_of_all_sets(evaluation, stage)
    found: dict[str, dict[str, Any]] = {}
    for name, rows in pair_rows(names, labels, pairs).items():
        found[name] = dict(binary_metrics(labels[rows], scores[rows], threshold))
        if resamples:
            found[name]["interval"] = bootstrap_intervals(
                labels[rows], scores[rows], threshold, sources=names[rows].tolist(), resamples=resamples, seed=seed
            )
    return found


def _pooled_pairs(evaluation: Evaluation, pairs: Mapping[str, Pair]) -> dict[str, float]:
    """Return `binary_metrics` after the last stage of every face that is in some pair, each once."""
    names, labels, scores = _rows_of_all_sets(evaluation, FINAL_STAGE)
    of_pairs = pair_rows(names, labels, pairs)
    if not of_pairs:
        return {}
    rows = np.logical_or.reduce(list(of_pairs.values()))
    return dict(binary_metrics(labels[rows], scores[rows], evaluation.threshold))


def _rows_of_all_sets(
    evaluation: Evaluation, stage: str
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Return names as evaluate.pairs has them, labels and one stage's scores, (N,) each."""
    sets = evaluation.sets()
    return (
        np.concatenate([each.face_names for each in sets]),
        np.concatenate([each.labels for each in sets]),
        np.concatenate([each.scores[stage] for each in sets]),
    )


def _mean_of_pairs(of_pairs: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean over the pairs, each weighing the same, and 1 - balanced accuracy as `error`."""
    if not of_pairs:
        return {}
    means = {key: float(np.mean([row[key] for row in of_pairs.values()])) for key in _PAIR_KEYS}
    return means | {"error": 1 - means["balanced_accuracy"]}
