"""A Keras training that pauses between turns."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from benchmarks.interleaved_runs import Turns


class Pauses(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Makes each `steps` steps a turn, and ends the training after the last one."""

    def __init__(self, turns: Turns, steps: int, batch_size: int) -> None:
        super().__init__()
        self.turns, self.steps, self.batch_size = turns, steps, batch_size
        self.done = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Wait for the first turn."""
        self.turns.begin()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """End a turn when its steps are done."""
        self.done += 1
        if self.done % self.steps == 0 and not self.turns.end(self.steps * self.batch_size):
            self.model.stop_training = True
