"""A copy of this project with a handful of small pictures, in which real DVC and real MLflow run."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from tests.support.project import PROJECT

LEFT_OUT = {"sample", "tests", "docs", "README.md"}
OUTPUTS = ("datasets", "models", "reports")
CAMERAS = ("camera_1", "camera_2", "camera_3", "camera_4")
GENERATORS = ("generator_1", "generator_2", "generator_3")
IMAGES, SIDE, EPOCHS = 30, 48, 2  # images a source, their pixels a side, epochs a stage
# Held-out photographs that are made as the fakes are, so that no detector is right of all and a gate can be missed
LOOKS_FAKE = {("camera_4", 0), ("camera_4", 1)}
LETTER, HALF_IMAGE = "camera_1/letter.jpg", "camera_2/half.jpg"  # lie beside the images, and are none


@dataclass(frozen=True)
class Project:
    """A folder with the pipeline in it, and the environment of its commands."""

    folder: Path
    environment: Mapping[str, str] = field(repr=False)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run git, or a command of this Python's environment: `dvc`, `python`."""
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def done(self, *command: str) -> str:
        """Run a command that must succeed; returns what it printed."""
        result = self.run(*command)
        assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
        return result.stdout

    def kill_when_it_says(self, words: str, *command: str) -> None:
        """Run a command, and kill it and all that it started as soon as a line that it prints begins so."""
        self.run_and_when_it_says(words, lambda pid: os.killpg(pid, signal.SIGKILL), *command)

    def run_and_when_it_says(
        self, words: str, act: Callable[[int], object], *command: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, and call `act` with its process id as soon as a line that it prints begins so."""
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            printed, acted = [], False
            for line in process.stdout:
                printed.append(line)
                if line.startswith(words) and not acted:
                    acted = True
                    act(process.pid)
        said = "".join(printed)
        assert acted, f"{words!r} was not said:\n{said}"
        return subprocess.CompletedProcess(command, process.returncode, said)

    @contextmanager
    def started(self, output: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a command in a process group of its own, and wait for its end; all that it prints goes to a file."""
        with (
            output.open("w") as file,
            subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as process,
        ):
            yield process

    def params(self) -> dict[str, Any]:
        content = yaml.safe_load((self.folder / "params.yaml").read_text())
        assert isinstance(content, dict)
        return content

    def change_params(self, changes: Mapping[str, Any]) -> None:
        """Set keys of params.yaml, `data.split.train` for one in a section."""
        content = self.params()
        for key, value in changes.items():
            *sections, name = key.split(".")
            section = content
            for each in sections:
                section = section[each]
            section[name] = value
        (self.folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    def read_json(self, path: str) -> Any:
        return json.loads((self.folder / path).read_text())

    def copy_to(self, folder: Path, without: Collection[str] = ()) -> Project:
        """Copy the project and all it has made, but for the top-level entries `without`."""

        def left_out(where: str, names: list[str]) -> set[str]:
            return set(names) & set(without) if Path(where) == self.folder else set()

        shutil.copytree(self.folder, folder, symlinks=True, ignore=left_out)
        return Project(folder, self.environment)

    def outputs(self, *others: str) -> dict[str, str]:
        """The sha256 of every file that the stages have made, and of those in other folders, by path."""
        files = (path for name in (*OUTPUTS, *others) for path in (self.folder / name).rglob("*"))
        return {
            path.relative_to(self.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.is_file() and not path.is_symlink()
        }


@dataclass(frozen=True)
class Reproduced:
    """A project after `dvc repro`; tests read it, and change copies alone."""

    project: Project
    printed: str
    git_status: list[str]

    def metrics(self) -> Any:
        return self.project.read_json("reports/metrics.json")

    def table(self, path: str) -> list[dict[str, str]]:
        return read_table(self.project.folder / path)


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def make_project(folder: Path, home: Path) -> Project:
    """Copy the code and shrink its parameters, draw a sample, and commit all."""
    for name in _names_of_this_project():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / name, target)
    project = Project(folder, _environment(home))
    project.change_params(
        {
            "image_size": 32,
            "batch_size": 8,
            "epochs": EPOCHS,
            "device": "cpu",
            "data.rejected_share": 0.2,
            "data.split": {"train": 0.6, "valid": 0.2, "test": 0.2},  # so that no part of so few images is empty
            "recipes.default.channels": [4, 8],
            "evaluate.bootstrap": 50,
            "data.profiles": {"sample": project.params()["data"]["profiles"]["sample"]},  # DVC copies all of them often
        }
    )
    _draw_sample(folder / "sample")
    (folder / "data.dvc").write_text("deps:\n- path: sample\nouts:\n- path: data\n")  # another sample, no sums yet
    (folder / "dvc.lock").unlink(missing_ok=True)
    for command in ("init --quiet", "add --all", "commit --quiet --message start"):
        project.done("git", *command.split())
    return project


def _names_of_this_project() -> list[str]:
    """What git has, and what it would take: a file that .gitignore hides by mistake is missed here as in a clone."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.split("\0") if name]
    return [name for name in names if Path(name).parts[0] not in LEFT_OUT and (PROJECT / name).is_file()]


def _environment(home: Path) -> dict[str, str]:
    """A home of its own, nobody's settings, nothing sent, and one thread, so that two runs fit two cores."""
    home.mkdir(parents=True)
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    names = {f"GIT_{role}_NAME": "A tester" for role in ("AUTHOR", "COMMITTER")}
    addresses = {f"GIT_{role}_EMAIL": "tester@example.org" for role in ("AUTHOR", "COMMITTER")}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    return {
        **kept,
        **names,
        **addresses,
        **threads,
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "DVC_SITE_CACHE_DIR": str(home / "dvc"),
        "DO_NOT_TRACK": "true",
        "DVC_NO_ANALYTICS": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": "src",
    }


def _draw_sample(folder: Path) -> None:
    """Noise pixel by pixel, as a camera has it, and noise of half the size made large, as a generator makes it."""
    for number, source in enumerate((*CAMERAS, *GENERATORS)):
        (folder / source).mkdir(parents=True)
        for image in range(IMAGES):
            seed = 1000 * number + image
            is_doubled = source in GENERATORS or (source, image) in LOOKS_FAKE
            drawn = _picture(seed, SIDE // 2 if is_doubled else SIDE)
            drawn.resize((SIDE, SIDE), Image.Resampling.NEAREST).save(folder / source / f"{image:03d}.png")
    (folder / LETTER).write_text("Dear reader, this is no photograph.\n")
    buffer = io.BytesIO()
    _picture(7, SIDE).save(buffer, "JPEG", quality=95)
    (folder / HALF_IMAGE).write_bytes(buffer.getvalue()[: buffer.tell() // 2])


def _picture(seed: int, side: int) -> Image.Image:
    """Draw soft blobs, which tell two pictures apart, under fine noise."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    blobs = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float64)
    return Image.fromarray((blobs + random.normal(0, 25, blobs.shape)).clip(0, 255).astype(np.uint8))
