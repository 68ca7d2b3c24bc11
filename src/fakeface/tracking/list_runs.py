"""Every experiment with its result and its page: the way from `dvc exp show` to MLflow and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fakeface.tracking import chart_view, store_uri
from fakeface.tracking.mlflow_runs import STAGE, WHOLE
from fakeface.tracking.run_identity import identify_run
from fakeface.tracking.ui import open_store


@dataclass(frozen=True)
class ListedRun:
    """A run as a list shows it: DVC's name for the experiment, MLflow's status, a metric if there is one, its page.

    `note` is to be shown with the metric, such as "synthetic sample".
    """

    name: str
    status: str
    value: float | None
    address: str
    note: str


@dataclass(frozen=True)
class Listing:
    """The runs of an experiment, the newest first, and the page that compares them."""

    rows: list[ListedRun]
    comparison: str


def list_runs(project_root: Path, metric: str, environ: Mapping[str, str] = os.environ) -> Listing:
    """Every experiment of this project's table in MLflow.

    Raises:
        UserError: the store cannot be opened or read.
    """
    with open_store(project_root, environ) as store:
        experiment = store.client.get_experiment_by_name(identify_run(project_root, environ).experiment_name)
        if experiment is None:
            return Listing([], "")
        found = store.client.search_runs([experiment.experiment_id], f"tags.`{STAGE}` = '{WHOLE}'")
    page = store_uri.build_page_address(store.uri)
    rows = [
        ListedRun(
            run.info.run_name,
            run.info.status.lower(),
            run.data.metrics.get(f"generalization_{metric}"),
            f"{page}/#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}",
            run.data.tags.get("data.note", ""),
        )
        for run in found
    ]
    return Listing(rows, chart_view.build_address(page, experiment.experiment_id))
