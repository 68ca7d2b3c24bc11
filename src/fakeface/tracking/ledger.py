"""Which result each row has, noted beside the store: a repro with nothing to do finds its row without MLflow.

One JSON line a change, the last one about a row counts. Where the notes are missing, the store itself is asked.
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
from fakeface.tracking import addresses, dvc_command, local_files, undelivered
from fakeface.tracking.identity import Experiment, identify


@dataclass(frozen=True)
class Row:
    """An experiment's row as it was last seen; `result` is the digest of what it holds, empty while it is open."""

    store: str
    collection: str
    collection_id: str
    key: str
    name: str
    run_id: str
    result: str

    @property
    def address(self) -> str:
        """Its page in the browser; that of a local store is served by `make ui`."""
        return f"{addresses.page(self.store)}/#/experiments/{self.collection_id}/runs/{self.run_id}"


class Ledger:
    """The notes of one repository about one store."""

    def __init__(self, main: Path, uri: str) -> None:
        """`uri` is MLflow's address of the store."""
        self._main = main
        self.store = addresses.store_name(uri, main)

    def note(self, experiment: Experiment, collection_id: str, run_id: str, result: str) -> None:
        """Append what is known of a row now; one write, so that several processes may."""
        row = Row(self.store, experiment.collection, collection_id, experiment.key, experiment.name, run_id, result)
        line = json.dumps(asdict(row), ensure_ascii=False) + "\n"
        descriptor = os.open(self._path(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def rows(self, collection: str) -> dict[str, Row]:
        """Every row noted, by key, oldest first."""
        rows: dict[str, Row] = {}
        with suppress(FileNotFoundError):
            for line in self._path().read_text(encoding="utf-8").splitlines():
                with suppress(json.JSONDecodeError, TypeError):  # a line cut short by a full disk
                    row = Row(**json.loads(line))
                    if (row.store, row.collection) == (self.store, collection):
                        rows.pop(row.key, None)
                        rows[row.key] = row
        return rows

    def find(self, experiment: Experiment, result: str) -> Row | None:
        """The row that has this result: the experiment's own, or for a repro that opened none, any."""
        rows = self.rows(experiment.collection)
        own = rows.get(experiment.key)
        if own is None and not experiment.is_dvcs:
            own = next((row for row in reversed(rows.values()) if row.result == result), None)
        return own if own and own.result == result and self._still_there(own) else None

    def _still_there(self, row: Row) -> bool:
        """Whether the row was not deleted since; a server is not asked."""
        if self.store != addresses.LOCAL:
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


def known_row(project_root: Path, result: str, environ: Mapping[str, str] = os.environ) -> Row | None:
    """The finished row that has this result, where that is sure without asking MLflow."""
    main = find_main_folder(project_root, environ)
    ledger = Ledger(main, environ.get("MLFLOW_TRACKING_URI") or local_files.uri(main))
    waits = undelivered.waiting(open_private_folder(main, "undelivered"))[ledger.store]
    if waits or next(open_private_folder(main, "alive").glob("*.jsonl"), None):
        return None  # something waits, runs or died: the store's word is wanted
    experiment = identify(project_root, environ)
    experiment = dvc_command.joined(experiment, open_private_folder(main, "commands")) or experiment
    return ledger.find(experiment, result)
