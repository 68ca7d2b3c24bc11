"""Scores of every checkpoint on every set → reports/: metrics as JSON, rows and curves as CSV, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fakeface import FAKE, LABELS, REAL, STAGES, figures
from fakeface.disk import make_folder
from fakeface.errors import UserError
from fakeface.evaluation import (
    binary_metrics,
    bootstrap_intervals,
    confusion_rows,
    coverage,
    evaluation_report,
    roc_points,
)
from fakeface.params import Pair
from fakeface.scoring import Evaluation, ScoredSet
from fakeface.tables import write_json, write_rows

_FINAL = STAGES[-1]
_PLOT_COLUMNS = {"roc": ("threshold", "fpr", "tpr"), "confusion": ("actual", "predicted")}
_LABEL_NAMES = {label: name for name, label in LABELS.items()}


def evaluation_metrics(evaluation: Evaluation, pairs: Mapping[str, Pair], resamples: int, seed: int) -> dict[str, Any]:
    """Return what reports/metrics.json holds: the last stage held out, every stage in and out of its domain, and pairs.

    A pair is left out when one of its sources is not in this data.
    """
    heldout, final = evaluation.heldout, evaluation.calibrations[_FINAL]
    scores = heldout.scores[_FINAL]
    report = evaluation_report(heldout.sources.tolist(), heldout.labels, scores, final.threshold, resamples, seed)
    report["source_pairs"] = report.pop("pairs")
    report["pairs"] = {
        name: metrics
        for name, pair in pairs.items()
        if (metrics := _pair_metrics(evaluation, pair, resamples, seed)) is not None
    }
    report["coverage"] = coverage(heldout.labels, scores, final.threshold, final.unsure_low, final.unsure_high)
    report["stages"] = {stage: _stage_metrics(evaluation, stage) for stage in STAGES}
    return report


def _stage_metrics(evaluation: Evaluation, stage: str) -> dict[str, Any]:
    """Return a stage's own test part (right after it, and after the last stage: forgetting) and the held-out set."""
    threshold = evaluation.calibrations[stage].threshold
    own = evaluation.tests[stage]
    return {
        "test": binary_metrics(own.labels, own.scores[stage], threshold),
        "test_after_last_stage": binary_metrics(own.labels, own.scores[_FINAL], evaluation.threshold),
        "heldout": binary_metrics(evaluation.heldout.labels, evaluation.heldout.scores[stage], threshold),
    }


def _pair_metrics(evaluation: Evaluation, pair: Pair, resamples: int, seed: int) -> dict[str, Any] | None:
    labels, scores, sources = [], [], []
    for label, names in ((REAL, pair.real), (FAKE, pair.fake)):
        for name in names:
            found = _final_scores(evaluation, name, label)
            if not found.size:
                return None
            labels.append(np.full(found.size, label))
            scores.append(found)
            sources += [name] * found.size
    all_labels, all_scores = np.concatenate(labels), np.concatenate(scores)
    metrics: dict[str, Any] = dict(binary_metrics(all_labels, all_scores, evaluation.threshold))
    metrics["interval"] = bootstrap_intervals(
        all_labels, all_scores, evaluation.threshold, sources=sources, resamples=resamples, seed=seed
    )
    return metrics


def _final_scores(evaluation: Evaluation, name: str, label: int) -> npt.NDArray[np.float64]:
    source, _, part = name.partition("/")
    if part not in {"", "test"}:
        raise UserError(f"params.yaml: evaluate.pairs names '{name}'; write a held-out source, or SOURCE/test.")
    sets = evaluation.tests.values() if part else [evaluation.heldout]
    return np.concatenate([each.scores[_FINAL][(each.sources == source) & (each.labels == label)] for each in sets])


def write_reports(
    evaluation: Evaluation,
    metrics: Mapping[str, Any],
    histories: Mapping[str, Sequence[Mapping[str, str]]],
    note: str,
    folder: Path,
) -> list[Path]:
    """Write metrics.json, scores.csv, plots/ for dvc and figures/; return the files that belong with the run."""
    write_json(folder / "metrics.json", metrics)
    sets = [evaluation.heldout, *evaluation.tests.values()]
    write_rows(folder / "scores.csv", ("set", "path", "source", "label", *STAGES), _score_rows(sets))
    heldout = evaluation.heldout
    scores = heldout.scores[_FINAL]
    plots: dict[str, list[dict[str, Any]]] = {
        "roc": [dict(row) for row in roc_points(heldout.labels, scores)],
        "confusion": [dict(row) for row in confusion_rows(heldout.labels, scores, evaluation.threshold)],
    }
    for name, columns in _PLOT_COLUMNS.items():
        rows = [tuple(row[column] for column in columns) for row in plots[name]]
        write_rows(folder / "plots" / f"{name}.csv", columns, rows)
    _draw_figures(evaluation, metrics, histories, note, folder / "figures")
    return [
        folder / "metrics.json",
        *sorted((folder / "plots").glob("*.csv")),
        *sorted((folder / "figures").glob("*.png")),
    ]


def _score_rows(sets: Sequence[ScoredSet]) -> list[tuple[Any, ...]]:
    return [
        (
            each.name,
            each.paths[row],
            each.sources[row],
            _LABEL_NAMES[int(each.labels[row])],
            *(f"{each.scores[stage][row]:.6f}" for stage in STAGES),
        )
        for each in sets
        for row in range(len(each.labels))
    ]


def _draw_figures(
    evaluation: Evaluation,
    metrics: Mapping[str, Any],
    histories: Mapping[str, Sequence[Mapping[str, str]]],
    note: str,
    folder: Path,
) -> None:
    make_folder(folder)
    heldout, threshold = evaluation.heldout, evaluation.threshold
    scores, sources = heldout.scores[_FINAL], heldout.sources.tolist()
    by_stage = {
        stage: evaluation_report(
            sources, heldout.labels, heldout.scores[stage], evaluation.calibrations[stage].threshold, resamples=0
        )
        for stage in STAGES[:-1]
    } | {_FINAL: metrics}
    curves = {f"after {stage}": (heldout.labels, heldout.scores[stage]) for stage in STAGES}
    own = evaluation.tests[_FINAL]
    figures.draw_curves(histories, folder / "curves.png", note)
    figures.draw_generalization(by_stage, folder / "generalization.png", note)
    figures.draw_confusion(heldout.labels, scores, threshold, folder / "confusion.png", note)
    figures.draw_roc(curves, folder / "roc.png", note)
    figures.draw_reliability(
        {"held out": (heldout.labels, scores), f"{_FINAL} test": (own.labels, own.scores[_FINAL])},
        folder / "calibration.png",
        note,
    )
    figures.draw_score_distributions(
        sources, heldout.labels, scores, threshold, folder / "scores.png", note, _unsure_band(evaluation)
    )


def _unsure_band(evaluation: Evaluation) -> tuple[float, float] | None:
    final = evaluation.calibrations[_FINAL]
    return (final.unsure_low, final.unsure_high) if final.unsure_high > final.unsure_low else None
