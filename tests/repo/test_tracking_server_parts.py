"""What the tracking server says where a part of it is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.tracking_server import mlflow_server, postgres

from fakeface.system.errors import UserError


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two versions of PostgreSQL where Debian keeps them, and none on the PATH."""
    for version in (9, 15):
        folder = tmp_path / f"postgresql/{version}/bin"
        folder.mkdir(parents=True)
        for name in ("initdb", "postgres"):
            (folder / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}.4 (Debian)'\n")
            (folder / name).chmod(0o755)
    monkeypatch.setattr(postgres, "_DEBIAN", tmp_path / "postgresql")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "postgresql"


def test_postgres_missing_names_the_package(installed: Path) -> None:
    installed.rename(installed.with_name("away"))
    with pytest.raises(UserError, match="the package postgresql"):
        postgres.find_programs(installed / "data")


def test_postgres_data_keeps_its_version(installed: Path) -> None:
    data = installed.parent / "data"
    assert postgres.find_programs(data) == installed / "15/bin"
    data.mkdir()
    (data / "PG_VERSION").write_text("9\n")
    assert postgres.find_programs(data) == installed / "9/bin"
    (data / "PG_VERSION").write_text("14\n")
    with pytest.raises(UserError, match=r"made by PostgreSQL 14, and here is 9, 15.*postgresql-14"):
        postgres.find_programs(data)


def test_password_that_is_gone_is_not_drawn_again(tmp_path: Path) -> None:
    path = tmp_path / "password"
    drawn = mlflow_server.password(path, is_known=False)
    assert path.stat().st_mode & 0o077 == 0
    assert mlflow_server.password(path, is_known=True) == drawn
    path.unlink()
    with pytest.raises(UserError, match="is gone"):
        mlflow_server.password(path, is_known=True)
