"""Every experiment with its result and its page: the way from `dvc exp show` to MLflow and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fakeface.tracking import addresses, comparison
from fakeface.tracking.identity import identify
from fakeface.tracking.page import opened_store
from fakeface.tracking.rows import STAGE, WHOLE


@dataclass(frozen=True)
class Listed:
    """A row as a list shows it: DVC's name for the experiment, MLflow's status, a metric if there is one, its page.

    `note` is to be shown with the metric, such as "synthetic sample".
    """

    name: str
    status: str
    value: float | None
    address: str
    note: str


@dataclass(frozen=True)
class Listing:
    """The rows of a table, the newest first, and the page that compares them."""

    rows: list[Listed]
    comparison: str


def list_rows(project_root: Path, metric: str, environ: Mapping[str, str] = os.environ) -> Listing:
    """Every experiment of this project's table in MLflow.

    Raises:
        UserError: the store cannot be opened or read.
    """
    with opened_store(project_root, environ) as store:
        collection = store.client.get_experiment_by_name(identify(project_root, environ).collection)
        if collection is None:
            return Listing([], "")
        found = store.client.search_runs([collection.experiment_id], f"tags.`{STAGE}` = '{WHOLE}'")
    page = addresses.page(store.uri)
    rows = [
        Listed(
            run.info.run_name,
            run.info.status.lower(),
            run.data.metrics.get(f"generalization_{metric}"),
            f"{page}/#/experiments/{collection.experiment_id}/runs/{run.info.run_id}",
            run.data.tags.get("data.note", ""),
        )
        for run in found
    ]
    return Listing(rows, comparison.address(page, collection.experiment_id))
