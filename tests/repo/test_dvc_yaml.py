"""dvc.yaml names the code that decides a stage's outputs, so that no change of it goes unnoticed."""

from __future__ import annotations

import pytest
import yaml

from fakeface.config.params import Params
from tests.support.project import PROJECT

STAGES = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


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
