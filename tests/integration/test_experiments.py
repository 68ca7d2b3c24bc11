"""The ways to run a DVC experiment: each leaves a whole row of its own, comparable with the others."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fakeface.constants import STAGES
from tests.integration.experiments import SWEPT, TEMP, Experiments, run_experiments
from tests.integration.mlflow_runs import TrackedRun
from tests.integration.small_project import EPOCHS, Project, Reproduced
from tests.support.browser import browser

pytestmark = [pytest.mark.slow, pytest.mark.system]
ACCURACY = "generalization_accuracy"


@pytest.fixture(scope="module")
def experiments(reproduced: Reproduced, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Experiments]:
    project = reproduced.project.copy_to(tmp_path_factory.mktemp("experiments") / "project")
    yield run_experiments(project)
    project.run("dvc", "queue", "stop", "--kill")


@pytest.fixture(scope="module")
def rows(experiments: Experiments) -> dict[str, TrackedRun]:
    """Each experiment's row, by its name."""
    return {name: experiments.rows.named(name) for name in experiments.names()}


@pytest.fixture(scope="module")
def baseline(experiments: Experiments) -> TrackedRun:
    (name,) = [run.info.run_name for run in experiments.rows.parents if run.info.run_name.startswith("repro-")]
    return experiments.rows.named(name)


# ---- one row each ----


def test_queue_succeeds(experiments: Experiments) -> None:
    logs = [experiments.project.run("dvc", "queue", "logs", name).stdout[-2000:] for name in experiments.sweep.values()]
    assert experiments.queue_status.count("Success") == len(SWEPT), "\n".join(logs)


def test_each_experiment_is_one_finished_run_in_the_main_folder(
    experiments: Experiments, rows: dict[str, TrackedRun]
) -> None:
    names = [run.info.run_name for run in experiments.rows.parents if not run.info.run_name.startswith("repro-")]
    assert sorted(names) == sorted(experiments.names())
    for name, row in rows.items():
        assert set(row.stages) == set(STAGES)
        assert {run.info.status for run in (row.run, *row.stages.values())} == {"FINISHED"}
        assert row.run.data.tags["dvc.experiment"] == name
    stores = list(experiments.project.folder.rglob("mlflow.db"))
    assert stores == [experiments.project.folder / "mlflow.db"]


def test_each_run_says_what_was_set(experiments: Experiments, rows: dict[str, TrackedRun]) -> None:
    workspace = experiments.workspace_name
    rates = {TEMP: "0.0003", workspace: "0.001", **{name: rate for rate, name in experiments.sweep.items()}}
    for name, rate in rates.items():
        assert rows[name].run.data.params["lr"] == rate
        of_stages = [rate, rate, "0.0007" if name == workspace else rate]
        assert [rows[name].stages[stage].data.params["lr"] for stage in STAGES] == of_stages


def test_each_run_has_all_that_the_first_has(
    experiments: Experiments, rows: dict[str, TrackedRun], baseline: TrackedRun
) -> None:
    for row in rows.values():
        assert set(row.run.data.params) == set(baseline.run.data.params)
        assert _metric_names(row) == _metric_names(baseline)
        for folder in ("evaluation", "data"):
            assert _files(experiments, row, folder) == _files(experiments, baseline, folder)
        for stage in STAGES:
            assert set(row.stages[stage].data.params) == set(baseline.stages[stage].data.params)


def _metric_names(row: TrackedRun) -> set[str]:
    """But those of the images that a model answers surely, which may be none."""
    return {name for name in row.run.data.metrics if not name.startswith("coverage_")}


def _files(experiments: Experiments, row: TrackedRun, folder: str) -> set[str]:
    return {file.path for file in experiments.rows.client.list_artifacts(row.run.info.run_id, folder)}


def test_each_run_has_every_curve_also_of_cached_stages(experiments: Experiments, rows: dict[str, TrackedRun]) -> None:
    for row in rows.values():
        for stage in STAGES:
            for metric in ("loss", "accuracy", "val_loss", "val_accuracy", "lr"):
                curve = experiments.rows.curve(row.stages[stage], metric)
                assert sorted(curve) == list(range(1, EPOCHS + 1))
                assert experiments.rows.curve(row.run, f"{stage}/{metric}") == curve


def test_curves_are_each_experiments_own(
    experiments: Experiments, rows: dict[str, TrackedRun], baseline: TrackedRun
) -> None:
    def losses(row: TrackedRun, stage: str) -> tuple[float, ...]:
        return tuple(experiments.rows.curve(row.stages[stage], "loss").values())

    same, middle, low = (rows[experiments.sweep[rate]] for rate in SWEPT)
    workspace = rows[experiments.workspace_name]
    for stage in STAGES:
        assert losses(same, stage) == losses(baseline, stage)
        assert losses(middle, stage) == losses(rows[TEMP], stage)
    assert losses(workspace, "stage1") == losses(baseline, "stage1")
    assert len({losses(row, "stage3") for row in (same, middle, low, workspace)}) == 4


