"""Fit one stage's network: batches, callbacks, and how an interrupted or diverged fit ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fakeface.config.params import Params
from fakeface.constants import HISTORY_COLUMNS
from fakeface.data.image_pool import ImagePool
from fakeface.data.input_pipeline import (
    WHOLE,
    BatchShard,
    build_scoring_dataset,
    build_training_dataset,
    count_scoring_steps,
    derive_stage_seed,
)
from fakeface.system.errors import UserError
from fakeface.system.serialization import write_rows
from fakeface.system.signals import graceful_shutdown
from fakeface.training.resume import Progress, TrainingState

if TYPE_CHECKING:
    import tensorflow as tf

    from fakeface.training.callbacks import EpochListener, MetricsRecorder
    from fakeface.training.distributed.strategy import Distribution, Replicas


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
    saved: TrainingState | None = None,
    distribution: Distribution | None = None,
) -> FitResult:
    """Train `model` in place on `training`, validating on `validation` after each epoch.

    With `saved`, go on after the last epoch that it keeps, and keep every further one; history and time are those of
    the whole stage. With `distribution`, on all its replicas, from what `model` and `saved` hold on its chief.

    Raises:
        UserError: the loss is no longer a finite number (names the epoch, the step and the learning rate), or another
            machine is gone.
        KeyboardInterrupt, SystemExit: asked for by a signal; raised between two steps.
    """
    from fakeface.training.callbacks import MetricsRecorder, StopOnSignal

    recipe, settings = params.get_recipe(), params.get_stage_config(stage)
    steps = settings.steps(len(training))
    compiled = partial(
        compile_for_training,
        schedule=recipe.schedule,
        lr=settings.lr,
        total_steps=steps * settings.epochs,
        weight_decay=recipe.weight_decay,
    )
    compiled(model)
    done = _restore_state(model, saved, params.deterministic)
    replicas = distribution.replicate(model, compiled) if distribution else None
    if replicas:
        done = Progress(**json.loads(replicas.spread(json.dumps(asdict(done)))))
    reporter = MetricsRecorder(stage, settings.epochs, steps, settings.batch_size, listeners, done)
    callbacks = _build_callbacks(params, stage, model, reporter, saved, replicas)
    is_worker = distribution is not None and not distribution.is_chief
    with _handle_fit_interruption(params, stage, saved, reporter, is_worker), graceful_shutdown() as stop_if_asked:
        (replicas.copy if replicas else model).fit(
            **_build_fit_inputs(params, stage, training, validation, steps, done.epoch, distribution),
            initial_epoch=done.epoch,
            epochs=settings.epochs,
            steps_per_epoch=steps,
            callbacks=[*callbacks, StopOnSignal(stop_if_asked)],
            verbose=0,
        )
    trained = steps * settings.batch_size * settings.epochs
    return FitResult(reporter.history, reporter.seconds, trained / max(reporter.seconds, 1e-9))


def _build_fit_inputs(
    params: Params,
    stage: str,
    training: ImagePool,
    validation: ImagePool,
    steps: int,
    first_epoch: int,
    distribution: Distribution | None,
) -> dict[str, Any]:
    """Return the arguments of `fit` that say where images come from."""
    from fakeface.training.augmentation.build_augmentation import build_augmentation

    recipe, settings, size = params.get_recipe(), params.get_stage_config(stage), params.validation_batch_size
    seed = derive_stage_seed(params.seed, stage)
    augment = build_augmentation(recipe.augmentation_steps(stage), seed)
    validated = _subsample_validation(validation, settings.validation_steps, size)

    def batches(share: BatchShard) -> tf.data.Dataset:
        epochs = range(first_epoch, settings.epochs)
        return build_training_dataset(
            training, augment, settings.batch_size, steps, epochs, recipe.balance, seed, share
        )

    if distribution is None:
        return {"x": batches(WHOLE), "validation_data": build_scoring_dataset(validated, size)}
    return {
        "x": distribution.datasets(batches),
        "validation_data": distribution.datasets(partial(build_scoring_dataset, validated, size)),
        "validation_steps": count_scoring_steps(validated, size),
    }


def _restore_state(model: tf.keras.Model, saved: TrainingState | None, deterministic: bool) -> Progress:
    if saved is None:
        return Progress()
    if deterministic:
        saved.check_known_divergence()
    saved.restore(_list_state(model))
    return saved.progress


def _list_state(model: tf.keras.Model) -> Mapping[str, Any]:
    """Return all that an epoch changes, as objects that tf.train.Checkpoint can keep."""
    return {"model": model, "optimizer": model.optimizer}


def _build_callbacks(
    params: Params,
    stage: str,
    model: tf.keras.Model,
    reporter: MetricsRecorder,
    saved: TrainingState | None,
    replicas: Replicas | None,
) -> list[Any]:
    """Return the callbacks in their order: the report has the rate that was used, the state the one that is next."""
    from fakeface.training.callbacks import EpochLogger, ReplicaSync, ReseedDropout, StateCheckpoint
    from fakeface.training.learning_rate import Plateau

    plateau = None
    if params.get_recipe().schedule == "plateau":
        plateau = Plateau(reporter.done.counters, **params.reduce_lr.model_dump())
    saver = StateCheckpoint(saved, _list_state(model), reporter, plateau) if saved else None
    gatherer = ReplicaSync(replicas.gather) if replicas else None
    in_order = (
        ReseedDropout(derive_stage_seed(params.seed, stage)),
        reporter,
        plateau,
        gatherer,
        saver,
        EpochLogger(reporter),
    )
    return [each for each in in_order if each is not None]


@contextmanager
def _handle_fit_interruption(
    params: Params, stage: str, saved: TrainingState | None, reporter: MetricsRecorder, is_worker: bool
) -> Iterator[None]:
    """Take the progress bar away, and say what is kept of a fit that does not come to its end."""
    from fakeface.training.callbacks import NonFiniteLossError

    try:
        yield
    except NonFiniteLossError as error:
        if saved is None:
            raise
        saved.record_divergence(error.what, error.advice)
        then = "ends so again and is refused" if params.deterministic else "tries again from there"
        raise UserError(
            f"{error.what}; {saved.describe_last_checkpoint()}; the same command {then}, {error.advice}."
        ) from None
    except (KeyboardInterrupt, SystemExit):
        if saved is not None:
            kept = f"{saved.progress.epoch} of {reporter.epochs} epochs are kept"
            print(f"{stage}: stopped; {kept}.", file=sys.stderr, flush=True)
        elif is_worker:
            done = f"{len(reporter.history)} of {reporter.epochs} epochs were done, which the chief keeps"
            print(f"{stage}: stopped; {done}.", file=sys.stderr, flush=True)
        raise
    finally:
        reporter.display.close()


def _subsample_validation(pool: ImagePool, steps: int | None, batch_size: int) -> ImagePool:
    """Return the images of `steps` batches, spread evenly over the pool so that every stage is among them."""
    count = len(pool) if steps is None else min(len(pool), steps * batch_size)
    chosen = np.zeros(len(pool), bool)
    chosen[np.linspace(0, len(pool) - 1, count).round().astype(int)] = True
    return pool.subset(chosen)


def compile_for_training(
    model: tf.keras.Model, schedule: str, lr: float, total_steps: int, weight_decay: float = 0.0
) -> None:
    """Give the model a fresh Adam with the rate of `build_schedule`, the loss and the accuracy.

    Before each step every weight loses its product with the rate and `weight_decay` (Loshchilov and Hutter 2019,
    arXiv:1711.05101).
    """
    import tensorflow as tf

    from fakeface.training.learning_rate import build_schedule

    rate = build_schedule(schedule, lr, total_steps)
    optimizer = tf.keras.optimizers.Adam(learning_rate=rate, weight_decay=weight_decay or None)
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)  # so that a saved training finds a place for Adam's moments
    # Where the first step makes these variables, TensorFlow traces it twice, which takes seconds
    model.compiled_loss.build(model.output)
    model.compiled_metrics.build(model.output, tf.zeros((1,)))


def write_history(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write one row an epoch as CSV, HISTORY_COLUMNS, floats in full."""
    write_rows(path, HISTORY_COLUMNS, [tuple(row[name] for name in HISTORY_COLUMNS) for row in history])
