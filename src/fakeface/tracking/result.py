"""What a finished experiment left on disk, as MLflow is told of it."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakeface import STAGES
from fakeface.tracking.naming import flat_metrics, flat_parameters

History = list[tuple[int, dict[str, float]]]  # (epoch from 1, numbers)


@dataclass(frozen=True)
class Result:
    """An evaluation and the trainings before it.

    `metrics` is metrics.json (nested), `files` are its pictures and tables, `history_folder` holds each `stageN.csv`
    (paths relative to the project's root), `stage_parameters` say for each stage what held in it (nested; by default
    the experiment's parameters).
    """

    metrics: Mapping[str, Any]
    files: tuple[Path, ...] = ()
    history_folder: Path = Path("reports/history")
    stage_parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def as_payload(self, project_root: Path, parameters: Mapping[str, str]) -> dict[str, Any]:
        """Flat, in JSON types."""
        folder = project_root / self.history_folder
        histories = {stage: read_history(folder / f"{stage}.csv") for stage in STAGES}
        of_stages = {stage: flat_parameters(values) for stage, values in self.stage_parameters.items()}
        return {
            "parameters": dict(parameters),
            "stage_parameters": {stage: of_stages.get(stage, dict(parameters)) for stage in STAGES},
            "metrics": flat_metrics(self.metrics),
            "histories": {stage: history for stage, history in histories.items() if history},
        }


def read_history(path: Path) -> History:
    """The epochs of a `reports/history/stageN.csv` and their numbers; empty where there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        (int(float(row.pop("epoch"))), {name: float(value) for name, value in row.items() if value}) for row in rows
    ]


def present(paths: Iterable[Path]) -> tuple[str, ...]:
    """The absolute paths of those that are files."""
    return tuple(str(path.resolve()) for path in paths if path.is_file())


def digest(parameters: Mapping[str, str], files: Iterable[str]) -> str:
    """One sha256 for parameters and the contents of several files."""
    whole = hashlib.sha256(repr(sorted(parameters.items())).encode())
    for path in files:
        whole.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return whole.hexdigest()
