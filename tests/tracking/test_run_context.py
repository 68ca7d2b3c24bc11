"""Runs of the pipeline in a real MLflow on sqlite: one an experiment, with a child a stage."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fakeface import tracking
from fakeface.constants import STAGES
from fakeface.system.errors import UserError
from fakeface.tracking import chart_view, run_context
from fakeface.tracking.run_identity import identify_run
from fakeface.tracking.run_index import find_known_run
from tests.support.tracked_project import (
    LOOKS,
    LOSSES,
    NOTHING,
    PARAMETERS,
    SOURCE,
    Killed,
    complete,
    interrupt,
    list_runs,
    make_repository,
    open_client,
    read_curve,
    run_git,
    train,
    write_histories,
)


def test_experiment_is_one_run_with_curves_of_all_stages_and_the_result(project: Path) -> None:
    train(project, "stage1", DVC_EXP_NAME="alpha", DVC_EXP_BASELINE_REV="0" * 40)
    train(project, "stage2", DVC_EXP_NAME="alpha", DVC_EXP_BASELINE_REV="0" * 40)
    write_histories(project, "stage1", "stage2", "stage3")  # stage 3 came out of DVC's cache
    with tracking.evaluation_run(
        project, PARAMETERS, environ={"DVC_EXP_NAME": "alpha", "DVC_EXP_BASELINE_REV": "0" * 40}
    ) as run:
        assert list_runs(project)["alpha"].info.status == "RUNNING"
        run.set_tags({"said": "while it ran"})
    assert list_runs(project)["alpha"].info.status == "RUNNING"  # its result is still to come
    environ = {"DVC_EXP_NAME": "alpha", "DVC_EXP_BASELINE_REV": "0" * 40}
    found = complete(project, environ)

    rows = list_runs(project)
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
        assert read_curve(project, rows["alpha"], f"{stage}/loss") == list(LOSSES.items())
        assert read_curve(project, rows[f"alpha/{stage}"], "loss") == list(LOSSES.items())
    assert rows["alpha/stage3"].data.tags["fakeface.restored_from_cache"] == "true"
    assert "fakeface.restored_from_cache" not in rows["alpha/stage2"].data.tags
    artifacts = project / "mlartifacts" / rows["alpha"].info.run_id / "artifacts" / "evaluation"
    assert {path.name for path in artifacts.iterdir()} == {"metrics.json", "roc.png"}
    assert not list((project / ".fakeface" / "undelivered").glob("*"))


def test_stages_of_one_repro_share_a_run_in_the_main_folder(project: Path, tmp_path: Path) -> None:
    train(project, "stage1")
    workspace = make_repository(tmp_path / "workspace")
    with tracking.stage_run(
        workspace, "stage1", PARAMETERS, environ={"DVC_ROOT": str(project), "DVC_EXP_NAME": 'ü "q"'}
    ) as run:
        run.log_epoch(1, {"loss": 1.0})
    train(project, "stage2")
    assert not (workspace / "mlflow.db").exists()
    (repro,) = {name for name in list_runs(project) if name.startswith("repro-") and "/" not in name}
    assert set(list_runs(project)) == {repro, f"{repro}/stage1", f"{repro}/stage2", 'ü "q"', 'ü "q"/stage1'}


def test_identify_run_tells_what_decides_the_result_apart(project: Path) -> None:
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


def test_identify_run_names_uncommitted_changes(project: Path) -> None:
    assert identify_run(project, NOTHING).tags["git.dirty"] == "false"
    (project / "params.yaml").write_text("lr: 0.002\n")
    (project / "src" / "network.py").write_text("WIDTH = 32\n")
    assert identify_run(project, NOTHING).tags["git.dirty_files"] == "params.yaml, src/network.py"
    # DVC keeps the parameters of an experiment itself.
    assert identify_run(project, {"DVC_EXP_NAME": "alpha"}).tags["git.dirty_files"] == "src/network.py"


def test_run_of_cached_results_is_complete_and_left_alone_the_second_time(project: Path) -> None:
    write_histories(project, *STAGES)
    environ = {"DVC_EXP_NAME": "cached"}
    complete(project, environ, {"data.sha256": "abc"})
    once = list_runs(project)
    assert set(once) == {"cached", "cached/stage1", "cached/stage2", "cached/stage3"}
    assert {run.info.status for run in once.values()} == {"FINISHED"}
    assert once["cached"].data.tags["data.sha256"] == "abc"
    assert once["cached/stage2"].data.params == {"lr": "0.001"}
    complete(project, environ)
    assert list_runs(project)["cached"].info.end_time == once["cached"].info.end_time


def test_repro_with_nothing_to_do_makes_no_run(project: Path) -> None:
    write_histories(project, *STAGES)
    with tracking.evaluation_run(project, PARAMETERS, environ=NOTHING):
        pass
    complete(project, NOTHING)
    before = set(list_runs(project))
    (project / "note.txt").write_text("results committed")
    run_git(project, "add", "note.txt")
    run_git(project, "commit", "--quiet", "-m", "results")
    complete(project, NOTHING)
    assert set(list_runs(project)) == before
    complete(project, NOTHING, parameters={**PARAMETERS, "lr": 0.1})
    assert len(list_runs(project)) == 2 * len(before)


def test_find_known_run_needs_no_store_until_the_run_changes(project: Path) -> None:
    write_histories(project, *STAGES)
    found = complete(project, NOTHING)
    assert found is not None
    assert find_known_run(project, found.result, NOTHING) == found
    assert find_known_run(project, "another result", NOTHING) is None
    assert find_known_run(project, found.result, {"DVC_EXP_NAME": "wants a row of its own"}) is None
    train(project, "stage1")
    assert find_known_run(project, found.result, NOTHING) is None  # its row is open again
    again = complete(project, NOTHING)
    assert again == found == find_known_run(project, found.result, NOTHING)
    open_client(project).delete_run(found.run_id)
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
def test_edit_during_dvc_repro_splits_no_run_and_its_end_is_noticed(project: Path) -> None:
    (project / "dvc.yaml").write_text(PIPELINE.format(python=sys.executable))
    (project / "train.py").write_text(SCRIPT)
    environ = {**os.environ, "PYTHONPATH": str(SOURCE), "DVC_NO_ANALYTICS": "1"}
    for command in (["init", "--quiet"], ["repro", "--quiet"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=project, env=environ, check=True)
    rows = list_runs(project)
    (parent,) = [name for name in rows if "/" not in name]
    assert set(rows) == {parent, f"{parent}/stage1", f"{parent}/stage2"}
    assert rows[parent].info.status == "RUNNING"
    tracking.fail_stale_runs(project, NOTHING)
    assert list_runs(project)[parent].info.status == "FINISHED"
    assert list_runs(project)[parent].data.tags["fakeface.evaluated"] == "false"


def test_comparison_has_an_axis_for_each_parameter_that_differs(project: Path) -> None:
    write_histories(project, *STAGES)
    long = "x" * 200
    for name, rate, size in (("one", 0.1, 32), ("two", 0.1, 64), ("three", 0.2, 64)):
        parameters = {"lr": rate, "batch_size": size, "seed": 20, long: rate}
        complete(project, {"DVC_EXP_NAME": name}, parameters=parameters)
    kept = open_client(project).get_experiment_by_name("fakeface").tags[chart_view.TAG]
    charts = {chart["type"]: chart for chart in json.loads(kept)["compareRunCharts"]}
    assert charts["PARALLEL"]["selectedParams"] == ["lr", "batch_size"]
    assert charts["PARALLEL"]["selectedMetrics"] == ["generalization_accuracy"]
    assert charts["SCATTER"]["xaxis"]["key"] == "lr"
    colours = [row.data.tags["mlflow.runColor"] for name, row in list_runs(project).items() if "/" not in name]
    assert len(set(colours)) == 3
    widest = chart_view.build_view([f"{number}{long}"[:80] for number in range(5)])
    assert len(widest) <= 5000  # MLflow takes no longer tag


def test_stage_run_shows_curves_speed_end_and_machine_while_it_runs(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_context, "_SECONDS_BETWEEN_SAMPLES", 0.05)
    with tracking.stage_run(project, "stage1", PARAMETERS, environ=NOTHING) as run:
        run.log_epoch(1, {"loss": 0.9, "images_per_second": 250.0}, of=3)
        for _ in range(LOOKS):
            rows = list_runs(project)
            (child,) = [row for name, row in rows.items() if "/" in name]
            if "system/cpu_utilization_percentage" in child.data.metrics:
                break
            time.sleep(0.1)
    (parent,) = [row for name, row in rows.items() if "/" not in name]
    assert parent.info.status == child.info.status == "RUNNING"
    assert parent.data.metrics == {"stage1/loss": 0.9, "stage1/images_per_second": 250.0}
    assert {"loss", "images_per_second", "system/system_memory_usage_percentage"} < set(child.data.metrics)
    assert re.fullmatch(r"epoch 1 of 3, ends about \d\d:\d\d", child.data.tags["progress"])


def test_gpu_requirements_have_what_mlflow_reads_a_gpu_with() -> None:
    from mlflow.system_metrics.metrics import gpu_monitor

    named = re.search(r"pip install ([\w-]+)`", inspect.getsource(gpu_monitor))
    assert named is not None
    pins = (SOURCE.parent / "requirements" / "gpu.txt").read_text()
    assert re.search(rf"^{named[1]}==", pins, re.MULTILINE)


# ---- again ----


def test_failed_stage_goes_on_in_the_same_run(project: Path) -> None:
    with pytest.raises(UserError):
        interrupt(project, UserError("models/stage0.h5 is missing; run the stage before."))
    failed = list_runs(project)
    assert {run.info.status for run in failed.values()} == {"FAILED"}
    for name, row in failed.items():
        assert "models/stage0.h5 is missing" in row.data.tags["mlflow.note.content"], name

    train(project)  # from the first epoch again, with the same numbers
    rows = list_runs(project)
    assert {name: row.info.run_id for name, row in rows.items()} == {n: r.info.run_id for n, r in failed.items()}
    (parent,) = [name for name in rows if "/" not in name]
    assert rows[f"{parent}/stage1"].info.status == "FINISHED"
    assert rows[parent].info.status == "RUNNING"
    assert "missing" not in rows[parent].data.tags["mlflow.note.content"]
    assert read_curve(project, rows[parent], "stage1/loss") == list(LOSSES.items())
    assert len(read_curve(project, rows[parent], "stage1/images_per_second")) == 3


def test_interrupted_work_goes_on_in_its_run_under_the_new_name(project: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt(project, KeyboardInterrupt(), DVC_EXP_NAME="first-name")
    train(project, DVC_EXP_NAME="second-name")
    rows = list_runs(project)
    assert set(rows) == {"second-name", "second-name/stage1"}
    assert read_curve(project, rows["second-name"], "stage1/loss") == list(LOSSES.items())


def test_other_losses_replace_what_came_after(project: Path) -> None:
    train(project, "stage1")
    train(project, "stage2")
    train(project, "stage3")
    train(project, "stage2", {2: 0.6, 3: 0.5})  # resumed, and other than before from epoch 2 on
    rows = list_runs(project)
    (parent,) = [name for name in rows if "/" not in name]
    assert set(rows) == {parent, f"{parent}/stage1", f"{parent}/stage2"}
    assert read_curve(project, rows[parent], "stage1/loss") == list(LOSSES.items())
    assert read_curve(project, rows[parent], "stage2/loss") == [(1, 0.9), (2, 0.6), (3, 0.5)]
    assert read_curve(project, rows[f"{parent}/stage2"], "loss") == [(1, 0.9), (2, 0.6), (3, 0.5)]
    assert "stage3/loss" not in rows[parent].data.metrics
    assert rows[parent].data.params["lr"] == "0.001"


def test_run_deleted_in_the_ui_is_made_again(project: Path) -> None:
    with tracking.stage_run(project, "stage1", PARAMETERS, environ=NOTHING) as run:
        run.log_epoch(1, {"loss": 0.9})
        for row in list_runs(project).values():
            open_client(project).delete_run(row.info.run_id)
        run.log_epoch(2, {"loss": 0.5})
    rows = list_runs(project)
    assert len(rows) == 2
    assert all(row.data.params["lr"] == "0.001" for row in rows.values())


# ---- the end ----


def test_first_use_by_several_processes_makes_one_store(killed: Killed) -> None:
    assert killed.errors == ["", ""]
    assert set(killed.rows) == {"terminated", "terminated/stage1", "killed", "killed/stage1"}


def test_killed_run_is_failed_with_its_termination_message(killed: Killed) -> None:
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


def test_kill_while_the_result_is_recorded_leaves_a_failed_run(project: Path) -> None:
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
    assert "Killed without a word" in list_runs(project)["recorded"].data.tags["mlflow.note.content"]


class Stopped(tracking.Result):
    """A result whose reader is told to stop."""

    def as_payload(self, project_root: Path, parameters: Mapping[str, str]) -> dict[str, Any]:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the signal was not heeded")


def test_result_run_stopped_by_a_signal_or_a_wrong_file_is_failed(project: Path) -> None:
    with tracking.evaluation_run(project, PARAMETERS, environ=NOTHING):
        pass
    (name,) = list_runs(project)
    with pytest.raises(SystemExit):
        complete(project, NOTHING, result=Stopped(metrics={}))
    assert list_runs(project)[name].info.status == "FAILED"
    assert list_runs(project)[name].data.tags["fakeface.last_words"] == "Stopped by SIGTERM."
    write_histories(project, *STAGES)
    complete(project, NOTHING)
    assert list_runs(project)[name].info.status == "FINISHED"
    with pytest.raises(UserError), run_context.result_run(project, NOTHING):
        raise UserError("reports/metrics.json is missing.")
    assert list_runs(project)[name].info.status == "FINISHED"  # it has its result already
