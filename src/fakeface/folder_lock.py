"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fakeface.errors import UserError


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process, by a lock on the file `.<name>.lock` beside it that ends with the process.

    Raises:
        UserError: another process holds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"Another run is writing {folder}; wait until it has ended and run this again.") from None
        yield
