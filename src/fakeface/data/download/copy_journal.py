"""Which files were copied, with their sums: a killed download goes on behind the last line that is whole."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from fakeface.system.filesystem import annotate_os_error, atomic_write
from fakeface.system.serialization import read_whole_lines


class _Journal:
    """Which copies were made of which originals, kept beside the folder so that a killed run goes on where it was."""

    def __init__(self, into: Path) -> None:
        self._path = into.parent / f".{into.name}.journal.csv"
        self._known: dict[str, tuple[str, str, int, str]] = {}
        for row in read_whole_lines(self._path):
            if len(row) == 5 and row[3].isdecimal():
                self._known[row[0]] = (row[1], row[2], int(row[3]), row[4])

    def __enter__(self) -> _Journal:
        with atomic_write(self._path) as file:  # without the line that a killed run has cut
            csv.writer(file, lineterminator="\n").writerows((path, *entry) for path, entry in self._known.items())
        with annotate_os_error(self._path):
            self._file = self._path.open("a", encoding="utf-8", newline="", buffering=1)
        self._writer = csv.writer(self._file, lineterminator="\n")
        return self

    def __exit__(self, *_: object) -> None:
        with annotate_os_error(self._path):
            self._file.close()

    def known(self, path: str, origin: str, copy: str) -> tuple[int, str] | None:
        entry = self._known.get(path)
        if entry is None or entry[:2] != (_read_stamp(origin), _read_stamp(copy)):
            return None
        return entry[2], entry[3]

    def note(self, path: str, origin: str, copy: str, size: int, sha256: str) -> None:
        with annotate_os_error(self._path):
            self._writer.writerow((path, _read_stamp(origin), _read_stamp(copy), size, sha256))


def _read_stamp(path: str) -> str:
    """Size, time and inode: what changes when a file is written to or replaced."""
    try:
        status = os.stat(path)  # noqa: PTH116 - making a Path takes longer
    except OSError:
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
