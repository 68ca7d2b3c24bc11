"""What a machine of tests/test_distribution.py runs.

`stage`: the pipeline's script; `dies`: that, and a kill after the first epoch; `mirrored`: with processors for GPUs. On
a small network without dropout, which would leave out other units on each replica: all else agrees but for rounding.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fakeface.device import prepare_tensorflow, quiet_tensorflow
from fakeface.errors import one_sentence_errors
from fakeface.params import load_params
from fakeface.store import open_store
from fakeface.training import train_stage, write_history
from fakeface.training_state import saved_training

quiet_tensorflow()


def small_features(images: Any, _channels: Sequence[int], momentum: float) -> Any:
    """The default network's first blocks."""
    from tensorflow.keras import layers

    from fakeface import models

    x = models._convolution(models._cell_differences(images), 8, 3, 1, momentum, "stem")
    return layers.GlobalAveragePooling2D(name="pool")(models._residual_unit(x, 16, momentum, "unit"))


def die(*_arguments: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class StoppedError(Exception):
    pass


def stop(_epoch: int, _numbers: Mapping[str, float]) -> None:
    raise StoppedError


def train_mirrored(history: Path) -> None:
    """Stop after the first epoch, and go on."""
    import tensorflow as tf

    from fakeface.distribution import Distribution

    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
    params = load_params(Path("params.yaml"))
    prepare_tensorflow("cpu", "float32", params.seed, params.deterministic)
    stores = {"stage1": open_store(Path("datasets/split/stage1"))}
    two = Distribution(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    with saved_training(Path("training"), "stage1") as saved:
        try:
            train_stage(params, "stage1", stores, None, "float32", [stop], saved, two)
        except StoppedError:
            trained = train_stage(params, "stage1", stores, None, "float32", [], saved, two)
    write_history(trained.fit.history, history)


if __name__ == "__main__":
    from fakeface.models import NETWORKS

    NETWORKS["residual"] = small_features
    if sys.argv[1] == "mirrored":
        train_mirrored(Path("mirrored.csv"))
    else:
        if sys.argv[1] == "dies":
            from fakeface import training_callbacks

            setattr(training_callbacks.Teller, "on_epoch_end", die)  # noqa: B010 - mypy refuses an assignment
        script = runpy.run_path(str(Path(__file__).parents[1] / "pipeline/train_stage.py"))
        with one_sentence_errors():
            script["main"](["stage1"])
