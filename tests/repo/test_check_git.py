"""`make repro` says what DVC will want of git before it installs or runs anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.project import PROJECT


def run_make_repro(folder: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["make", "repro", *settings]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """The files that `make repro` reads first, as in a folder from a ZIP, and no environment."""
    shutil.copy(PROJECT / "Makefile", tmp_path)
    shutil.copytree(PROJECT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


def test_make_repro_without_git_repository_names_two_commands(unpacked: Path) -> None:
    refused = run_make_repro(unpacked)
    assert refused.returncode != 0
    (sentence,) = [line for line in refused.stderr.splitlines() if line.startswith("fakeface: ")]
    assert "`git init`" in sentence
    assert "`git add --all && git commit --message start`" in sentence
    assert not (unpacked / ".venv").exists()


def test_make_repro_without_commit_is_refused_too(unpacked: Path) -> None:
    git(unpacked, "init", "--quiet")
    assert "`git add --all && git commit --message start`" in run_make_repro(unpacked).stderr


def test_experiment_without_git_identity_names_two_commands(unpacked: Path) -> None:
    git(unpacked, "init", "--quiet")
    git(unpacked, "-c", "user.name=A", "-c", "user.email=a@b.org", "commit", "--quiet", "--allow-empty", "-m", "start")
    refused = run_make_repro(unpacked, "RECIPE=seed")
    assert refused.returncode != 0
    (sentence,) = [line for line in refused.stderr.splitlines() if line.startswith("fakeface: ")]
    assert "`git config user.name " in sentence
    assert "`git config user.email " in sentence
    assert not (unpacked / ".venv").exists()
    git(unpacked, "config", "user.name", "A")
    git(unpacked, "config", "user.email", "a@b.org")
    assert "git config" not in run_make_repro(unpacked, "RECIPE=seed").stderr
