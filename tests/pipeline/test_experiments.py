"""The ways to run a DVC experiment: each leaves a whole row of its own, comparable with the others."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from fakeface import STAGES
from pipeline.mlflow_rows import Row, Rows
from pipeline.small_project import EPOCHS, Project, Reproduced

pytestmark = pytest.mark.slow
TEMP, QUEUED, RESTORED = "in-a-temporary-folder", "from-the-queue", "all-of-it-known"
LONGEST_WAIT = 300  # looks at the queue, each a second or more


@dataclass(frozen=True)
class Experiments:
    """One experiment in the workspace (named by DVC), one with --temp, two in a queue with two workers.

    Of those one changes nothing, so that DVC restores all of it and runs no stage but `track`.
    """

    project: Project
    workspace_name: str
    shown: dict[str, Any]  # what `dvc exp show` says of each, by name
    printed_after_kill: str  # TEMP was killed in stage 3, and started again
    queue_status: str
    rows: Rows

    def names(self) -> list[str]:
        return [self.workspace_name, TEMP, QUEUED, RESTORED]


@pytest.fixture(scope="module")
def experiments(reproduced: Reproduced, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Experiments]:
    project = reproduced.project.copy_to(tmp_path_factory.mktemp("experiments") / "project")
    project.done("dvc", "exp", "run", "--queue", "--name", QUEUED, "-S", "stages.stage3.lr=0.0005")
    project.done("dvc", "exp", "run", "--queue", "--name", RESTORED)
    _start_queue(project)  # works beside what follows
    project.done("dvc", "exp", "run", "-S", "lr=0.0003")
    in_temp = ("dvc", "exp", "run", "--temp", "--name", TEMP, "-S", "lr=0.001", "-S", "stages.stage3.lr=0.0007")
    project.kill_when_it_says("stage3 epoch 1/", *in_temp)
    printed_after_kill = project.done(*in_temp)
    status = _wait_for_queue(project)
    shown = _shown(project)
    (workspace_name,) = set(shown) - {TEMP, QUEUED, RESTORED}
    yield Experiments(project, workspace_name, shown, printed_after_kill, status, Rows(project))
    project.run("dvc", "queue", "stop", "--kill")


def _start_queue(project: Project) -> None:
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


def _wait_for_queue(project: Project) -> str:
    for _ in range(LONGEST_WAIT):
        if {QUEUED, RESTORED} <= _kept_experiments(project):
            status = project.done("dvc", "queue", "status")
            if "Running" not in status and "Queued" not in status:
                return status
        time.sleep(1)
    return project.done("dvc", "queue", "status")


def _kept_experiments(project: Project) -> set[str]:
    """Ask git, which takes nothing from the workers, where `dvc queue status` takes seconds."""
    return set(project.done("git", "for-each-ref", "--format=%(refname:lstrip=-1)", "refs/exps").split())


def _shown(project: Project) -> dict[str, Any]:
    baselines = json.loads(project.done("dvc", "exp", "show", "--json"))
    found = [experiment for baseline in baselines for experiment in baseline["experiments"] or []]
    return {experiment["name"]: experiment["revs"][0]["data"] for experiment in found}


def _accuracy(shown: Any) -> float:
    return float(shown["metrics"]["reports/metrics.json"]["data"]["generalization"]["accuracy"])


def test_the_queue_ends_well(experiments: Experiments) -> None:
    assert "Success" in experiments.queue_status, experiments.project.run("dvc", "queue", "logs", QUEUED).stdout


def test_a_killed_experiment_goes_on_although_its_folder_is_gone(experiments: Experiments) -> None:
    assert f"stage3: goes on after epoch 1 of {EPOCHS}" in experiments.printed_after_kill
    assert "stage3 epoch 1/" not in experiments.printed_after_kill
    assert list((experiments.project.folder / ".fakeface/training").iterdir()) == []


def test_each_leaves_one_finished_row_in_the_main_folder(experiments: Experiments) -> None:
    rows = experiments.rows
    baseline = [run.info.run_name for run in rows.parents if run.info.run_name.startswith("repro-")]
    assert len(baseline) == 1
    assert sorted(run.info.run_name for run in rows.parents) == sorted([*experiments.names(), *baseline])
    for name in experiments.names():
        row = rows.named(name)
        assert set(row.stages) == set(STAGES)
        assert {run.info.status for run in (row.run, *row.stages.values())} == {"FINISHED"}
        assert row.run.data.tags["dvc.experiment"] == name
    stores = list(experiments.project.folder.rglob("mlflow.db"))
    assert stores == [experiments.project.folder / "mlflow.db"]


def test_each_row_says_what_was_set(experiments: Experiments) -> None:
    workspace, temp, queued, _ = (experiments.rows.named(name) for name in experiments.names())
    assert workspace.run.data.params["lr"] == "0.0003"
    assert {child.data.params["lr"] for child in workspace.stages.values()} == {"0.0003"}
    for row, rate in ((temp, "0.0007"), (queued, "0.0005")):
        assert row.run.data.params["lr"] == "0.001"
        assert row.run.data.params["stages.stage3.lr"] == rate
        assert [row.stages[stage].data.params["lr"] for stage in STAGES] == ["0.001", "0.001", rate]


def test_each_row_has_the_accuracy_that_dvc_shows(experiments: Experiments) -> None:
    for name in experiments.names():
        logged = experiments.rows.named(name).run.data.metrics
        assert logged["generalization_accuracy"] == pytest.approx(_accuracy(experiments.shown[name]))
    metrics = experiments.project.read_json("reports/metrics.json")
    assert metrics["generalization"]["accuracy"] == _accuracy(experiments.shown[experiments.workspace_name])


def test_each_row_has_every_curve_also_of_stages_that_dvc_took_from_its_cache(experiments: Experiments) -> None:
    for name in experiments.names():
        row = experiments.rows.named(name)
        for stage in STAGES:
            for metric in ("loss", "accuracy", "val_loss", "val_accuracy", "lr"):
                curve = experiments.rows.curve(row.stages[stage], metric)
                assert sorted(curve) == list(range(1, EPOCHS + 1))
                assert experiments.rows.curve(row.run, f"{stage}/{metric}") == curve


def test_the_curves_are_each_experiments_own(experiments: Experiments) -> None:
    def losses(row: Row, stage: str) -> tuple[float, ...]:
        return tuple(experiments.rows.curve(row.stages[stage], "loss").values())

    workspace, temp, queued, restored = (experiments.rows.named(name) for name in experiments.names())
    assert losses(temp, "stage1") == pytest.approx(losses(queued, "stage1"))  # the same training
    assert losses(workspace, "stage1") != pytest.approx(losses(temp, "stage1"))
    assert len({losses(row, "stage3") for row in (workspace, temp, queued)}) == 3
    for stage in STAGES:
        assert losses(restored, stage) == losses(_baseline(experiments), stage)


def _baseline(experiments: Experiments) -> Row:
    (name,) = [run.info.run_name for run in experiments.rows.parents if run.info.run_name.startswith("repro-")]
    return experiments.rows.named(name)


def test_a_row_of_a_restored_experiment_lacks_nothing_that_its_first_run_has(experiments: Experiments) -> None:
    first, restored = _baseline(experiments), experiments.rows.named(RESTORED)
    for stage in STAGES:
        assert restored.stages[stage].data.tags["fakeface.restored_from_cache"] == "true"
        assert restored.stages[stage].data.params == first.stages[stage].data.params
    assert restored.run.data.params == first.run.data.params
    assert _without_speed(restored) == pytest.approx(_without_speed(first))
    assert set(restored.run.data.metrics) == set(first.run.data.metrics)
    names = [
        {file.path for file in experiments.rows.client.list_artifacts(row.run.info.run_id, "evaluation")}
        for row in (first, restored)
    ]
    assert names[0] == names[1]
    listed = experiments.project.done("fakeface", "runs", RESTORED)
    assert f"/runs/{restored.run.info.run_id}  synthetic sample\n" in listed


def _without_speed(row: Row) -> dict[str, float]:
    """The metrics but for those of each epoch's speed, of which a stage leaves the mean alone."""
    return {name: value for name, value in row.run.data.metrics.items() if not name.endswith("images_per_second")}


def test_each_experiments_model_is_in_the_registry(experiments: Experiments) -> None:
    versions = experiments.rows.client.search_model_versions("name = 'fakeface'")
    assert {version.tags["experiment"] for version in versions} >= set(experiments.names())
    assert len({version.run_id for version in versions}) == len(versions) == len(experiments.names()) + 1
