"""What the page and `fakeface deliver` do before they show or send anything."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from fakeface import tracking
from fakeface.constants import STAGES
from fakeface.system.errors import UserError
from fakeface.tracking import outbox, run_context
from fakeface.tracking.run_identity import identify_run
from fakeface.tracking.store_uri import LOCAL, name_store
from fakeface.tracking.ui import serve_page
from tests.support.tracked_project import (
    LOSSES,
    NOTHING,
    PARAMETERS,
    SOURCE,
    complete,
    list_runs,
    open_client,
    train,
    write_histories,
)


@pytest.fixture
def server_commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What this process would have become, in place of a server."""
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda _program, command, _environ: commands.append(command))
    return commands


def _keep_a_tag(project: Path, store: str = LOCAL) -> Path:
    """An event that waits: a tag for the row of an experiment named `later`."""
    experiment = identify_run(project, {"DVC_EXP_NAME": "later"})
    payload = {"tags": {"said": "afterwards"}}
    event = outbox.Event("tags", experiment.as_json(), payload=payload, store=store)
    return outbox.enqueue(event, project / ".fakeface" / "undelivered")


def test_serve_page_retries_what_was_refused_and_list_runs_does_not(
    project: Path, server_commands: list[list[str]]
) -> None:
    outbox.quarantine(_keep_a_tag(project), "a reason that was mended since")
    assert tracking.list_runs(project, "accuracy", NOTHING).rows == []
    serve_page(project, "127.0.0.1", 0)
    assert server_commands[0][1:4] == ["-m", "mlflow", "server"]
    assert list_runs(project)["later"].data.tags["said"] == "afterwards"
    assert list((project / ".fakeface" / "undelivered").rglob("*.json")) == []


def test_serve_page_says_once_that_the_store_does_not_open(
    project: Path,
    server_commands: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = project / "other.db"
    shutil.copy(project / "mlflow.db", other)
    with closing(sqlite3.connect(other)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}")
    _keep_a_tag(project, name_store(f"sqlite:///{other}", project))
    with pytest.raises(UserError, match="was made by another version of MLflow"):
        serve_page(project, "127.0.0.1", 0)
    assert caplog.messages == []
    assert server_commands == []
    assert len(list((project / ".fakeface" / "undelivered").glob("*.json"))) == 1


def test_moved_repository_keeps_its_artifacts(project: Path, tmp_path: Path) -> None:
    write_histories(project, *STAGES)
    complete(project, {"DVC_EXP_NAME": "before"})
    moved = project.rename(tmp_path / "moved")
    train(moved, DVC_EXP_NAME="after")
    row = list_runs(moved)["before"]
    assert row.info.artifact_uri.startswith((moved / "mlartifacts").as_uri())
    files = open_client(moved).list_artifacts(row.info.run_id, "evaluation")
    assert {file.path for file in files} == {"evaluation/metrics.json", "evaluation/roc.png"}
    assert not project.exists()


def _leave_dead(project: Path, **environ: str) -> None:
    """What a training leaves that is killed: its row open, and its sign, which nobody holds any more."""
    with tracking.stage_run(project, "stage1", PARAMETERS, environ=environ) as run:
        run.log_epoch(1, {"loss": LOSSES[1]})
        (sign,) = (project / ".fakeface" / "alive").glob("*.jsonl")
        said = sign.read_bytes()
    sign.write_bytes(said)


def test_deliver_fails_stale_runs(project: Path) -> None:
    _leave_dead(project, DVC_EXP_NAME="killed")
    assert tracking.deliver(project, NOTHING) == 0
    assert {row.info.status for row in list_runs(project).values()} == {"FAILED"}


LOADED = """
import sys
from pathlib import Path
from fakeface.tracking.run_context import fail_stale_runs_if_any
fail_stale_runs_if_any(Path(sys.argv[1]))
print("mlflow" in sys.modules)
"""


def test_fail_stale_runs_if_any_loads_mlflow_only_for_stale_runs(project: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(SOURCE)}
    environ.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-c", LOADED, str(project)]
    assert subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout == "False\n"
    _leave_dead(project, DVC_EXP_NAME="killed")
    run_context.fail_stale_runs_if_any(project, NOTHING)
    assert {row.info.status for row in list_runs(project).values()} == {"FAILED"}


def test_moved_repository_still_finds_its_stale_runs(project: Path, tmp_path: Path) -> None:
    _leave_dead(project, DVC_EXP_NAME="before")
    moved = project.rename(tmp_path / "moved")
    (sentence,) = tracking.fail_stale_runs(moved, NOTHING)
    assert sentence.startswith("before, stage1: Killed without a word after epoch 1")
    assert {row.info.status for row in list_runs(moved).values()} == {"FAILED"}
