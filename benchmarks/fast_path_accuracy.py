"""Accuracy does not pay for speed: equal steps on the fast path and on the plain one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import fakeface_runner
from benchmarks.cli_options import DATA, part
from benchmarks.interleaved_runs import run_apart
from benchmarks.jpeg_samples import faces
from benchmarks.results_table import Row

SIZE, BATCH, SEEDS = 64, 32, (1, 2, 3)
_STEPS = click.option("--steps", type=click.IntRange(8), default=18, show_default=True, help="Steps of 32 images.")


@part("fast_path_accuracy", DATA, _STEPS)
def main(data: Path, steps: int) -> list[Row]:
    """Loss of the seed's network (64×64 pixels) after equal steps, fast path against plain float32, three seeds."""
    with faces(data, 1024, SIZE) as images:
        fast, plain = (
            np.array(run_apart(train, (images.store, steps, is_fast), environment))
            for is_fast, environment in ((True, {}), (False, {"TF_ENABLE_ONEDNN_OPTS": "0"}))
        )
    spread = float(np.ptp(plain[:, 0]))
    means = {name: runs.mean(axis=0) for name, runs in (("fast", fast), ("plain", plain))}
    return [
        Row(
            f"accuracy: loss after {steps} steps, fast path − plain float32",
            spread,
            abs(float(means["fast"][0] - means["plain"][0])),
            "",
            at_most=True,
            how=f"loss {means['fast'][0]:.3f} against {means['plain'][0]:.3f}, accuracy {means['fast'][1]:.3f} "
            f"against {means['plain'][1]:.3f} (last third of the steps, mean of 3 seeds); target: the spread of "
            "the plain path's seeds",
        )
    ]


def train(store: Path, steps: int, fast: bool) -> list[tuple[float, float]]:
    """Return, for each seed, mean loss and accuracy over the last third of the steps."""
    return [_after(store, steps, fast, seed) for seed in SEEDS]


def _after(store: Path, steps: int, fast: bool, seed: int) -> tuple[float, float]:
    _prepare(fast, seed)  # before TensorFlow's first import, which reads what it sets

    from fakeface.data.image_pool import gather_pool
    from fakeface.data.image_store import open_store
    from fakeface.data.input_pipeline import build_training_dataset
    from fakeface.models.networks import build_network
    from fakeface.training.augmentation.build_augmentation import build_augmentation
    from fakeface.training.fit import compile_for_training

    augmentation: Any = fakeface_runner.params_of("seed").get_recipe().augmentation_steps("stage2")
    augment = build_augmentation(fakeface_runner.on_opencv(augmentation) if fast else augmentation, seed)
    batches = build_training_dataset(
        gather_pool([open_store(store)], "train"), augment, BATCH, steps, range(1), "none", seed
    )
    model = build_network("seed", (64, 32, 64), SIZE, 0.99)
    compile_for_training(model, "constant", 0.001, steps)
    seen = []
    for images, labels in batches:
        seen.append(model.train_on_batch(images, labels, reset_metrics=True))
    loss, accuracy = np.mean(seen[-(steps // 3) :], axis=0)
    return float(loss), float(accuracy)


def _prepare(fast: bool, seed: int) -> None:
    from fakeface.models.device import prepare_tensorflow

    params = fakeface_runner.params_of("seed")
    prepare_tensorflow(params.device, params.precision if fast else "float32", seed, params.deterministic)


if __name__ == "__main__":
    main()
