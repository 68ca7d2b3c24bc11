"""The networks: uint8 or float images of 0..255 in, softmax over (real, fake) out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

LOGITS = "logits"


def build_network(name: str, channels: Sequence[int], image_size: int, batch_norm_momentum: float) -> tf.keras.Model:
    """Build a network by name with fresh weights; `channels` are those of its convolutions.

    Input: (batch, image_size, image_size, 3), RGB in 0..255. Output: (batch, 2) float32, P(real) and P(fake).

    Raises:
        KeyError: the name is not in NETWORKS.
    """
    import tensorflow as tf
    from tensorflow.keras import layers

    # Dropout then draws from a generator whose state can be set, so that an interrupted training can go on.
    tf.keras.backend.experimental.enable_tf_random_generator()
    tf.keras.backend.clear_session()  # equal layer names, so equal bytes of a checkpoint, however often it is called
    images = tf.keras.Input((image_size, image_size, 3), name="images", dtype="float32")
    logits = layers.Dense(2, name=LOGITS)(NETWORKS[name](images, channels, batch_norm_momentum))
    return with_softmax(images, logits, name)


def with_softmax(images: Any, logits: Any, name: str) -> tf.keras.Model:
    """Return the network of these logits (B, 2) under a softmax in float32."""
    import tensorflow as tf

    # float32 whatever the precision policy: probabilities near 0 and 1 need it
    probabilities = tf.keras.layers.Activation("softmax", dtype="float32", name="probabilities")(logits)
    return tf.keras.Model(images, probabilities, name=name)


def _seed_features(images: Any, channels: Sequence[int], momentum: float) -> Any:
    """Return the last dropout of the notebook's CNN.

    With channels 64, 32, 64 and the softmax on it, it has 7,412,962 parameters at 128 pixels.
    """
    from tensorflow.keras import layers

    first, second, third = channels
    x = layers.Rescaling(1 / 255, name="rescale")(images)
    x = layers.Conv2D(first, 3, activation="relu")(x)
    x = layers.BatchNormalization(momentum=momentum)(x)
    x = layers.Conv2D(second, 3, activation="relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Dropout(0.25)(x)
    x = layers.Conv2D(third, 3, activation="relu")(x)
    x = layers.BatchNormalization(momentum=momentum)(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Dropout(0.25)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(128, activation="relu")(x)
    x = layers.BatchNormalization(momentum=momentum)(x)
    return layers.Dropout(0.25)(x)


def _residual_features(images: Any, channels: Sequence[int], momentum: float) -> Any:
    """Return pooled features of what doubling the halved image by repetition leaves unexplained.

    The first of `channels` is the stem's, each further one that of a residual unit, which halves the side.
    """
    from tensorflow.keras import layers

    x = _cell_differences(images)
    x = _convolution(x, channels[0], 3, 1, momentum, "stem")
    for number, width in enumerate(channels[1:], start=1):
        x = _residual_unit(x, width, momentum, f"unit{number}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return layers.Dropout(0.4, name="dropout")(x)


def _cell_differences(images: Any) -> Any:
    """Return, for each 2×2 cell, its other three pixels minus its first, divided by 32: (batch, size/2, size/2, 9).

    This is x − upsample(x[::2, ::2]) of Tan et al. 2024 (arXiv:2312.10461) with the cell's pixels as channels. It keeps
    the relations between neighbours that a generator's upsampling imprints, and drops most of the scene. Written as a
    convolution with fixed weights, so that the saved model needs no code of ours.
    """
    from tensorflow.keras import layers

    kernel = np.zeros((2, 2, 3, 9), np.float32)
    for cell, (row, column) in enumerate(((0, 1), (1, 0), (1, 1))):
        for colour in range(3):
            kernel[row, column, colour, 3 * cell + colour] = 1 / 32
            kernel[0, 0, colour, 3 * cell + colour] = -1 / 32
    differences = layers.Conv2D(9, 2, strides=2, use_bias=False, trainable=False, name="cell_differences")
    output = differences(images)
    differences.set_weights([kernel])
    return output


def _convolution(x: Any, width: int, size: int, stride: int, momentum: float, name: str, relu: bool = True) -> Any:
    from tensorflow.keras import layers

    x = layers.Conv2D(width, size, strides=stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(momentum=momentum, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def _residual_unit(x: Any, width: int, momentum: float, name: str) -> Any:
    """Halve the side and widen to `width` channels; the shortcut averages 2×2 cells, so that it drops no pixel."""
    from tensorflow.keras import layers

    y = _convolution(x, width, 3, 2, momentum, f"{name}_first")
    y = _convolution(y, width, 3, 1, momentum, f"{name}_second", relu=False)
    x = layers.AveragePooling2D(2, padding="same", name=f"{name}_pool")(x)
    x = _convolution(x, width, 1, 1, momentum, f"{name}_shortcut", relu=False)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([y, x]))


NETWORKS: dict[str, Callable[[Any, Sequence[int], float], Any]] = {
    "seed": _seed_features,
    "residual": _residual_features,
}
