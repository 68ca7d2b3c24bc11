"""Runs of the pipeline as rows of a real MLflow on sqlite."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fakeface import tracking
from fakeface.cli import main
from fakeface.constants import STAGES
from fakeface.system.errors import UserError
from fakeface.tracking import chart_view, liveness, outbox, run_context
from fakeface.tracking.flatten import LONGEST_NAME, LONGEST_VALUE, flatten_metrics, flatten_parameters
from fakeface.tracking.run_identity import identify_run
from fakeface.tracking.run_index import IndexedRun, find_known_run
from fakeface.tracking.store_uri import LOCAL, name_store
from fakeface.tracking.ui import open_store, serve_page
from tests.support.project import PROJECT

PARAMETERS = {"lr": 0.001, "recipe": "seed", "stages": {"stage3": {"lr": None}}}
LOSSES = {1: 0.9, 2: 0.5, 3: 0.4}
LOOKS = 100  # at a row that is being written, each a tenth of a second or more
NOTHING: dict[str, str] = {}  # the environment of a plain `dvc repro`
SOURCE = PROJECT / "src"


def _git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def _make_project(folder: Path) -> Path:
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "network.py").write_text("WIDTH = 64\n")
    (folder / "params.yaml").write_text("lr: 0.001\n")
    _git(folder, "init", "--quiet")
    _git(folder, "add", "-A")
    _git(folder, "commit", "--quiet", "-m", "start")
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


def _start_child(project: Path, name: str) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONPATH": str(SOURCE), "DVC_EXP_NAME": name, "DVC_ROOT": str(project)}
    environ.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-c", CHILD, str(project)]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@dataclass
class Killed:
    """What was seen of two processes that made the store of a fresh repository at once, before and after their end."""

    project: Path
    while_alive: set[str]
    exit_codes: list[int]
    errors: list[str]
    buried: list[str]
    rows: dict[str, Any]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """Making a store takes seconds, so the tests share the one that these two made."""
    project = _make_project(tmp_path_factory.mktemp("first") / "repository")
    children = [_start_child(project, name) for name in ("terminated", "killed")]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    assert tracking.fail_stale_runs(project, NOTHING) == []
    while_alive = {run.info.status for run in _rows(project).values()}
    children[0].send_signal(signal.SIGTERM)
    children[1].kill()
    errors = [child.communicate()[1] for child in children]
    buried = tracking.fail_stale_runs(project, NOTHING)
    codes = [child.returncode for child in children]
    return Killed(project, while_alive, codes, errors, buried, _rows(project))


@pytest.fixture
def project(killed: Killed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    copy = Path(shutil.copytree(killed.project, tmp_path / "a folder: 100% ü"))
    for row in killed.rows.values():
        _client(copy).delete_run(row.info.run_id)
    return copy


def _train(project: Path, stage: str = "stage1", losses: Mapping[int, float] = LOSSES, **environ: str) -> tracking.Run:
    with tracking.stage_run(project, stage, PARAMETERS, environ=environ) as run:
        for epoch, loss in losses.items():
            run.log_epoch(epoch, {"loss": loss, "accuracy": 1 - loss, "images_per_second": time.time() % 100})
    return run


def _interrupted(project: Path, error: BaseException, **environ: str) -> None:
    with tracking.stage_run(project, "stage1", PARAMETERS, environ=environ) as run:
        run.log_epoch(1, {"loss": LOSSES[1]})
        raise error


def _client(project: Path, served: str = "") -> Any:
    import mlflow

    return mlflow.MlflowClient(served or f"sqlite:///{project / 'mlflow.db'}")


def _rows(project: Path, served: str = "", collection: str = "fakeface") -> dict[str, Any]:
    """Every row by `experiment` or `experiment/stage`, of a server if named; two under one name are an error."""
    client = _client(project, served)
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


def _curve(project: Path, run: Any, name: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in _client(project).get_metric_history(run.info.run_id, name))


def _write_histories(project: Path, *stages: str) -> None:
    folder = project / "reports" / "history"
    folder.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        lines = [f"{epoch},{loss},{1 - loss},,,0.001" for epoch, loss in LOSSES.items()]
        (folder / f"{stage}.csv").write_text("epoch,loss,accuracy,val_loss,val_accuracy,lr\n" + "\n".join(lines) + "\n")


def _result(project: Path) -> tracking.Result:
    picture = project / "reports" / "roc.png"
    picture.parent.mkdir(exist_ok=True)
    picture.write_bytes(b"a picture")
    return tracking.Result(
        metrics={"generalization": {"accuracy": 0.81, "n_real": 40}, "sources": {"celeba": {"accuracy": 0.7}}},
        files=(picture,),
        history_folder=project / "reports" / "history",
        stage_parameters={stage: {"lr": 0.001} for stage in STAGES},
    )


def _complete(
    project: Path,
    environ: Mapping[str, str],
    tags: Mapping[str, str] = NOTHING,
    *,
    parameters: Mapping[str, Any] = PARAMETERS,
    result: tracking.Result | None = None,
) -> IndexedRun | None:
    """Complete the row as record_experiment does, from fewer files than a whole project has."""
    with run_context.result_run(project, environ) as run:
        return run.complete(parameters, result or _result(project), tags)


# ---- one row an experiment ----


def test_an_experiment_is_one_row_with_curves_of_all_stages_and_the_result(project: Path) -> None:
    _train(project, "stage1", DVC_EXP_NAME="alpha", DVC_EXP_BASELINE_REV="0" * 40)
    _train(project, "stage2", DVC_EXP_NAME="alpha", DVC_EXP_BASELINE_REV="0" * 40)
    _write_histories(project, "stage1", "stage2", "stage3")  # stage 3 came out of DVC's cache
    with tracking.evaluation_run(
        project, PARAMETERS, environ={"DVC_EXP_NAME": "alpha", "DVC_EXP_BASELINE_REV": "0" * 40}
    ) as run:
        assert _rows(project)["alpha"].info.status == "RUNNING"
        run.set_tags({"said": "while it ran"})
    assert _rows(project)["alpha"].info.status == "RUNNING"  # its result is still to come
    environ = {"DVC_EXP_NAME": "alpha", "DVC_EXP_BASELINE_REV": "0" * 40}
    found = _complete(project, environ)

    rows = _rows(project)
    assert set(rows) == {"alpha", "alpha/stage1", "alpha/stage2", "alpha/stage3"}
    assert {run.info.status for run in rows.values()} == {"FINISHED"}
    assert found is not None
    assert found.run_id == rows["alpha"].info.run_id
    alpha = rows["alpha"].data
    assert alpha.params == {"lr": "0.001", "recipe": "seed", "stages.stage3.lr": "null"}
    assert alpha.metrics["generalization_accuracy"] == 0.81
    assert alpha.metrics["source_celeba_accuracy"] == 0.7
    assert "dvc exp apply alpha\n" in alpha.tags["mlflow.note.content"]
    assert alpha.tags["dvc.baseline"] == "0" * 40
    for stage in STAGES:
        assert _curve(project, rows["alpha"], f"{stage}/loss") == list(LOSSES.items())
        assert _curve(project, rows[f"alpha/{stage}"], "loss") == list(LOSSES.items())
    assert rows["alpha/stage3"].data.tags["fakeface.restored_from_cache"] == "true"
    assert "fakeface.restored_from_cache" not in rows["alpha/stage2"].data.tags
    artifacts = project / "mlartifacts" / rows["alpha"].info.run_id / "artifacts" / "evaluation"
    assert {path.name for path in artifacts.iterdir()} == {"metrics.json", "roc.png"}
    assert not list((project / ".fakeface" / "undelivered").glob("*"))


def test_stages_of_one_repro_find_the_same_row_and_a_temporary_workspace_writes_to_the_main_folder(
    project: Path, tmp_path: Path
) -> None:
    _train(project, "stage1")
    workspace = _make_project(tmp_path / "workspace")
    with tracking.stage_run(
        workspace, "stage1", PARAMETERS, environ={"DVC_ROOT": str(project), "DVC_EXP_NAME": 'ü "q"'}
    ) as run:
        run.log_epoch(1, {"loss": 1.0})
    _train(project, "stage2")
    assert not (workspace / "mlflow.db").exists()
    (repro,) = {name for name in _rows(project) if name.startswith("repro-") and "/" not in name}
    assert set(_rows(project)) == {repro, f"{repro}/stage1", f"{repro}/stage2", 'ü "q"', 'ü "q"/stage1'}


def test_what_decides_the_result_makes_another_experiment(project: Path) -> None:
    before = identify_run(project, NOTHING).key
    assert before == identify_run(project, NOTHING).key
    (project / "params.yaml").write_text("# a remark\nlr: 0.0010\n")
    assert before == identify_run(project, NOTHING).key
    (project / "params.yaml").write_text("lr: 0.002\n")
    other_lr = identify_run(project, NOTHING).key
    (project / "src" / "network.py").write_text("WIDTH = 32\n")
    other_code = identify_run(project, NOTHING).key
    (project / "dvc.lock").write_text("stages: {split: {outs: [{path: datasets/split, md5: abc.dir}]}}\n")
    other_data = identify_run(project, NOTHING).key
    assert len({before, other_lr, other_code, other_data}) == 4


def test_changes_beside_the_commit_are_named(project: Path) -> None:
    assert identify_run(project, NOTHING).tags["git.dirty"] == "false"
    (project / "params.yaml").write_text("lr: 0.002\n")
    (project / "src" / "network.py").write_text("WIDTH = 32\n")
    assert identify_run(project, NOTHING).tags["git.dirty_files"] == "params.yaml, src/network.py"
    # DVC keeps the parameters of an experiment itself.
    assert identify_run(project, {"DVC_EXP_NAME": "alpha"}).tags["git.dirty_files"] == "src/network.py"


def test_a_row_made_of_cached_results_alone_is_complete_and_is_left_alone_the_second_time(project: Path) -> None:
    _write_histories(project, *STAGES)
    environ = {"DVC_EXP_NAME": "cached"}
    _complete(project, environ, {"data.sha256": "abc"})
    once = _rows(project)
    assert set(once) == {"cached", "cached/stage1", "cached/stage2", "cached/stage3"}
    assert {run.info.status for run in once.values()} == {"FINISHED"}
    assert once["cached"].data.tags["data.sha256"] == "abc"
    assert once["cached/stage2"].data.params == {"lr": "0.001"}
    _complete(project, environ)
    assert _rows(project)["cached"].info.end_time == once["cached"].info.end_time


def test_a_repro_that_finds_nothing_to_do_makes_no_row(project: Path) -> None:
    _write_histories(project, *STAGES)
    with tracking.evaluation_run(project, PARAMETERS, environ=NOTHING):
        pass
    _complete(project, NOTHING)
    before = set(_rows(project))
    (project / "note.txt").write_text("results committed")
    _git(project, "add", "note.txt")
    _git(project, "commit", "--quiet", "-m", "results")
    _complete(project, NOTHING)
    assert set(_rows(project)) == before
    _complete(project, NOTHING, parameters={**PARAMETERS, "lr": 0.1})
    assert len(_rows(project)) == 2 * len(before)


def test_a_row_is_known_without_the_store_until_it_changes(project: Path) -> None:
    _write_histories(project, *STAGES)
    found = _complete(project, NOTHING)
    assert found is not None
    assert find_known_run(project, found.result, NOTHING) == found
    assert find_known_run(project, "another result", NOTHING) is None
    assert find_known_run(project, found.result, {"DVC_EXP_NAME": "wants a row of its own"}) is None
    _train(project, "stage1")
    assert find_known_run(project, found.result, NOTHING) is None  # its row is open again
    again = _complete(project, NOTHING)
    assert again == found == find_known_run(project, found.result, NOTHING)
    _client(project).delete_run(found.run_id)
    assert find_known_run(project, found.result, NOTHING) is None


PIPELINE = """
stages:
  train_stage1:
    cmd: {python} train.py stage1
    outs: [stage1.txt]
  train_stage2:
    cmd: {python} train.py stage2
    deps: [stage1.txt]
    outs: [stage2.txt]
