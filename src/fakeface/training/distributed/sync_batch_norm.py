"""Batch normalisation over a batch whose parts lie on several replicas."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


class WholeBatchNorm(tf.keras.layers.BatchNormalization):  # type: ignore[misc]
    """Keras' synchronized batch norm, whose moving variance grows as that of the layer which it stands for.

    On images one device takes the fused kernel, which counts the variance of the moving mean with n − 1 (Bessel's
    correction); the synchronized layer counts with n.
    """

    unbiased = False

    @classmethod
    def like(cls, original: tf.keras.layers.BatchNormalization) -> WholeBatchNorm:
        """Return the layer that does over all replicas what a built `original` does on one."""
        layer: WholeBatchNorm = cls.from_config(original.get_config() | {"synchronized": True})
        layer.unbiased = bool(original.fused)
        return layer

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """Normalise, as Keras does."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync  # whose parts are equally large
        self._values = tf.cast(replicas * tf.size(inputs) // inputs.shape[-1], tf.float32)
        return super().call(inputs, training=training, mask=mask)

    def _assign_moving_average(self, variable: Any, value: Any, momentum: Any, inputs_size: Any) -> Any:
        if self.unbiased and variable is self.moving_variance:
            value *= self._values / tf.maximum(self._values - 1, 1)
        return super()._assign_moving_average(variable, value, momentum, inputs_size)
