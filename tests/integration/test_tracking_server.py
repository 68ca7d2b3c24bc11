"""The pipeline against MLflow's server with PostgreSQL and an object store, which is killed during a training."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow.artifacts import download_artifacts

from fakeface.cli import main
from fakeface.constants import STAGES
from fakeface.system.errors import UserError
from fakeface.tracking import record_experiment
from fakeface.tracking.ui import open_store
from tests.integration.experiments import start_queue, wait_for_queue
from tests.integration.mlflow_runs import TrackedRun, TrackedRuns
from tests.integration.small_project import EPOCHS, Project, Reproduced
from tests.integration.tracking_server import TrackingServer, missing_part

pytestmark = [
    pytest.mark.slow,
    pytest.mark.system,
    pytest.mark.skipif(bool(missing_part()), reason=missing_part()),
]


@dataclass(frozen=True)
class Outage:
    """What was seen of a server that was killed while stage 3 trained, and came back after the result."""

    server: TrackingServer
    parts: int  # processes of the server
    end: tuple[int, str]  # of the server's command after the kill: exit code, and what it said
    training: subprocess.CompletedProcess[str]
    tracked: str
    waited: int  # events that were not delivered yet
    delivered: str
    project: Project
    here: TrackedRuns  # of the same result, in sqlite
    there: TrackedRuns

    def row(self) -> TrackedRun:
        return _only(self.there)


def _only(rows: TrackedRuns) -> TrackedRun:
    (run,) = rows.parents
    return rows.named(run.info.run_name)


@pytest.fixture(scope="module")
def outage(reproduced: Reproduced, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outage]:
    folder = tmp_path_factory.mktemp("tracking_server")
    server = TrackingServer(folder / "a folder: 100% ü")
    server.start()
    parts = server.parts()
    copy = reproduced.project.copy_to(folder / "project", without=("mlflow.db", "mlartifacts"))
    project = replace(copy, environment={**copy.environment, **server.client()})
    ends: list[tuple[int, str]] = []
    training = project.run_and_when_it_says(
        "stage3 epoch 1/", lambda _: ends.append(server.kill_mlflow()), "python", "pipeline/train_stage.py", "stage3"
    )
    tracked = record_experiment(project.folder, {"MLFLOW_TRACKING_URI": server.uri()})
    waited = len(list((project.folder / ".fakeface/undelivered").glob("*.json")))
    server.start()
    delivered = _fakeface(server, project, "deliver")
    there = TrackedRuns(project, server.uri())
    yield Outage(
        server,
        len(parts),
        ends[0],
        training,
        tracked,
        waited,
        delivered,
        project,
        TrackedRuns(reproduced.project),
        there,
    )
    code, said = server.stop()
    assert (code, said.splitlines()[-1][:6]) == (0, "Ending")
    assert not [part for part in parts if part.is_running()]


@contextmanager
def _as_client(server: TrackingServer, project: Project) -> Iterator[None]:
    """In the project's folder, with the environment that the first screen tells."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        for name, value in server.client().items():
            patch.setenv(name, value)
        yield


def _fakeface(server: TrackingServer, project: Project, command: str) -> str:
    """What the command prints: in this process, which has loaded MLflow already."""
    with _as_client(server, project):
        return CliRunner().invoke(main, [command], catch_exceptions=False).output


def test_tracking_server_first_screen_says_how_to_use_it(outage: Outage) -> None:
    screen = outage.server.screen
    for said in (outage.server.url, "user      fakeface", str(outage.server.folder / "password"), "Ctrl-C"):
        assert said in screen
    for name, value in outage.server.client().items():
        assert name in screen
        assert value in screen or name.endswith("PASSWORD")


def test_tracking_server_wants_the_password(outage: Outage) -> None:
    wrong = {"MLFLOW_TRACKING_URI": outage.server.uri("a wrong password")}
    with pytest.raises(UserError, match="refuses the password"), open_store(outage.project.folder, wrong):
        pass


def test_tracking_server_names_the_part_that_ended_and_ends_the_others(outage: Outage) -> None:
    code, said = outage.end
    assert code == 1
    assert "fakeface: MLflow's server has ended" in said
    assert outage.parts > 3


def test_tracking_server_refuses_a_second_one(outage: Outage, tmp_path: Path) -> None:
    for server, named in (
        (TrackingServer(outage.server.folder), "runs on"),
        (TrackingServer(tmp_path, port=outage.server.port), f"Port {outage.server.port}"),
    ):
        process = server.run()
        assert process.returncode == 1
        assert process.stderr.startswith("fakeface: ")
        assert len(process.stderr.splitlines()) == 1
        assert named in process.stderr


def test_training_goes_on_while_the_server_is_unreachable(outage: Outage) -> None:
    assert outage.training.returncode == 0
    assert f"stage3 epoch {EPOCHS}/{EPOCHS}" in outage.training.stdout
    told = [line for line in outage.training.stdout.splitlines() if line.startswith("fakeface: ")]
    assert len(told) == 1
    assert "does not answer" in told[0]
    assert "waits in .fakeface/undelivered" in told[0]
    assert "`fakeface deliver` sends it" in outage.tracked
    assert outage.waited > 0


