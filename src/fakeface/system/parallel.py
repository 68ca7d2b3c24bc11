"""The same work on many pieces, by a process a core."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import TypeVar

from fakeface.system.errors import UserError
from fakeface.system.progress import show_progress

CHUNK = 64  # items a task
_FEW = 512  # items that are done sooner than worker processes start

_A = TypeVar("_A")
_B = TypeVar("_B")


def process_map(work: Callable[[_A], _B], tasks: Sequence[_A], workers: int | None = None) -> Iterator[_B]:
    """Give what `work`, a function of a module, makes of each task, in the tasks' order.

    Args:
        work: called in another process, which ends when this one does.
        tasks: pieces large enough to be worth sending.
        workers: processes; None for one a core, 1 for none beside this.

    Raises:
        concurrent.futures.process.BrokenProcessPool: a worker was killed, perhaps for want of memory.
    """
    if workers is None:
        workers = len(os.sched_getaffinity(0))
    if workers == 1:
        yield from map(work, tasks)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker) as pool:
        yield from pool.map(work, tasks)


def map_items(
    work: Callable[[Sequence[_A]], Sequence[_B]], items: Sequence[_A], what: str, workers: int | None = None
) -> Iterator[tuple[_A, _B]]:
    """Give each item with what `work` makes of it, in the items' order, and show the progress.

    Args:
        work: a function of a module, or a partial of one, from some items to as many results.
        items: sent to the processes in chunks; few are worked on in this process, as others start too late for them.
        what: the work in a few words, "decoding images" for instance.
        workers: as in `process_map`.

    Raises:
        UserError: a worker was killed.
    """
    if workers is None and len(items) <= _FEW:
        workers = 1
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    with show_progress(what, len(items)) as advance:
        try:
            for chunk, results in zip(chunks, process_map(work, chunks, workers), strict=True):
                yield from zip(chunk, results, strict=True)
                advance(len(chunk))
        except BrokenProcessPool:
            raise UserError(
                f"A process was killed while {what}, perhaps for want of memory; free some or lower "
                "data.max_megapixels, and run this again: it goes on where it was."
            ) from None


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the pool

    def end_with_parent() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
