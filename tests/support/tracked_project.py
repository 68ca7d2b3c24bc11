"""A small repository whose runs a real MLflow on sqlite holds, and what tests do with it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakeface import tracking
from fakeface.constants import STAGES
from fakeface.tracking import run_context
from fakeface.tracking.run_index import IndexedRun
from tests.support.project import PROJECT

PARAMETERS = {"lr": 0.001, "recipe": "seed", "stages": {"stage3": {"lr": None}}}
LOSSES = {1: 0.9, 2: 0.5, 3: 0.4}
LOOKS = 100  # at a row that is being written, each a tenth of a second or more
NOTHING: dict[str, str] = {}  # the environment of a plain `dvc repro`
SOURCE = PROJECT / "src"


def run_git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def make_repository(folder: Path) -> Path:
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "network.py").write_text("WIDTH = 64\n")
    (folder / "params.yaml").write_text("lr: 0.001\n")
    run_git(folder, "init", "--quiet")
    run_git(folder, "add", "-A")
    run_git(folder, "commit", "--quiet", "-m", "start")
    return folder


CHILD = """
import sys, time
from pathlib import Path
from fakeface import tracking
with tracking.stage_run(Path(sys.argv[1]), "stage1", {"lr": 0.001}) as run:
    run.log_epoch(1, {"loss": 0.9})
    print("ready", flush=True)
    time.sleep(300)
"""


def start_child(project: Path, name: str) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONPATH": str(SOURCE), "DVC_EXP_NAME": name, "DVC_ROOT": str(project)}
    environ.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-c", CHILD, str(project)]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def train(project: Path, stage: str = "stage1", losses: Mapping[int, float] = LOSSES, **environ: str) -> tracking.Run:
    with tracking.stage_run(project, stage, PARAMETERS, environ=environ) as run:
        for epoch, loss in losses.items():
            run.log_epoch(epoch, {"loss": loss, "accuracy": 1 - loss, "images_per_second": time.time() % 100})
    return run


def interrupt(project: Path, error: BaseException, **environ: str) -> None:
    with tracking.stage_run(project, "stage1", PARAMETERS, environ=environ) as run:
        run.log_epoch(1, {"loss": LOSSES[1]})
        raise error


def open_client(project: Path, served: str = "") -> Any:
    import mlflow

    return mlflow.MlflowClient(served or f"sqlite:///{project / 'mlflow.db'}")


def list_runs(project: Path, served: str = "", collection: str = "fakeface") -> dict[str, Any]:
    """Every row by `experiment` or `experiment/stage`, of a server if named; two under one name are an error."""
    client = open_client(project, served)
    runs = client.search_runs([client.get_experiment_by_name(collection).experiment_id])
    names = {run.info.run_id: run.info.run_name for run in runs}
    parents = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in runs}
    rows: dict[str, Any] = {}
    for run in runs:
        parent = parents[run.info.run_id]
        name = f"{names[parent]}/{run.info.run_name}" if parent else run.info.run_name
        assert name not in rows, f"{name} is there twice"
        rows[name] = run
    return rows


def read_curve(project: Path, run: Any, name: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in open_client(project).get_metric_history(run.info.run_id, name))


def write_histories(project: Path, *stages: str) -> None:
    folder = project / "reports" / "history"
    folder.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        lines = [f"{epoch},{loss},{1 - loss},,,0.001" for epoch, loss in LOSSES.items()]
        (folder / f"{stage}.csv").write_text("epoch,loss,accuracy,val_loss,val_accuracy,lr\n" + "\n".join(lines) + "\n")


def make_result(project: Path) -> tracking.Result:
    picture = project / "reports" / "roc.png"
    picture.parent.mkdir(exist_ok=True)
    picture.write_bytes(b"a picture")
    return tracking.Result(
        metrics={"generalization": {"accuracy": 0.81, "n_real": 40}, "sources": {"celeba": {"accuracy": 0.7}}},
        files=(picture,),
        history_folder=project / "reports" / "history",
        stage_parameters={stage: {"lr": 0.001} for stage in STAGES},
    )


def complete(
    project: Path,
    environ: Mapping[str, str],
    tags: Mapping[str, str] = NOTHING,
    *,
    parameters: Mapping[str, Any] = PARAMETERS,
    result: tracking.Result | None = None,
) -> IndexedRun | None:
    """Complete the row as record_experiment does, from fewer files than a whole project has."""
    with run_context.result_run(project, environ) as run:
        return run.complete(parameters, result or make_result(project), tags)


@dataclass
class Killed:
    """What was seen of two processes that made the store of a fresh repository at once, before and after their end."""

    project: Path
    while_alive: set[str]
    exit_codes: list[int]
    errors: list[str]
    buried: list[str]
    rows: dict[str, Any]