def test_deliver_sends_all_that_the_server_missed(outage: Outage) -> None:
    assert outage.delivered.strip() == "Everything is delivered."
    assert list((outage.project.folder / ".fakeface/undelivered").iterdir()) == []


def test_run_on_the_server_equals_the_one_in_sqlite(outage: Outage) -> None:
    here, there = _only(outage.here), outage.row()
    assert here.run.info.run_name == there.run.info.run_name
    assert set(there.stages) == set(STAGES)
    for mine, its in ((here.run, there.run), *((here.stages[stage], there.stages[stage]) for stage in STAGES)):
        assert its.info.status == "FINISHED"
        assert its.data.params == mine.data.params
        assert _results(its) == pytest.approx(_results(mine))
    assert _kept(there.run) == _kept(here.run)
    assert there.run.data.tags["fakeface.result"] == here.run.data.tags["fakeface.result"]


def _results(run: Any) -> dict[str, float]:
    """Metrics but for speed and the machine's load."""
    of_machine = ("images_per_second", "seconds")
    metrics = run.data.metrics.items()
    return {name: value for name, value in metrics if not name.endswith(of_machine) and not name.startswith("system/")}


def _kept(run: Any) -> dict[str, str]:
    """Tags but for MLflow's ids and what only a live run says."""
    others = ("fakeface.child.", "fakeface.detector", "mlflow.", "process.", "progress")
    return {name: value for name, value in run.data.tags.items() if not name.startswith(others)}


def test_every_curve_on_the_server_is_whole(outage: Outage) -> None:
    here, there = _only(outage.here), outage.row()
    for stage in STAGES:
        for metric in ("loss", "accuracy", "val_loss", "val_accuracy", "lr"):
            curve = outage.there.curve(there.stages[stage], metric)
            assert curve == pytest.approx(outage.here.curve(here.stages[stage], metric))
            assert outage.there.curve(there.run, f"{stage}/{metric}") == curve


def test_every_artifact_is_in_the_object_store(outage: Outage) -> None:
    here, there = _only(outage.here).run, outage.row().run
    store = outage.server.folder / "objects/mlflow" / there.info.experiment_id / there.info.run_id / "artifacts"
    assert there.info.artifact_uri.startswith("mlflow-artifacts:/")
    for folder in ("evaluation", "data"):
        mine = {file.path for file in outage.here.client.list_artifacts(here.info.run_id, folder)}
        assert {f"{folder}/{file.name}" for file in (store / folder).iterdir()} == mine
    assert (store / "evaluation/scores.csv").read_bytes() == (outage.project.folder / "reports/scores.csv").read_bytes()


def test_champion_from_the_server_equals_the_one_from_sqlite(outage: Outage) -> None:
    outage.project.change_params({"promote.at_least": 0.3})
    assert "now models:/fakeface@champion" in _fakeface(outage.server, outage.project, "promote")
    here = outage.here.client.get_model_version_by_alias("fakeface", "candidate")
    there = outage.there.client.get_model_version_by_alias("fakeface", "champion")
    assert there.run_id == outage.row().run.info.run_id
    assert there.description == here.description
    with _as_client(outage.server, outage.project):
        served = _model_files(outage.there, there.source, outage.server.url)
    assert served == _model_files(outage.here, here.source, outage.here.uri)


def _model_files(rows: TrackedRuns, source: str, store: str) -> dict[str, str]:
    """The sha256 of every file of a model, as a client gets it; MLmodel names the run and the time."""
    place = rows.client.get_logged_model(source.removeprefix("models:/")).artifact_location
    folder = Path(download_artifacts(artifact_uri=place, tracking_uri=store))
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "MLmodel"]
    found = {path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}
    assert {"artifacts/stage3.h5", "requirements.txt", "README.md"} <= set(found)
    return found


def test_two_queue_workers_share_the_server(outage: Outage) -> None:
    rates = {"shared-1": "0.002", "shared-2": "0.003"}
    for name, rate in rates.items():
        outage.project.done("dvc", "exp", "run", "--queue", "--name", name, "-S", f"stages.stage3.lr={rate}")
    start_queue(outage.project)
    status = wait_for_queue(outage.project, rates)
    rows = TrackedRuns(outage.project, outage.server.uri())
    for name, rate in rates.items():
        row = rows.named(name)
        assert {each.info.status for each in (row.run, *row.stages.values())} == {"FINISHED"}, status
        assert row.stages["stage3"].data.params["lr"] == rate
        assert len(rows.curve(row.run, "stage3/val_loss")) == EPOCHS
        assert row.run.data.tags["fakeface.evaluated"] == "true"
    assert not (outage.project.folder / "mlflow.db").exists()
