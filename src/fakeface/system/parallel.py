"""The same work on many pieces, by a process a core."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import TypeVar

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


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the pool

    def end_with_parent() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
