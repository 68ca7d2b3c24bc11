"""What a tracking server that is unreachable, a full disk or a locked database costs: nothing that matters."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fakeface import tracking
from fakeface.cli import main
from fakeface.constants import STAGES
from fakeface.system.errors import UserError
from fakeface.tracking import liveness
from fakeface.tracking.ui import open_store
from tests.support.tracked_project import (
    LOSSES,
    NOTHING,
    PARAMETERS,
    Killed,
    complete,
    list_runs,
    open_client,
    read_curve,
    train,
    write_histories,
)


class Away:
    """MLflow's server in this process, away but for a while."""

    def __init__(self, store: Path) -> None:
        from mlflow.server.handlers import initialize_backend_stores

        initialize_backend_stores(f"sqlite:///{store}", default_artifact_root=str(store.parent / "artifacts"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.place = f"127.0.0.1:{probe.getsockname()[1]}"
        self.address = f"http://{self.place}"

    @contextmanager
    def back(self) -> Iterator[None]:
        from mlflow.server import app
        from werkzeug.serving import make_server

        server = make_server("127.0.0.1", int(self.place.split(":")[1]), app, threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture(scope="module")
def away(killed: Killed, tmp_path_factory: pytest.TempPathFactory) -> Away:
    return Away(Path(shutil.copy(killed.project / "mlflow.db", tmp_path_factory.mktemp("served"))))


def test_events_wait_for_the_server_that_was_unreachable(
    project: Path, away: Away, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    environ = {"MLFLOW_EXPERIMENT_NAME": "missed", "DVC_EXP_NAME": "away"}
    with_password = environ | {"MLFLOW_TRACKING_URI": f"http://name:secret@{away.place}"}
    with tracking.stage_run(project, "stage1", PARAMETERS, environ=with_password) as run:
        for epoch, loss in LOSSES.items():
            run.log_epoch(epoch, {"loss": loss})
    (warning,) = caplog.messages
    assert "does not answer" in warning
    assert "secret" not in warning

    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # which MLflow sets to whatever it was told
    said = CliRunner().invoke(main, ["deliver"])  # from a terminal that knows nothing of the server
    assert said.exit_code == 1
    assert f"wait for the store {away.address}: set MLFLOW_TRACKING_URI" in said.output
    train(project, DVC_EXP_NAME="here")
    assert set(list_runs(project)) == {"here", "here/stage1"}

    login_elsewhere = environ | {"MLFLOW_TRACKING_URI": away.address}
    with away.back():
        assert tracking.deliver(project, login_elsewhere) == 0
        rows = list_runs(project, away.address, "missed")
        curve = open_client(project, away.address).get_metric_history(rows["away"].info.run_id, "stage1/loss")
    assert set(rows) == {"away", "away/stage1"}
    assert rows["away/stage1"].info.status == "FINISHED"
    assert [(point.step, point.value) for point in curve] == list(LOSSES.items())
    assert list((project / ".fakeface" / "undelivered").iterdir()) == []


def test_result_waits_once_for_an_unreachable_server(
    project: Path, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    write_histories(project, *STAGES)
    environ = {"MLFLOW_EXPERIMENT_NAME": "once", "MLFLOW_TRACKING_URI": away.address}
    for _ in range(2):
        assert complete(project, environ) is None
    assert len(list((project / ".fakeface" / "undelivered").glob("*.json"))) == 1
    (project / "reports" / "roc.png").unlink()  # what waits is a copy
    with away.back():
        (row,) = tracking.list_runs(project, "accuracy", environ).rows  # any command that looks there delivers it
        (run,) = [run for name, run in list_runs(project, away.address, "once").items() if "/" not in name]
    assert (row.status, row.value) == ("finished", 0.81)
    assert (Path(run.info.artifact_uri) / "evaluation" / "roc.png").read_bytes() == b"a picture"
    assert list((project / ".fakeface" / "undelivered").iterdir()) == []


@pytest.fixture
def locked_door() -> Iterator[str]:
    """The address of a server that knows nobody."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = HTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_wrong_password_is_said_once_and_training_goes_on(
    project: Path, locked_door: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = train(project, MLFLOW_TRACKING_URI=locked_door)
    (warning,) = caplog.messages
    assert "refuses the password" in warning
    assert run.recorder.waiting() == 1 + len(LOSSES) + 1  # start, epochs, end


# In a process of its own, because alembic switches off the loggers that it finds
STORE_OF_MLFLOW_2_10 = """
import sys
import alembic.command, sqlalchemy
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base
Base.metadata.create_all(sqlalchemy.create_engine(sys.argv[1]))
alembic.command.upgrade(_get_alembic_config(sys.argv[1]), "acf3f17fdcc7")  # the last migration of its database
"""


def test_store_of_a_much_older_mlflow_is_upgraded(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = f"sqlite:///{project.parent / 'old.db'}"
    subprocess.run([sys.executable, "-c", STORE_OF_MLFLOW_2_10, old], check=True, capture_output=True)
    assert train(project, MLFLOW_TRACKING_URI=old).recorder.waiting() == 0
    assert caplog.messages == []
    with closing(sqlite3.connect(project.parent / "old.db")) as database:
        curve = database.execute("SELECT step, value FROM metrics WHERE key = 'stage1/loss' ORDER BY step").fetchall()
    assert curve == list(LOSSES.items())


@pytest.mark.parametrize("version", ["0584bdc529eb", "ffffffffffff"])  # a migration of long ago, and one yet to come
def test_store_of_another_mlflow_is_named(project: Path, version: str, caplog: pytest.LogCaptureFixture) -> None:
    other = project / f"{version}.db"
    shutil.copy(project / "mlflow.db", other)
    with closing(sqlite3.connect(other)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (version,))
    named = {"MLFLOW_TRACKING_URI": f"sqlite:///{other}"}
    run = train(project, MLFLOW_TRACKING_URI=named["MLFLOW_TRACKING_URI"])
    (warning,) = caplog.messages
    with pytest.raises(UserError) as caught, open_store(project, named):
        pass
    for sentence in (warning, str(caught.value)):
        assert f"{version}.db was made by another version of MLflow (an older one: copy the database" in sentence
        assert "`mlflow db upgrade`" in sentence
    assert run.recorder.waiting() == 1 + len(LOSSES) + 1


def test_locked_database_is_waited_for(project: Path) -> None:
    with tracking.stage_run(project, "stage1", PARAMETERS, environ=NOTHING) as run:
        other = sqlite3.connect(project / "mlflow.db", check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(1.0, other.rollback)
        release.start()
        run.log_epoch(1, {"loss": 0.9})
        assert run.recorder.waiting() == 0
        release.join()
        other.close()
    assert all("locked" not in str(row.data.tags) for row in list_runs(project).values())


@pytest.mark.system  # MLflow waits 20 s each time
def test_database_that_stays_locked_gets_the_run_when_it_is_free(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    impatient = f"sqlite:///{project / 'mlflow.db'}?timeout=0.1"  # in place of 5 s a try
    with closing(sqlite3.connect(project / "mlflow.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        run = train(project, MLFLOW_TRACKING_URI=impatient)
    (warning,) = caplog.messages
    assert "is locked by another program" in warning
    assert run.recorder.waiting() == 1 + len(LOSSES) + 1
    assert tracking.deliver(project, {"MLFLOW_TRACKING_URI": impatient}) == 0
    (parent,) = [row for name, row in list_runs(project).items() if "/" not in name]
    assert read_curve(project, parent, "stage1/loss") == list(LOSSES.items())


EVALUATE = """
import sys
from pathlib import Path
from fakeface import tracking
from fakeface.constants import STAGES
from fakeface.tracking.run_context import result_run
project, picture = Path(sys.argv[1]), Path(sys.argv[2])
result = tracking.Result(
    metrics={"generalization": {"accuracy": 0.81}},
    files=(picture,),
    history_folder=project / "reports/history",
    stage_parameters={stage: {} for stage in STAGES},
)
with result_run(project, {}) as run:
    print(run.complete({}, result, {}))
"""


def test_full_disk_under_artifacts_costs_nothing_once_there_is_room(project: Path) -> None:
    write_histories(project, *STAGES)
    picture = project / "reports" / "roc.png"
    picture.write_bytes(b"x" * 200_000)
    (project / "mlartifacts").mkdir(exist_ok=True)
    mounted = 'mount -t tmpfs -o size=64k tmpfs "$1" && shift && exec "$@"'
    small_disk = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        mounted,
        "sh",
        str(project / "mlartifacts"),
    ]
    evaluation = [sys.executable, "-c", EVALUATE, str(project), str(picture)]
    run = subprocess.run([*small_disk, *evaluation], capture_output=True, text=True, check=False)
    if "unshare" in run.stderr or "mount" in run.stderr:
        pytest.skip("no small file system can be mounted here")
    assert (run.returncode, run.stdout) == (0, "None\n"), run.stderr
    assert "has no space left" in run.stderr
    assert "waits in .fakeface/undelivered" in run.stderr
    (row,) = [row for name, row in list_runs(project).items() if "/" not in name]
    assert row.info.status == "RUNNING"

    picture.unlink()  # what waits does not depend on what the next experiment makes
    assert tracking.deliver(project, NOTHING) == 0
    row = list_runs(project)[row.info.run_name]
    assert (row.info.status, row.data.metrics["generalization_accuracy"]) == ("FINISHED", 0.81)
    (kept,) = (project / "mlartifacts").rglob("roc.png")
    assert kept.stat().st_size == 200_000


def test_run_is_completed_later_where_nothing_could_be_kept(
    project: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    write_histories(project, *STAGES)
    kept = project / ".fakeface/undelivered"
    shutil.rmtree(kept, ignore_errors=True)
    kept.write_text("a file in the way, as a disk without room is\n")
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    assert complete(project, away) is None
    assert "a part of the run is not recorded" in caplog.messages[-1]
    kept.unlink()
    assert complete(project, NOTHING) is not None
    assert {row.info.status for row in list_runs(project).values()} == {"FINISHED"}


def test_full_disk_under_the_heartbeat_ends_no_training(project: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)  # Linux's device that answers every write with "no space left"
    with tracking.stage_run(project, "stage1", PARAMETERS, environ=NOTHING) as run:
        assert run.sign is not None
        run.sign.close()
        run.sign = liveness.Heartbeat(project / "sign", full)
        run.log_epoch(1, {"loss": 0.9})
    (parent,) = [row for name, row in list_runs(project).items() if "/" not in name]
    assert read_curve(project, parent, "stage1/loss") == [(1, 0.9)]


def test_truncated_heartbeat_is_removed(project: Path) -> None:
    sign = project / ".fakeface" / "alive" / "someone.jsonl"
    sign.write_text('{"last": "epoch 2 (loss 0.5)"}\n')
    assert tracking.fail_stale_runs(project, NOTHING) == []
    assert not sign.exists()


def test_experiment_and_run_may_have_any_name(project: Path) -> None:
    named = {"MLFLOW_EXPERIMENT_NAME": "Gesichter, zweiter Versuch: 100 % ü", "DVC_EXP_NAME": "größe 'q' / 100 %"}
    write_histories(project, *STAGES)
    found = complete(project, named)
    assert found is not None
    assert (found.experiment_name, found.name) == (named["MLFLOW_EXPERIMENT_NAME"], named["DVC_EXP_NAME"])
    run = open_client(project).get_run(found.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == named["DVC_EXP_NAME"]
    assert "dvc exp apply 'größe" in run.data.tags["mlflow.note.content"]
    assert [row.name for row in tracking.list_runs(project, "accuracy", named).rows] == [named["DVC_EXP_NAME"]]


def test_number_that_mlflow_refuses_is_quarantined(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tracking.stage_run(project, "stage1", PARAMETERS, environ=NOTHING) as run:
        run.log_metrics({"": 1.0})
        run.set_tags({"x" * 300: "a long name"})
        run.log_epoch(1, {"loss": float("nan")})
        run.log_epoch(1, {"loss": float("nan")})
        run.log_epoch(2**70, {"loss": 1.0})  # no step that a database can hold
        run.log_epoch(2, {"loss": 0.5})
    child = next(row for name, row in list_runs(project).items() if "/" in name)
    assert child.info.status == "FINISHED"
    assert child.data.metrics["loss"] == 0.5
    assert len(list((project / ".fakeface" / "undelivered" / "refused").glob("*.json"))) == 1
    assert len(caplog.messages) == 1
