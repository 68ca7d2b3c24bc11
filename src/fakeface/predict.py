"""The detector in use: checked images in, scores out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import numpy.typing as npt

from fakeface import HELDOUT, STAGES
from fakeface.calibration import Calibration
from fakeface.checkpoints import load_checkpoint
from fakeface.errors import UserError
from fakeface.image_files import list_images
from fakeface.images import Crop, RejectedImage, read_image
from fakeface.inputs import ImagePool, pool_of, scoring_dataset
from fakeface.progress import progress
from fakeface.reports import Evaluation, ScoredSet
from fakeface.store import Store

if TYPE_CHECKING:
    import tensorflow as tf

Scores = npt.NDArray[np.float64]


def score_pool(model: tf.keras.Model, pool: ImagePool, batch_size: int, what: str) -> Scores:
    """Return the network's raw P(fake) for each image of the pool, (N,) float64 in [0, 1], before calibration."""
    scores = []
    with progress(f"scoring {what}", len(pool)) as advance:
        for images, _ in scoring_dataset(pool, batch_size):
            scores.append(np.asarray(model.predict_on_batch(images))[:, 1].astype(np.float64))
            advance(len(images))
    return np.concatenate(scores) if scores else np.empty(0)


def evaluate_checkpoints(
    checkpoints: Mapping[str, Path],
    stores: Mapping[str, Store],
    heldout_sources: Sequence[str] | None,
    batch_size: int,
) -> Evaluation:
    """Score the held-out sources (None: all) and every stage's test part with each stage's checkpoint.

    Raises:
        UserError: a bad checkpoint, or a source named that the held-out set does not have.
    """
    pools = {HELDOUT: _heldout_pool(stores[HELDOUT], heldout_sources)}
    pools |= {stage: pool_of([stores[stage]], "test") for stage in STAGES}
    scores: dict[str, dict[str, Scores]] = {name: {} for name in pools}
    calibrations = {}
    for stage, path in checkpoints.items():
        model, facts = load_checkpoint(path)
        calibrations[stage] = facts.calibration
        for name, pool in pools.items():
            what = "held-out images" if name == HELDOUT else f"test images of {name}"
            raw = score_pool(model, pool, batch_size, f"{what} with {path.name}")
            scores[name][stage] = facts.calibration.apply(raw)
    sets = {
        name: ScoredSet(name, pool.paths(), pool.sources, pool.labels, scores[name]) for name, pool in pools.items()
    }
    return Evaluation(sets.pop(HELDOUT), sets, calibrations)


def _heldout_pool(store: Store, names: Sequence[str] | None) -> ImagePool:
    pool = pool_of([store], HELDOUT)
    if names is None:
        return pool
    present = np.unique(pool.sources).tolist()
    for name in names:
        if name not in present:
            known = ", ".join(present)
            raise UserError(f"params.yaml: evaluate.sources names '{name}', no held-out source; there are {known}.")
    return pool.where(np.isin(pool.sources, names))


def decision(calibration: Calibration, score: float) -> str:
    """Return `fake`, `real`, or `unsure` inside the band that validation images gave."""
    if bool(calibration.unsure([score])[0]):
        return "unsure"
    return "fake" if score >= calibration.threshold else "real"


def print_predictions(paths: Sequence[Path], checkpoint: Path, crop: Crop, batch_size: int = 32) -> int:
    """Print `path,score,decision` for every image file named or found in a folder named; return the exit code.

    An image that cannot be used is named with its reason on stderr, and makes the code 2.

    Raises:
        UserError: a path that does not exist, a folder without images, or a bad checkpoint.
    """
    from fakeface.device import prepare_tensorflow

    files = [file for path in paths for file in _image_files(path)]
    prepare_tensorflow("auto", "auto", seed=0, deterministic=False)
    model, facts = load_checkpoint(checkpoint)
    click.echo("path,score,decision")
    refused = 0
    for start in range(0, len(files), batch_size):
        batch = files[start : start + batch_size]
        decoded = {file: image for file in batch if (image := _read_or_say(file, facts.image_size, crop)) is not None}
        refused += len(batch) - len(decoded)
        if decoded:
            raw = np.asarray(model.predict_on_batch(np.stack(list(decoded.values())).astype(np.float32)))[:, 1]
            for file, score in zip(decoded, facts.calibration.apply(raw).tolist(), strict=True):
                click.echo(f"{_csv_field(str(file))},{score:.4f},{decision(facts.calibration, score)}")
    return 2 if refused else 0


def _read_or_say(file: Path, size: int, crop: Crop) -> npt.NDArray[np.uint8] | None:
    try:
        return read_image(file, size, crop)
    except RejectedImage as error:
        click.echo(f"fakeface: {file}: {error.reason}; it has no score.", err=True)
        return None


def _image_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path} is neither a file nor a folder; name an image, or a folder of images.")
    found = [path / name for name in list_images(path).images]
    if not found:
        raise UserError(f"{path} holds no image; name a folder that does.")
    return found


def _csv_field(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(letter in text for letter in ',"\n\r') else text