"""
SCRIPT = """
import sys
from pathlib import Path
from fakeface import tracking
with tracking.stage_run(Path.cwd(), sys.argv[1], {"lr": 0.001}) as run:
    run.log_epoch(1, {"loss": 0.9})
Path("src/network.py").write_text(f"WIDTH = '{sys.argv[1]}'")  # what a user does while the next stage trains
Path(sys.argv[1] + ".txt").write_text("done")
"""


@pytest.mark.slow
def test_an_edit_during_a_real_dvc_repro_splits_no_row_and_its_end_is_noticed(project: Path) -> None:
    (project / "dvc.yaml").write_text(PIPELINE.format(python=sys.executable))
    (project / "train.py").write_text(SCRIPT)
    environ = {**os.environ, "PYTHONPATH": str(SOURCE), "DVC_NO_ANALYTICS": "1"}
    for command in (["init", "--quiet"], ["repro", "--quiet"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=project, env=environ, check=True)
    rows = _rows(project)
    (parent,) = [name for name in rows if "/" not in name]
    assert set(rows) == {parent, f"{parent}/stage1", f"{parent}/stage2"}
    assert rows[parent].info.status == "RUNNING"
    tracking.fail_stale_runs(project, NOTHING)
    assert _rows(project)[parent].info.status == "FINISHED"
    assert _rows(project)[parent].data.tags["fakeface.evaluated"] == "false"


def test_the_comparison_has_an_axis_for_each_parameter_that_differs(project: Path) -> None:
    _write_histories(project, *STAGES)
    long = "x" * 200
    for name, rate, size in (("one", 0.1, 32), ("two", 0.1, 64), ("three", 0.2, 64)):
        parameters = {"lr": rate, "batch_size": size, "seed": 20, long: rate}
        _complete(project, {"DVC_EXP_NAME": name}, parameters=parameters)
    kept = _client(project).get_experiment_by_name("fakeface").tags[chart_view.TAG]
    charts = {chart["type"]: chart for chart in json.loads(kept)["compareRunCharts"]}
    assert charts["PARALLEL"]["selectedParams"] == ["lr", "batch_size"]
    assert charts["PARALLEL"]["selectedMetrics"] == ["generalization_accuracy"]
    assert charts["SCATTER"]["xaxis"]["key"] == "lr"
    colours = [row.data.tags["mlflow.runColor"] for name, row in _rows(project).items() if "/" not in name]
    assert len(set(colours)) == 3
    widest = chart_view.build_view([f"{number}{long}"[:80] for number in range(5)])
    assert len(widest) <= 5000  # MLflow takes no longer tag


def test_a_stage_shows_curves_speed_its_end_and_the_machine_while_it_runs(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_context, "_SECONDS_BETWEEN_SAMPLES", 0.05)
    with tracking.stage_run(project, "stage1", PARAMETERS, environ=NOTHING) as run:
        run.log_epoch(1, {"loss": 0.9, "images_per_second": 250.0}, of=3)
        for _ in range(LOOKS):
            rows = _rows(project)
            (child,) = [row for name, row in rows.items() if "/" in name]
            if "system/cpu_utilization_percentage" in child.data.metrics:
                break
            time.sleep(0.1)
    (parent,) = [row for name, row in rows.items() if "/" not in name]
    assert parent.info.status == child.info.status == "RUNNING"
    assert parent.data.metrics == {"stage1/loss": 0.9, "stage1/images_per_second": 250.0}
    assert {"loss", "images_per_second", "system/system_memory_usage_percentage"} < set(child.data.metrics)
    assert re.fullmatch(r"epoch 1 of 3, ends about \d\d:\d\d", child.data.tags["progress"])


def test_the_gpu_build_has_the_package_by_which_mlflow_reads_a_gpus_load() -> None:
    from mlflow.system_metrics.metrics import gpu_monitor

    named = re.search(r"pip install ([\w-]+)`", inspect.getsource(gpu_monitor))
    assert named is not None
    pins = (SOURCE.parent / "requirements" / "gpu.txt").read_text()
    assert re.search(rf"^{named[1]}==", pins, re.MULTILINE)


# ---- again ----


def test_a_stage_that_failed_goes_on_in_the_same_row(project: Path) -> None:
    with pytest.raises(UserError):
        _interrupted(project, UserError("models/stage0.h5 is missing; run the stage before."))
    failed = _rows(project)
    assert {run.info.status for run in failed.values()} == {"FAILED"}
    for name, row in failed.items():
        assert "models/stage0.h5 is missing" in row.data.tags["mlflow.note.content"], name

    _train(project)  # from the first epoch again, with the same numbers
    rows = _rows(project)
    assert {name: row.info.run_id for name, row in rows.items()} == {n: r.info.run_id for n, r in failed.items()}
    (parent,) = [name for name in rows if "/" not in name]
    assert rows[f"{parent}/stage1"].info.status == "FINISHED"
    assert rows[parent].info.status == "RUNNING"
    assert "missing" not in rows[parent].data.tags["mlflow.note.content"]
    assert _curve(project, rows[parent], "stage1/loss") == list(LOSSES.items())
    assert len(_curve(project, rows[parent], "stage1/images_per_second")) == 3


def test_work_that_was_cut_short_goes_on_in_its_row_under_the_new_name_of_the_experiment(project: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _interrupted(project, KeyboardInterrupt(), DVC_EXP_NAME="first-name")
    _train(project, DVC_EXP_NAME="second-name")
    rows = _rows(project)
    assert set(rows) == {"second-name", "second-name/stage1"}
    assert _curve(project, rows["second-name"], "stage1/loss") == list(LOSSES.items())


def test_a_training_that_says_something_else_takes_back_what_came_after(project: Path) -> None:
    _train(project, "stage1")
    _train(project, "stage2")
    _train(project, "stage3")
    _train(project, "stage2", {2: 0.6, 3: 0.5})  # resumed, and other than before from epoch 2 on
    rows = _rows(project)
    (parent,) = [name for name in rows if "/" not in name]
    assert set(rows) == {parent, f"{parent}/stage1", f"{parent}/stage2"}
    assert _curve(project, rows[parent], "stage1/loss") == list(LOSSES.items())
    assert _curve(project, rows[parent], "stage2/loss") == [(1, 0.9), (2, 0.6), (3, 0.5)]
    assert _curve(project, rows[f"{parent}/stage2"], "loss") == [(1, 0.9), (2, 0.6), (3, 0.5)]
    assert "stage3/loss" not in rows[parent].data.metrics
    assert rows[parent].data.params["lr"] == "0.001"


def test_a_row_deleted_in_the_ui_while_the_stage_runs_is_made_again(project: Path) -> None:
    with tracking.stage_run(project, "stage1", PARAMETERS, environ=NOTHING) as run:
        run.log_epoch(1, {"loss": 0.9})
        for row in _rows(project).values():
            _client(project).delete_run(row.info.run_id)
        run.log_epoch(2, {"loss": 0.5})
    rows = _rows(project)
    assert len(rows) == 2
    assert all(row.data.params["lr"] == "0.001" for row in rows.values())


# ---- the end ----


def test_a_first_use_by_several_processes_at_once_makes_one_store(killed: Killed) -> None:
    assert killed.errors == ["", ""]
    assert set(killed.rows) == {"terminated", "terminated/stage1", "killed", "killed/stage1"}


def test_a_run_that_is_killed_is_failed_with_its_last_words(killed: Killed) -> None:
    assert killed.while_alive == {"RUNNING"}
    assert killed.exit_codes == [143, -9]
    (sentence,) = killed.buried
    assert sentence.startswith("killed, stage1: Killed without a word after epoch 1 (loss 0.9)")
    assert tracking.fail_stale_runs(killed.project, NOTHING) == []
    assert {run.info.status for run in killed.rows.values()} == {"FAILED"}
    assert "SIGTERM after epoch 1 (loss 0.9)" in killed.rows["terminated/stage1"].data.tags["fakeface.last_words"]
    assert "Killed without a word" in killed.rows["killed"].data.tags["mlflow.note.content"]


RECORDING = """
import sys
from pathlib import Path
from fakeface import tracking
from fakeface.tracking.run_context import result_run
with result_run(Path(sys.argv[1])) as run:
    run.complete({"lr": 0.001}, tracking.Result(metrics={"seconds": 1.0}), {})
