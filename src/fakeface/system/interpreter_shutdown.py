"""Calls of tf.data's threads into Python, and the end of the process."""

from __future__ import annotations

import atexit
import math
import threading
import time


class PythonCalls:
    """Counts the calls of tf.data's threads into Python, so that the process does not end in the middle of one.

    Python kills a thread that comes back to it once its end has begun, and TensorFlow then aborts or waits for ever:
    so it goes when an iterator is still alive at the end, as after an exception. Every function that tf.data calls
    runs inside `with CALLS`; what the block is given says whether the process goes on, so that its work still counts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._last_end = -math.inf
        self._process_goes_on = True

    def __enter__(self) -> bool:
        with self._lock:
            self._running += 1
            return self._process_goes_on

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1
            self._last_end = time.monotonic()

    def finish(self) -> None:
        """Let calls do nothing from now on, and return when none came for half a second: tf.data's buffers are full."""
        self._process_goes_on = False
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and (self._running or time.monotonic() - self._last_end < 0.5):
            time.sleep(0.02)


CALLS = PythonCalls()
atexit.register(CALLS.finish)
