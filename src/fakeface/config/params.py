"""params.yaml as typed, frozen objects; an unknown key or a wrong type is an error that names the key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    model_validator,
)

from fakeface.config.augmentation_operations import check_steps
from fakeface.config.data_params import Data, Positive, Share, SourceName
from fakeface.config.section import _Section
from fakeface.constants import STAGES
from fakeface.system.errors import UserError

Batch = Annotated[int, Field(ge=2)]  # batch norm and a balanced batch need two
Rate = Annotated[float, Field(gt=0, le=1)]


def _check_stage_names(section: str, names: Iterable[str]) -> None:
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        raise ValueError(f"{section}.{unknown[0]} is no stage; there are {', '.join(STAGES)}")


class ReduceLr(_Section):
    """Keras' ReduceLROnPlateau."""

    monitor: Literal["val_loss", "val_accuracy"]
    factor: Annotated[float, Field(gt=0, lt=1)]
    patience: Annotated[int, Field(ge=0)]
    min_lr: Annotated[float, Field(ge=0)]


class StageOverrides(_Section):
    """What one stage does differently; None keeps the top-level value."""

    lr: Rate | None = None
    epochs: Positive | None = None
    batch_size: Batch | None = None
    steps_per_epoch: Positive | None = None
    validation_steps: Positive | None = None


class Recipe(_Section):
    """A network and the way it is trained."""

    network: Literal["seed", "residual"]
    channels: list[Positive]
    batch_size: Batch
    epochs: Mapping[str, Positive]
    batch_norm_momentum: Annotated[float, Field(gt=0, lt=1)]
    schedule: Literal["plateau", "cosine", "constant"]
    weight_decay: Annotated[float, Field(ge=0, le=10)]
    replay: bool
    balance: Literal["none", "source"]
    flip_tta: bool
    calibrate: bool
    augmentation: Mapping[str, Mapping[str, Mapping[str, Any]]]

    @model_validator(mode="after")
    def _check_stages_and_steps(self) -> Recipe:
        _check_stage_names("augmentation", self.augmentation)
        _check_stage_names("epochs", self.epochs)
        for stage in STAGES:
            if stage not in self.epochs:
                raise ValueError(f"epochs.{stage} is missing; write how many epochs it has")
            if stage not in self.augmentation:
                raise ValueError(f"augmentation.{stage} is missing; write {{}} for none")
            try:
                check_steps(self.augmentation_steps(stage), f"augmentation.{stage}")
            except UserError as error:
                raise ValueError(str(error).removesuffix(".")) from None
        return self

    @model_validator(mode="after")
    def _check_channels(self) -> Recipe:
        count = len(self.channels)
        if self.network == "seed" and count != 3:
            raise ValueError(f"channels needs 3 numbers, one for each convolution of the network seed, and has {count}")
        if self.network != "seed" and count < 2:
            raise ValueError(f"channels needs 2 numbers or more, the first layer's and each unit's, and has {count}")
        return self

    def augmentation_steps(self, stage: str) -> list[dict[str, Any]]:
        """Return a stage's steps in their order, each {"op": name, argument: value, …}."""
        return [{"op": name, **arguments} for name, arguments in self.augmentation[stage].items()]


class Pair(_Section):
    """Real sources against fake ones; `name` is a held-out source, `name/test` a training source's test part."""

    real: Annotated[list[str], Field(min_length=1)]
    fake: Annotated[list[str], Field(min_length=1)]


class Evaluate(_Section):
    """What is measured on the held-out set."""

    sources: list[SourceName] | None
    bootstrap: Annotated[int, Field(ge=0, le=100_000)]
    robustness_images: Annotated[int, Field(ge=0)]
    pairs: Mapping[SourceName, Pair]


class Report(_Section):
    """What the page of the result shows."""

    mistakes: Annotated[int, Field(ge=0, le=12)]


class Tracking(_Section):
    """Where MLflow keeps the runs."""

    experiment: Annotated[str, Field(min_length=1)]


class Promote(_Section):
    """What a model must reach on the held-out set to be promoted."""

    metric: Literal["balanced_accuracy", "accuracy", "roc_auc", "average_precision"]
    at_least: Share


