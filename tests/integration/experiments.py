"""The ways to run a DVC experiment, all in one project: in the workspace, with --temp and queued; and killed."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from fakeface.constants import STAGES
from tests.integration.mlflow_runs import TrackedRuns
from tests.integration.small_project import Project

TEMP = "in-a-temporary-folder"
SWEPT = ("0.001", "0.0003", "0.0001")  # DVC knows the first from the baseline and the second from TEMP
# Other words for the same data, so that `download` and `split` run again and make the same.
_SAME_DATA = ("-S", "data.profile=sample", "-S", "data.rejected_share=0.25")
IN_TEMP = ("dvc", "exp", "run", "--temp", "--name", TEMP, "-S", "lr=0.0003", *_SAME_DATA)
LONGEST_WAIT = 300  # looks at the queue, each a second or more


@dataclass(frozen=True)
class Killed:
    """What a killed command had printed, and what MLflow said of its experiment before the next command."""

    printed: str
    run_id: str
    statuses: dict[str, str]  # by stage, "" for the experiment itself


@dataclass(frozen=True)
class Experiments:
    """One with --temp, killed at each stage; one in the workspace; a sweep in a queue with two workers."""

    project: Project
    kills: dict[str, Killed]  # by DVC's stage
    listed_after_kill: str  # by `fakeface runs`, when TEMP had been killed in its last training
    workspace_name: str
    sweep: dict[str, str]  # names by learning rate
    shown: dict[str, Any]  # what `dvc exp show` says of each, by name
    queue_status: str
    rows: TrackedRuns

    def names(self) -> list[str]:
        return [self.workspace_name, TEMP, *self.sweep.values()]


def run_experiments(project: Project) -> Experiments:
    """Run all of them to their end."""
    kills, listed = {}, ""
    for stage in ("download", "split", *(f"train_{stage}" for stage in STAGES), "evaluate", "track"):
        kills[stage] = _kill_in(stage, project)
        if stage == f"train_{STAGES[-1]}":
            listed = project.done("fakeface", "runs")
    project.done(*IN_TEMP)
    queued = project.done("dvc", "exp", "run", "--queue", "-S", f"lr={','.join(SWEPT)}")
    sweep = dict(zip(SWEPT, re.findall("Queued experiment '(.+)'", queued), strict=True))
    start_queue(project)  # works beside what follows
    project.done("dvc", "exp", "run", "-S", "stages.stage3.lr=0.0007")
    status = wait_for_queue(project, sweep.values())
    shown = _shown(project)
    (workspace_name,) = set(shown) - {TEMP, *sweep.values()}
    return Experiments(project, kills, listed, workspace_name, sweep, shown, status, TrackedRuns(project))


def _kill_in(stage: str, project: Project) -> Killed:
    """Run TEMP, and kill it and all that it started in the middle of a stage."""
    pictures = _pictures(project)
    output = project.folder / ".dvc" / "tmp" / f"{stage}.txt"
    with project.started(output, *IN_TEMP) as process:
        while not _in_the_middle(stage, project, output.read_text(), pictures):
            assert process.poll() is None, f"{stage} was over before the kill:\n{output.read_text()}"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    return _seen(output.read_text(), project)


def _in_the_middle(stage: str, project: Project, printed: str, pictures: int) -> bool:
    """Whether the stage has begun, has opened its row, or, the last ones, has done a part of its work."""
    if f"Running stage '{stage}'" not in printed:
        return False
    if stage in ("download", "split"):
        return True
    if stage == "train_stage3":
        return "stage3 epoch 1/" in printed
    if stage == "track":
        return _pictures(project) > pictures
    if stage == "evaluate":
        return any((project.folder / ".fakeface" / "alive").glob("*-evaluation.jsonl"))
    return _runs(stage.removeprefix("train_"), project)


def _runs(stage: str, project: Project) -> bool:
    """Whether MLflow's row of a stage is open, read without MLflow, which would take seconds."""
    query = "SELECT 1 FROM runs WHERE name = ? AND status = 'RUNNING'"
    with closing(sqlite3.connect(f"{(project.folder / 'mlflow.db').as_uri()}?mode=ro", uri=True)) as database:
        return database.execute(query, (stage,)).fetchone() is not None


def _pictures(project: Project) -> int:
    return len(list((project.folder / "mlartifacts").glob("*/artifacts/evaluation/*.svg")))


def _seen(printed: str, project: Project) -> Killed:
    rows = TrackedRuns(project)
    found = [run for run in rows.parents if run.info.run_name == TEMP]
    if not found:
        return Killed(printed, "", {})
    (parent,) = found
    children = {child.info.run_name: child.info.status for child in rows.children[parent.info.run_id]}
    return Killed(printed, parent.info.run_id, {"": parent.info.status, **children})


def start_queue(project: Project) -> None:
    """Start the workers; they stay behind the command, so that its output is no pipe to wait for."""
    quiet = subprocess.DEVNULL
    subprocess.run(
        ["dvc", "queue", "start", "--jobs", "2"],
        cwd=project.folder,
        env=project.environment,
        stdout=quiet,
        stderr=quiet,
        check=True,
    )


def wait_for_queue(project: Project, names: Collection[str]) -> str:
    """Wait until the workers have ended all of these, or long enough; returns what DVC says of its queue."""
    for _ in range(LONGEST_WAIT):
        if set(names) <= _kept(project):
            status = project.done("dvc", "queue", "status")
            if "Running" not in status and "Queued" not in status:
                return status
        time.sleep(1)
    return project.done("dvc", "queue", "status")


def _kept(project: Project) -> set[str]:
    """The names of finished experiments; git takes nothing from the workers, where `dvc queue status` takes seconds."""
    return set(project.done("git", "for-each-ref", "--format=%(refname:lstrip=-1)", "refs/exps").split())


def _shown(project: Project) -> dict[str, Any]:
    """What `dvc exp show` says of each experiment, by name."""
    baselines = json.loads(project.done("dvc", "exp", "show", "--json"))
    found = [experiment for baseline in baselines for experiment in baseline["experiments"] or []]
    return {experiment["name"]: experiment["revs"][0]["data"] for experiment in found}
