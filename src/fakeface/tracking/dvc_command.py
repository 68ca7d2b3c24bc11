"""The `dvc` command that runs this stage: it gives all its stages one experiment, and its end is seen later."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped, unused-ignore]

from fakeface.tracking.identity import Experiment


def running_command() -> psutil.Process | None:
    """The nearest process above this one that is DVC."""
    for process in psutil.Process().parents():
        try:
            words = process.cmdline()[:3]
        except psutil.Error:
            continue
        if any(Path(word).name == "dvc" for word in words):
            return process
    return None


def pinned(experiment: Experiment, folder: Path, **words: str) -> Experiment:
    """The experiment that the first stage of this command was in, so that an edit meanwhile splits no row in two."""
    path = _note_of(experiment, folder)
    if path is None:
        return experiment
    if path.exists():
        return _noted(path)
    draft = path.with_suffix(".draft")
    note = {"experiment": experiment.as_json(), "host": socket.gethostname(), **words}
    draft.write_text(json.dumps(note), encoding="utf-8")
    draft.replace(path)
    return experiment


def joined(experiment: Experiment, folder: Path) -> Experiment | None:
    """What `pinned` noted for this command, if it did."""
    path = _note_of(experiment, folder)
    return _noted(path) if path and path.exists() else None


def _note_of(experiment: Experiment, folder: Path) -> Path | None:
    process = running_command()
    if process is None:
        return None
    of = experiment.key if experiment.is_dvcs else "repro"
    return folder / f"{process.pid}-{process.create_time():.2f}-{of}.json"


def _noted(path: Path) -> Experiment:
    return Experiment(**json.loads(path.read_text(encoding="utf-8"))["experiment"])


def take_ended(folder: Path, wanted: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """What `pinned` noted for commands of this machine that are over, each once, where it says `wanted`."""
    for path in sorted(folder.glob("*.json")):
        note = json.loads(path.read_text(encoding="utf-8"))
        pid, started = path.name.split("-")[:2]
        here = note["host"] == socket.gethostname()
        if here and not _runs(int(pid), float(started)) and all(note.get(key) == wanted[key] for key in wanted):
            yield note
            path.unlink(missing_ok=True)


def _runs(pid: int, started: float) -> bool:
    try:
        return bool(abs(psutil.Process(pid).create_time() - started) < 1)
    except psutil.NoSuchProcess:
        return False
