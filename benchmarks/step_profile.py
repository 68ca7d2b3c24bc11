"""Where a training step's time goes, by kind of operation, from TensorFlow's own profiler.

python -m benchmarks.step_profile --recipe seed
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import click

from benchmarks import fakeface_runner

# Kinds by TensorFlow's names of operations, the first that fits; what an optimiser or a metric does is "other".
KINDS = {
    "Adam": r"^Adam/",
    "dropout": r"dropout",
    "convolution, gradient of the weights": r"Conv2DBackpropFilter",
    "convolution, gradient of the input": r"Conv2DBackpropInput",
    "convolution, forward": r"Conv2D",
    "batch norm": r"BatchNorm",
    "pooling": r"Pool",
    "dense": r"MatMul",
    "ReLU": r"Relu",
    "bias": r"BiasAdd",
}
_CONTAINERS = r"PartitionedCall|FunctionRun|Eager|Executor|MakeIterator|Iterator"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--recipe", type=click.Choice(["seed", "default"]), default="seed", show_default=True)
@click.option("--steps", type=click.IntRange(1), default=2, show_default=True)
@click.option("--batch-size", type=click.IntRange(2), default=64, show_default=True)
def main(recipe: str, steps: int, batch_size: int) -> None:
    """Print each kind's share of the time that a training step's operations take, on images from memory."""
    milliseconds = profile_step(recipe, steps, batch_size)
    whole = sum(milliseconds.values())
    for kind, spent in milliseconds.most_common():
        click.echo(f"| {kind} | {100 * spent / whole:.0f} % | {spent / steps / batch_size:.2f} ms an image |")


def profile_step(recipe: str, steps: int, batch_size: int) -> Counter[str]:
    """Return milliseconds by kind of operation, of all threads' operations together."""
    from fakeface.models.device import prepare_tensorflow

    params = fakeface_runner.params_of(recipe)
    prepare_tensorflow(params.device, params.precision, params.seed, params.deterministic)
    import numpy as np
    import tensorflow as tf

    from fakeface.training.fit import compile_for_training

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch_size, params.image_size, params.image_size, 3)).astype(np.float32)
    labels = random.integers(0, 2, batch_size)
    model = fakeface_runner.fresh_network(params)
    compile_for_training(model, "constant", 0.001, steps)
    model.train_on_batch(images, labels)
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(steps):
                model.train_on_batch(images, labels)
        (trace,) = Path(folder).rglob("*.xplane.pb")
        return _by_kind(trace.read_bytes())


def _by_kind(trace: bytes) -> Counter[str]:
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    spent: Counter[str] = Counter()
    for plane in xplane_pb2.XSpace.FromString(trace).planes:
        for line in plane.lines:
            for event in line.events:
                kind = _kind(plane.event_metadata[event.metadata_id])
                if kind is not None:
                    spent[kind] += event.duration_ps / 1e9
    return spent


def _kind(described: Any) -> str | None:
    """Return the kind of an event named `layer/name:Operation`, None for what is no operation."""
    _, colon, operation = described.name.rpartition(":")
    if not colon or "::" in described.name or re.search(_CONTAINERS, described.name):
        return None
    if not re.fullmatch(r"_?[A-Za-z0-9]+", operation):
        return None
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, described.name)), "other")


if __name__ == "__main__":
    main()
