"""The model that a pipeline run registers, and how it scores without fakeface."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from typing import Any

import h5py
import pytest

from tests.integration.mlflow_runs import TrackedRun, TrackedRuns
from tests.integration.small_project import Project, Reproduced

pytestmark = pytest.mark.slow
NOTE = "synthetic sample"
HELDOUT = {"camera_4", "generator_1", "generator_3"}


def _checkpoint(reproduced: Reproduced, stage: str) -> Any:
    with h5py.File(reproduced.project.folder / "models" / f"{stage}.h5") as file:
        facts = json.loads(file.attrs["fakeface"])
    calibration = facts["calibration"]
    return {**facts, "calibration": json.loads(calibration) if isinstance(calibration, str) else calibration}


LOAD = """
import sys
sys.modules["fakeface"] = None  # as on a machine without it
import mlflow, numpy
images = numpy.load(sys.argv[1])
mlflow.pyfunc.load_model("models:/fakeface@champion").predict(images).to_csv(sys.argv[2], index=False)
"""


def test_champion_scores_without_fakeface_as_the_pipeline_does(copied: Project, reproduced: Reproduced) -> None:
    copied.change_params({"promote.at_least": 0.3})
    promoted = copied.done("fakeface", "promote")
    assert "now models:/fakeface@champion" in promoted
    assert f"held-out images ({NOTE})" in promoted
    store = f"sqlite:///{copied.folder / 'mlflow.db'}"
    elsewhere = replace(copied, environment={**copied.environment, "MLFLOW_TRACKING_URI": store})
    elsewhere.done("python", "-c", LOAD, "datasets/split/heldout/images.npy", "answers.csv")
    with (copied.folder / "answers.csv").open(newline="") as file:
        answers = list(csv.DictReader(file))
    paths = [row["path"] for row in reproduced.table("datasets/split/heldout/manifest.csv")]
    expected = {row["path"]: row for row in reproduced.table("reports/scores.csv") if row["set"] == "heldout"}
    calibration = _checkpoint(reproduced, "stage3")["calibration"]
    assert len(answers) == len(paths) == len(expected)
    for path, answer in zip(paths, answers, strict=True):
        score = float(answer["score"])
        assert score == pytest.approx(float(expected[path]["stage3"]), abs=1e-3)
        if not calibration["abstention_low"] <= score <= calibration["abstention_high"]:
            assert answer["prediction"] == ("fake" if score >= calibration["threshold"] else "real")


def test_model_is_registered_with_all_that_its_user_needs(
    reproduced: Reproduced, rows: TrackedRuns, row: TrackedRun
) -> None:
    from mlflow.models import Model

    version = rows.client.get_model_version_by_alias("fakeface", "candidate")
    assert version.run_id == row.run.info.run_id
    for said in (NOTE, "## Intended use", "## Results on held-out sources", "## Data", "## Limits"):
        assert said in version.description
    for source, result in reproduced.metrics()["sources"].items():
        line = f"| {source} | {result['label']} | {result['n']:,} | {result['accuracy']:.3f} |"
        assert line in version.description
    results, data = version.description.split("## Data")
    assert "| camera_4 | real |" in results
    assert "| generator_2 | fake | stage" in data  # what the training saw, and in which stage
    folder = reproduced.project.folder / "mlartifacts" / version.source.replace("models:/", "models/") / "artifacts"
    model = Model.load(folder)
    assert model.signature is not None
    assert model.signature.inputs.to_dict()[0]["tensor-spec"] == {"dtype": "uint8", "shape": (-1, 32, 32, 3)}
    assert model.signature.outputs.input_names() == ["score", "prediction"]
    example: Any = model.load_input_example(str(folder))
    assert example.shape == (1, 32, 32, 3)
    pinned = (reproduced.project.folder / "requirements" / "cpu.txt").read_text()
    needed = (folder / "requirements.txt").read_text()
    assert {"mlflow", "tensorflow-cpu", "numpy"} <= {line.split("==")[0] for line in needed.split()}
    assert [line for line in needed.split() if f"{line} " not in pinned] == []
