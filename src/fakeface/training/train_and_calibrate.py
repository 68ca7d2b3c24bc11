"""Fit one stage, from the checkpoint before it to its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fakeface.config.params import Params
from fakeface.constants import STAGES
from fakeface.data.image_pool import ImagePool, gather_pool
from fakeface.data.image_store import Store
from fakeface.inference.scoring import Scores, score_pool
from fakeface.metrics.by_source import evaluate_pairs
from fakeface.metrics.calibration import Calibration, fit_calibration
from fakeface.models.checkpoints import CheckpointMetadata
from fakeface.system.errors import UserError
from fakeface.training.fit import FitResult, fit_stage
from fakeface.training.resume import TrainingState

if TYPE_CHECKING:
    import tensorflow as tf

    from fakeface.training.callbacks import EpochListener
    from fakeface.training.distributed.strategy import Distribution


@dataclass(frozen=True)
class TrainedStage:
    """A trained network, what its checkpoint says of it, and `compute_validation_metrics` of it."""

    model: tf.keras.Model
    facts: CheckpointMetadata
    fit: FitResult
    validation: dict[str, Any]


def train_stage(
    params: Params,
    stage: str,
    stores: Mapping[str, Store],
    previous: Path | None,
    precision: str,
    listeners: Sequence[EpochListener] = (),
    saved: TrainingState | None = None,
    distribution: Distribution | None = None,
) -> TrainedStage:
    """Train one stage from the checkpoint before it (None: fresh weights), and calibrate it on validation images.

    `stores` maps each stage up to this one to its images; the earlier ones are read when the recipe replays them.
    With `saved`, an interrupted training goes on where it was. With `distribution`, this is its chief.

    Raises:
        UserError: a bad checkpoint, a loss that is no longer a number, or another machine is gone.
    """
    from fakeface.models.checkpoints import load_checkpoint
    from fakeface.models.flip_tta import with_flip_tta
    from fakeface.models.networks import build_network

    recipe = params.get_recipe()
    seen = _select_stores(params, stage, stores)
    if previous is None:
        model = build_network(*list_network_arguments(params))
    else:
        model, facts = load_checkpoint(previous)
        _check_architecture(previous, facts, params)
    training, validation = gather_pool(seen, "train"), gather_pool(seen, "valid")
    fit = fit_stage(model, params, stage, training, validation, listeners, saved, distribution)
    scorer = with_flip_tta(model) if recipe.flip_tta else model
    scores = score_pool(scorer, validation, params.validation_batch_size, "validation images")
    calibration = Calibration()
    if recipe.calibrate:
        parts = ["valid"] * len(validation)
        calibration = fit_calibration(parts, validation.sources.tolist(), validation.labels, scores)
    facts = CheckpointMetadata(
        stage=stage,
        recipe=params.recipe,
        network=recipe.network,
        channels=tuple(recipe.channels),
        image_size=params.image_size,
        batch_norm_momentum=recipe.batch_norm_momentum,
        flip_tta=recipe.flip_tta,
        precision=precision,
        note=stores[stage].note,
        reencoding=stores[stage].reencoding,
        calibration=calibration,
    )
    metrics = compute_validation_metrics(validation, calibration.apply(scores), calibration)
    return TrainedStage(model, facts, fit, metrics)


def train_as_worker(params: Params, stage: str, stores: Mapping[str, Store], distribution: Distribution) -> None:
    """Take part in `train_stage` of another machine, the chief, which keeps and writes all that comes of it.

    Raises:
        UserError: as fit_stage.
    """
    from fakeface.models.networks import build_network

    seen = _select_stores(params, stage, stores)
    model = build_network(*list_network_arguments(params))
    pools = gather_pool(seen, "train"), gather_pool(seen, "valid")
    fit_stage(model, params, stage, *pools, distribution=distribution)


def _select_stores(params: Params, stage: str, stores: Mapping[str, Store]) -> list[Store]:
    """Return the stores that a stage learns from."""
    replayed = STAGES[: STAGES.index(stage) + 1] if params.get_recipe().replay else (stage,)
    return [stores[name] for name in replayed]


def list_network_arguments(params: Params) -> tuple[str, Sequence[int], int, float]:
    """Return the arguments of `build_network` for the chosen recipe."""
    recipe = params.get_recipe()
    return recipe.network, recipe.channels, params.image_size, recipe.batch_norm_momentum


def _check_architecture(path: Path, facts: CheckpointMetadata, params: Params) -> None:
    name, channels, image_size, _ = list_network_arguments(params)
    found = _describe_architecture(facts.network, facts.channels, facts.image_size)
    wanted = _describe_architecture(name, channels, image_size)
    if found != wanted:
        raise UserError(
            f"{path} holds the network {found}, and params.yaml asks for {wanted}; "
            "run the stages before it again with `dvc repro`."
        )


def _describe_architecture(name: str, channels: Sequence[int], image_size: int) -> str:
    return f"'{name}' of {', '.join(map(str, channels))} channels for {image_size} pixels"


def compute_validation_metrics(validation: ImagePool, scores: Scores, calibration: Calibration) -> dict[str, Any]:
    """Return what to choose experiments by: balanced accuracy and ROC AUC of each real source against each fake.

    `macro` is the mean of `pairs`. The calibration comes from the same images, so the balanced accuracies are a little
    too good; no held-out image is looked at. Empty where the validation images are of one class.
    """
    rows = evaluate_pairs(validation.sources.tolist(), validation.labels, scores, calibration.threshold)
    pairs = {name: {key: row[key] for key in ("balanced_accuracy", "roc_auc")} for name, row in rows.items()}
    if not pairs:
        return {}
    macro = {key: float(np.mean([row[key] for row in pairs.values()])) for key in ("balanced_accuracy", "roc_auc")}
    return {"macro": macro, "pairs": pairs}
