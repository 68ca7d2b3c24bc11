"""The detector in use: image files in, scores and decisions out."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from fakeface.calibration import Calibration
from fakeface.checkpoints import CheckpointFacts, load_detector
from fakeface.errors import UserError
from fakeface.image_files import list_images
from fakeface.images import Crop, RejectedImage, read_image


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

    found = [_image_files(path) for path in paths]
    files = [file for usable, _ in found for file in usable]
    refused = sum(count for _, count in found)
    prepare_tensorflow("auto", "auto", seed=0, deterministic=False)
    model, facts = load_detector(checkpoint)
    if facts.note:
        click.echo(
            f"fakeface: {checkpoint} was trained on the {facts.note}: its scores mean nothing elsewhere.", err=True
        )
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(("path", "score", "decision"))
    for start in range(0, len(files), batch_size):
        batch = files[start : start + batch_size]
        decoded = [(file, _read_or_say(file, facts, crop)) for file in batch]
        usable = [(file, image) for file, image in decoded if image is not None]
        refused += len(batch) - len(usable)
        if usable:
            images = np.stack([image for _, image in usable]).astype(np.float32)
            scores = facts.calibration.apply(np.asarray(model.predict_on_batch(images))[:, 1]).tolist()
            for (file, _), score in zip(usable, scores, strict=True):
                rows.writerow((file, f"{score:.4f}", decision(facts.calibration, score)))
    return 2 if refused else 0


def _read_or_say(file: Path, facts: CheckpointFacts, crop: Crop) -> npt.NDArray[np.uint8] | None:
    try:
        return read_image(file, facts.image_size, crop, reencoding=facts.reencoding)
    except (RejectedImage, OSError) as error:
        reason = error.reason if isinstance(error, RejectedImage) else error.strerror
        click.echo(f"fakeface: {file}: {reason}; it has no score.", err=True)
        return None


def _image_files(path: Path) -> tuple[list[Path], int]:
    """Return the image files of a path, and how many names in it were refused, each said on stderr."""
    if path.is_file():
        return [path], 0
    if not path.is_dir():
        raise UserError(f"{path} is neither a file nor a folder; name an image, or a folder of images.")
    listing = list_images(path)
    for name, reason in listing.refused:
        click.echo(f"fakeface: {path}/{name}: {reason}; it has no score.", err=True)
    if not listing.images:
        raise UserError(f"{path} holds no image; name a folder that does.")
    return [path / name for name in listing.images], len(listing.refused)
