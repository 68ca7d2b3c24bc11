"""Scores of every checkpoint on every set → reports/: metrics as JSON, scores and curves as CSV, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fakeface.constants import FINAL_STAGE, LABELS, STAGES
from fakeface.evaluation.predictions import Evaluation, ScoredSet
from fakeface.metrics.classification import list_confusion_cells, list_roc_points
from fakeface.reporting import metric_plots
from fakeface.system.filesystem import ensure_dir
from fakeface.system.serialization import write_json, write_rows

_PLOT_COLUMNS = {"roc": ("threshold", "fpr", "tpr"), "confusion": ("actual", "predicted")}


_ROBUSTNESS_COLUMNS = ("perturbation", "set", "balanced_accuracy", "change", "roc_auc", "n_real", "n_fake")


_LABEL_NAMES = {label: name for name, label in LABELS.items()}


def write_results(
    evaluation: Evaluation,
    metrics: Mapping[str, Any],
    robustness: Sequence[Mapping[str, Any]],
    histories: Mapping[str, Sequence[Mapping[str, str]]],
    note: str,
    folder: Path,
) -> list[Path]:
    """Write metrics.json, scores.csv, plots/ for dvc and figures/; return the files that belong with the run."""
    write_json(folder / "metrics.json", metrics)
    write_rows(folder / "scores.csv", ("set", "path", "source", "label", *STAGES), _score_rows(evaluation.sets()))
    cells = [["" if row[key] is None else row[key] for key in _ROBUSTNESS_COLUMNS] for row in robustness]
    write_rows(folder / "robustness.csv", _ROBUSTNESS_COLUMNS, cells)
    heldout = evaluation.heldout
    scores = heldout.scores[FINAL_STAGE]
    plots: dict[str, list[dict[str, Any]]] = {
        "roc": [dict(row) for row in list_roc_points(heldout.labels, scores)],
        "confusion": [dict(row) for row in list_confusion_cells(heldout.labels, scores, evaluation.threshold)],
    }
    for name, columns in _PLOT_COLUMNS.items():
        rows = [tuple(row[column] for column in columns) for row in plots[name]]
        write_rows(folder / "plots" / f"{name}.csv", columns, rows)
    _draw_figures(evaluation, metrics, histories, note, folder / "figures")
    if robustness:
        metric_plots.draw_robustness(robustness, folder / "figures" / "robustness.png", note)
    return [
        folder / "metrics.json",
        folder / "robustness.csv",
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
            *(f"{each.scores[stage][row]:.9g}" for stage in STAGES),
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
    ensure_dir(folder)
    heldout, threshold = evaluation.heldout, evaluation.threshold
    scores, sources = heldout.scores[FINAL_STAGE], heldout.sources.tolist()
    by_stage = {stage: {**row, "generalization": row["heldout"]} for stage, row in metrics["stages"].items()}
    curves = {f"after {stage}": (heldout.labels, heldout.scores[stage]) for stage in STAGES}
    own = evaluation.tests[FINAL_STAGE]
    metric_plots.draw_curves(histories, folder / "curves.png", note)
    metric_plots.draw_generalization(by_stage, folder / "generalization.png", note)
    metric_plots.draw_confusion(heldout.labels, scores, threshold, folder / "confusion.png", note)
    metric_plots.draw_roc(curves, folder / "roc.png", note)
    metric_plots.draw_reliability(
        {"held out": (heldout.labels, scores), f"{FINAL_STAGE} test": (own.labels, own.scores[FINAL_STAGE])},
        folder / "calibration.png",
        note,
    )
    metric_plots.draw_score_distributions(
        sources, heldout.labels, scores, threshold, folder / "scores.png", note, _unsure_band(evaluation)
    )


def _unsure_band(evaluation: Evaluation) -> tuple[float, float] | None:
    final = evaluation.calibrations[FINAL_STAGE]
    return (final.abstention_low, final.abstention_high) if final.abstention_high > final.abstention_low else None
