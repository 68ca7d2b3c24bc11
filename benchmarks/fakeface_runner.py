"""fakeface's own way, with the functions that its stages and `fakeface predict` call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.interleaved_runs import Turns
from benchmarks.jpeg_samples import ROOT
from fakeface.config.params import Params, load_params
from fakeface.metrics.calibration import Calibration

EPOCHS = 1000  # more than any measurement lasts


def params_of(recipe: str) -> Params:
    """Return params.yaml with one of its recipes chosen."""
    return load_params(ROOT / "params.yaml").model_copy(update={"recipe": recipe})


def on_opencv(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return augmentation steps with the fast backend of each, where the recipe names the notebook's libraries."""
    return [{**step, "backend": "opencv"} if "backend" in step else dict(step) for step in steps]


def training_batches(
    params: Params, stage: str, store: Path, steps: Sequence[Mapping[str, Any]]
) -> tuple[Any, int, int]:
    """Return the dataset of fit_stage, its steps an epoch and its batch size."""
    from fakeface.data.image_pool import gather_pool
    from fakeface.data.image_store import open_store
    from fakeface.data.input_pipeline import build_training_dataset, derive_stage_seed
    from fakeface.training.augmentation.build_augmentation import build_augmentation

    recipe, settings = params.get_recipe(), params.get_stage_config(stage)
    pool = gather_pool([open_store(store)], "train")
    per_epoch = max(1, len(pool) // settings.batch_size)
    seed = derive_stage_seed(params.seed, stage)
    augment = build_augmentation(steps, seed)
    batches = build_training_dataset(pool, augment, settings.batch_size, per_epoch, range(EPOCHS), recipe.balance, seed)
    return batches, per_epoch, settings.batch_size


def train(turns: Turns, store: Path, recipe: str, images: int, from_memory: bool = False) -> None:
    """Train a recipe's network on a store in stage 2's way, about `images` images a turn.

    `from_memory`: on a few batches that are augmented once and kept, so that no step waits for its images.
    """
    from fakeface.models.device import prepare_tensorflow

    params = params_of(recipe)
    prepare_tensorflow(params.device, params.precision, params.seed, params.deterministic)
    from benchmarks.pausable_fit import Pauses
    from fakeface.training.fit import compile_for_training

    chosen, settings = params.get_recipe(), params.get_stage_config("stage2")
    batches, per_epoch, size = training_batches(params, "stage2", store, on_opencv(chosen.augmentation_steps("stage2")))
    batches = batches.take(4).cache().repeat() if from_memory else batches
    model = fresh_network(params)
    compile_for_training(model, chosen.schedule, settings.lr, per_epoch * EPOCHS, chosen.weight_decay)
    pauses = Pauses(turns, max(1, images // size), size)
    model.fit(batches, epochs=EPOCHS, steps_per_epoch=per_epoch, callbacks=[pauses], verbose=0)


def fresh_network(params: Params) -> Any:
    """Return the chosen recipe's network with fresh weights."""
    from fakeface.models.networks import build_network
    from fakeface.training.train_and_calibrate import list_network_arguments

    return build_network(*list_network_arguments(params))


def seed_network() -> Any:
    """Return the seed recipe's network, to be looked at in the benchmark's own process."""
    from fakeface.models.device import quiet_tensorflow

    quiet_tensorflow()
    return fresh_network(params_of("seed"))


def read(turns: Turns, store: Path, recipe: str, stage: str, images: int, fast: bool = True) -> None:
    """Read and augment about `images` images a turn, for nobody; not `fast`: with the libraries the recipe names."""
    from fakeface.models.device import prepare_tensorflow

    params = params_of(recipe)
    prepare_tensorflow(params.device, params.precision, params.seed, params.deterministic)
    steps = params.get_recipe().augmentation_steps(stage)
    batches, _, size = training_batches(params, stage, store, on_opencv(steps) if fast else steps)
    count = max(1, images // size)
    goes_on = turns.begin()
    while goes_on:
        following = iter(batches)  # a fresh one: what an old one has read ahead was made before this turn
        for _ in range(count):
            next(following)
        goes_on = turns.end(count * size)


def predict(turns: Turns, folder: Path, recipe: str) -> None:
    """Score a folder of JPEGs a turn, as `fakeface predict` does after it has loaded its network."""
    from fakeface.images.preprocessing import Crop
    from fakeface.inference.predict import score_files
    from fakeface.models.checkpoints import CheckpointMetadata
    from fakeface.models.device import prepare_tensorflow
    from fakeface.models.flip_tta import with_flip_tta

    params = params_of(recipe)
    device = prepare_tensorflow(params.device, params.precision, params.seed, deterministic=False)
    chosen = params.get_recipe()
    facts = CheckpointMetadata(
        stage="stage3",
        recipe=recipe,
        network=chosen.network,
        channels=tuple(chosen.channels),
        image_size=params.image_size,
        batch_norm_momentum=chosen.batch_norm_momentum,
        flip_tta=chosen.flip_tta,
        precision=device.precision,
        note=None,
        calibration=Calibration(),
    )
    model, files = fresh_network(params), sorted(folder.rglob("*.jpg"))
    model = with_flip_tta(model) if chosen.flip_tta else model
    goes_on = turns.begin()
    while goes_on:
        scored = sum(isinstance(score, float) for _, score in score_files(files, model, facts, Crop(1)))
        goes_on = turns.end(scored)


def predict_alone(turns: Turns, recipe: str, batch_size: int, count: int) -> None:
    """Score `count` batches of images that lie in memory a turn."""
    from fakeface.models.device import prepare_tensorflow

    params = params_of(recipe)
    prepare_tensorflow(params.device, params.precision, params.seed, deterministic=False)
    import numpy as np

    model = fresh_network(params)
    shape = (batch_size, params.image_size, params.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    goes_on = turns.begin()
    while goes_on:
        for _ in range(count):
            model.predict_on_batch(images)
        goes_on = turns.end(count * batch_size)
