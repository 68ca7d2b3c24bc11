"""Writing to disk: whole or not at all, one process at a time, and errors that name the path they concern."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_log = logging.getLogger(__name__)


@contextmanager
def annotate_os_error(path: Path) -> Iterator[None]:
    """Give errors of the operating system the path that they concern; one of a full disk comes without."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def atomic_write(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 text file for writing that takes its name only once all is written."""
    ensure_dir(path.parent)
    beside = path.with_name(f".{path.name}.partial")
    with annotate_os_error(path), beside.open("w", encoding="utf-8", newline="") as file:
        yield file
    beside.replace(path)


def ensure_dir(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        NotADirectoryError: a file has that name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None


def recreate_dir(folder: Path) -> None:
    """Make an empty folder of this name; one that stands stays what it is, which may be a link or a disk of its own."""
    ensure_dir(folder)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """One process at a time in here; another waits, and then finds the work done. A killed one holds nothing up."""
    import filelock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=1)
    except filelock.Timeout:
        _log.warning("Another run works in %s; waiting for it.", path.parent)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
