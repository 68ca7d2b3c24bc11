"""The files of an evaluation in reports/: metrics as JSON, scores and curves as CSV, and what was run."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fakeface.config.params import Params, list_experiment_parameters
from fakeface.constants import FINAL_STAGE, LABELS, STAGES
from fakeface.evaluation.predictions import Evaluation, ScoredSet
from fakeface.metrics.classification import list_confusion_cells, list_roc_points
from fakeface.system.serialization import write_json, write_rows

if TYPE_CHECKING:
    from fakeface.models.device import Device

_PLOT_COLUMNS = {"roc": ("threshold", "fpr", "tpr"), "confusion": ("actual", "predicted")}
_ROBUSTNESS_COLUMNS = ("perturbation", "set", "balanced_accuracy", "change", "roc_auc", "n_real", "n_fake")
_LABEL_NAMES = {label: name for name, label in LABELS.items()}


def write_results(
    evaluation: Evaluation,
    metrics: Mapping[str, Any],
    robustness: Sequence[Mapping[str, Any]],
    run: Mapping[str, Any],
    folder: Path,
) -> None:
    """Write metrics.json, scores.csv, robustness.csv, run.json, and plots/ for `dvc plots`, into `folder`."""
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "run.json", run)
    write_rows(folder / "scores.csv", ("set", "path", "source", "label", *STAGES), _list_scores(evaluation.sets()))
    cells = [["" if row[key] is None else row[key] for key in _ROBUSTNESS_COLUMNS] for row in robustness]
    write_rows(folder / "robustness.csv", _ROBUSTNESS_COLUMNS, cells)
    labels, scores = evaluation.heldout.labels, evaluation.heldout.scores[FINAL_STAGE]
    plots: dict[str, list[dict[str, Any]]] = {
        "roc": [dict(row) for row in list_roc_points(labels, scores)],
        "confusion": [dict(row) for row in list_confusion_cells(labels, scores, evaluation.threshold)],
    }
    for name, columns in _PLOT_COLUMNS.items():
        rows = [tuple(row[column] for column in columns) for row in plots[name]]
        write_rows(folder / "plots" / f"{name}.csv", columns, rows)


def _list_scores(sets: Sequence[ScoredSet]) -> list[tuple[Any, ...]]:
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


def describe_run(params: Params, device: Device, tags: Mapping[str, str]) -> dict[str, Any]:
    """Return what run.json holds: parameters, settings of each stage, device, versions, and commit where it is known.

    Args:
        params: of the experiment.
        device: what the evaluation ran on.
        tags: of `tracking.identity.identify`.
    """
    from importlib.metadata import version

    import tensorflow as tf

    return {
        "parameters": list_experiment_parameters(params),
        "stages": {stage: params.get_stage_config(stage).model_dump() for stage in STAGES},
        "device": device.name,
        "precision": device.precision,
        "versions": {
            "fakeface": version("fakeface"),
            "Python": platform.python_version(),
            "TensorFlow": tf.__version__,
            "NumPy": np.__version__,
        },
        "commit": tags.get("git.commit", "no-commit").replace("no-commit", "") or None,
        "uncommitted": tags.get("git.dirty_files", ""),
        "experiment": tags.get("dvc.experiment"),
    }
