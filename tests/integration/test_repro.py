"""One `dvc repro` in a fresh project: what it makes, and what it says of it."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import h5py
import pytest
import yaml

from fakeface.constants import STAGES
from fakeface.tracking.run_identity import identify_run
from tests.integration.mlflow_runs import TrackedRun, TrackedRuns
from tests.integration.small_project import (
    CAMERAS,
    EPOCHS,
    GENERATORS,
    HALF_IMAGE,
    IMAGES,
    LETTER,
    Project,
    Reproduced,
    read_table,
)
from tests.support.faulty_http_server import serving

pytestmark = pytest.mark.slow
NOTE = "synthetic sample"
HELDOUT = {"camera_4", "generator_1", "generator_3"}


def test_dvc_repro_fetches_data(reproduced: Reproduced) -> None:
    def files(name: str) -> dict[str, bytes]:
        folder = reproduced.project.folder / name
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert files("data") == files("sample")


def test_dvc_repro_makes_every_output(reproduced: Reproduced) -> None:
    folder = reproduced.project.folder
    stages = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
    outs = [out for stage in stages.values() for out in (*stage.get("outs", []), *stage.get("metrics", []))]
    named = [out if isinstance(out, str) else next(iter(out)) for out in outs]
    assert len(named) >= len(stages)
    assert [out for out in named if not (folder / out).exists()] == []


def test_dvc_repro_leaves_git_only_dvcs_files(reproduced: Reproduced) -> None:
    assert sorted(line.split()[-1] for line in reproduced.git_status) == ["data.dvc", "dvc.lock"]


def test_dvc_repro_keeps_nothing_of_finished_trainings(reproduced: Reproduced) -> None:
    assert [path for path in (reproduced.project.folder / ".fakeface/training").iterdir() if path.is_dir()] == []


def test_dvc_repro_again_runs_nothing(reproduced: Reproduced) -> None:
    before = reproduced.project.outputs()
    printed = reproduced.project.done("dvc", "repro")
    assert re.findall("Running stage '(.+)'", printed) == ["fingerprint", "track"]
    assert "Nothing new for MLflow" in printed
    look = "import runpy, sys; runpy.run_path('pipeline/track.py', run_name='__main__'); print(sorted(sys.modules))"
    loaded = reproduced.project.done("python", "-c", look)
    assert "'fakeface.tracking.run_index'" in loaded
    assert "'mlflow'" not in loaded  # which takes seconds to load
    assert reproduced.project.outputs() == before


@pytest.mark.system
@pytest.mark.parametrize("stage", ["download", "split"])
def test_stages_without_a_run_fail_stale_runs_too(copied: Project, stage: str) -> None:
    sign = copied.folder / ".fakeface/alive/somebody.jsonl"
    who = {
        "experiment": identify_run(copied.folder, {}).as_json(),
        "stage": "stage1",
        "work": "stage1",
        "store": "local",
    }
    sign.write_text(json.dumps({**who, "pid": "1", "host": "here", "last": "epoch 1"}))
    copied.done("python", f"pipeline/{stage}.py")
    assert not sign.exists()
    found = [child for children in TrackedRuns(copied).children.values() for child in children]
    (failed,) = [child for child in found if child.info.status == "FAILED"]
    assert failed.data.tags["fakeface.last_words"] == "Killed without a word after epoch 1 (process 1 on here)."


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"evaluate.pairs": {"mine": {"real": ["camera_4"], "fake": ["generator_1"]}}}, "evaluate"),
        ({"recipe": "seed"}, "train_stage1"),
    ],
)
def test_dvc_repro_after_a_change_starts_at_what_depends_on_it(
    copied: Project, changes: dict[str, Any], first: str
) -> None:
    copied.change_params(changes)
    plan = copied.done("dvc", "repro", "--dry")
    always, *running = re.findall("Running stage '(.+)'", plan)
    assert (always, running[0]) == ("fingerprint", first)
    unchanged = set(re.findall("Stage '(.+)' didn't change", plan))
    stages = list(yaml.safe_load((copied.folder / "dvc.yaml").read_text())["stages"])
    before = set(stages[: stages.index(first)]) - {always}
    assert before <= unchanged
    assert not before & set(running)


def test_data_dvc_imports_one_archive_over_http(copied: Project) -> None:
    sample, packed = copied.folder / "sample", io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sample.rglob("*.png"):
            if path.name != "000.png":
                archive.write(path, f"faces/{path.relative_to(sample)}")
    with serving() as server:
        server.files["/faces.zip"] = packed.getvalue()
        (copied.folder / "data.dvc").write_text(f"deps:\n- path: {server.url}/faces.zip\nouts:\n- path: data\n")
        copied.done("dvc", "repro", "download")
    assert (copied.folder / "data").read_bytes() == packed.getvalue()
    collected = {row["path"] for row in read_table(copied.folder / "datasets/raw/manifest.csv")}
    assert collected == {path.relative_to(sample).as_posix() for path in sample.rglob("*.png")} - {
        f"{source}/000.png" for source in (*CAMERAS, *GENERATORS)
    }


def test_metrics_cover_the_heldout_sources(reproduced: Reproduced) -> None:
    overall = reproduced.metrics()["generalization"]
    for name in ("accuracy", "balanced_accuracy", "roc_auc", "average_precision"):
        assert 0 <= overall[name] <= 1
    assert overall["loss"] > 0
    assert overall["interval"]["accuracy"]["low"] <= overall["accuracy"] <= overall["interval"]["accuracy"]["high"]
    assert set(reproduced.metrics()["sources"]) == HELDOUT


def test_metrics_agree_with_scores(reproduced: Reproduced) -> None:
    metrics, scores = reproduced.metrics(), reproduced.table("reports/scores.csv")

    def accuracy(rows: list[dict[str, str]], stage: str, threshold: float) -> float:
        return sum((float(row[stage]) >= threshold) == (row["label"] == "fake") for row in rows) / len(rows)

    heldout = [row for row in scores if row["set"] == "heldout"]
    threshold = metrics["threshold"]
    assert metrics["generalization"]["accuracy"] == pytest.approx(accuracy(heldout, "stage3", threshold))
    for source in HELDOUT:
        of_source = [row for row in heldout if row["source"] == source]
        assert metrics["sources"][source]["accuracy"] == pytest.approx(accuracy(of_source, "stage3", threshold))
    in_a_pair = [row for row in heldout if row["source"] in ("camera_4", "generator_3")]
    assert metrics["pairs_pooled"]["accuracy"] == pytest.approx(accuracy(in_a_pair, "stage3", threshold))
    for stage in STAGES:
        own = [row for row in scores if row["set"] == stage]
        facts = _checkpoint(reproduced, stage)
        threshold = facts["calibration"]["threshold"]
        row = metrics["stages"][stage]
        assert row["test"]["accuracy"] == pytest.approx(accuracy(own, stage, threshold))
        assert row["heldout"]["accuracy"] == pytest.approx(accuracy(heldout, stage, threshold))
        for source in HELDOUT:
            of_source = [each for each in heldout if each["source"] == source]
            assert row["sources"][source]["accuracy"] == pytest.approx(accuracy(of_source, stage, threshold))
        for part in ("test", "test_after_last_stage", "heldout", "macro"):
            for name in ("accuracy", "balanced_accuracy", "roc_auc", "ece"):
                around = row[part]["interval"][name]
                assert around["low"] <= around["high"], f"{stage}, {part}, {name}"
                assert name == "ece" or around["low"] <= row[part][name] <= around["high"], f"{stage}, {part}, {name}"


def test_robustness_starts_at_the_unchanged_result_of_each_pair(reproduced: Reproduced) -> None:
    pairs, table = reproduced.metrics()["pairs"], reproduced.table("reports/robustness.csv")
    plain = {row["set"]: float(row["balanced_accuracy"]) for row in table if row["perturbation"] == "none"}
    macro = plain.pop("macro")
    # as few images as these are all in the table, in other batches than the evaluation's own
    assert plain == pytest.approx({name: row["balanced_accuracy"] for name, row in pairs.items()}, abs=1e-6)
    assert macro == pytest.approx(reproduced.metrics()["pairs_macro"]["balanced_accuracy"])
    assert {"jpeg 75", "blur 1", "scale 0.5", "grey"} < {row["perturbation"] for row in table}
    assert set(reproduced.metrics()["robustness"]) == {row["perturbation"] for row in table}


def test_counts_agree_from_files_to_metrics(reproduced: Reproduced) -> None:
    metrics, split = reproduced.metrics(), reproduced.project.read_json("reports/data/split.json")
    for label in ("real", "fake"):
        counted = split["roles"][label]
        assert metrics["generalization"][f"n_{label}"] == counted["heldout"]["heldout"]
        for stage in STAGES:
            assert metrics["stages"][stage]["test"][f"n_{label}"] == counted[stage]["test"]
    for source in split["sources"].values():
        placed = sum(sum(parts.values()) for parts in source["roles"].values())
        assert source["found"] == placed + source["unusable"] + source["set_aside"] + source["unused"]
    assert split["images"] == sum(source["found"] for source in split["sources"].values()) - split["unusable"]
    assert split["sources"]["camera_4"]["found"] == IMAGES


def test_data_report_equals_the_pipelines_audit(copied: Project) -> None:
    printed = copied.done("fakeface", "data", "report")
    assert "0 leaks" in printed
    assert "reports/data/audit.html" in printed
    assert "up to date" in copied.done("dvc", "status", "audit")


def test_split_gives_stages_no_heldout_source_but_the_shared_one(reproduced: Reproduced) -> None:
    roles = reproduced.project.read_json("reports/data/split.json")["sources"]
    assert set(roles["camera_4"]["roles"]) == set(roles[GENERATORS[2]]["roles"]) == {"heldout"}


def test_split_counts_and_names_what_is_no_image(reproduced: Reproduced) -> None:
    reasons = {row["path"]: row["reason"] for row in reproduced.table("reports/data/rejected.csv")}
    assert set(reasons) == {LETTER, HALF_IMAGE}
    assert "not an image" in reasons[LETTER]
    assert "truncated" in reasons[HALF_IMAGE]
    split = reproduced.project.read_json("reports/data/split.json")
    assert (split["unusable"], split["sources"]["camera_1"]["unusable"]) == (2, 1)
    assert "2 unusable" in reproduced.printed
    for role in (*STAGES, "heldout"):
        kept = {row["path"] for row in reproduced.table(f"datasets/split/{role}/manifest.csv")}
        assert kept
        assert not kept & set(reasons)


def test_results_of_the_sample_say_so(reproduced: Reproduced, row: TrackedRun) -> None:
    assert reproduced.metrics()["note"] == NOTE
    assert NOTE in reproduced.printed
    assert row.run.data.tags["data.note"] == NOTE
    for stage in STAGES:
        assert _checkpoint(reproduced, stage)["note"] == NOTE


def _checkpoint(reproduced: Reproduced, stage: str) -> Any:
    with h5py.File(reproduced.project.folder / "models" / f"{stage}.h5") as file:
        facts = json.loads(file.attrs["fakeface"])
    calibration = facts["calibration"]
    return {**facts, "calibration": json.loads(calibration) if isinstance(calibration, str) else calibration}


def test_figures_are_svg_with_the_note(reproduced: Reproduced) -> None:
    figures = sorted((reproduced.project.folder / "reports/figures").glob("*.svg"))
    assert {"curves_stage1.svg", "confusion.svg", "roc.svg"} <= {path.name for path in figures}
    for path in figures:
        drawing = ElementTree.parse(path).getroot()
        assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(list(drawing.iter("{http://www.w3.org/2000/svg}path"))) > 3, f"{path.name} is blank"
        assert "synthetic sample" in path.read_text(encoding="utf-8")


def test_dvc_shows_plots_and_metrics(reproduced: Reproduced, copied: Project) -> None:
    page = copied.folder / "plots"
    copied.done("dvc", "plots", "show", "--out", str(page))
    html = (page / "index.html").read_text()
    for title in ("Loss by epoch", "Accuracy by epoch", "ROC on the held-out", "Confusion matrix", "curves_stage1.svg"):
        assert title in html
    shown = json.loads(copied.done("dvc", "metrics", "show", "--json"))
    assert shown[""]["data"]["reports/metrics.json"]["data"] == reproduced.metrics()


def test_summary_reads_the_evaluation(reproduced: Reproduced) -> None:
    table = reproduced.project.done("fakeface", "summary")
    assert NOTE in table
    for name in (*STAGES, *HELDOUT):
        assert name in table


def test_mlflow_has_one_run_with_a_child_for_each_stage(rows: TrackedRuns, row: TrackedRun) -> None:
    assert len(rows.parents) == 1
    assert set(rows.children) == {row.run.info.run_id}
    assert set(row.stages) == set(STAGES)
    assert {run.info.status for run in (row.run, *row.stages.values())} == {"FINISHED"}
    assert {run.data.tags["progress"] for run in row.stages.values()} == {f"epoch {EPOCHS} of {EPOCHS}"}


def test_mlflow_has_every_parameter(reproduced: Reproduced, row: TrackedRun) -> None:
    params = reproduced.project.params()
    del params["data"]["profiles"]  # of these the tags say which was taken
    del params["promote"]  # judges a result, and makes none
    del params["report"]  # shows a result, and makes none
    params["recipes"] = {"default": params["recipes"]["default"]}
    expected = dict(_leaves(params))
    assert expected["lr"] == 0.001
    for run in (row.run, *row.stages.values()):
        logged = {name: yaml.safe_load(value) for name, value in run.data.params.items()}
        assert {name: logged.get(name, "missing") for name in expected} == expected


def _leaves(nested: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in nested.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def test_mlflow_has_the_curves_of_every_epoch(reproduced: Reproduced, rows: TrackedRuns, row: TrackedRun) -> None:
    for stage in STAGES:
        history = reproduced.table(f"reports/history/{stage}.csv")
        assert [int(epoch["epoch"]) for epoch in history] == list(range(1, EPOCHS + 1))
        for metric in ("loss", "accuracy", "val_loss", "val_accuracy", "lr"):
            expected = {int(epoch["epoch"]): pytest.approx(float(epoch[metric])) for epoch in history}
            assert rows.curve(row.stages[stage], metric) == expected
            assert rows.curve(row.run, f"{stage}/{metric}") == expected


def test_mlflow_has_the_numbers_of_metrics_json(reproduced: Reproduced, row: TrackedRun) -> None:
    logged, metrics = row.run.data.metrics, reproduced.metrics()
    for name in ("accuracy", "balanced_accuracy", "roc_auc", "average_precision", "loss", "n_real", "n_fake"):
        assert logged[f"generalization_{name}"] == pytest.approx(metrics["generalization"][name])
    for source in HELDOUT:
        assert logged[f"source_{source}_accuracy"] == pytest.approx(metrics["sources"][source]["accuracy"])
    for stage in STAGES:
        assert logged[f"{stage}_test_accuracy"] == pytest.approx(metrics["stages"][stage]["test"]["accuracy"])
        validation = reproduced.project.read_json(f"reports/validation/{stage}.json")
        assert logged[f"{stage}_validation_macro_roc_auc"] == pytest.approx(validation["macro"]["roc_auc"])


def test_mlflow_has_the_figures(rows: TrackedRuns, row: TrackedRun) -> None:
    files = {file.path for file in rows.client.list_artifacts(row.run.info.run_id, "evaluation")}
    assert {"evaluation/roc.svg", "evaluation/curves_stage1.svg", "evaluation/metrics.json"} <= files
    assert {"evaluation/report.html", "evaluation/run.json"} <= files
    data = {file.path for file in rows.client.list_artifacts(row.run.info.run_id, "data")}
    assert {"data/audit.html", "data/audit.json", "data/split.json", "data/rejected.csv"} <= data


def test_run_leads_to_the_bytes_that_made_it(reproduced: Reproduced, row: TrackedRun) -> None:
    lock = yaml.safe_load((reproduced.project.folder / "dvc.lock").read_text())["stages"]
    outs = {out["path"]: out["md5"] for stage in lock.values() for out in stage.get("outs", [])}
    tags = row.run.data.tags
    assert tags["data.raw.md5"] == outs["datasets/raw"]
    assert tags["split.heldout.md5"] == outs["datasets/split/heldout"]
    for stage in STAGES:
        of_stage = row.stages[stage]
        assert tags[f"checkpoint.{stage}.md5"] == outs[f"models/{stage}.h5"] == of_stage.data.tags["checkpoint.md5"]
        assert tags[f"fakeface.child.{stage}"] == of_stage.info.run_id
