"""Which result each run has, noted beside the store: a repro with nothing to do finds its run without MLflow.

One JSON line a change, the last one about a run counts. Where the notes are missing, the store itself is asked.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from fakeface.system.project import find_main_folder, open_private_folder
from fakeface.tracking import dvc_session, local_store, outbox, store_uri
from fakeface.tracking.run_identity import RunIdentity, identify_run


@dataclass(frozen=True)
class IndexedRun:
    """An experiment's run as it was last seen; `result` is the digest of what it holds, empty while it is open."""

    store: str
    experiment_name: str
    experiment_id: str
    key: str
    name: str
    run_id: str
    result: str

    @property
    def address(self) -> str:
        """Its page in the browser; that of a local store is served by `make ui`."""
        return f"{store_uri.build_page_address(self.store)}/#/experiments/{self.experiment_id}/runs/{self.run_id}"


class RunIndex:
    """The notes of one repository about one store."""

    def __init__(self, main: Path, uri: str) -> None:
        """`build_uri` is MLflow's address of the store."""
        self._main = main
        self.store = store_uri.name_store(uri, main)

    def note(self, experiment: RunIdentity, experiment_id: str, run_id: str, result: str) -> None:
        """Append what is known of a run now; one write, so that several processes may."""
        row = IndexedRun(
            self.store, experiment.experiment_name, experiment_id, experiment.key, experiment.name, run_id, result
        )
        line = json.dumps(asdict(row), ensure_ascii=False) + "\n"
        descriptor = os.open(self._path(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def rows(self, experiment_name: str) -> dict[str, IndexedRun]:
        """Every run noted, by key, oldest first."""
        rows: dict[str, IndexedRun] = {}
        with suppress(FileNotFoundError):
            for line in self._path().read_text(encoding="utf-8").splitlines():
                with suppress(json.JSONDecodeError, TypeError):  # a line cut short by a full disk
                    row = IndexedRun(**json.loads(line))
                    if (row.store, row.experiment_name) == (self.store, experiment_name):
                        rows.pop(row.key, None)
                        rows[row.key] = row
        return rows

    def find(self, experiment: RunIdentity, result: str) -> IndexedRun | None:
        """The run that has this result: the experiment's own, or for a repro that opened none, any."""
        rows = self.rows(experiment.experiment_name)
        own = rows.get(experiment.key)
        if own is None and not experiment.is_dvc_experiment:
            own = next((row for row in reversed(rows.values()) if row.result == result), None)
        return own if own and own.result == result and self._still_there(own) else None

    def _still_there(self, row: IndexedRun) -> bool:
        """Whether the run was not deleted since; a server is not asked."""
        if self.store != store_uri.LOCAL:
            return True
        database = f"{(self._main / 'mlflow.db').as_uri()}?mode=ro"
        query = "SELECT 1 FROM runs WHERE run_uuid = ? AND lifecycle_stage = 'active' AND status = 'FINISHED'"
        try:
            with closing(sqlite3.connect(database, uri=True, timeout=5)) as connection:
                return connection.execute(query, (row.run_id,)).fetchone() is not None
        except sqlite3.Error:
            return False

    def _path(self) -> Path:
        return open_private_folder(self._main) / "rows.jsonl"


def find_known_run(project_root: Path, result: str, environ: Mapping[str, str] = os.environ) -> IndexedRun | None:
    """The finished run that has this result, where that is sure without asking MLflow."""
    main = find_main_folder(project_root, environ)
    ledger = RunIndex(main, environ.get("MLFLOW_TRACKING_URI") or local_store.build_uri(main))
    waits = outbox.count_pending(open_private_folder(main, "undelivered"))[ledger.store]
    if waits or next(open_private_folder(main, "alive").glob("*.jsonl"), None):
        return None  # something waits, runs or died: the store's word is wanted
    experiment = identify_run(project_root, environ)
    experiment = dvc_session.read_pinned(experiment, open_private_folder(main, "commands")) or experiment
    return ledger.find(experiment, result)
