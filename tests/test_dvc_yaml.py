"""dvc.yaml names the code that decides a stage's outputs, so that no change of it goes unnoticed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from fakeface.config.params import Params

PROJECT = Path(__file__).parents[1]
LIBRARY = PROJECT / "src" / "fakeface"
STAGES = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
# Reads, writes, checks or reports; decides no output. Not so params, which would rerun all at every key: see dvc.yaml.
DECIDES_NOTHING = {"errors", "progress", "params", "tables", "disk", "tracking", "fetch", "transfer"} | {
    "cluster",
    "processes",
    "python_calls",
    "stage_inputs",
    "stopping",
    "training_state",
}
# Imported for a name alone: crops, steps and collections are checked by params, the columns of a history by evaluate.
ONLY_A_NAME = {
    "download": {"preprocessing", "augment_steps"},
    "split": {"archives", "augment_steps", "image_files", "sources"},
    "audit": {"archives", "augment_steps", "decoded", "image_files", "sources"},
    "train": {"preprocessing", "sources"},
    "evaluate": {
        "distribution",
        "preprocessing",
        "sources",
        "training",
        "training_callbacks",
        "whole_batch_norm",
        "augment",
        "augment_arrays",
        "augment_steps",
        "augment_tensors",
    },
}


def imported(path: Path, found: set[str]) -> set[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("fakeface"):
            continue
        parts = (node.module or "").split(".")
        names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        for name in names:
            file = LIBRARY / f"{name}.py"
            if file.exists() and name not in found:
                found.add(name)
                imported(file, found)
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_the_code_that_it_runs(stage: str) -> None:
    script = next(Path(word) for word in STAGES[stage]["cmd"].split() if word.endswith(".py"))
    runs = imported(PROJECT / script, set()) - DECIDES_NOTHING - ONLY_A_NAME.get(stage.split("_", maxsplit=1)[0], set())
    deps = STAGES[stage]["deps"]
    named = {Path(dep).stem for dep in deps if dep.startswith("src/fakeface/") and dep.endswith(".py")}
    assert runs == named
    assert script.as_posix() in deps


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_parameters_that_exist(stage: str) -> None:
    content = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    for key in STAGES[stage]["params"]:
        value = content
        for part in key.replace("${recipe}", content["recipe"]).split("."):
            assert part in value, key
            value = value[part]


def test_every_parameter_belongs_to_a_stage_or_judges_its_result() -> None:
    named = {key.split(".")[0] for stage in STAGES.values() for key in stage["params"]}
    assert set(Params.model_fields) - named == {"promote"}
