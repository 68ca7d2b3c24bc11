"""What an evaluation left in reports/, read for the page that tells it: numbers, scores, curves, and what was run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fakeface.constants import HELDOUT, LABELS, STAGES
from fakeface.system.serialization import read_json, read_rows

_CURVES = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy")
_ROBUSTNESS_NUMBERS = ("balanced_accuracy", "change", "roc_auc", "n_real", "n_fake")


@dataclass(frozen=True)
class SetScores:
    """Faces of one set: paths, sources (N,) str, labels (N,) int64, and the scores (N,) after each stage."""

    paths: Sequence[str]
    sources: Sequence[str]
    labels: npt.NDArray[np.int64]
    scores: Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Results:
    """Files of reports/: metrics.json, scores.csv by set, robustness.csv, history/, timing/, data/split.json, run.json.

    An undefined number of the robustness table is None; a stage without timing is left out of `timings`.
    """

    metrics: Mapping[str, Any]
    sets: Mapping[str, SetScores]
    robustness: Sequence[Mapping[str, Any]]
    histories: Mapping[str, Sequence[Mapping[str, str]]]
    timings: Mapping[str, Mapping[str, Any]]
    split: Mapping[str, Any]
    run: Mapping[str, Any]


def read_results(folder: Path) -> Results:
    """Read reports/ as the evaluation left it.

    Raises:
        UserError: a file is missing or is not what the evaluation writes.
    """
    timings = {stage: folder / "timing" / f"{stage}.json" for stage in STAGES}
    return Results(
        metrics=read_json(folder / "metrics.json"),
        sets=_read_scores(folder / "scores.csv"),
        robustness=[_parse_robustness(row) for row in _read_csv(folder / "robustness.csv", ("perturbation", "set"))],
        histories={stage: _read_csv(folder / "history" / f"{stage}.csv", _CURVES) for stage in STAGES},
        timings={stage: read_json(path) for stage, path in timings.items() if path.is_file()},
        split=read_json(folder / "data" / "split.json"),
        run=read_json(folder / "run.json"),
    )


def _read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    return list(read_rows(path, columns))


def _parse_robustness(row: Mapping[str, str]) -> dict[str, Any]:
    return {**row, **{name: float(row[name]) if row[name] else None for name in _ROBUSTNESS_NUMBERS}}


def _read_scores(path: Path) -> dict[str, SetScores]:
    rows = _read_csv(path, ("set", "path", "source", "label", *STAGES))
    by_set: dict[str, list[dict[str, str]]] = {name: [] for name in (HELDOUT, *STAGES)}
    for row in rows:
        by_set.setdefault(row["set"], []).append(row)
    return {
        name: SetScores(
            paths=[row["path"] for row in of_set],
            sources=[row["source"] for row in of_set],
            labels=np.array([LABELS[row["label"]] for row in of_set], np.int64),
            scores={stage: np.array([float(row[stage]) for row in of_set]) for stage in STAGES},
        )
        for name, of_set in by_set.items()
    }
