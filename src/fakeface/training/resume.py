"""What a training that was cut short left behind, so that the same command goes on where it was.

A training's folder lies where neither DVC nor the end of a temporary workspace removes it, and is named by a digest of
everything that decides the result: one of other settings, images or code is never taken up.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from fakeface.system.checksums import hash_file
from fakeface.system.errors import UserError
from fakeface.system.filesystem import ensure_dir, recreate_dir
from fakeface.system.serialization import read_json, write_json

_TENSORS, _PROGRESS, _DIVERGED, _RESULT = "tensors", "progress.json", "diverged.json", "result.json"
KEPT = 8  # trainings; a stage that is never finished would stay for ever


@dataclass(frozen=True)
class Progress:
    """What is known after `epoch` whole epochs: a row an epoch, seconds of fitting, and counters of callbacks."""

    epoch: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    counters: dict[str, float] = field(default_factory=dict)


class TrainingState:
    """The folder of one training; `progress` is the last epoch that was kept whole in it."""

    def __init__(self, folder: Path) -> None:
        """Find the newest whole epoch in `folder`, which may be empty; a damaged one is removed."""
        self.folder = folder
        self.progress = Progress()
        for path in sorted(folder.glob("epoch-*"), key=_parse_epoch, reverse=True):
            progress = _read_whole(path)
            if progress:
                self.progress = progress
                break
            print(f"{path} is damaged and not used.", file=sys.stderr, flush=True)
            shutil.rmtree(path, ignore_errors=True)

    def restore(self, tensors: Mapping[str, Any]) -> None:
        """Give objects that tf.train.Checkpoint can keep the values of the last whole epoch, if there is one."""
        import tensorflow as tf

        if self.progress.epoch:
            path = str(self._epoch(self.progress.epoch) / _TENSORS)
            tf.train.Checkpoint(**tensors).read(path).assert_existing_objects_matched().expect_partial()

    def save(self, tensors: Mapping[str, Any], progress: Progress) -> None:
        """Keep the state after an epoch: beside first, then renamed; the epoch before goes only then.

        A disk that takes no more is told, and the training goes on without.
        """
        import tensorflow as tf

        beside, whole = self.folder / ".partial", self._epoch(progress.epoch)
        try:
            recreate_dir(beside)
            tf.train.Checkpoint(**tensors).write(str(beside / _TENSORS))
            sums = {path.name: hash_file(path) for path in sorted(beside.iterdir())}
            write_json(beside / _PROGRESS, {"progress": asdict(progress), "sha256": sums})
            _sync_to_disk(beside)
            beside.replace(whole)
        except (OSError, tf.errors.OpError) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            print(f"{whole} cannot be written ({reason}); the training goes on.", file=sys.stderr, flush=True)
            return
        self.progress = progress
        for path in self.folder.glob("epoch-*"):
            if path != whole:
                shutil.rmtree(path, ignore_errors=True)

    def describe_last_checkpoint(self) -> str:
        """Say what is kept, as a part of a sentence."""
        epoch = self.progress.epoch
        return (
            f"the state after epoch {epoch} is kept in {_display_path(self._epoch(epoch))}"
            if epoch
            else "no epoch was whole"
        )

    def record_divergence(self, what: str, advice: str) -> None:
        """Keep what was said when the loss was no longer a number, both parts of a sentence."""
        with suppress(OSError):
            write_json(self.folder / _DIVERGED, {"what": what, "advice": advice})

    def check_known_divergence(self) -> None:
        """Refuse a training that would repeat, step by step, one whose loss was no longer a number.

        Raises:
            UserError: it ended so before.
        """
        path = self.folder / _DIVERGED
        if path.is_file():
            said = read_json(path)
            raise UserError(
                f"{said['what']}; that was with these very settings, which come to the same again where deterministic "
                f"is true; {said['advice']}; to try nevertheless, from the last good epoch on, "
                f"delete {_display_path(path)}."
            )

    def finish(self, checkpoint: Path) -> None:
        """Say that the stage has written all; the state goes when the next one starts from that checkpoint.

        Not at once: until DVC has noted the outputs, a kill would have it run the whole stage again.
        """
        with suppress(OSError):
            write_json(self.folder / _RESULT, {"sha256": hash_file(checkpoint)})

    def _epoch(self, number: int) -> Path:
        return self.folder / f"epoch-{number}"


@contextmanager
def open_training_state(folder: Path, name: str) -> Iterator[TrainingState]:
    """Open, or begin, the training of this name under `folder`, which no other process has while the block runs.

    Where a living process has it, as when two queued experiments share a stage, this one gets one of its own.
    """
    import filelock

    ensure_dir(folder)
    for number in count(1):
        own = folder / (name if number == 1 else f"{name}-{number}")
        lock = filelock.FileLock(_lock_path(own))
        with suppress(filelock.Timeout):
            lock.acquire(blocking=False)
        if lock.is_locked:
            break
    try:
        ensure_dir(own)
        os.utime(own)
        _remove_oldest(folder)
        yield TrainingState(own)
    finally:
        lock.release()


def remove_finished(folder: Path, checkpoint: Path) -> None:
    """Remove what is left of the training that made this checkpoint: whoever reads it shows that it is in safety."""
    results = list(folder.glob(f"*/{_RESULT}"))
    sha256 = hash_file(checkpoint) if results and checkpoint.is_file() else None
    for path in results:
        with suppress(OSError, ValueError):
            if json.loads(path.read_text(encoding="utf-8")).get("sha256") == sha256:
                _remove(path.parent)


def _remove_oldest(folder: Path) -> None:
    trainings = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in trainings[:-KEPT]:
        if _remove(path):
            print(f"{_display_path(path)}, an unfinished training, is removed: {KEPT} newer ones are kept.", flush=True)


def _remove(training: Path) -> bool:
    """Remove a training that no living process has; whether it went."""
    import filelock

    lock = filelock.FileLock(_lock_path(training))
    try:
        with lock.acquire(blocking=False):
            shutil.rmtree(training, ignore_errors=True)
            _lock_path(training).unlink(missing_ok=True)
    except filelock.Timeout:
        return False
    return True


def _lock_path(training: Path) -> Path:
    return training.with_name(f"{training.name}.lock")


def _read_whole(path: Path) -> Progress | None:
    try:
        content: Mapping[str, Any] = json.loads((path / _PROGRESS).read_text(encoding="utf-8"))
        whole = all(hash_file(path / name) == sha256 for name, sha256 in content["sha256"].items())
        return Progress(**content["progress"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _parse_epoch(path: Path) -> int:
    ending = path.name.rpartition("-")[2]
    return int(ending) if ending.isdigit() else 0


def _sync_to_disk(folder: Path) -> None:
    """Have the system write what it still holds in memory, for a power cut."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _display_path(path: Path) -> str:
    """A path below the current folder as the user would write it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
