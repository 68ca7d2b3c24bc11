"""One image of the sample from its source's name and its index; all images over several processes; the manifest."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from .camera import Camera, photograph
from .generator import Generator, generate
from .noise_fields import Picture, blur, halved, with_margin
from .scene import render_scene
from .sources import SOURCES
from .tone_and_jpeg import jpeg, random_development, toned

SIZE = 128
NOISE = (0.002, 0.012)  # standard deviation at mid-grey in linear light, drawn logarithmically for each image
MARGIN = 8  # a multiple of 2 to the power of every generator's levels
SECOND_TAKE_EVERY = 40  # the last of so many images shows the scene of the one before it once more
COLUMNS = ("path", "label", "source", "generator", "width", "height", "bytes", "sha256", "near_duplicate_group")


def seeded(source: str, index: int, purpose: str) -> np.random.Generator:
    """The random numbers of one image for one purpose (`scene` or `picture`)."""
    digest = hashlib.sha256(f"{source}/{index}/{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def scene_index(index: int) -> int:
    """Which index' scene an image shows: its own, but for the second takes."""
    return index - 1 if index % SECOND_TAKE_EVERY == SECOND_TAKE_EVERY - 1 else index


def make_image(source: str, index: int) -> bytes:
    """JPEG bytes of image `index` of `source`."""
    scene = render_scene(seeded(source, scene_index(index), "scene"), 2 * SIZE)
    rng = seeded(source, index, "picture")
    development = random_development(rng, index)
    picture = form_picture(rng, SOURCES[source].model, scene)
    return jpeg(toned(picture, development), development)


def form_picture(rng: np.random.Generator, model: Camera | Generator, scene: Picture) -> Picture:
    """Linear picture of a scene of twice its size, cut out at a random place of what the model makes.

    The cut lets the mosaic of a camera and the checkerboard of a generator start at any row and column.
    """
    noise = float(np.exp(rng.uniform(np.log(NOISE[0]), np.log(NOISE[1]))))
    view = halved(blur(scene, 2.0 * rng.uniform(*model.blur)))
    top, left = (int(start) for start in rng.integers(0, MARGIN, 2))
    view = with_margin(view, top, left, MARGIN)
    made = photograph(rng, model, view, noise) if isinstance(model, Camera) else generate(rng, model, view, noise)
    return made[top : top + SIZE, left : left + SIZE]


def image_path(source: str, index: int) -> str:
    """Where an image lies in the sample."""
    return f"{source}/{index:04d}.jpg"


def write_images(out: Path, wanted: list[tuple[str, int]], processes: int) -> Iterator[tuple[str, int, bytes]]:
    """Make and write the wanted images (source, index); yields each with its bytes, in order."""
    for source in {source for source, _ in wanted}:
        (out / source).mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(processes) as pool:
        made = pool.map(make_image, *zip(*wanted, strict=True), chunksize=8)
        for (source, index), content in zip(wanted, made, strict=True):
            (out / image_path(source, index)).write_bytes(content)
            yield source, index, content


def manifest_row(source: str, index: int, content: bytes) -> dict[str, str | int]:
    """What the manifest says of one image."""
    label = SOURCES[source].label
    first = scene_index(index if index % SECOND_TAKE_EVERY != SECOND_TAKE_EVERY - 2 else index + 1)
    paired = index % SECOND_TAKE_EVERY >= SECOND_TAKE_EVERY - 2
    return {
        "path": image_path(source, index), "label": label, "source": source,
        "generator": source if label == "fake" else "", "width": SIZE, "height": SIZE,
        "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
        "near_duplicate_group": f"{source}-{first:04d}" if paired else "",
    }  # fmt: skip


def write_manifest(path: Path, rows: list[dict[str, str | int]]) -> None:
    """Write the manifest, one row an image."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
