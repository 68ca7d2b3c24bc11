"""How a stage ends when the user or the system asks for it: with its last words, a computation between two steps."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import psutil  # type: ignore[import-untyped, unused-ignore]

from fakeface.system.errors import UserError

_SHELLS = {"sh", "dash", "bash", "zsh", "fish", "ksh"}
SILENT_SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # end a process without a word, unless it has a handler
_SIGNALS = (signal.SIGINT, *SILENT_SIGNALS)


@contextmanager
def graceful_shutdown() -> Iterator[Callable[[], None]]:
    """Give a function to be called after each step, which ends the work there if it was asked for in the meantime.

    An exception out of a signal's handler may come anywhere, also where Python swallows it; so the handler only notes
    the signal. A second one has its usual effect at once. Signals that are ignored (nohup) stay so.

    Raises (from the function, and at the block's end):
        KeyboardInterrupt: after SIGINT.
        SystemExit: after SIGTERM or SIGHUP, with the shell's code (143, 129).
        UserError: DVC, which ran this stage, is gone, and nobody would take up what the stage makes.
    """
    asked: list[int] = []
    dvc = _find_dvc_process() if "DVC_STAGE" in os.environ else None

    def note(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        _restore(before)

    def stop_if_asked() -> None:
        if asked:
            raise KeyboardInterrupt if asked[0] == signal.SIGINT else SystemExit(128 + asked[0])
        if dvc is not None and not _is_alive(dvc):
            raise UserError("DVC, which ran this stage, was killed; run the same command again to go on.")

    before = _replace_handlers(note)
    try:
        yield stop_if_asked
        stop_if_asked()
    finally:
        _restore(before)


@contextmanager
def raise_on_termination() -> Iterator[None]:
    """Turn signals that end a process without a word into SystemExit with the shell's code (143 for SIGTERM)."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread set handlers
        return

    def leave(number: int, _frame: FrameType | None) -> None:
        for each in SILENT_SIGNALS:  # a second one must not interrupt the last words
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    heeded = [number for number in SILENT_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup: SIGHUP
    before = {number: signal.signal(number, leave) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _find_dvc_process() -> psutil.Process | None:
    """The process that started this one, by way of a shell or not."""
    try:
        return next((each for each in psutil.Process().parents() if each.name() not in _SHELLS), None)
    except psutil.Error:
        return None


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


_Handlers = dict[signal.Signals, Callable[[int, FrameType | None], object] | int]


def _replace_handlers(by: Callable[[int, FrameType | None], object]) -> _Handlers:
    if threading.current_thread() is not threading.main_thread():
        return {}  # Python lets only the main thread set handlers
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    ours: _Handlers = {number: old for number, old in before.items() if old not in (None, signal.SIG_IGN)}
    for number in ours:
        signal.signal(number, by)
    return ours


def _restore(handlers: _Handlers) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
