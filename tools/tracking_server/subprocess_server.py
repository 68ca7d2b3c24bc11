"""A server that runs as our child: started, waited for, and stopped with all that it started itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fakeface.system.errors import UserError

_LONGEST_STOP = 20.0  # seconds between asking a server to end and ending it


@dataclass
class Child:
    """A running server; `stop_signal` asks it to end."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stop_signal: signal.Signals

    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self.process.poll() is not None

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Return once `ready` says yes; where it does not, or we are told to end, nothing of it stays.

        Raises:
            UserError: it ended before, or is not ready in time.
        """
        end = time.monotonic() + seconds
        try:
            while not ready():
                if self.has_ended():
                    raise UserError(f"{self.name} ended at once ({self.last_words()}); see {self.log}.")
                if time.monotonic() > end:
                    raise UserError(f"{self.name} is not ready after {seconds:.0f} s; see {self.log}.")
                time.sleep(0.1)
        except BaseException:
            self.stop()
            raise

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return " ".join(lines[-1].split())[-200:] if lines else "without a word"

    def stop(self) -> None:
        """Ask it to end, wait, and end what is left of its process group."""
        if not self.has_ended():
            self.process.send_signal(self.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_LONGEST_STOP)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start(
    name: str,
    command: Sequence[str],
    log: Path,
    environ: Mapping[str, str],
    stop_signal: signal.Signals,
    as_whom: Sequence[str] = (),
) -> Child:
    """Start a server in a session of its own, so that Ctrl-C reaches us alone and the order of ending is ours.

    `as_whom` are words before the command that make it another user's.
    """
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*as_whom, *_ended_with_us(stop_signal), *command],
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Child(name, process, log, stop_signal)


def _ended_with_us(stop_signal: signal.Signals) -> list[str]:
    """What lets the kernel ask it to end where we are killed without a word."""
    return ["setpriv", "--pdeathsig", stop_signal.name.removeprefix("SIG")] if shutil.which("setpriv") else []
