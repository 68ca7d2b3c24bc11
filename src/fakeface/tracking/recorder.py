"""Record events now, or keep them on disk until the tracking store takes them. Nothing here ever stops a training."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fakeface.tracking import alive, undelivered
from fakeface.tracking.identity import private_folder
from fakeface.tracking.mlflow_store import MlflowStore, default_uri, is_gone, is_refused, reason
from fakeface.tracking.undelivered import Event

_LOG = logging.getLogger("fakeface.tracking")
_SECONDS_BETWEEN_TRIES = 30.0


class Recorder:
    """Sends events to one tracking store in the order they come."""

    def __init__(self, main: Path, uri: str = "") -> None:
        self.store = MlflowStore(main, uri or default_uri(main))
        self.folder = private_folder(main, "undelivered")
        self._warned = False
        self._next_try = 0.0

    def record(self, event: Event) -> None:
        """Record the event, after all that is waiting; keep it where that fails."""
        waiting = any(self.folder.glob("*.json"))
        if waiting and time.monotonic() >= self._next_try:
            waiting = self.deliver() > 0
        if waiting or not self._recorded(event):
            self._keep(event)

    def deliver(self) -> int:
        """Send what is waiting, oldest first; returns how many events still wait."""
        with alive.lock(private_folder(self.store._main) / "deliver.lock"):
            for path, event in undelivered.kept(self.folder):
                if not self._recorded(event, path):
                    break
                undelivered.drop(path)
        return sum(1 for _ in self.folder.glob("*.json"))

    def _recorded(self, event: Event, path: Path | None = None) -> bool:
        """Whether nothing more is to be done for the event: written, or refused for good and set aside."""
        try:
            self.store.connect()
        except Exception as error:
            self._went_away(error)
            return False
        try:
            self._record(event)
        except Exception as error:
            if not is_refused(error):
                self._went_away(error)
                return False
            self._set_aside(event, path, error)
        return True

    def _record(self, event: Event) -> None:
        try:
            self.store.record(event)
        except Exception as error:
            if not is_gone(error):
                raise
            self.store.disconnect()  # someone deleted the row in the UI: a new one takes its place
            self.store.connect()
            self.store.record(event)

    def _went_away(self, error: Exception) -> None:
        self.store.disconnect()
        self._next_try = time.monotonic() + _SECONDS_BETWEEN_TRIES
        self._warn(
            f"{reason(error)}; the work goes on, and what belongs there waits in .fakeface/undelivered until then."
        )

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            _LOG.warning("fakeface: the tracking store %s %s", without_password(self.store.uri), what)

    def _keep(self, event: Event) -> Path | None:
        try:
            return undelivered.keep(event, self.folder)
        except OSError as error:
            self._warned = False
            self._warn(f"and the folder {self.folder} both {reason(error)}; a part of the curves is lost.")
            return None

    def _set_aside(self, event: Event, path: Path | None, error: Exception) -> None:
        path = path or self._keep(event)
        if path is not None:
            undelivered.set_aside(path, f"{type(error).__name__}: {error}")
            _LOG.warning(
                "fakeface: MLflow refuses a part of the run; it lies in %s with the reason.", path.parent / "refused"
            )


def without_password(uri: str) -> str:
    """`http://name:secret@host` → `http://name:…@host`."""
    return re.sub(r"(://[^/:@]+):[^@/]*@", r"\1:…@", uri)


@contextmanager
def never_in_the_way() -> Iterator[None]:
    """Turn whatever goes wrong in tracking into one sentence."""
    try:
        yield
    except Exception as error:
        _LOG.warning("fakeface: tracking failed (%s: %s); the work goes on.", type(error).__name__, error)
