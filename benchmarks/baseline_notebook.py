"""The notebook's own way, written anew from its settings, with Keras and imgaug at their defaults: the baseline."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.interleaved_runs import Turns

SIZE, BATCH, TEST_BATCH = 128, 64, 32  # the last is flow_from_directory's default, which its test set kept
ENVIRONMENT = {"TF_ENABLE_ONEDNN_OPTS": None, "TF_CPP_MIN_LOG_LEVEL": "3"}  # TensorFlow's own choice; no chatter


def training_batches(folder: Path) -> Any:
    """Return stage 2's endless batches: float32 (64, 128, 128, 3) in 0..1 and labels, read and augmented at each use.

    Rotation by 20°, shifts by 0.18, flip, brightness 0.5 to 1.3, and imgaug's GaussianBlur(0 to 0.5).
    """
    from imgaug import augmenters
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    blur = augmenters.GaussianBlur(sigma=(0, 0.5))
    generator = ImageDataGenerator(
        rescale=1 / 255,
        rotation_range=20,
        horizontal_flip=True,
        brightness_range=(0.5, 1.3),
        width_shift_range=0.18,
        height_shift_range=0.18,
        preprocessing_function=blur.augment_image,
    )
    return generator.flow_from_directory(folder, target_size=(SIZE, SIZE), batch_size=BATCH, class_mode="binary")


def compiled_network() -> Any:
    """Return the notebook's Sequential, float32, with its Adam and loss."""
    import tensorflow as tf
    from tensorflow.keras import layers

    model = tf.keras.Sequential(
        [
            layers.Conv2D(64, 3, activation="relu", input_shape=(SIZE, SIZE, 3)),
            layers.BatchNormalization(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25),
            layers.Conv2D(64, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.25),
            layers.Dense(2, activation="softmax"),
        ]
    )
    adam = tf.keras.optimizers.Adam(0.001)
    model.compile(adam, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def train(turns: Turns, folder: Path, steps: int) -> None:
    """Train on a folder, `steps` steps a turn."""
    _hush()
    from benchmarks.pausable_fit import Pauses

    batches = training_batches(folder)
    pauses = Pauses(turns, steps, BATCH)
    compiled_network().fit(batches, epochs=1000, steps_per_epoch=len(batches), callbacks=[pauses], verbose=0)


def read(turns: Turns, folder: Path, count: int) -> None:
    """Read and augment `count` batches a turn, for nobody."""
    _hush()
    batches = training_batches(folder)
    goes_on = turns.begin()
    while goes_on:
        images = sum(len(next(batches)[1]) for _ in range(count))
        goes_on = turns.end(images)


def evaluate(turns: Turns, folder: Path) -> None:
    """Evaluate a whole folder a turn."""
    _hush()
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    test = ImageDataGenerator(rescale=1 / 255).flow_from_directory(
        folder, target_size=(SIZE, SIZE), batch_size=TEST_BATCH, class_mode="binary"
    )
    model = compiled_network()
    goes_on = turns.begin()
    while goes_on:
        model.evaluate(test, verbose=0)
        goes_on = turns.end(test.samples)


def _hush() -> None:
    """Leave out how many images Keras has found: the table alone is printed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