def test_cached_stage_run_says_so(experiments: Experiments, rows: dict[str, TrackedRun]) -> None:
    def restored(name: str) -> list[str]:
        return [stage for stage in STAGES if "fakeface.restored_from_cache" in rows[name].stages[stage].data.tags]

    known, known_of_temp, new = experiments.sweep.values()
    assert restored(known) == restored(known_of_temp) == list(STAGES)
    assert restored(experiments.workspace_name) == ["stage1", "stage2"]  # only stage 3 had to be trained
    assert restored(new) == restored(TEMP) == []


def test_restored_run_has_the_numbers_of_the_first(
    experiments: Experiments, rows: dict[str, TrackedRun], baseline: TrackedRun
) -> None:
    restored = rows[experiments.sweep["0.001"]]
    assert restored.run.data.params == baseline.run.data.params
    assert _without_speed(restored) == pytest.approx(_without_speed(baseline))


def _without_speed(row: TrackedRun) -> dict[str, float]:
    """The metrics but for those of each epoch's speed, of which a stage leaves the mean alone."""
    return {name: value for name, value in row.run.data.metrics.items() if not name.endswith("images_per_second")}


def test_each_run_leads_to_its_own_checkpoint(rows: dict[str, TrackedRun]) -> None:
    for row in rows.values():
        for stage in STAGES:
            assert row.run.data.tags[f"checkpoint.{stage}.md5"] == row.stages[stage].data.tags["checkpoint.md5"]
            assert row.run.data.tags[f"fakeface.child.{stage}"] == row.stages[stage].info.run_id
    assert len({row.run.data.tags["checkpoint.stage3.md5"] for row in rows.values()}) == 4


def test_each_experiments_model_is_registered(experiments: Experiments) -> None:
    versions = experiments.rows.client.search_model_versions("name = 'fakeface'")
    assert {version.tags["experiment"] for version in versions} >= set(experiments.names())
    assert len({version.run_id for version in versions}) == len(versions) == len(experiments.names()) + 1


# ---- killed ----


def test_kill_at_any_stage_leaves_the_run_to_the_next_command(
    experiments: Experiments, rows: dict[str, TrackedRun]
) -> None:
    """Until the next command a killed stage is RUNNING; with it the stage goes on, in the same row to the end."""
    seen = {stage: killed.statuses for stage, killed in experiments.kills.items()}
    assert seen["download"] == seen["split"] == {}  # their work is no training, and has no row
    for position, stage in enumerate(STAGES):
        finished = dict.fromkeys(STAGES[:position], "FINISHED")
        assert seen[f"train_{stage}"] == {"": "RUNNING", **finished, stage: "RUNNING"}
    for stage in ("evaluate", "track"):
        assert seen[stage] == {"": "RUNNING", **dict.fromkeys(STAGES, "FINISHED")}
    run_id = rows[TEMP].run.info.run_id
    assert {killed.run_id for killed in experiments.kills.values() if killed.statuses} == {run_id}
    assert not rows[TEMP].run.data.tags.get("fakeface.last_words")


def test_next_command_says_what_was_killed(experiments: Experiments) -> None:
    (line,) = [line for line in experiments.listed_after_kill.splitlines() if TEMP in line]
    assert "failed" in line
    assert experiments.kills["train_stage3"].run_id in line


def test_killed_experiment_goes_on_although_its_folder_is_gone(experiments: Experiments) -> None:
    printed = experiments.kills["evaluate"].printed  # by the command after the kill in stage 3
    assert f"stage3: goes on after epoch 1 of {EPOCHS}" in printed
    assert "stage3 epoch 1/" not in printed
    assert list((experiments.project.folder / ".fakeface/training").iterdir()) == []


# ---- from one tool to the other ----


def test_dvc_and_mlflow_tell_the_same_numbers(experiments: Experiments, rows: dict[str, TrackedRun]) -> None:
    for name, row in rows.items():
        shown = experiments.shown[name]
        metrics = shown["metrics"]["reports/metrics.json"]["data"]
        for section, prefix in (("generalization", "generalization"), *_sources(metrics)):
            for metric, value in _at(metrics, section).items():
                if isinstance(value, (int, float)):
                    assert row.run.data.metrics[f"{prefix}_{metric}"] == pytest.approx(value), metric
        assert float(row.run.data.params["lr"]) == shown["params"]["params.yaml"]["data"]["lr"]
    metrics = experiments.project.read_json("reports/metrics.json")
    assert metrics["generalization"] == _at(
        experiments.shown[experiments.workspace_name]["metrics"]["reports/metrics.json"]["data"], "generalization"
    )