"""


def _patient(project: Path) -> dict[str, str]:
    """The address of a store that waits for another writer as long as it takes."""
    return {"MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}?timeout=600", "DVC_EXP_NAME": "recorded"}


def test_a_kill_while_the_result_is_recorded_leaves_a_failed_row_and_no_finished_one(project: Path) -> None:
    environ = _patient(project)
    with tracking.evaluation_run(project, PARAMETERS, environ=environ):
        pass
    signs = project / ".fakeface" / "alive"
    command = [sys.executable, "-c", RECORDING, str(project)]
    with closing(sqlite3.connect(project / "mlflow.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(SOURCE), **environ}) as child:
            for _ in range(6 * LOOKS):
                if list(signs.glob("*-track.jsonl")):
                    break
                time.sleep(0.05)
            child.kill()
    (row,) = tracking.list_runs(project, "accuracy", environ).rows
    assert (row.name, row.status) == ("recorded", "failed")
    assert list(signs.iterdir()) == []
    assert "Killed without a word" in _rows(project)["recorded"].data.tags["mlflow.note.content"]


class Stopped(tracking.Result):
    """A result whose reader is told to stop."""

    def as_payload(self, project_root: Path, parameters: Mapping[str, str]) -> dict[str, Any]:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the signal was not heeded")


def test_a_result_that_is_stopped_by_a_signal_or_a_wrong_file_fails_the_row_until_it_is_there(project: Path) -> None:
    with tracking.evaluation_run(project, PARAMETERS, environ=NOTHING):
        pass
    (name,) = _rows(project)
    with pytest.raises(SystemExit):
        _complete(project, NOTHING, result=Stopped(metrics={}))
    assert _rows(project)[name].info.status == "FAILED"
    assert _rows(project)[name].data.tags["fakeface.last_words"] == "Stopped by SIGTERM."
    _write_histories(project, *STAGES)
    _complete(project, NOTHING)
    assert _rows(project)[name].info.status == "FINISHED"
    with pytest.raises(UserError), run_context.result_run(project, NOTHING):
        raise UserError("reports/metrics.json is missing.")
    assert _rows(project)[name].info.status == "FINISHED"  # it has its result already


# ---- trouble ----


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


def test_what_a_server_that_is_away_misses_waits_for_this_server(
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
    _train(project, DVC_EXP_NAME="here")
    assert set(_rows(project)) == {"here", "here/stage1"}

    login_elsewhere = environ | {"MLFLOW_TRACKING_URI": away.address}
    with away.back():
        assert tracking.deliver(project, login_elsewhere) == 0
        rows = _rows(project, away.address, "missed")
        curve = _client(project, away.address).get_metric_history(rows["away"].info.run_id, "stage1/loss")
    assert set(rows) == {"away", "away/stage1"}
    assert rows["away/stage1"].info.status == "FINISHED"
    assert [(point.step, point.value) for point in curve] == list(LOSSES.items())
    assert list((project / ".fakeface" / "undelivered").iterdir()) == []


def test_a_result_waits_once_for_a_server_that_is_away(
    project: Path, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    _write_histories(project, *STAGES)
    environ = {"MLFLOW_EXPERIMENT_NAME": "once", "MLFLOW_TRACKING_URI": away.address}
    for _ in range(2):
        assert _complete(project, environ) is None
    assert len(list((project / ".fakeface" / "undelivered").glob("*.json"))) == 1
    (project / "reports" / "roc.png").unlink()  # what waits is a copy
    with away.back():
        (row,) = tracking.list_runs(project, "accuracy", environ).rows  # any command that looks there delivers it
        (run,) = [run for name, run in _rows(project, away.address, "once").items() if "/" not in name]
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


def test_a_wrong_password_is_told_once_and_the_training_goes_on(
    project: Path, locked_door: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = _train(project, MLFLOW_TRACKING_URI=locked_door)
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


def test_a_store_of_a_much_older_mlflow_is_brought_up_to_date_and_gets_all(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = f"sqlite:///{project.parent / 'old.db'}"
    subprocess.run([sys.executable, "-c", STORE_OF_MLFLOW_2_10, old], check=True, capture_output=True)
    assert _train(project, MLFLOW_TRACKING_URI=old).recorder.waiting() == 0
    assert caplog.messages == []
    with closing(sqlite3.connect(project.parent / "old.db")) as database:
        curve = database.execute("SELECT step, value FROM metrics WHERE key = 'stage1/loss' ORDER BY step").fetchall()
    assert curve == list(LOSSES.items())


@pytest.mark.parametrize("version", ["0584bdc529eb", "ffffffffffff"])  # a migration of long ago, and one yet to come
def test_a_store_of_another_mlflow_that_it_does_not_open_is_named(
    project: Path, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = project / f"{version}.db"
    shutil.copy(project / "mlflow.db", other)
    with closing(sqlite3.connect(other)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (version,))
    named = {"MLFLOW_TRACKING_URI": f"sqlite:///{other}"}
    run = _train(project, MLFLOW_TRACKING_URI=named["MLFLOW_TRACKING_URI"])
    (warning,) = caplog.messages
    with pytest.raises(UserError) as caught, open_store(project, named):
        pass
    for sentence in (warning, str(caught.value)):
        assert f"{version}.db was made by another version of MLflow (an older one: copy the database" in sentence
        assert "`mlflow db upgrade`" in sentence
    assert run.recorder.waiting() == 1 + len(LOSSES) + 1


def test_a_database_locked_by_another_writer_is_waited_for(project: Path) -> None:
    with tracking.stage_run(project, "stage1", PARAMETERS, environ=NOTHING) as run:
        other = sqlite3.connect(project / "mlflow.db", check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(1.0, other.rollback)
        release.start()
        run.log_epoch(1, {"loss": 0.9})
        assert run.recorder.waiting() == 0
        release.join()
        other.close()
    assert all("locked" not in str(row.data.tags) for row in _rows(project).values())


@pytest.mark.system  # MLflow waits 20 s each time
def test_a_database_that_stays_locked_gets_the_training_when_it_is_free(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    impatient = f"sqlite:///{project / 'mlflow.db'}?timeout=0.1"  # in place of 5 s a try
    with closing(sqlite3.connect(project / "mlflow.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        run = _train(project, MLFLOW_TRACKING_URI=impatient)
    (warning,) = caplog.messages
    assert "is locked by another program" in warning
    assert run.recorder.waiting() == 1 + len(LOSSES) + 1
    assert tracking.deliver(project, {"MLFLOW_TRACKING_URI": impatient}) == 0
    (parent,) = [row for name, row in _rows(project).items() if "/" not in name]
    assert _curve(project, parent, "stage1/loss") == list(LOSSES.items())


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


def test_a_full_disk_under_the_artifacts_costs_nothing_once_there_is_room(project: Path) -> None:
    _write_histories(project, *STAGES)
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
    (row,) = [row for name, row in _rows(project).items() if "/" not in name]
    assert row.info.status == "RUNNING"

    picture.unlink()  # what waits does not depend on what the next experiment makes
    assert tracking.deliver(project, NOTHING) == 0
    row = _rows(project)[row.info.run_name]
    assert (row.info.status, row.data.metrics["generalization_accuracy"]) == ("FINISHED", 0.81)
    (kept,) = (project / "mlartifacts").rglob("roc.png")
    assert kept.stat().st_size == 200_000


def test_where_nothing_can_be_kept_the_same_command_completes_the_row_later(
    project: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    _write_histories(project, *STAGES)
    kept = project / ".fakeface/undelivered"
    shutil.rmtree(kept, ignore_errors=True)
    kept.write_text("a file in the way, as a disk without room is\n")
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    assert _complete(project, away) is None
    assert "a part of the run is not recorded" in caplog.messages[-1]
    kept.unlink()
    assert _complete(project, NOTHING) is not None
    assert {row.info.status for row in _rows(project).values()} == {"FINISHED"}


def test_a_full_disk_under_the_sign_of_life_ends_no_training(project: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)  # Linux's device that answers every write with "no space left"
    with tracking.stage_run(project, "stage1", PARAMETERS, environ=NOTHING) as run:
        assert run.sign is not None
        run.sign.close()
        run.sign = liveness.Heartbeat(project / "sign", full)
        run.log_epoch(1, {"loss": 0.9})
    (parent,) = [row for name, row in _rows(project).items() if "/" not in name]
    assert _curve(project, parent, "stage1/loss") == [(1, 0.9)]


def test_a_sign_of_which_a_full_disk_left_the_end_alone_is_taken_away(project: Path) -> None:
    sign = project / ".fakeface" / "alive" / "someone.jsonl"
    sign.write_text('{"last": "epoch 2 (loss 0.5)"}\n')
    assert tracking.fail_stale_runs(project, NOTHING) == []
    assert not sign.exists()


def test_a_collection_and_an_experiment_may_have_any_name(project: Path) -> None:
    named = {"MLFLOW_EXPERIMENT_NAME": "Gesichter, zweiter Versuch: 100 % ü", "DVC_EXP_NAME": "größe 'q' / 100 %"}
    _write_histories(project, *STAGES)
    found = _complete(project, named)
    assert found is not None
    assert (found.experiment_name, found.name) == (named["MLFLOW_EXPERIMENT_NAME"], named["DVC_EXP_NAME"])
    run = _client(project).get_run(found.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == named["DVC_EXP_NAME"]
    assert "dvc exp apply 'größe" in run.data.tags["mlflow.note.content"]
    assert [row.name for row in tracking.list_runs(project, "accuracy", named).rows] == [named["DVC_EXP_NAME"]]


def test_a_number_that_mlflow_refuses_is_set_aside_and_the_rest_goes_on(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tracking.stage_run(project, "stage1", PARAMETERS, environ=NOTHING) as run:
        run.log_metrics({"": 1.0})
        run.set_tags({"x" * 300: "a long name"})
        run.log_epoch(1, {"loss": float("nan")})
        run.log_epoch(1, {"loss": float("nan")})
        run.log_epoch(2**70, {"loss": 1.0})  # no step that a database can hold
        run.log_epoch(2, {"loss": 0.5})
    child = next(row for name, row in _rows(project).items() if "/" in name)
    assert child.info.status == "FINISHED"
    assert child.data.metrics["loss"] == 0.5
    assert len(list((project / ".fakeface" / "undelivered" / "refused").glob("*.json"))) == 1
    assert len(caplog.messages) == 1


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


def test_the_page_shows_what_had_been_refused_and_a_list_leaves_it(
    project: Path, server_commands: list[list[str]]
) -> None:
    outbox.quarantine(_keep_a_tag(project), "a reason that was mended since")
    assert tracking.list_runs(project, "accuracy", NOTHING).rows == []
    serve_page(project, "127.0.0.1", 0)
    assert server_commands[0][1:4] == ["-m", "mlflow", "server"]
    assert _rows(project)["later"].data.tags["said"] == "afterwards"
    assert list((project / ".fakeface" / "undelivered").rglob("*.json")) == []


def test_a_page_whose_store_does_not_open_says_so_once_and_loses_nothing(
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


def test_a_moved_repository_keeps_its_artifacts(project: Path, tmp_path: Path) -> None:
    _write_histories(project, *STAGES)
    _complete(project, {"DVC_EXP_NAME": "before"})
    moved = project.rename(tmp_path / "moved")
    _train(moved, DVC_EXP_NAME="after")
    row = _rows(moved)["before"]
    assert row.info.artifact_uri.startswith((moved / "mlartifacts").as_uri())
    files = _client(moved).list_artifacts(row.info.run_id, "evaluation")
    assert {file.path for file in files} == {"evaluation/metrics.json", "evaluation/roc.png"}
    assert not project.exists()


def _leave_dead(project: Path, **environ: str) -> None:
    """What a training leaves that is killed: its row open, and its sign, which nobody holds any more."""
    with tracking.stage_run(project, "stage1", PARAMETERS, environ=environ) as run:
        run.log_epoch(1, {"loss": LOSSES[1]})
        (sign,) = (project / ".fakeface" / "alive").glob("*.jsonl")
        said = sign.read_bytes()
    sign.write_bytes(said)


def test_what_delivers_says_what_died_too(project: Path) -> None:
    _leave_dead(project, DVC_EXP_NAME="killed")
    assert tracking.deliver(project, NOTHING) == 0
    assert {row.info.status for row in _rows(project).values()} == {"FAILED"}


LOADED = """
import sys
from pathlib import Path
from fakeface.tracking.run_context import fail_stale_runs_if_any
fail_stale_runs_if_any(Path(sys.argv[1]))
print("mlflow" in sys.modules)
"""


def test_a_stage_without_a_row_closes_the_rows_of_the_dead_and_loads_mlflow_only_for_them(project: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(SOURCE)}
    environ.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-c", LOADED, str(project)]
    assert subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout == "False\n"
    _leave_dead(project, DVC_EXP_NAME="killed")
    run_context.fail_stale_runs_if_any(project, NOTHING)
    assert {row.info.status for row in _rows(project).values()} == {"FAILED"}


def test_a_moved_repository_still_finds_its_dead(project: Path, tmp_path: Path) -> None:
    _leave_dead(project, DVC_EXP_NAME="before")
    moved = project.rename(tmp_path / "moved")
    (sentence,) = tracking.fail_stale_runs(moved, NOTHING)
    assert sentence.startswith("before, stage1: Killed without a word after epoch 1")
    assert {row.info.status for row in _rows(moved).values()} == {"FAILED"}


def _register(project: Path) -> None:
    """A model with the scores of two held-out faces, both called rightly."""
    with tracking.evaluation_run(project, PARAMETERS, environ=NOTHING):
        pass
    (run,) = _rows(project).values()
    table = project / "scores.csv"
    table.write_text("set,path,source,label,stage3\nheldout,a,cam,real,0.1\nheldout,b,gan,fake,0.9\n")
    client = _client(project)
    client.log_artifact(run.info.run_id, table, "evaluation")
    client.create_registered_model("fakeface")
    tags = {"heldout": "these", "threshold": "0.5", "experiment": run.info.run_name}
    client.create_model_version("fakeface", run.info.artifact_uri, run.info.run_id, tags=tags)
    client.set_registered_model_alias("fakeface", "candidate", "1")


def test_a_store_that_fails_during_a_promotion_is_told_in_a_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)  # MLflow makes folders of a sqlite address where it is
    shutil.copy(SOURCE.parent / "params.yaml", project / "params.yaml")
    _register(project)
    only_read = f"sqlite:///{(project / 'mlflow.db').as_uri()}?mode=ro&uri=true"
    with pytest.raises(UserError, match=r"mlflow\.db.* cannot be written to"):
        tracking.promote(project, environ={"MLFLOW_TRACKING_URI": only_read})
    assert tracking.promote(project, environ=NOTHING).promoted


def test_a_kill_after_the_model_is_registered_makes_no_second_version(project: Path) -> None:
    _write_histories(project, *STAGES)
    (project / "stage3.h5").write_bytes(b"a checkpoint")
    detector = tracking.Detector(project / "stage3.h5", 32, "# A card", {"threshold": "0.5"}, ("numpy==1.26.4",))
    result = replace(_result(project), detector=detector)
    row = _complete(project, NOTHING, result=result)
    assert row is not None
    client = _client(project)
    for tag in ("fakeface.detector", "fakeface.result", "fakeface.evaluated"):  # which the kill came before
        client.delete_tag(row.run_id, tag)
    client.delete_registered_model_alias("fakeface", "candidate")
    client.update_run(row.run_id, status="RUNNING")
    _complete(project, NOTHING, result=result)
    (version,) = client.search_model_versions("name = 'fakeface'")
    assert client.get_model_version_by_alias("fakeface", "candidate").version == version.version
    assert client.get_run(row.run_id).data.tags["fakeface.detector"].split() == [
        row.result,
        version.source.removeprefix("models:/"),
        str(version.version),
    ]


# ---- names and values ----


def test_a_long_value_is_cut_and_still_told_apart() -> None:
    one, other = ["a" * 5000 + "1"], ["a" * 5000 + "2"]
    flat = flatten_parameters(
        {"one": one, "other": other, "none": None, "yes": True, "deep": {"list": [1, {"p": 0.5}]}}
    )
    assert len(flat["one"]) == LONGEST_VALUE
    assert flat["one"] != flat["other"]
    assert (flat["none"], flat["yes"]) == ("null", "true")
    assert json.loads(flat["deep.list"]) == [1, {"p": 0.5}]


def test_metrics_get_the_names_that_comparisons_are_made_with() -> None:
    metrics = {
        "generalization": {"accuracy": 0.8, "interval": [0.7, 0.9], "pairs": {"a vs. b": {"auc": 1}}},
        "sources": {"celeba": {"accuracy": 0.7}},
        "stages": {"stage1": {"accuracy": 0.9}},
        "seconds": 3,
        "machine": "a text",
    }
    assert flatten_metrics(metrics) == {
        "generalization_accuracy": 0.8,
        "generalization_pairs_a vs. b_auc": 1.0,
        "source_celeba_accuracy": 0.7,
        "stage1_accuracy": 0.9,
        "seconds": 3.0,
    }
    (name,) = flatten_metrics({"x" * 400: 1})
    assert len(name) == LONGEST_NAME
