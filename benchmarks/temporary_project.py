"""A copy of this project in a temporary folder, with tiny pictures, in which real stages run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image

from benchmarks.jpeg_samples import ROOT, SAMPLE

LEFT_OUT = ("sample", "tests", "docs", "benchmarks", "dvc.lock", "data.dvc")
IMAGES, SIDE = 30, 40  # pictures a source, their pixels a side


class Ended(NamedTuple):
    """What a command printed, and how long it took in seconds of wall clock and of processor time."""

    printed: str
    wall: float
    processor: float


class Project(NamedTuple):
    """The folder, and the environment of its commands."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *command: str) -> Ended:
        """Run a command that must succeed.

        Raises:
            RuntimeError: it did not; with what it said.
        """
        began, used = time.perf_counter(), os.times()
        result = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise RuntimeError(f"`{' '.join(command)}` failed: {result.stdout[-500:]}{result.stderr[-1500:]}")
        now = os.times()
        children = now.children_user + now.children_system - used.children_user - used.children_system
        return Ended(result.stdout, time.perf_counter() - began, children)

    def change_params(self, changes: Mapping[str, Any]) -> None:
        """Set keys of params.yaml, `data.rejected_share` for one in a section."""
        path = self.folder / "params.yaml"
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for key, value in changes.items():
            *sections, name = key.split(".")
            section = content
            for each in sections:
                section = section[each]
            section[name] = value
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


@contextmanager
def tiny_project() -> Iterator[Project]:
    """Make the project, as git has it, for as long as the block runs; its commands see no settings of the user."""
    with tempfile.TemporaryDirectory() as temporary:
        project = Project(Path(temporary, "project"), _environment(Path(temporary, "home")))
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        for name in filter(None, listed.stdout.split("\0")):
            if Path(name).parts[0] not in LEFT_OUT:
                copy = project.folder / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes((ROOT / name).read_bytes())
        _draw_pictures(project.folder / "data")
        project.change_params(
            {
                "image_size": 32,
                "batch_size": 8,
                "epochs": 1,
                "steps_per_epoch": 2,
                "validation_steps": 1,
                "evaluate.bootstrap": 50,
                "evaluate.robustness_images": 2,
                "data.split": {"train": 0.6, "valid": 0.2, "test": 0.2},  # so that no part of so few images is empty
            }
        )
        for command in ("init --quiet", "add --all", "commit --quiet --message start"):
            project.run("git", *command.split())
        yield project


def _draw_pictures(folder: Path) -> None:
    """Fill the sources of the sample with noise under soft blobs, which tell one picture from the other."""
    random = np.random.default_rng(0)
    for source in sorted(path.name for path in SAMPLE.iterdir() if path.is_dir()):
        (folder / source).mkdir(parents=True)
        for number in range(IMAGES):
            coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
            blobs = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64)
            pixels = (blobs + random.normal(0, 20, blobs.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / source / f"{number}.png")


def _environment(home: Path) -> dict[str, str]:
    home.mkdir()
    kept = ("LANG", "TMPDIR", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
    names = {f"GIT_{role}_NAME": "fakeface" for role in ("AUTHOR", "COMMITTER")}
    addresses = {f"GIT_{role}_EMAIL": "fakeface@example.org" for role in ("AUTHOR", "COMMITTER")}
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        **names,
        **addresses,
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "DVC_SITE_CACHE_DIR": str(home / "dvc"),
        "DO_NOT_TRACK": "true",
        "DVC_NO_ANALYTICS": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": "src",
    }
