"""How the learning rate falls during a stage: with each step (cosine), or where a loss no longer falls (plateau)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf


def build_schedule(schedule: str, lr: float, total_steps: int) -> Any:
    """Return what Adam takes for its rate: for `cosine` a fall from lr to lr / 100 over total_steps, else lr itself.

    With `plateau` the callback Plateau lowers it; with `constant` nothing does.
    """
    return tf.keras.optimizers.schedules.CosineDecay(lr, total_steps, alpha=0.01) if schedule == "cosine" else lr


class Plateau(tf.keras.callbacks.ReduceLROnPlateau):  # type: ignore[misc]
    """Keras' ReduceLROnPlateau with its best value and its counters taken up from `counters`."""

    NAMES = ("best", "wait", "cooldown_counter")

    def __init__(self, counters: Mapping[str, float], **settings: Any) -> None:
        super().__init__(mode="auto", verbose=0, **settings)
        self._taken_up = counters

    def on_train_begin(self, logs: Any = None) -> None:
        """Take the counters up."""
        super().on_train_begin(logs)  # resets them
        for name, value in self._taken_up.items():
            setattr(self, name, value)

    def counters(self) -> dict[str, float]:
        """What `counters` of a later training is to be."""
        return {name: float(getattr(self, name)) for name in self.NAMES}