class StageConfig(_Section):
    """The settings of one stage after overrides."""

    lr: float
    epochs: int
    batch_size: int
    steps_per_epoch: int | None
    validation_steps: int | None

    def steps(self, images: int) -> int:
        """Return the steps of an epoch over so many training images."""
        return self.steps_per_epoch or max(1, images // self.batch_size)


class Params(_Section):
    """The whole of params.yaml."""

    lr: Rate
    recipe: str
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    image_size: Annotated[int, Field(ge=32, le=1024, multiple_of=2)]
    batch_size: Batch | None
    validation_batch_size: Positive
    epochs: Positive | None
    steps_per_epoch: Positive | None
    validation_steps: Positive | None
    optimizer: Literal["adam"]
    loss: Literal["sparse_categorical_crossentropy"]
    reduce_lr: ReduceLr
    device: Literal["auto", "cpu", "gpu"]
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
    deterministic: bool
    stages: Mapping[str, StageOverrides]
    recipes: Mapping[SourceName, Recipe]
    data: Data
    evaluate: Evaluate
    report: Report
    tracking: Tracking
    promote: Promote

    @model_validator(mode="after")
    def _check_recipe(self) -> Params:
        if self.recipe not in self.recipes:
            raise ValueError(f"recipe is '{self.recipe}'; known are {', '.join(self.recipes)}")
        _check_stage_names("stages", self.stages)
        missing = [stage for stage in STAGES if stage not in self.stages]
        if missing:
            raise ValueError(f"stages.{missing[0]} is missing; write {{}} for no overrides")
        return self

    def get_recipe(self) -> Recipe:
        """Return the recipe that `recipe` names."""
        return self.recipes[self.recipe]

    def get_stage_config(self, stage: str) -> StageConfig:
        """Return one stage's settings: its overrides, where it has none the top level, and then the recipe."""
        recipe = self.get_recipe()
        chosen: dict[str, Any] = {"batch_size": recipe.batch_size, "epochs": recipe.epochs[stage]}
        for section in (self, self.stages[stage]):
            given = {name: getattr(section, name) for name in StageConfig.model_fields}
            chosen |= {name: value for name, value in given.items() if value is not None}
        return StageConfig.model_validate({name: chosen.get(name) for name in StageConfig.model_fields})


def load_params(path: Path) -> Params:
    """Read and check params.yaml.

    Raises:
        UserError: the file is missing or no YAML, or a key is unknown, missing or of the wrong type or range.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run the command in the project's folder.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}; correct that line.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must be a mapping of keys to values; it holds {type(content).__name__}.")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError(_describe_first_problem(path, error)) from None


def list_experiment_parameters(params: Params) -> dict[str, Any]:
    """Return the parameters that describe one experiment: the chosen recipe, and the other settings, nested."""
    everything = params.model_dump(mode="json")
    everything["recipes"] = {params.recipe: everything["recipes"][params.recipe]}
    everything["data"].pop("profiles")
    everything.pop("promote")  # judges a result, and makes none
    everything.pop("report")  # shows a result, and makes none
    return everything


def _describe_first_problem(path: Path, error: ValidationError) -> str:
    # an unknown key first: where a key is misspelt, the right one is missing too
    problem = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in problem["loc"] if not str(part).startswith("["))
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        return f"{path}: there is no parameter '{key}'; check its spelling{_suggest_key(problem['loc'])}."
    if kind == "missing":
        return f"{path}: the parameter '{key}' is missing; add it."
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(value, dict | BaseModel):
        return f"{path}: {key + ': ' if key else ''}{message}; correct it and run again."
    hint = ""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        hint = f" (YAML reads {value} as text: write {float(value)!r})"
    return f"{path}: {key} is {value!r}, and {message[0].lower()}{message[1:]}{hint}; correct it and run again."


def _suggest_key(location: tuple[int | str, ...]) -> str:
    from difflib import get_close_matches

    sections: list[type[BaseModel]] = [Params, *_Section.__subclasses__()]
    known = {name for section in sections for name in section.model_fields}
    close = get_close_matches(str(location[-1]), sorted(known), n=1)
    return f", perhaps '{close[0]}' is meant" if close else ""
