"""Measurements that take turns on one machine, each in a process of its own, so that a busy minute hits all alike.

A process of its own, because oneDNN, precision and determinism are settings of a whole process.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

QUIET, LONGEST_WAIT = 0.1, 20.0  # s between two looks at the processor time; s until a worker is taken as it is


class Turn(NamedTuple):
    """What one turn did: an amount (images, or GFLOP) in so many seconds of wall clock and of all threads together."""

    amount: float
    wall: float
    processor: float


class Turns:
    """The worker's side: `begin` waits for the first turn, `end` closes one and waits for the next."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def begin(self) -> bool:
        """Say that all is ready and wait; return whether there is a turn."""
        self._settle()
        self._pipe.send(None)
        return self._wait()

    def end(self, amount: float) -> bool:
        """Report what the turn did, wait, and return whether there is another one."""
        done = Turn(amount, time.perf_counter() - self._wall, time.process_time() - self._processor)
        self._settle()
        self._pipe.send(done)
        return self._wait()

    def _wait(self) -> bool:
        goes_on = bool(self._pipe.recv())
        self._wall, self._processor = time.perf_counter(), time.process_time()
        return goes_on

    def _settle(self) -> None:
        """Let threads that read ahead fill their queues, so that they do not work in another one's turn."""
        until, used = time.monotonic() + LONGEST_WAIT, -1.0
        while time.monotonic() < until and time.process_time() - used > QUIET / 10:
            used = time.process_time()
            time.sleep(QUIET)


@dataclass(frozen=True)
class Job:
    """A module-level function `work(turns, *arguments)` and the environment that its process differs by."""

    work: Callable[..., None]
    arguments: Sequence[Any] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)  # None: not set


class Speed(NamedTuple):
    """Means over the turns: amount a second of wall clock, and milliseconds of processor time for one."""

    per_second: float
    processor_ms: float


def take_turns(jobs: Mapping[str, Job], rounds: int) -> dict[str, Speed]:
    """Run all jobs side by side, one at a time at work; their first turns warm them up and do not count."""
    done: dict[str, list[Turn]] = {name: [] for name in jobs}
    with ExitStack() as running:
        pipes = {name: running.enter_context(_started(name, job)) for name, job in jobs.items()}
        for number in range(rounds + 1):
            for name, pipe in pipes.items():
                pipe.send(True)
                turn = _received(pipe, name)
                if number:
                    done[name].append(turn)
    return {name: _speed(turns) for name, turns in done.items()}


def _speed(turns: Sequence[Turn]) -> Speed:
    return Speed(
        statistics.fmean(turn.amount / turn.wall for turn in turns),
        statistics.fmean(1000 * turn.processor / turn.amount for turn in turns),
    )


@contextmanager
def _started(name: str, job: Job) -> Iterator[Connection]:
    context = get_context("spawn")
    here, there = context.Pipe()
    with _environment(job.environment):
        process = context.Process(target=_work, args=(there, job.work, tuple(job.arguments)), daemon=True)
        process.start()
    there.close()
    try:
        _received(here, name)
        yield here
        here.send(False)
        process.join(LONGEST_WAIT)
    finally:
        process.kill()
        process.join()


def _received(pipe: Connection, name: str) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        raise RuntimeError(f"the measurement '{name}' ended early; what it said stands above") from None


def run_apart(function: Callable[..., Any], arguments: Sequence[Any], environment: Mapping[str, str | None]) -> Any:
    """Return what a module-level function gives in a process of its own."""
    with _environment(environment), ProcessPoolExecutor(1, get_context("spawn")) as processes:
        return processes.submit(function, *arguments).result()


def _work(pipe: Connection, work: Callable[..., None], arguments: Sequence[Any]) -> None:
    work(Turns(pipe), *arguments)


@contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
