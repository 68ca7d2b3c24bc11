from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from tests.integration.mlflow_runs import TrackedRun, TrackedRuns
from tests.integration.small_project import Project, Reproduced, make_project


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Reproduced:
    """A copy of one project that the first worker to ask for it makes, for all workers of pytest-xdist."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if own.name.startswith("popen-") else own) / "reproduced"
    said = shared / "said.json"
    with FileLock(f"{shared}.lock"):
        if not said.exists():
            project = make_project(shared / "project", shared / "home")
            printed = project.done("dvc", "repro")
            status = project.done("git", "status", "--porcelain").splitlines()
            environment = dict(project.environment)
            said.write_text(json.dumps({"printed": printed, "git_status": status, "environment": environment}))
        facts = json.loads(said.read_text())
        original = Project(shared / "project", facts["environment"])
        project = original.copy_to(tmp_path_factory.mktemp("pipeline") / "project")
    return Reproduced(project, facts["printed"], facts["git_status"])


@pytest.fixture
def copied(reproduced: Reproduced, tmp_path: Path) -> Project:
    """A copy of the project that a test may change."""
    return reproduced.project.copy_to(tmp_path / "project")


@pytest.fixture(scope="module")
def rows(reproduced: Reproduced) -> TrackedRuns:
    return TrackedRuns(reproduced.project)


@pytest.fixture(scope="module")
def row(rows: TrackedRuns) -> TrackedRun:
    (run,) = rows.parents
    return rows.named(run.info.run_name)
