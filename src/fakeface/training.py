"""Fit one stage, from the checkpoint before it to its own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fakeface import STAGES
from fakeface.calibration import Calibration, fit_calibration
from fakeface.checkpoints import CheckpointFacts
from fakeface.errors import UserError
from fakeface.inputs import ImagePool, pool_of, scoring_dataset, training_dataset
from fakeface.params import Params
from fakeface.progress import progress
from fakeface.scoring import score_pool
from fakeface.store import Store
from fakeface.tables import write_rows

if TYPE_CHECKING:
    import tensorflow as tf

# Called after each epoch with its number (from 1) and loss, accuracy, val_loss, val_accuracy, lr, images_per_second.
EpochListener = Callable[[int, Mapping[str, float]], None]
HISTORY_COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr")


@dataclass(frozen=True)
class FitResult:
    """The history (a row an epoch, HISTORY_COLUMNS) and the speed of a fit."""

    history: list[dict[str, float]]
    seconds: float
    images_per_second: float


def fit_stage(
    model: tf.keras.Model,
    params: Params,
    stage: str,
    training: ImagePool,
    validation: ImagePool,
    listeners: Sequence[EpochListener] = (),
) -> FitResult:
    """Train `model` in place on `training`, validating on `validation` after each epoch.

    Raises:
        UserError: the loss is no longer a finite number; names the epoch, the step and the learning rate.
    """
    from fakeface.augment import build_augmentation

    recipe, settings = params.chosen_recipe(), params.stage_settings(stage)
    steps = settings.steps_per_epoch or max(1, len(training) // settings.batch_size)
    batches = training_dataset(
        training,
        build_augmentation(recipe.augmentation_steps(stage), params.seed),
        settings.batch_size,
        steps,
        settings.epochs,
        recipe.balance,
        params.seed,
    )
    compile_for_training(model, recipe.schedule, settings.lr, steps * settings.epochs)
    reporter = _reporter_callback(stage, settings.epochs, steps, settings.batch_size, listeners)
    start = time.perf_counter()
    model.fit(
        batches,
        epochs=settings.epochs,
        steps_per_epoch=steps,
        validation_data=scoring_dataset(
            _validated(validation, settings.validation_steps, params.validation_batch_size),
            params.validation_batch_size,
        ),
        callbacks=[reporter, *_schedule_callbacks(params)],
        verbose=0,
    )
    seconds = time.perf_counter() - start
    return FitResult(reporter.history, seconds, steps * settings.batch_size * settings.epochs / seconds)


def _validated(pool: ImagePool, steps: int | None, batch_size: int) -> ImagePool:
    """Return the images of `steps` batches, spread evenly over the pool so that every stage is among them."""
    count = len(pool) if steps is None else min(len(pool), steps * batch_size)
    chosen = np.zeros(len(pool), bool)
    chosen[np.linspace(0, len(pool) - 1, count).round().astype(int)] = True
    return pool.where(chosen)


def compile_for_training(model: tf.keras.Model, schedule: str, lr: float, total_steps: int) -> None:
    """Give the model a fresh Adam, the loss and the accuracy; `cosine` falls from lr to lr / 100 over total_steps."""
    import tensorflow as tf

    rate = tf.keras.optimizers.schedules.CosineDecay(lr, total_steps, alpha=0.01) if schedule == "cosine" else lr
    optimizer = tf.keras.optimizers.Adam(learning_rate=rate)
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])


def _schedule_callbacks(params: Params) -> list[Any]:
    import tensorflow as tf

    if params.chosen_recipe().schedule != "plateau":
        return []
    return [tf.keras.callbacks.ReduceLROnPlateau(**params.reduce_lr.model_dump(), mode="auto", verbose=0)]


def _reporter_callback(stage: str, epochs: int, steps: int, batch_size: int, listeners: Sequence[EpochListener]) -> Any:
    """Return a Keras callback that shows progress, keeps `history`, tells the listeners, and stops at a NaN loss."""
    import tensorflow as tf

    class Reporter(tf.keras.callbacks.Callback):  # type: ignore[misc]
        history: list[dict[str, float]]

        def on_train_begin(self, logs: Any = None) -> None:
            self.history = []
            self.display = ExitStack()
            self.advance = self.display.enter_context(progress(f"{stage}: training steps", epochs * steps))

        def on_train_end(self, logs: Any = None) -> None:
            self.display.close()

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch, self.training_seconds, self.began = epoch, 0.0, time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.training_seconds = time.perf_counter() - self.began
            self.advance(1)
            if not math.isfinite(logs["loss"]):
                self.display.close()
                raise UserError(
                    f"{stage}: the loss is {logs['loss']} in epoch {self.epoch + 1}, step {batch + 1}, at learning "
                    f"rate {self._rate():g}; the checkpoint before it is kept; try a smaller rate, for example "
                    f"-S stages.{stage}.lr={self._rate() / 10:g}."
                )

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            names = ("loss", "accuracy", "val_loss", "val_accuracy")
            row = {name: float(logs[name]) for name in names} | {"lr": self._rate()}
            speed = steps * batch_size / max(self.training_seconds, 1e-9)
            self.history.append({"epoch": epoch + 1, **row})
            shown = ", ".join(f"{name} {row[name]:.4f}" for name in names)
            print(f"{stage} epoch {epoch + 1}/{epochs}: {shown}, lr {row['lr']:.2g}, {speed:.0f} images/s", flush=True)
            for listener in listeners:
                listener(epoch + 1, row | {"images_per_second": speed})

        def _rate(self) -> float:
            return float(tf.keras.backend.get_value(self.model.optimizer.learning_rate))

    return Reporter()


def write_history(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write one row an epoch as CSV, HISTORY_COLUMNS, floats in full."""
    write_rows(path, HISTORY_COLUMNS, [tuple(row[name] for name in HISTORY_COLUMNS) for row in history])


