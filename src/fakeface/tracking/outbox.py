"""Events that their tracking store has not taken yet: one JSON file each, with the files it speaks of beside it.

A file appears by a rename, so a killed process leaves whole events or none, and goes once the event is recorded. Events
are safe to send twice, so a process killed between the two does no harm.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from fakeface.tracking.store_uri import LOCAL

_SERIAL = count()


@dataclass(frozen=True)
class Event:
    """Something to record about an experiment (`stage` empty) or about one of its stages.

    `files` are paths that must be kept until the event is recorded; `time_ms` is milliseconds since 1970; `store` is
    the name of the one store that it is for.
    """

    kind: str
    experiment: dict[str, Any]
    stage: str = ""
    payload: dict[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    time_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    store: str = LOCAL


def enqueue(event: Event, folder: Path) -> Path:
    """Write the event and copies of its files to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.time_ns():020d}-{os.getpid()}-{next(_SERIAL)}.json"
    copies = []
    for number, source in enumerate(event.files):
        copy = path.with_suffix(".files") / str(number) / Path(source).name
        copy.parent.mkdir(parents=True)
        shutil.copyfile(source, copy)
        copies.append(str(copy.relative_to(folder)))
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({**asdict(event), "files": copies}, ensure_ascii=False), encoding="utf-8")
    draft.replace(path)
    return path


def count_pending(folder: Path) -> Counter[str]:
    """How many events `folder` holds, by the name of their store."""
    counts: Counter[str] = Counter()
    for path in folder.glob("*.json"):
        with suppress(FileNotFoundError):  # another process has sent it meanwhile
            counts[_read_store(path)] += 1
    return counts


@cache  # a file is asked for at each event that follows it, and never changes
def _read_store(path: Path) -> str:
    return str(json.loads(path.read_text(encoding="utf-8")).get("store", LOCAL))


def iterate_pending(folder: Path, store: str) -> Iterator[tuple[Path, Event]]:
    """Every event in `folder` for this store, oldest first."""
    for path in sorted(folder.glob("*.json")):
        try:
            if _read_store(path) != store:
                continue
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        files = tuple(str(folder / name) for name in content.pop("files"))
        yield path, Event(**content, files=files)


def drop(path: Path) -> None:
    """Remove an event and its files."""
    path.unlink(missing_ok=True)
    shutil.rmtree(path.with_suffix(".files"), ignore_errors=True)


def requeue(folder: Path, store: str) -> None:
    """Let what was set aside for this store be tried again, after what was wrong with it may have been mended."""
    for path in sorted((folder / "refused").glob("*.json")):
        if _read_store(path) != store:
            continue
        files = path.with_suffix(".files")
        if files.exists():
            files.rename(folder / files.name)
        path.rename(folder / path.name)


def quarantine(path: Path, reason: str) -> None:
    """Move an event that can never be recorded out of the way, with the reason beside it."""
    refused = path.parent / "refused"
    refused.mkdir(exist_ok=True)
    (refused / f"{path.stem}.txt").write_text(f"{reason}\n", encoding="utf-8")
    files = path.with_suffix(".files")
    if files.exists():
        files.rename(refused / files.name)
    path.rename(refused / path.name)
