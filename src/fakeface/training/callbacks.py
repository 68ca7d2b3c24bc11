"""What happens beside the steps of a training: report, rate, randomness, keeping the state, stopping."""
# ruff: noqa: D102  Keras says what these methods are

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import tensorflow as tf

from fakeface.system.errors import UserError
from fakeface.system.progress import show_progress
from fakeface.training.learning_rate import Plateau
from fakeface.training.resume import Progress, TrainingState

# Called after each epoch with its number (from 1) and loss, accuracy, val_loss, val_accuracy, lr, images_per_second.
EpochListener = Callable[[int, Mapping[str, float]], None]


class NonFiniteLossError(UserError):
    """The loss is NaN or infinite; `what` happened where, and `advice`, both parts of a sentence."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what}; {advice}.")
        self.what, self.advice = what, advice


class MetricsRecorder(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Shows progress, gathers `history` and `seconds`, and stops at a loss that is not finite."""

    def __init__(
        self,
        stage: str,
        epochs: int,
        steps: int,
        batch_size: int,
        listeners: Sequence[EpochListener] = (),
        done: Progress | None = None,
    ) -> None:
        super().__init__()
        self.stage, self.epochs, self.steps, self.batch_size = stage, epochs, steps, batch_size
        self.listeners = listeners
        self.done = done or Progress()
        self.history: list[dict[str, float]] = [dict(row) for row in self.done.history]
        self.seconds = self.done.seconds
        self.display = ExitStack()

    def on_train_begin(self, logs: Any = None) -> None:
        self.fit_began = time.perf_counter()
        total = (self.epochs - self.done.epoch) * self.steps
        self.advance = self.display.enter_context(show_progress(f"{self.stage}: training steps", total))

    def on_train_end(self, logs: Any = None) -> None:
        self.display.close()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.training_seconds, self.began = epoch, 0.0, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.training_seconds = time.perf_counter() - self.began
        self.advance(1)
        self._check_finite("loss", logs["loss"], batch + 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._check_finite("validation loss", logs["val_loss"], self.steps)
        names = ("loss", "accuracy", "val_loss", "val_accuracy")
        speed = self.steps * self.batch_size / max(self.training_seconds, 1e-9)
        row = {name: float(logs[name]) for name in names} | {"lr": self._rate(), "images_per_second": speed}
        self.seconds = self.done.seconds + time.perf_counter() - self.fit_began
        self.history.append({"epoch": epoch + 1, **row})

    def log_epoch_line(self) -> None:
        """Print the last epoch, and give it to the listeners."""
        row = dict(self.history[-1])
        epoch, speed = int(row.pop("epoch")), row["images_per_second"]
        shown = ", ".join(f"{name} {row[name]:.4f}" for name in ("loss", "accuracy", "val_loss", "val_accuracy"))
        print(
            f"{self.stage} epoch {epoch}/{self.epochs}: {shown}, lr {row['lr']:.2g}, {speed:.0f} images/s", flush=True
        )
        for listener in self.listeners:
            listener(epoch, row)

    def _check_finite(self, what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"{self.stage}: the {what} is {value} in epoch {self.epoch + 1}, step {step}, "
                f"at learning rate {self._rate():g}",
                f"a smaller rate, for example -S stages.{self.stage}.lr={self._rate() / 10:g}, starts the stage anew",
            )

    def _rate(self) -> float:
        return float(tf.keras.backend.get_value(self.model.optimizer.learning_rate))


class ReseedDropout(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Has dropout and its like draw from a generator that depends on the seed, the epoch and the layer alone.

    Keras counts on through the whole training otherwise, and keeps the count out of every checkpoint. Works for layers
    with a tf.random.Generator, which build_network asks for.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        reseed_dropout(self.model, self.seed, epoch)


def reseed_dropout(model: tf.keras.Model, seed: int, epoch: int) -> None:
    """Set the generators of dropout and its like to a state that depends on seed, epoch and layer alone."""
    for layer in model.submodules:
        generator = getattr(getattr(layer, "_random_generator", None), "_generator", None)
        if generator is not None:
            text = f"{seed} {epoch} {layer.name}"
            generator.reset_from_seed(int(hashlib.sha256(text.encode()).hexdigest()[:8], 16))


class ReplicaSync(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Gathers after each epoch what the replicas have; comes before StateCheckpoint."""

    def __init__(self, gather: Callable[[], None]) -> None:
        super().__init__()
        self.gather = gather

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.gather()


class StateCheckpoint(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the state after each epoch; comes after the callbacks whose state it keeps."""

    def __init__(
        self, saved: TrainingState, tensors: Mapping[str, Any], reporter: MetricsRecorder, plateau: Plateau | None
    ) -> None:
        super().__init__()
        self.saved, self.tensors, self.reporter, self.plateau = saved, tensors, reporter, plateau

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        counters = self.plateau.counters() if self.plateau else {}
        self.saved.save(self.tensors, Progress(epoch + 1, self.reporter.seconds, self.reporter.history, counters))


class EpochLogger(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Tells of an epoch once it is kept, so that what was told is never lost."""

    def __init__(self, reporter: MetricsRecorder) -> None:
        super().__init__()
        self.reporter = reporter

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.reporter.log_epoch_line()


class StopOnSignal(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Calls a function after each step of training and validation, which ends the training by an exception."""

    def __init__(self, stop_if_asked: Callable[[], None]) -> None:
        super().__init__()
        self.stop_if_asked = stop_if_asked

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.stop_if_asked()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.stop_if_asked()
