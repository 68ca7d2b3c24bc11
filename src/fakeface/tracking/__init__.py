"""MLflow for runs made by DVC stages: one row an experiment, one child a stage, each stage a process of its own.

Rows live in sqlite in the repository's main folder, or where MLFLOW_TRACKING_URI points. Nothing else imports mlflow.
"""

from fakeface.tracking.experiment import record_experiment
from fakeface.tracking.listing import list_rows
from fakeface.tracking.page import serve_page
from fakeface.tracking.promotion import promote
from fakeface.tracking.result import Detector, Result
from fakeface.tracking.runs import (
    Run,
    bury_the_dead,
    deliver,
    evaluation_run,
    stage_run,
    waiting_elsewhere,
)

__all__ = [
    "Detector",
    "Result",
    "Run",
    "bury_the_dead",
    "deliver",
    "evaluation_run",
    "list_rows",
    "promote",
    "record_experiment",
    "serve_page",
    "stage_run",
    "waiting_elsewhere",
]
