"""dvc.yaml names the code that decides a stage's outputs, so that no change of it goes unnoticed."""

from __future__ import annotations

import pytest
import yaml

from fakeface.config.params import Params
from tests.support.imports import SOURCE, imported_modules
from tests.support.project import PROJECT

STAGES = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
# Only reads, writes, checks or reports. All of tracking: what it imports in turn decides no output of a stage either.
DECIDES_NOTHING = ("fakeface/tracking/", "fakeface/system/")
# Imported for a type alone (the crop that params.yaml names), or to say and note what is the same whatever comes of it.
FOR_A_NAME = {
    "images/preprocessing.py": {"download", "train_stage1", "train_stage2", "train_stage3", "evaluate", "report"},
    "training/resume.py": {"evaluate"},  # removes what finished trainings have kept
}
RUNS_EVERY_TIME = {name for name, stage in STAGES.items() if stage.get("always_changed")}


def find_deciding_modules(stage: str) -> set[str]:
    """Return the files of fakeface, relative to its folder, that decide what the stage's script writes."""
    script = next(word for word in STAGES[stage]["cmd"].split() if word.endswith(".py"))
    modules = imported_modules(PROJECT / script, not_beyond=DECIDES_NOTHING)
    names = {path.relative_to(SOURCE).as_posix() for path in modules if path.name != "__init__.py"}
    decide = {name.removeprefix("fakeface/") for name in names if not name.startswith(DECIDES_NOTHING)}
    return {name for name in decide if stage not in FOR_A_NAME.get(name, ())}


@pytest.mark.parametrize("stage", sorted(set(STAGES) - RUNS_EVERY_TIME))
def test_stage_depends_on_the_code_that_it_runs(stage: str) -> None:
    deps = [dep.removeprefix("src/fakeface/") for dep in STAGES[stage]["deps"] if dep.startswith("src/fakeface/")]
    modules = find_deciding_modules(stage)
    covered = {dep: {name for name in modules if name == dep or name.startswith(f"{dep}/")} for dep in deps}
    assert modules - set().union(*covered.values()) == set()
    assert [dep for dep, names in covered.items() if not names and dep != "system/archives.py"] == []
    assert any(dep in STAGES[stage]["cmd"] for dep in STAGES[stage]["deps"] if dep.startswith("pipeline/"))


def test_stages_that_run_every_time() -> None:
    assert {"fingerprint", "track"} == RUNS_EVERY_TIME


def test_dependencies_exist_in_the_repository() -> None:
    for stage in STAGES.values():
        for dep in stage.get("deps", []):
            if dep.startswith(("src/", "pipeline/", "requirements/")):
                assert (PROJECT / dep).exists(), dep


@pytest.mark.parametrize("stage", ["split", "train_stage1", "train_stage2", "train_stage3"])
def test_versions_of_libraries_rerun_what_they_decide(stage: str) -> None:
    assert "requirements/cpu.txt" in STAGES[stage]["deps"]


@pytest.mark.parametrize("stage", ["train_stage1", "train_stage2", "train_stage3", "evaluate"])
def test_processor_reruns_what_it_computes(stage: str) -> None:
    assert "datasets/processor.json" in STAGES[stage]["deps"]


def test_report_settings_rerun_no_evaluation() -> None:
    assert "report" not in STAGES["evaluate"]["params"]
    assert "report" in STAGES["report"]["params"]


def test_scripts_are_thin() -> None:
    for script in (PROJECT / "pipeline").glob("*.py"):
        lines = [line.strip() for line in script.read_text(encoding="utf-8").splitlines()]
        code = [line for line in lines if line and not line.startswith(("import ", "from ", "#", '"""'))]
        assert len(code) <= 25, script.name


@pytest.mark.parametrize("stage", STAGES)
def test_stage_parameters_exist(stage: str) -> None:
    content = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    for key in STAGES[stage].get("params", []):
        value = content
        for part in key.replace("${recipe}", content["recipe"]).split("."):
            assert part in value, key
            value = value[part]


def test_every_parameter_belongs_to_a_stage_or_to_promotion() -> None:
    named = {key.split(".")[0] for stage in STAGES.values() for key in stage.get("params", [])}
    assert set(Params.model_fields) - named == {"promote"}
