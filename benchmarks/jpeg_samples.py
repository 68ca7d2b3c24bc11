"""Real JPEGs of a folder, as the notebook wants them (a folder a class) and as fakeface wants them (a store)."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fakeface.config.params import load_params
from fakeface.data.image_store import StoredImage, write_store
from fakeface.images.decoding import IMAGE_SIZE, read_image
from fakeface.images.discovery import list_images
from fakeface.images.preprocessing import Crop
from fakeface.system.errors import UserError

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "sample"


@dataclass(frozen=True)
class Faces:
    """Where the images lie: `by_class` with links in real/ and fake/, and `store`, all of it training images."""

    by_class: Path
    store: Path
    count: int


@contextmanager
def faces(data: Path, count: int, size: int = IMAGE_SIZE) -> Iterator[Faces]:
    """Lay out `count` JPEGs (or all, in whole batches of 64) spread evenly over a folder, while the block runs.

    Raises:
        UserError: there are fewer than 128 JPEGs.
    """
    names = _jpegs(data, count)
    labels = ["fake" if _is_fake(data, name, number) else "real" for number, name in enumerate(names)]
    with tempfile.TemporaryDirectory() as temporary:
        by_class, store = Path(temporary, "by_class"), Path(temporary, "store")
        for number, (name, label) in enumerate(zip(names, labels, strict=True)):
            link = by_class / label / f"{number:05}.jpg"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((data / name).resolve())
        with ThreadPoolExecutor(2) as readers:
            images = list(readers.map(partial(read_image, size=size, crop=Crop(1)), [data / name for name in names]))
        rows = [
            StoredImage(name, label, label, "train", "", "", hashlib.sha256(image.tobytes()).hexdigest())
            for name, label, image in zip(names, labels, images, strict=True)
        ]
        write_store(rows, [np.stack(images)], size, store)
        yield Faces(by_class, store, len(names))


def _jpegs(data: Path, count: int) -> list[str]:
    if not data.is_dir():
        raise UserError(f"{data} is no folder; name one with JPEGs: make bench DATA=FOLDER.")
    names = [name for name in list_images(data).images if name.lower().endswith((".jpg", ".jpeg"))]
    if len(names) < 128:
        raise UserError(f"{data} holds {len(names)} JPEGs, and the benchmark needs 128; name another folder.")
    whole = min(count, len(names)) // 64 * 64
    chosen = np.linspace(0, len(names) - 1, whole).round().astype(int)
    return [names[position] for position in chosen]


def _is_fake(data: Path, name: str, number: int) -> bool:
    """Whether a profile of params.yaml calls the image fake; images that none knows alternate."""
    for profile in load_params(ROOT / "params.yaml").data.profiles.values():
        for source, settings in profile.sources.items():
            if settings.collection is None and name.startswith(f"{settings.folder or source}/"):
                return settings.label == "fake"
    return number % 2 == 1
