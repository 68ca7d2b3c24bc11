"""The synthetic sample: rebuilt byte for byte, described by its manifest, and free of shortcuts between the classes."""

from __future__ import annotations

import csv
import hashlib
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fakeface.data.audit.image_properties import FileProperties, measure_file
from fakeface.data.audit.shortcut_probe import KINDS, probe_shortcut
from tests.support.project import PROJECT

SAMPLE = PROJECT / "sample"
STAGES = ("camera_1", "camera_2", "camera_3", "generator_1", "generator_2")
HELD_OUT = ("camera_4", "generator_1", "generator_3")
_COLOUR = ("file_red", "file_green", "file_blue")
EVIDENCE = {
    "mean colour": _COLOUR,
    "file size": ("bytes",),
    "JPEG tables": ("jpeg_quality", "jpeg_divisor", "subsampling"),
    "all of them": (*_COLOUR, *KINDS["file"].facts),
}

Table = NDArray[np.float64]


@pytest.fixture(scope="module")
def manifest() -> list[dict[str, str]]:
    with (SAMPLE / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def measured(manifest: list[dict[str, str]]) -> dict[str, FileProperties]:
    return {row["path"]: measure_file((SAMPLE / row["path"]).read_bytes()) for row in manifest}


def test_synthetic_sample_rebuild_gives_the_committed_bytes(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tools.synthetic_sample",
        "--out",
        str(tmp_path),
        "--limit",
        "2",
        "--processes",
        "2",
    ]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    rebuilt = sorted(tmp_path.rglob("*.jpg"))
    assert len(rebuilt) == 14
    for path in rebuilt:
        assert path.read_bytes() == (SAMPLE / path.relative_to(tmp_path)).read_bytes(), path.name


def test_synthetic_sample_manifest_describes_exactly_the_files(manifest: list[dict[str, str]]) -> None:
    assert {row["path"] for row in manifest} == {path.relative_to(SAMPLE).as_posix() for path in SAMPLE.rglob("*.jpg")}
    for row in manifest:
        content = (SAMPLE / row["path"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (int(row["bytes"]), row["sha256"]), row["path"]
        assert row["path"].startswith(f"{row['source']}/")
        assert row["label"] == ("real" if row["source"].startswith("camera_") else "fake")
        assert row["generator"] == (row["source"] if row["label"] == "fake" else "")
        with Image.open(SAMPLE / row["path"]) as image:
            assert image.format == "JPEG"
            assert image.size == (int(row["width"]), int(row["height"])) == (128, 128)
    assert len({row["sha256"] for row in manifest}) == len(manifest)


def test_synthetic_sample_near_duplicates_are_two_takes_of_one_scene(manifest: list[dict[str, str]]) -> None:
    groups: dict[str, list[Table]] = {}
    alone: list[Table] = []
    for row in manifest:
        thumbnail = _thumbnail(SAMPLE / row["path"])
        if row["near_duplicate_group"]:
            groups.setdefault(row["near_duplicate_group"], []).append(thumbnail)
        else:
            alone.append(thumbnail)
    assert {len(members) for members in groups.values()} == {2}
    within = [_likeness(first, second) for first, second in groups.values()]
    between = [_likeness(first, second) for first, second in itertools.pairwise(alone)]
    assert min(within) > 0.9
    assert np.median(between) < 0.6


def test_synthetic_sample_stays_small() -> None:
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*")) <= 12_000_000


@pytest.mark.parametrize("sources", [STAGES, HELD_OUT], ids=["stages", "held out"])
@pytest.mark.parametrize("evidence", EVIDENCE)
def test_synthetic_sample_has_no_shortcut(
    manifest: list[dict[str, str]], measured: dict[str, FileProperties], sources: tuple[str, ...], evidence: str
) -> None:
    rows = [row for row in manifest if row["source"] in sources]
    values = np.array([[getattr(measured[row["path"]], fact) for fact in EVIDENCE[evidence]] for row in rows])
    fake = np.array([row["label"] == "fake" for row in rows])
    assert 0.3 < fake.mean() < 0.9
    scene = [row["near_duplicate_group"] or row["sha256"] for row in rows]
    score = probe_shortcut(values, fake, scene)
    assert score is not None
    assert score.auc < 0.6


def _thumbnail(path: Path) -> Table:
    with Image.open(path) as image:
        small = np.asarray(image.convert("L").resize((16, 16), Image.Resampling.BOX), dtype=np.float64)
    result: Table = small - small.mean()
    return result


def _likeness(first: Table, second: Table) -> float:
    return float((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum()))
