"""The pixels that a network is fed are the same in training, through tf.data, as in prediction, file by file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fakeface.config.data_params import Profile, Reencode, Source
from fakeface.constants import STAGES
from fakeface.data.download.ingest import collect_sources
from fakeface.data.image_pool import gather_pool
from fakeface.data.image_store import open_store
from fakeface.data.input_pipeline import build_scoring_dataset
from fakeface.data.split.build_splits import split_dataset
from fakeface.images.preprocessing import Crop
from fakeface.inference.predict import score_files
from fakeface.metrics.calibration import Calibration
from fakeface.models.checkpoints import CheckpointMetadata
from fakeface.models.device import quiet_tensorflow
from tests.support.image_folders import data_of, picture

quiet_tensorflow()
SIZE = 32
SOURCES = {
    "first": Source(label="real", use={"stage1": 1}, crop="centre 0.7"),
    "second": Source(label="real", use={"stage2": 1}),
    "third": Source(label="real", use={"stage3": 1}, crop="whole"),
    "other": Source(label="real", use={"heldout": 1}),
    "machine": Source(label="fake", use={"stage1": 0.3, "stage2": 0.3, "stage3": 0.3, "heldout": 0.1}),
}


def _turned(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # lies on its side
    image.save(path.with_suffix(".jpg"), quality=90, exif=exif)


KINDS: list[Callable[[Image.Image, Path], object]] = [
    _turned,
    lambda image, path: image.convert("CMYK").save(path.with_suffix(".jpg"), quality=90),
    lambda image, path: image.convert("L").save(path.with_suffix(".png")),
]


class Fed:
    """In place of a network: keeps what it is given."""

    def __init__(self) -> None:
        self.images: list[npt.NDArray[np.float32]] = []

    def predict_on_batch(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        self.images.extend(images)
        return np.full((len(images), 2), 0.5, np.float32)


@pytest.mark.parametrize("reencode", [None, Reencode(quality=40, size=40)])
def test_prediction_sees_the_pixels_of_training(tmp_path: Path, reencode: Reencode | None) -> None:
    for number, source in enumerate(SOURCES):
        (tmp_path / "data" / source).mkdir(parents=True)
        for seed in range(1000 * number, 1000 * number + (90 if source == "machine" else 24)):
            image = picture(seed, 60).crop((0, 0, 48, 60))
            KINDS[seed % len(KINDS)](image, tmp_path / "data" / source / f"{seed}")
    profile = Profile(note=None, sources=SOURCES)
    data = data_of(tmp_path / "data", {"own": profile}).model_copy(update={"reencode": reencode})
    collect_sources(tmp_path / "data", "own", profile, tmp_path / "raw")
    split_dataset(tmp_path / "raw", tmp_path / "decoded", tmp_path / "split", tmp_path / "reports", data, SIZE)
    for role, part in (*((stage, "train") for stage in STAGES), ("heldout", "heldout")):
        store = open_store(tmp_path / "split" / role)
        pool = gather_pool([store], part)
        trained_on = np.concatenate([images.numpy() for images, _ in build_scoring_dataset(pool, 8)])
        facts = CheckpointMetadata(
            stage=role,
            recipe="default",
            network="residual",
            channels=(4,),
            image_size=SIZE,
            batch_norm_momentum=0.9,
            flip_tta=False,
            precision="float32",
            note=None,
            calibration=Calibration(),
            reencoding=store.reencoding,
        )
        fed = Fed()
        for path, source in zip(pool.paths(), pool.sources, strict=True):
            crop = Crop.parse(SOURCES[source].crop)
            list(score_files([tmp_path / "raw" / path], fed, facts, crop))
        assert len(fed.images) == len(pool) > len(KINDS)
        np.testing.assert_array_equal(np.stack(fed.images), trained_on)
