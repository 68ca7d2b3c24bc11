"""Test-time augmentation: the mean of the logits of an image and of its mirror image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fakeface.models.networks import LOGITS, with_softmax

if TYPE_CHECKING:
    import tensorflow as tf


def with_flip_tta(network: tf.keras.Model) -> tf.keras.Model:
    """Return a network of the same weights that answers for an image and its mirror image together.

    The mean of the two views' logits goes into the softmax; input and output are as in `build_network`.
    """
    import tensorflow as tf
    from tensorflow.keras import layers

    images = tf.keras.Input(network.input_shape[1:], name="images", dtype="float32")
    to_logits = tf.keras.Model(network.input, network.get_layer(LOGITS).output, name=f"{network.name}_logits")
    views = [to_logits(images), to_logits(tf.reverse(images, axis=[2]))]
    logits = layers.Average(name="mean_logits", dtype="float32")(views)
    return with_softmax(images, logits, f"{network.name}_both_views")