@dataclass(frozen=True)
class TrainedStage:
    """A trained network with what its checkpoint says of it."""

    model: tf.keras.Model
    facts: CheckpointFacts
    fit: FitResult


def train_stage(
    params: Params,
    stage: str,
    stores: Mapping[str, Store],
    previous: Path | None,
    precision: str,
    listeners: Sequence[EpochListener] = (),
) -> TrainedStage:
    """Train one stage from the checkpoint before it (None: fresh weights), and calibrate it on validation images.

    `stores` maps each stage up to this one to its images; the earlier ones are read when the recipe replays them.

    Raises:
        UserError: a bad checkpoint, or a loss that is no longer a number.
    """
    from fakeface.checkpoints import load_checkpoint
    from fakeface.models import build_network

    recipe = params.chosen_recipe()
    seen = [stores[name] for name in STAGES[: STAGES.index(stage) + 1]] if recipe.replay else [stores[stage]]
    if previous is None:
        model = build_network(recipe.network, params.image_size, recipe.batch_norm_momentum)
    else:
        model, facts = load_checkpoint(previous)
        _refuse_another_network(previous, facts, params)
    validation = pool_of(seen, "valid")
    fit = fit_stage(model, params, stage, pool_of(seen, "train"), validation, listeners)
    facts = CheckpointFacts(
        stage=stage,
        recipe=params.recipe,
        network=recipe.network,
        image_size=params.image_size,
        batch_norm_momentum=recipe.batch_norm_momentum,
        precision=precision,
        note=stores[stage].note,
        calibration=_calibrate(model, validation, params) if recipe.calibrate else Calibration(),
    )
    return TrainedStage(model, facts, fit)


def _refuse_another_network(path: Path, facts: CheckpointFacts, params: Params) -> None:
    wanted = (params.chosen_recipe().network, params.image_size)
    if (facts.network, facts.image_size) != wanted:
        raise UserError(
            f"{path} holds the network '{facts.network}' for {facts.image_size} pixels, and params.yaml asks for "
            f"'{wanted[0]}' for {wanted[1]}; run the stages before it again with `dvc repro`."
        )


def _calibrate(model: tf.keras.Model, validation: ImagePool, params: Params) -> Calibration:
    scores = score_pool(model, validation, params.validation_batch_size, "validation images")
    return fit_calibration(["valid"] * len(validation), validation.sources.tolist(), validation.labels, scores)
