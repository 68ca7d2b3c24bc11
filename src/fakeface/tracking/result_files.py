"""What a finished experiment left on disk, as MLflow is told of it."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakeface.constants import STAGES
from fakeface.tracking.flatten import flatten_metrics, flatten_parameters

History = list[tuple[int, dict[str, float]]]  # (epoch from 1, numbers)


@dataclass(frozen=True)
class Detector:
    """The evaluated model as the registry gets it: its file, its page in Markdown, its tags and what it needs."""

    checkpoint: Path
    image_size: int
    card: str
    tags: Mapping[str, str]
    requirements: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """An evaluation and the trainings before it.

    `metrics` is metrics.json (nested), `files` are its pictures and tables, `data_files` tell of the data,
    `history_folder` holds each `stageN.csv` and `timing_folder` each `stageN.json` (paths relative to the project's
    root), `stage_parameters` say for each stage what held in it (nested; by default the experiment's parameters),
    `stage_tags` what tells its row from others. `digest` stands for all of it; by default it is that of parameters and
    files.
    """

    metrics: Mapping[str, Any]
    files: tuple[Path, ...] = ()
    data_files: tuple[Path, ...] = ()
    history_folder: Path = Path("reports/history")
    timing_folder: Path = Path("reports/timing")
    stage_parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    stage_tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    detector: Detector | None = None
    digest: str = ""

    def as_payload(self, project_root: Path, parameters: Mapping[str, str]) -> dict[str, Any]:
        """Flat, in JSON types."""
        folder = project_root / self.history_folder
        histories = {stage: read_history(folder / f"{stage}.csv") for stage in STAGES}
        of_stages = {stage: flatten_parameters(values) for stage, values in self.stage_parameters.items()}
        timings = {stage: _read_timing(project_root / self.timing_folder / f"{stage}.json") for stage in STAGES}
        return {
            "parameters": dict(parameters),
            "stage_parameters": {stage: of_stages.get(stage, dict(parameters)) for stage in STAGES},
            "stage_tags": {stage: dict(self.stage_tags.get(stage, {})) for stage in STAGES},
            "metrics": flatten_metrics(self.metrics),
            "histories": {stage: history for stage, history in histories.items() if history},
            "timings": timings,
            "detector": self._detector_settings(),
        }

    def _detector_settings(self) -> dict[str, Any] | None:
        if self.detector is None:
            return None
        return {
            "image_size": self.detector.image_size,
            "card": self.detector.card,
            "tags": dict(self.detector.tags),
            "requirements": list(self.detector.requirements),
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


def _read_timing(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def list_present(paths: Iterable[Path]) -> tuple[str, ...]:
    """The absolute paths of those that are files."""
    return tuple(str(path.resolve()) for path in paths if path.is_file())


def compute_digest(parameters: Mapping[str, Any], files: Iterable[str | Path]) -> str:
    """One sha256 for parameters and the contents of several files."""
    whole = hashlib.sha256(repr(sorted(parameters.items())).encode())
    for path in files:
        whole.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return whole.hexdigest()
