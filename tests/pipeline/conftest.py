from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.small_project import Project, Reproduced, make_project


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Reproduced:
    folder = tmp_path_factory.mktemp("pipeline")
    project = make_project(folder / "project", folder / "home")
    printed = project.done("dvc", "repro")
    return Reproduced(project, printed, project.done("git", "status", "--porcelain").splitlines())


@pytest.fixture
def copied(reproduced: Reproduced, tmp_path: Path) -> Project:
    """A copy of the project that a test may change."""
    return reproduced.project.copy_to(tmp_path / "project")
