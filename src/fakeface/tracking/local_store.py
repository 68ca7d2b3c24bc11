"""The tracking store that needs no server: sqlite and a folder of artifacts in the repository's main folder."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

# Every column in which MLflow writes where an artifact lies.
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def build_uri(main: Path) -> str:
    """MLflow's address of the database."""
    return f"sqlite:///{main / 'mlflow.db'}"


def build_artifact_uri(main: Path) -> str:
    """The folder of artifacts, as the absolute file URI that MLflow writes into the database."""
    return (main / "mlartifacts").as_uri()


def repair_moved_artifacts(main: Path) -> None:
    """Mend the absolute addresses of artifacts after the repository was moved or copied to another folder."""
    new = build_artifact_uri(main)
    with closing(sqlite3.connect(main / "mlflow.db", timeout=20)) as database, database:
        query = "SELECT artifact_location FROM experiments WHERE artifact_location LIKE 'file:%/mlartifacts'"
        for (old,) in database.execute(query).fetchall():
            if old == new:
                continue
            for table, column in _PLACES:
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, len(old), old),
                )
