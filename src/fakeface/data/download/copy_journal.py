"""Which files were copied, with their sums: a killed download goes on behind the last line that is whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fakeface.system.journal import open_journal, read_journal


class CopyJournal(NamedTuple):
    """The copies of earlier runs, and a function that adds a line."""

    entries: dict[str, list[str]]  # path: stamps of original and copy, bytes, sha256
    append: Callable[[tuple[str, str, str, int, str]], None]

    def find(self, path: str, origin: str, copy: str) -> tuple[int, str] | None:
        """Return size in bytes and sha256 of a copy; None unless it and its original are as they were then."""
        entry = self.entries.get(path)
        if entry is None or entry[:2] != [_read_stamp(origin), _read_stamp(copy)]:
            return None
        return int(entry[2]), entry[3]

    def add(self, path: str, origin: str, copy: str, size: int, sha256: str) -> None:
        """Write a new copy down at once."""
        self.append((path, _read_stamp(origin), _read_stamp(copy), size, sha256))


@contextmanager
def open_copy_journal(into: Path) -> Iterator[CopyJournal]:
    """Open the journal of a folder's copies, which lies beside the folder."""
    path = into.parent / f".{into.name}.journal.csv"
    entries = {row[0]: row[1:] for row in read_journal(path) if len(row) == 5 and row[3].isdecimal()}
    with open_journal(path, ((name, *entry) for name, entry in entries.items())) as append:
        yield CopyJournal(entries, append)


def _read_stamp(path: str) -> str:
    """Size, time and inode: what changes when a file is written to or replaced."""
    try:
        status = os.stat(path)  # noqa: PTH116 - making a Path takes longer
    except OSError:
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
