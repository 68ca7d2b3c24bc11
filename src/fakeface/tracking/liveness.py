"""Who is still running: a locked file a run, which the operating system unlocks however the process ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


class Heartbeat:
    """The sign of life of one run: who runs it, and the last thing it said."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def say(self, **words: Any) -> None:
        """Append one line; a kill in the middle, or a full disk, costs that line only."""
        with suppress(OSError):
            os.write(self._descriptor, (json.dumps(words) + "\n").encode())

    def close(self) -> None:
        """The run has ended and said so: nothing is left to find."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def describe_process() -> dict[str, str]:
    """Tags that name this process."""
    import psutil  # type: ignore[import-untyped, unused-ignore]

    started = psutil.Process().create_time()
    return {"process.id": str(os.getpid()), "process.host": socket.gethostname(), "process.started": f"{started:.2f}"}


def start_heartbeat(folder: Path, name: str, **words: Any) -> Heartbeat | None:
    """Show a sign of life under `name`; None where a living process already does."""
    path = folder / f"{name}.jsonl"
    descriptor = _open_locked(path)
    for _ in range(20):
        if descriptor is not None:
            break
        time.sleep(0.05)  # another command may be looking at it
        descriptor = _open_locked(path)
    else:
        return None
    os.ftruncate(descriptor, 0)
    sign = Heartbeat(path, descriptor)
    sign.say(**words)
    return sign


def pop_stale(folder: Path, wanted: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """What the runs that ended without a message said, each once: their signs are removed, where they say `wanted`."""
    for path in sorted(folder.glob("*.jsonl")):
        descriptor = _open_locked(path, create=False)
        if descriptor is None:
            continue
        words = _read_words(path)
        is_whole = wanted.keys() <= words.keys()  # not so where a full disk took the first line
        if is_whole and any(words[key] != wanted[key] for key in wanted):
            os.close(descriptor)
            continue
        if is_whole:
            yield words
        Heartbeat(path, descriptor).close()


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold a file lock, waiting for whoever holds it."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _open_locked(path: Path, *, create: bool = True) -> int | None:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | (os.O_CREAT if create else 0), 0o644)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
        os.close(descriptor)  # removed by its owner between our opening and our locking


def _read_words(path: Path) -> dict[str, Any]:
    words: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(json.JSONDecodeError):
            words |= json.loads(line)
    return words
