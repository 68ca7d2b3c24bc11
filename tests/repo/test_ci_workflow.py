"""What runs elsewhere: the workflow of a pull request, and the script that checks a change before it lands."""

from __future__ import annotations

import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.project import PROJECT

# YAML 1.1 reads the key `on` as true
WORKFLOW: dict[Any, Any] = yaml.safe_load((PROJECT / ".github/workflows/experiment.yml").read_text(encoding="utf-8"))
TRIGGERS: list[str] = WORKFLOW[True]["pull_request"]["paths"]
COMMANDS: list[str] = [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]


def test_workflow_calls_commands_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    called = [re.findall(r"^make (?:--\S+ )*([a-z-]+)", command, re.MULTILINE) for command in COMMANDS]
    assert {"setup", "compare"} <= {name for names in called for name in names} <= targets


def test_workflow_paths_exist() -> None:
    assert [pattern for pattern in TRIGGERS if next(PROJECT.glob(pattern), None) is None] == []


def test_workflow_starts_for_all_that_decides_the_comparison() -> None:
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    code = {dep for stage in stages.values() for dep in stage.get("deps", []) if dep.startswith(("src/", "pipeline/"))}
    others = {"params.yaml", "dvc.yaml", "data.dvc", "sample/manifest.csv", "Makefile", "pyproject.toml"}
    others |= {"requirements/cpu.txt", "tools/compare_with.sh", "tools/make_venv.sh"}
    decides = code | others
    assert {path for path in decides if not any(fnmatch(path, pattern) for pattern in TRIGGERS)} == set()


@pytest.fixture
def bare_machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine without a browser: who runs it, and what it can install, the tests say."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "dirname", "env"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    return {"PATH": str(programs)}


def _program(machine: dict[str, str], name: str, script: str) -> None:
    path = Path(machine["PATH"]) / name
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(0o755)


def _check(machine: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROJECT / ".ci/run"], env=machine, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("user", ["0", "1000"])
def test_ci_run_says_first_and_last_what_it_skips(bare_machine: dict[str, str], user: str) -> None:
    _program(bare_machine, "id", f"echo {user}")
    _program(bare_machine, "apt-get", "exit 100")
    _program(bare_machine, "make", "echo ran $1; echo ran $1 >&2")
    done = _check(bare_machine)
    assert (done.returncode, done.stdout) == (0, "ran test\nran test-system\n")
    first, *between, last = done.stderr.splitlines()
    assert between == ["ran test", "ran test-system"]
    assert first == last
    assert "are skipped" in first
    assert "chromium" in first
