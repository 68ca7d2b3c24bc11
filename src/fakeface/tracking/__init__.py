"""MLflow for runs made by DVC stages: one run an experiment, one child a stage, each stage a process of its own.

Rows live in sqlite in the repository's main folder, or where MLFLOW_TRACKING_URI points. Nothing else imports mlflow.
"""

from fakeface.tracking.finish_run import record_experiment
from fakeface.tracking.list_runs import list_runs
from fakeface.tracking.promotion import promote
from fakeface.tracking.result_files import Detector, Result
from fakeface.tracking.run_context import (
    Run,
    count_pending_elsewhere,
    deliver,
    evaluation_run,
    fail_stale_runs,
    stage_run,
)
from fakeface.tracking.ui import serve_page

__all__ = [
    "Detector",
    "Result",
    "Run",
    "count_pending_elsewhere",
    "deliver",
    "evaluation_run",
    "fail_stale_runs",
    "list_runs",
    "promote",
    "record_experiment",
    "serve_page",
    "stage_run",
]
