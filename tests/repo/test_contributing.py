"""The recipes of CONTRIBUTING.md work as they stand, and the limits that it names hold."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fakeface.config.params import load_params
from tests.support.project import PROJECT

SECTIONS = dict(
    re.findall(r"(?ms)^## (Add .+?)\n(.*?)(?=^## |\Z)", (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
)


def find_blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", SECTIONS[section])


def test_contributing_has_a_recipe_for_each_part_that_people_add() -> None:
    assert set(SECTIONS) == {"Add a source", "Add a network", "Add an augmentation step", "Add a metric"}


@pytest.mark.slow
@pytest.mark.parametrize("section", [name for name in SECTIONS if name != "Add a source"])
def test_python_of_a_recipe_runs(section: str) -> None:
    code = "\n".join(find_blocks(section, "python"))
    assert "assert" in code
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_params_with_the_recipes_source_are_valid(tmp_path: Path) -> None:
    (block,) = find_blocks("Add a source", "yaml")
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    added = yaml.safe_load(block)
    params["data"]["profiles"]["local"]["sources"] |= added["data"]["profiles"]["local"]["sources"]
    params["evaluate"]["pairs"] |= added["evaluate"]["pairs"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    assert "holiday" in load_params(tmp_path / "params.yaml").data.profiles["local"].sources


@pytest.mark.parametrize(
    ("pattern", "lines"),
    [
        ("src/**/*.py", 300),
        ("tests/**/*.py", 400),
        ("benchmarks/**/*.py", 300),
        ("tools/**/*.py", 300),
        ("README.md", 150),
        ("docs/*.md", 200),
        ("CONTRIBUTING.md", 200),
    ],
)
def test_no_file_is_longer_than_people_read(pattern: str, lines: int) -> None:
    files = {path.relative_to(PROJECT): path.read_text(encoding="utf-8").count("\n") for path in PROJECT.glob(pattern)}
    assert files
    assert {str(path): length for path, length in files.items() if length > lines} == {}