def _sources(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(f"sources/{source}", f"source_{source}") for source in metrics["sources"]]


def _at(nested: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    for key in path.split("/"):
        nested = nested[key]
    return nested


def test_dvcs_plots_have_the_points_of_mlflows_curves(experiments: Experiments, rows: dict[str, TrackedRun]) -> None:
    names = [experiments.sweep["0.001"], experiments.sweep["0.0001"]]
    printed = experiments.project.done("dvc", "plots", "diff", *names, "--json", "--split", "--out", "plots")
    (loss,) = json.loads(printed)["data"]["loss"]
    drawn = {
        (point["rev"], point["filename::field"], int(point["epoch"])): float(point["dvc_inferred_y_value"])
        for point in loss["anchor_definitions"]["<DVC_METRIC_DATA>"]
    }
    expected = {
        (name, f"{stage}.csv::{metric}", epoch): value
        for name in names
        for stage in STAGES
        for metric in ("loss", "val_loss")
        for epoch, value in experiments.rows.curve(rows[name].stages[stage], metric).items()
    }
    assert drawn == pytest.approx(expected)


def test_run_description_ends_in_the_command_that_brings_the_experiment_back(
    experiments: Experiments, rows: dict[str, TrackedRun], tmp_path: Path
) -> None:
    name = experiments.sweep["0.0001"]
    line = rows[name].run.data.tags["mlflow.note.content"].strip().splitlines()[-1].strip()
    assert line == f"dvc exp apply {name}"
    project = experiments.project.copy_to(tmp_path / "project", without=("mlartifacts", "mlflow.db"))
    project.done(*line.split())
    assert project.params()["lr"] == 0.0001
    shown = experiments.shown[name]["metrics"]["reports/metrics.json"]["data"]
    assert project.read_json("reports/metrics.json") == shown


def test_fakeface_runs_finds_the_run_by_dvcs_name(experiments: Experiments, rows: dict[str, TrackedRun]) -> None:
    listed = experiments.project.done("fakeface", "runs", TEMP)
    assert f"/runs/{rows[TEMP].run.info.run_id}  synthetic sample\n" in listed


# ---- compared in MLflow's page ----

DRAWN = """
    const plots = [...document.querySelectorAll('.js-plotly-plot')].map(plot => ({
        axes: ['xaxis', 'yaxis'].map(axis => plot._fullLayout[axis] && plot._fullLayout[axis].title.text),
        traces: plot.data.map(trace => ({name: trace.name, text: trace.text, x: trace.x, y: trace.y})),
    }));
    const axes = [...document.querySelectorAll('.parcoords .label, .parcoords .axis-label-tooltip text')]  // if cut
        .map(name => name.textContent);
    const scatter = plots.find(plot => plot.axes[0] === 'lr');
    const curves = plots.filter(plot => plot.axes[0] === 'Step' && plot.traces.length);
    return scatter && curves.length >= 3 && axes.includes('lr') && {scatter, curves, axes};
"""


@contextmanager
def _served(project: Project, printed: Path) -> Iterator[str]:
    """`make ui`; gives the address of the comparison that it prints."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with project.started(printed, "fakeface", "ui", "--port", str(port)) as process:
        try:
            while "startup complete" not in printed.read_text():
                assert process.poll() is None, printed.read_text()
                time.sleep(0.1)
            (address,) = re.findall("The experiments compared: (.+)", printed.read_text())
            yield address
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def test_comparison_page_shows_accuracy_against_learning_rate_and_curves(
    experiments: Experiments, rows: dict[str, TrackedRun], tmp_path: Path
) -> None:
    with browser(tmp_path) as window, _served(experiments.project, tmp_path / "printed.txt") as address:
        assert address.split("#")[1] in experiments.project.done("fakeface", "runs")
        window.open(address)
        drawn = window.wait_for(DRAWN, tmp_path / "comparison.png")
    assert drawn["scatter"]["axes"] == ["lr", ACCURACY]
    (points,) = drawn["scatter"]["traces"]
    place = {name: (float(x), y) for name, x, y in zip(points["text"], points["x"], points["y"], strict=True)}
    for rate, name in experiments.sweep.items():
        assert place[name] == (float(rate), pytest.approx(rows[name].run.data.metrics[ACCURACY]))
    assert {"lr", ACCURACY} <= set(drawn["axes"])  # of the parallel coordinates
    for name in experiments.sweep.values():
        curves = [trace["y"] for plot in drawn["curves"] for trace in plot["traces"] if trace["name"] == name]
        for stage in STAGES:
            expected = list(experiments.rows.curve(rows[name].run, f"{stage}/val_accuracy").values())
            assert any(curve == pytest.approx(expected) for curve in curves)
