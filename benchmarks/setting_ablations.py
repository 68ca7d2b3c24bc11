"""Settings that were left alone, each against what the pipeline does: would it pay on this machine?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click

from benchmarks import fakeface_runner
from benchmarks.cli_options import DATA, ROUNDS, part
from benchmarks.interleaved_runs import Job, Turns, take_turns
from benchmarks.jpeg_samples import faces
from benchmarks.results_table import Row

TRAININGS: Mapping[str, Mapping[str, Any]] = {
    "as it is": {},
    "XLA (jit_compile)": {"jit_compile": True},
    "steps_per_execution of 4": {"steps_per_execution": 4},
}
SCORINGS = {"as it is": True, "without batch norm, as if folded into the convolutions": False}
STEPS, SCORED = 4, 8  # steps of a training's turn, batches of a scoring's
_RECIPE = click.option("--recipe", type=click.Choice(["seed", "default"]), default="seed", show_default=True)


@part("setting_ablations", DATA, ROUNDS, _RECIPE)
def main(data: Path, rounds: int, recipe: str) -> list[Row]:
    """Processor time of a training step and of scoring, with one setting changed at a time, as a ratio."""
    with faces(data, 1024) as images:
        speeds = take_turns(
            {
                **{name: Job(train, (images.store, recipe, dict(how))) for name, how in TRAININGS.items()},
                **{f"scoring {name}": Job(score, (recipe, norm)) for name, norm in SCORINGS.items()},
            },
            rounds,
        )
    rows = []
    for kind, names in (("", TRAININGS), ("scoring ", SCORINGS)):
        plain = speeds[f"{kind}as it is"]
        for name in list(names)[1:]:
            changed = speeds[f"{kind}{name}"]
            said = f"{changed.processor_ms:.1f} against {plain.processor_ms:.1f} ms of processor time an image, "
            said += f"{changed.per_second:.1f} against {plain.per_second:.1f} images/s"
            title = f"{recipe}, {kind or 'training '}{name}"
            rows.append(Row(title, 1, changed.processor_ms / plain.processor_ms, "×", at_most=True, how=said))
    return rows


def train(turns: Turns, store: Path, recipe: str, how: Mapping[str, Any]) -> None:
    """Train as stage 2 does, compiled with `how` besides."""
    from fakeface.models.device import prepare_tensorflow

    params = fakeface_runner.params_of(recipe)
    # XLA has no deterministic gradient of the seed's pooling
    prepare_tensorflow(params.device, params.precision, params.seed, params.deterministic and "jit_compile" not in how)
    from benchmarks.pausable_fit import Pauses
    from fakeface.training.fit import compile_for_training

    chosen, settings = params.get_recipe(), params.get_stage_config("stage2")
    steps = fakeface_runner.on_opencv(chosen.augmentation_steps("stage2"))
    batches, per_epoch, size = fakeface_runner.training_batches(params, "stage2", store, steps)
    model = fakeface_runner.fresh_network(params)
    compile_for_training(model, chosen.schedule, settings.lr, per_epoch * fakeface_runner.EPOCHS, chosen.weight_decay)
    if how:
        model.compile(model.optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"], **how)
    at_once = how.get("steps_per_execution", 1)
    pauses = Pauses(turns, STEPS // at_once, size * at_once)
    model.fit(
        batches.repeat(), epochs=fakeface_runner.EPOCHS, steps_per_epoch=4 * per_epoch, callbacks=[pauses], verbose=0
    )


def score(turns: Turns, recipe: str, batch_norm: bool) -> None:
    """Score batches that lie in memory, with the network or with one that has no batch norm."""
    from fakeface.models.device import quiet_tensorflow

    quiet_tensorflow()
    import tensorflow as tf

    def nothing(**_settings: Any) -> Any:
        return tf.keras.layers.Activation("linear")

    with patch.object(
        tf.keras.layers, "BatchNormalization", tf.keras.layers.BatchNormalization if batch_norm else nothing
    ):
        fakeface_runner.predict_alone(turns, recipe, fakeface_runner.params_of(recipe).validation_batch_size, SCORED)


if __name__ == "__main__":
    main()
