"""What a machine of tests/training/test_distributed.py runs.

`stage [SIGNAL STEP]`: the pipeline's script, which gets a signal in a step, counted from its start; `mirrored`: with
processors for GPUs. On a small network without dropout, which would leave out other units on each replica: all else
agrees but for rounding.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fakeface.config.params import load_params
from fakeface.data.image_store import open_store
from fakeface.models.device import prepare_tensorflow, quiet_tensorflow
from fakeface.system.errors import exit_on_user_error
from fakeface.training.fit import write_history
from fakeface.training.resume import open_training_state
from fakeface.training.train_and_calibrate import train_stage

quiet_tensorflow()


def small_features(images: Any, _channels: Sequence[int], momentum: float) -> Any:
    """The default network's first blocks."""
    from tensorflow.keras import layers

    from fakeface.models import networks

    x = networks._convolution(networks._cell_differences(images), 8, 3, 1, momentum, "stem")
    return layers.GlobalAveragePooling2D(name="pool")(networks._residual_unit(x, 16, momentum, "unit"))


def signal_in_step(number: signal.Signals, step: int) -> None:
    """Send this process a signal before the end of the step, as if it came from without."""
    from fakeface.training import callbacks

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell has its jobs in the background ignore
    before, left = callbacks.MetricsRecorder.on_train_batch_end, step

    def end_of_step(reporter: Any, batch: int, logs: Any = None) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), number)
        before(reporter, batch, logs)

    setattr(callbacks.MetricsRecorder, "on_train_batch_end", end_of_step)  # noqa: B010 - mypy refuses an assignment


def train_mirrored(history: Path) -> None:
    """Stop in the second epoch as by Ctrl-C, go on to the end, and train with settings that lose the loss."""
    import tensorflow as tf

    from fakeface.training.distributed.strategy import Distribution

    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
    params = load_params(Path("params.yaml"))
    prepare_tensorflow("cpu", "float32", params.seed, params.deterministic)
    stores = {"stage1": open_store(Path("datasets/split/stage1"))}
    two = Distribution(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    signal_in_step(signal.SIGINT, 7)
    with open_training_state(Path("training"), "stage1") as saved:
        try:
            train_stage(params, "stage1", stores, None, "float32", [], saved, two)
        except KeyboardInterrupt:
            trained = train_stage(params, "stage1", stores, None, "float32", [], saved, two)
    write_history(trained.fit.history, history)
    with open_training_state(Path("training"), "diverging") as saved:
        train_stage(load_params(Path("diverging.yaml")), "stage1", stores, None, "float32", [], saved, two)


if __name__ == "__main__":
    from fakeface.models.networks import NETWORKS

    NETWORKS["residual"] = small_features
    with exit_on_user_error():
        if sys.argv[1] == "mirrored":
            train_mirrored(Path("mirrored.csv"))
        else:
            if sys.argv[2:]:
                signal_in_step(signal.Signals[sys.argv[2]], int(sys.argv[3]))
            script = runpy.run_path(str(Path(__file__).parents[2] / "pipeline/train_stage.py"))
            script["main"](["stage1"])
