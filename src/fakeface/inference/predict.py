"""The detector in use: image files in, scores and predictions out."""

from __future__ import annotations

import csv
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click
import numpy as np
import numpy.typing as npt

from fakeface.images.decoding import read_image
from fakeface.images.discovery import list_images
from fakeface.images.preprocessing import Crop
from fakeface.images.validation import RejectedImage
from fakeface.inference.scoring import predict_raw_scores
from fakeface.metrics.calibration import Calibration
from fakeface.models.checkpoints import CheckpointMetadata, ModelCache
from fakeface.system.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

Image: TypeAlias = npt.NDArray[np.uint8]

BATCH_SIZE = 32  # images the network gets at once; with 128 it is faster alone, and waits longer for its images
READ_AHEAD = 2  # batches decoded, or being decoded, while the network works on one
MOST_READERS = 4  # threads that decode; each may hold one picture in full size


def choose_prediction(calibration: Calibration, score: float) -> str:
    """Return `fake`, `real`, or `unsure` inside the band that validation images gave."""
    if bool(calibration.is_abstained([score])[0]):
        return "unsure"
    return "fake" if score >= calibration.threshold else "real"


def print_predictions(paths: Sequence[Path], checkpoint: Path, crop: Crop) -> int:
    """Print `path,score,prediction` for every image file named or found in a folder named; return the exit code.

    An image that cannot be used is named with its reason on stderr, and makes the code 2.

    Raises:
        UserError: a path that does not exist, a folder without images, or a bad checkpoint.
    """
    from fakeface.models.device import prepare_tensorflow

    found = [_list_files(path) for path in paths]
    files = [file for usable, _ in found for file in usable]
    refused = sum(count for _, count in found)
    prepare_tensorflow("auto", "auto", seed=0, deterministic=False)
    model, facts = ModelCache().load(checkpoint)
    if facts.note:
        click.echo(
            f"fakeface: {checkpoint} was trained on the {facts.note}: its scores mean nothing elsewhere.", err=True
        )
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(("path", "score", "prediction"))
    for file, score in score_files(files, model, facts, crop):
        if isinstance(score, str):
            click.echo(f"fakeface: {file}: {score}; it has no score.", err=True)
            refused += 1
        else:
            rows.writerow((file, f"{score:.4f}", choose_prediction(facts.calibration, score)))
    return 2 if refused else 0


def score_files(
    files: Sequence[Path], model: tf.keras.Model, facts: CheckpointMetadata, crop: Crop, batch_size: int = BATCH_SIZE
) -> Iterator[tuple[Path, float | str]]:
    """Yield each file in its order with its calibrated score in [0, 1], or with the reason why it has none.

    Threads decode the batches ahead while the network works on one, so at most READ_AHEAD + 1 batches are in memory.
    """
    for batch in _decode_ahead(files, facts, crop, batch_size):
        images = [image for _, image in batch if not isinstance(image, str)]
        scores = iter(_score_batches(images, model, facts))
        for file, image in batch:
            yield file, image if isinstance(image, str) else next(scores)


def _score_batches(images: Sequence[Image], model: tf.keras.Model, facts: CheckpointMetadata) -> list[float]:
    if not images:
        return []
    scores: list[float] = facts.calibration.apply(predict_raw_scores(model, np.stack(images))).tolist()
    return scores


def _decode_ahead(
    files: Sequence[Path], facts: CheckpointMetadata, crop: Crop, batch_size: int
) -> Iterator[list[tuple[Path, Image | str]]]:
    waiting: deque[list[tuple[Path, Future[Image | str]]]] = deque()
    with ThreadPoolExecutor(min(MOST_READERS, os.cpu_count() or 1)) as readers:
        for start in range(0, len(files), batch_size):
            batch = files[start : start + batch_size]
            waiting.append([(file, readers.submit(_decode_or_explain, file, facts, crop)) for file in batch])
            if len(waiting) > READ_AHEAD:
                yield [(file, image.result()) for file, image in waiting.popleft()]
        while waiting:
            yield [(file, image.result()) for file, image in waiting.popleft()]


def _decode_or_explain(file: Path, facts: CheckpointMetadata, crop: Crop) -> Image | str:
    try:
        return read_image(file, facts.image_size, crop, reencoding=facts.reencoding)
    except RejectedImage as error:
        return error.reason
    except OSError as error:
        return error.strerror or str(error)


def _list_files(path: Path) -> tuple[list[Path], int]:
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
