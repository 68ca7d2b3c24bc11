"""Record events now, or keep them on disk until the tracking store takes them. Nothing here ever stops a training."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from fakeface.system.project import find_main_folder, open_private_folder
from fakeface.tracking import liveness, local_store, outbox
from fakeface.tracking.error_messages import describe_store_error, is_away, is_deleted
from fakeface.tracking.event_writer import MlflowStore
from fakeface.tracking.outbox import Event
from fakeface.tracking.store_uri import hide_password

_LOG = logging.getLogger("fakeface.tracking")
_LONGEST_DELIVERY = 5.0  # seconds that a training spends at a time on what has been waiting
_FIRST_PAUSE, _LONGEST_PAUSE = 30.0, 600.0  # seconds between tries: each may cost the training 40 s of waiting


class Recorder:
    """Sends events to one tracking store in the order they come."""

    def __init__(self, project_root: Path, environ: Mapping[str, str] = os.environ) -> None:
        """The store is the one that MLFLOW_TRACKING_URI names, or sqlite in the main folder."""
        self.main = main = find_main_folder(project_root, environ)
        self.store = MlflowStore(main, environ.get("MLFLOW_TRACKING_URI") or local_store.build_uri(main))
        self.folder = main / ".fakeface" / "undelivered"
        self._turn = threading.RLock()
        self._warned = False
        self._pause, self._next_try = _FIRST_PAUSE, 0.0
        self._starts: dict[tuple[str, str], Event] = {}

    def record(self, event: Event, *, last: bool = False) -> None:
        """Record the event, after all that is waiting; keep it where that fails. `last`: try now, whatever happened."""
        with self._turn:
            if event.kind == "start":
                self._starts[event.experiment["key"], event.stage] = event
            waiting = self.waiting() > 0
            if waiting and (last or time.monotonic() >= self._next_try):
                waiting = self.deliver(math.inf if last else _LONGEST_DELIVERY) > 0
            if waiting or not self._done(event):
                self._keep(event)

    def waiting(self) -> int:
        """How many events wait for this store."""
        return outbox.count_pending(self.folder)[self.store.name]

    def waits(self, kind: str, key: str, digest: str) -> bool:
        """Whether this very result waits already, from a command before."""
        self.deliver()
        return any(
            event.kind == kind and event.experiment["key"] == key and event.payload["digest"] == digest
            for _, event in outbox.iterate_pending(self.folder, self.store.name)
        )

    def deliver(self, seconds: float = math.inf) -> int:
        """Send what is waiting, oldest first, until the time is up; returns how many events still wait."""
        end = time.monotonic() + seconds
        if not self.waiting():
            return 0
        with self._turn, liveness.hold_lock(open_private_folder(self.main) / "deliver.lock"):
            for path, event in outbox.iterate_pending(self.folder, self.store.name):
                if time.monotonic() > end or not self._done(event, path):
                    break
                outbox.drop(path)
        return self.waiting()

    def _done(self, event: Event, path: Path | None = None) -> bool:
        """Whether nothing more is to be done for the event: written, or refused for good and set aside."""
        try:
            self.store.connect()
        except Exception as error:
            self._went_away(error)
            return False
        try:
            self._write(event)
        except Exception as error:
            if is_away(error):
                self._went_away(error)
                return False
            self._set_aside(event, path, error)
        self._pause, self._next_try = _FIRST_PAUSE, 0.0
        return True

    def _write(self, event: Event) -> None:
        try:
            self.store.record(event)
        except Exception as error:
            if not is_deleted(error):
                raise
            self.store.disconnect()  # someone deleted the run meanwhile: a new one takes its place
            self.store.connect()
            start = self._starts.get((event.experiment["key"], event.stage))
            for again in (start, event):
                if again:
                    self.store.record(again)

    def _went_away(self, error: Exception) -> None:
        self.store.disconnect()
        self._next_try = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        self._warn(
            f"{describe_store_error(error)}; the work goes on, and what belongs there waits in .fakeface/undelivered "
            "until then."
        )

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            _LOG.warning("fakeface: the tracking store %s %s", hide_password(self.store.uri), what)

    def _keep(self, event: Event) -> Path | None:
        try:
            return outbox.enqueue(replace(event, store=self.store.name), open_private_folder(self.main, "undelivered"))
        except OSError as error:
            _LOG.warning(
                "fakeface: %s %s; a part of the run is not recorded.", self.folder, describe_store_error(error)
            )
            return None

    def _set_aside(self, event: Event, path: Path | None, error: Exception) -> None:
        path = path or self._keep(event)
        if path is not None:
            outbox.quarantine(path, f"{type(error).__name__}: {error}")
            where = path.parent / "refused"
            _LOG.warning("fakeface: MLflow refuses a part of the run; it lies in %s with the reason.", where)


@contextmanager
def suppress_tracking_errors() -> Iterator[None]:
    """Turn whatever goes wrong in tracking into one sentence."""
    try:
        yield
    except Exception as error:
        _LOG.warning("fakeface: tracking failed (%s: %s); the work goes on.", type(error).__name__, error)
