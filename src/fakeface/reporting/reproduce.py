"""What was run and how to repeat it, from reports/run.json, in words and commands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from fakeface.constants import STAGES

_SET_BY_HAND = ("lr", "seed", "image_size", "batch_size", "epochs", "steps_per_epoch", "validation_steps")
_OF_STAGES = ("augmentation", "batch_size", "epochs")


def list_recipe_settings(run: Mapping[str, Any]) -> dict[str, str]:
    """Return {setting: value} of the recipe that was run, without what `list_stage_settings` tells."""
    parameters = run["parameters"]
    recipe = parameters["recipes"][parameters["recipe"]]
    return {name: _format_value(value) for name, value in recipe.items() if name not in _OF_STAGES}


def list_stage_settings(run: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return {setting: its value in each stage}, the augmentation last."""
    stages, parameters = run["stages"], run["parameters"]
    names = list(dict.fromkeys(name for stage in STAGES for name in stages[stage]))
    augmentation = parameters["recipes"][parameters["recipe"]]["augmentation"]
    return {name: [_format_value(stages[stage][name]) for stage in STAGES] for name in names} | {
        "augmentation": [_describe_steps(augmentation[stage]) for stage in STAGES]
    }


def _describe_steps(steps: Mapping[str, Mapping[str, Any]]) -> str:
    said = []
    for name, arguments in steps.items():
        inside = ", ".join(f"{key} {_format_value(value)}" for key, value in arguments.items())
        said.append(f"{name} ({inside})" if inside else name)
    return "; ".join(said) or "none"


def _format_value(value: Any) -> str:
    if value is None:
        return "all images"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " to ".join(map(str, value)) if isinstance(value, list) else f"{value}"


def list_commands(run: Mapping[str, Any]) -> list[str]:
    """Return the commands that make this result again, in a shell in the project's folder."""
    parameters = run["parameters"]
    changes = {name: parameters[name] for name in _SET_BY_HAND if parameters.get(name) is not None}
    for stage, overrides in parameters["stages"].items():
        changes |= {f"stages.{stage}.{name}": value for name, value in overrides.items() if value is not None}
    if parameters["data"].get("reencode"):
        changes["data.reencode"] = json.dumps(parameters["data"]["reencode"]).replace('"', "").replace(" ", "")
    settings = " ".join(f"{name}={value}" for name, value in changes.items())
    data = "" if parameters["data"]["root"] == "data" else " DATA=FOLDER"
    commands = [f"git checkout {run['commit']}"] if run["commit"] else []
    if run["experiment"]:
        commands.append(f"dvc exp apply {shlex.quote(run['experiment'])}   # where DVC still has the experiment; or:")
    return [*commands, f"make repro{data} RECIPE={parameters['recipe']} SET={shlex.quote(settings)}"]
