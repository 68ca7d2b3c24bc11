"""The `dvc` command that runs this stage: it gives all its stages one experiment, and its end is seen later."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped, unused-ignore]

from fakeface.tracking.run_identity import RunIdentity


def find_dvc_process() -> psutil.Process | None:
    """The nearest process above this one that is DVC."""
    for process in psutil.Process().parents():
        try:
            words = process.cmdline()[:3]
        except psutil.Error:
            continue
        if any(Path(word).name == "dvc" for word in words):
            return process
    return None


def pin_identity(experiment: RunIdentity, folder: Path, **words: str) -> RunIdentity:
    """The experiment that the first stage of this command was in, so that an edit meanwhile splits no run in two."""
    path = _locate_note(experiment, folder)
    if path is None:
        return experiment
    if path.exists():
        return _read_note(path)
    draft = path.with_suffix(".draft")
    note = {"experiment": experiment.as_json(), "host": socket.gethostname(), **words}
    draft.write_text(json.dumps(note), encoding="utf-8")
    draft.replace(path)
    return experiment


def read_pinned(experiment: RunIdentity, folder: Path) -> RunIdentity | None:
    """What `pin_identity` noted for this command, if it did."""
    path = _locate_note(experiment, folder)
    return _read_note(path) if path and path.exists() else None


def _locate_note(experiment: RunIdentity, folder: Path) -> Path | None:
    process = find_dvc_process()
    if process is None:
        return None
    of = experiment.key if experiment.is_dvc_experiment else "repro"
    return folder / f"{process.pid}-{process.create_time():.2f}-{of}.json"


def _read_note(path: Path) -> RunIdentity:
    return RunIdentity(**json.loads(path.read_text(encoding="utf-8"))["experiment"])


def pop_ended(folder: Path, wanted: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """What `pin_identity` noted for commands of this machine that are over, each once, where it says `wanted`."""
    for path in sorted(folder.glob("*.json")):
        note = json.loads(path.read_text(encoding="utf-8"))
        pid, started = path.name.split("-")[:2]
        here = note["host"] == socket.gethostname()
        if here and not _is_running(int(pid), float(started)) and all(note.get(key) == wanted[key] for key in wanted):
            yield note
            path.unlink(missing_ok=True)


def _is_running(pid: int, started: float) -> bool:
    try:
        return bool(abs(psutil.Process(pid).create_time() - started) < 1)
    except psutil.NoSuchProcess:
        return False
