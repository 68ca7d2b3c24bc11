"""What a project's mlflow.db holds, or the server of its runs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from fakeface.tracking.event_writer import quiet_mlflow
from tests.integration.small_project import Project


@dataclass(frozen=True)
class TrackedRun:
    """An experiment: MLflow's run with a run a stage below it."""

    run: Any
    stages: dict[str, Any]


class TrackedRuns:
    """All rows of a project's main folder, or of the store at `uri`."""

    def __init__(self, project: Project, uri: str = "") -> None:
        self.uri = uri or f"sqlite:///{project.folder / 'mlflow.db'}"
        self.client = quiet_mlflow().MlflowClient(self.uri)
        self.experiments = [each.experiment_id for each in self.client.search_experiments()]
        runs = self.client.search_runs(self.experiments)
        self.children: dict[str, list[Any]] = defaultdict(list)
        for run in runs:
            self.children[run.data.tags.get("mlflow.parentRunId", "")].append(run)
        self.parents = self.children.pop("", [])

    def named(self, name: str) -> TrackedRun:
        """The one row of this name, and its one child of each stage."""
        (run,) = [each for each in self.parents if each.info.run_name == name]
        children = self.children[run.info.run_id]
        stages = {child.info.run_name: child for child in children}
        assert len(stages) == len(children)
        return TrackedRun(run, stages)

    def curve(self, run: Any, metric: str) -> dict[int, float]:
        """A metric by step; a step told twice is an error."""
        points = self.client.get_metric_history(run.info.run_id, metric)
        steps = {point.step: point.value for point in points}
        assert len(steps) == len(points), f"{metric} has a step twice"
        return steps
