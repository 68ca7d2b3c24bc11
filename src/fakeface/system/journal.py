"""A journal: a CSV file without a header that grows by one line for each piece of work that is done."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fakeface.system.filesystem import annotate_os_error, atomic_write


def read_journal(path: Path) -> Iterator[list[str]]:
    """Give the values of each whole line; nothing for a missing file or the line that a killed process has cut."""
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            yield from csv.reader(line for line in file if line.endswith("\n"))
    except (FileNotFoundError, csv.Error):
        return


@contextmanager
def open_journal(path: Path, known: Iterable[Sequence[Any]] = ()) -> Iterator[Callable[[Sequence[Any]], None]]:
    """Start the journal with the lines `known`, and give a function that adds a line and writes it at once.

    The file is replaced as a whole first, so that no new line follows a cut one.
    """
    with atomic_write(path) as file:
        csv.writer(file, lineterminator="\n").writerows(known)
    with annotate_os_error(path):
        journal = path.open("a", encoding="utf-8", newline="", buffering=1)
    writer = csv.writer(journal, lineterminator="\n")

    def append(values: Sequence[Any]) -> None:
        with annotate_os_error(path):
            writer.writerow(values)

    try:
        yield append
    finally:
        with annotate_os_error(path):
            journal.close()
