"""A repository with a tracking store that two processes made at once, and copies of it."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from fakeface import tracking
from tests.support.tracked_project import (
    NOTHING,
    Killed,
    list_runs,
    make_repository,
    open_client,
    start_child,
)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """Making a store takes seconds, so the tests share the one that these two made."""
    project = make_repository(tmp_path_factory.mktemp("first") / "repository")
    children = [start_child(project, name) for name in ("terminated", "killed")]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    assert tracking.fail_stale_runs(project, NOTHING) == []
    while_alive = {run.info.status for run in list_runs(project).values()}
    children[0].send_signal(signal.SIGTERM)
    children[1].kill()
    errors = [child.communicate()[1] for child in children]
    buried = tracking.fail_stale_runs(project, NOTHING)
    codes = [child.returncode for child in children]
    return Killed(project, while_alive, codes, errors, buried, list_runs(project))


@pytest.fixture
def project(killed: Killed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    copy = Path(shutil.copytree(killed.project, tmp_path / "a folder: 100% ü"))
    for row in killed.rows.values():
        open_client(copy).delete_run(row.info.run_id)
    return copy
