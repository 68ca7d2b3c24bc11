"""Fit one stage, from the checkpoint before it to its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fakeface.config.params import Params
from fakeface.constants import STAGES
from fakeface.data.image_pool import ImagePool, pool_of
from fakeface.data.image_store import Store
from fakeface.inference.scoring import Scores, score_pool
from fakeface.metrics.calibration import Calibration, fit_calibration
from fakeface.metrics.classification import per_pair
from fakeface.models.checkpoints import CheckpointFacts
from fakeface.system.errors import UserError
from fakeface.training.fit import FitResult, fit_stage
from fakeface.training.resume import SavedTraining

if TYPE_CHECKING:
    import tensorflow as tf

    from fakeface.training.callbacks import EpochListener
    from fakeface.training.distributed.strategy import Distribution


@dataclass(frozen=True)
class TrainedStage:
    """A trained network, what its checkpoint says of it, and `validation_metrics` of it."""

    model: tf.keras.Model
    facts: CheckpointFacts
    fit: FitResult
    validation: dict[str, Any]


def train_stage(
    params: Params,
    stage: str,
    stores: Mapping[str, Store],
    previous: Path | None,
    precision: str,
    listeners: Sequence[EpochListener] = (),
    saved: SavedTraining | None = None,
    distribution: Distribution | None = None,
) -> TrainedStage:
    """Train one stage from the checkpoint before it (None: fresh weights), and calibrate it on validation images.

    `stores` maps each stage up to this one to its images; the earlier ones are read when the recipe replays them.
    With `saved`, an interrupted training goes on where it was. With `distribution`, this is its chief.

    Raises:
        UserError: a bad checkpoint, a loss that is no longer a number, or another machine is gone.
    """
    from fakeface.models.checkpoints import load_checkpoint
    from fakeface.models.networks import build_network, with_mirrored_view

    recipe = params.chosen_recipe()
    seen = _seen(params, stage, stores)
    if previous is None:
        model = build_network(*build_arguments(params))
    else:
        model, facts = load_checkpoint(previous)
        _refuse_another_network(previous, facts, params)
    training, validation = pool_of(seen, "train"), pool_of(seen, "valid")
    fit = fit_stage(model, params, stage, training, validation, listeners, saved, distribution)
    scorer = with_mirrored_view(model) if recipe.mirrored_view else model
    scores = score_pool(scorer, validation, params.validation_batch_size, "validation images")
    calibration = Calibration()
    if recipe.calibrate:
        parts = ["valid"] * len(validation)
        calibration = fit_calibration(parts, validation.sources.tolist(), validation.labels, scores)
    facts = CheckpointFacts(
        stage=stage,
        recipe=params.recipe,
        network=recipe.network,
        channels=tuple(recipe.channels),
        image_size=params.image_size,
        batch_norm_momentum=recipe.batch_norm_momentum,
        mirrored_view=recipe.mirrored_view,
        precision=precision,
        note=stores[stage].note,
        reencoding=stores[stage].reencoding,
        calibration=calibration,
    )
    metrics = validation_metrics(validation, calibration.apply(scores), calibration)
    return TrainedStage(model, facts, fit, metrics)


def help_train_stage(params: Params, stage: str, stores: Mapping[str, Store], distribution: Distribution) -> None:
    """Take part in `train_stage` of another machine, the chief, which keeps and writes all that comes of it.

    Raises:
        UserError: as fit_stage.
    """
    from fakeface.models.networks import build_network

    seen = _seen(params, stage, stores)
    model = build_network(*build_arguments(params))
    pools = pool_of(seen, "train"), pool_of(seen, "valid")
    fit_stage(model, params, stage, *pools, distribution=distribution)


def _seen(params: Params, stage: str, stores: Mapping[str, Store]) -> list[Store]:
    """Return the stores that a stage learns from."""
    replayed = STAGES[: STAGES.index(stage) + 1] if params.chosen_recipe().replay else (stage,)
    return [stores[name] for name in replayed]


def build_arguments(params: Params) -> tuple[str, Sequence[int], int, float]:
    """Return the arguments of `build_network` for the chosen recipe."""
    recipe = params.chosen_recipe()
    return recipe.network, recipe.channels, params.image_size, recipe.batch_norm_momentum


def _refuse_another_network(path: Path, facts: CheckpointFacts, params: Params) -> None:
    name, channels, image_size, _ = build_arguments(params)
    found = _network_in_words(facts.network, facts.channels, facts.image_size)
    wanted = _network_in_words(name, channels, image_size)
    if found != wanted:
        raise UserError(
            f"{path} holds the network {found}, and params.yaml asks for {wanted}; "
            "run the stages before it again with `dvc repro`."
        )


def _network_in_words(name: str, channels: Sequence[int], image_size: int) -> str:
    return f"'{name}' of {', '.join(map(str, channels))} channels for {image_size} pixels"


def validation_metrics(validation: ImagePool, scores: Scores, calibration: Calibration) -> dict[str, Any]:
    """Return what to choose experiments by: balanced accuracy and ROC AUC of each real source against each fake.

    `macro` is the mean of `pairs`. The calibration comes from the same images, so the balanced accuracies are a little
    too good; no held-out image is looked at. Empty where the validation images are of one class.
    """
    rows = per_pair(validation.sources.tolist(), validation.labels, scores, calibration.threshold)
    pairs = {name: {key: row[key] for key in ("balanced_accuracy", "roc_auc")} for name, row in rows.items()}
    if not pairs:
        return {}
    macro = {key: float(np.mean([row[key] for row in pairs.values()])) for key in ("balanced_accuracy", "roc_auc")}
    return {"macro": macro, "pairs": pairs}
