"""The comparison of all experiments on MLflow's page: what was set against what came of it, and the curves overlaid.

MLflow's own page of selected runs opens on the first metric that a run was given, a loss of stage 1. What a page shows
can be kept as a shared view, JSON in a tag of the experiment (MLflow 3), and opened by its address.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fakeface.constants import STAGES

METRIC = "generalization_accuracy"
TAG = "mlflow.sharedViewState.comparison"
ROWS = 200  # of the newest, among which differing parameters are looked for
_ADDRESS = "runs?workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey=comparison"
_FIRST = "lr"  # the parameter that the pipeline is tuned by: shown though it is the same everywhere
_AXES, _LONGEST_NAME = 5, 80  # what a parallel coordinates plot has room for, and a tag of MLflow (5,000 characters)
_SECTION = "Comparison"
# matplotlib's
_COLOURS = ["1f77b4", "ff7f0e", "2ca02c", "d62728", "9467bd", "8c564b", "e377c2", "7f7f7f", "bcbd22", "17becf"]


def build_address(page: str, collection_id: str) -> str:
    """The comparison's page; `page` is that of the store."""
    return f"{page}/#/experiments/{collection_id}/{_ADDRESS}"


def choose_colour(number: int) -> str:
    """The colour of the number-th run's curves: runs that follow each other are told apart."""
    return f"#{_COLOURS[number % len(_COLOURS)]}"


def list_differing(parameters: Sequence[Mapping[str, str]]) -> list[str]:
    """The parameters that all runs have and that differ between them, `lr` first, with or without a difference."""
    shared = set.intersection(*(set(row) for row in parameters)) if parameters else set()
    short = {name for name in shared if len(name) <= _LONGEST_NAME}
    differ = {name for name in short if len({row[name] for row in parameters}) > 1}
    return [_FIRST, *sorted(differ - {_FIRST}, key=lambda name: (name.count("."), name))][:_AXES]


def build_view(parameters: Sequence[str]) -> str:
    """The view as MLflow keeps it; `parameters` are its axes beside the metric, the first is the scatter plot's."""
    stages = [_build_line(f"{stage}/{name}") for name in ("val_accuracy", "val_loss") for stage in STAGES]
    parallel = {"selectedParams": list(parameters), "selectedMetrics": [METRIC], "showAllRuns": False}
    scatter = {"xaxis": {"key": parameters[0], "type": "PARAM"}, "yaxis": {"key": METRIC, "type": "METRIC"}}
    charts = [
        _build_chart("parallel", "PARALLEL", parallel),
        _build_chart("scatter", "SCATTER", scatter),
        _build_chart("bars", "BAR", {"metricKey": METRIC, "displayName": METRIC}),
        *stages,
    ]
    section = {"uuid": _SECTION, "name": _SECTION, "display": True, "isReordered": False, "deleted": False}
    columns = [f"metrics.`{METRIC}`", *(f"params.`{name}`" for name in parameters)]
    return json.dumps(
        {
            "compareRunCharts": charts,
            "compareRunSections": [{**section, "isGenerated": False}],
            "isAccordionReordered": True,  # the section stays above those that MLflow adds for the other metrics
            "runsHiddenMode": "SHOW_ALL",
            "selectedColumns": columns,
        },
        separators=(",", ":"),
    )


def _build_chart(name: str, kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    common = {"metricSectionId": _SECTION, "deleted": False, "isGenerated": False, "runsCountToCompare": ROWS}
    return {"uuid": f"comparison-{name}", "type": kind, **common, **settings}


def _build_line(metric: str) -> dict[str, Any]:
    shown = {"metricKey": metric, "selectedMetricKeys": [metric], "displayName": metric}
    axes = {"xAxisKey": "step", "xAxisScaleType": "linear", "scaleType": "linear", "range": {}}
    return _build_chart(metric, "LINE", {**shown, **axes, "lineSmoothness": 0, "useGlobalLineSmoothing": True})
