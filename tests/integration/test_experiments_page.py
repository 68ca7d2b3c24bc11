"""docs/experiments.md, its commands run and what they print compared with what the page says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.small_project import Project, Reproduced
from tests.support.project import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.system]
PAGE = (PROJECT / "docs" / "experiments.md").read_text(encoding="utf-8")
GATES = {"fakeface promote": 0.99, "fakeface promote restored": 0.3}  # `promote.at_least`, set by the page before each


@dataclass(frozen=True)
class Step:
    """A command of the page, and the lines that follow it there."""

    command: str
    shown: list[str]


def _steps() -> list[Step]:
    steps: list[Step] = []
    for block in re.findall(r"^```\n(\$ .*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append(Step(line.removeprefix("$ ").split("  #")[0].rstrip(), []))
            else:
                steps[-1].shown.append(line)
    return steps


def _masked(text: str) -> str:
    """The text without what differs from run to run: hashes, ids, numbers with a point, and the width of a column."""
    text = re.sub(r"\b[0-9a-f]{6,40}\b", "HASH", text)
    text = re.sub(r"[+-]?\b\d+\.\d+\b(?!\.\d)|\b\d+(?= files\b)", "NUMBER", text)
    return re.sub(r" {2,}|-{3,}", " ", text)


def _pattern(shown: list[str]) -> str:
    """A regular expression for the lines; `…` stands for any lines, and at the end of a line for its rest."""
    lines = []
    for line in shown:
        start, rest, _ = line.partition("…")
        lines.append(r"(?:.*\n)*?" if line == "…" else re.escape(_masked(start)) + (".*" if rest else "") + r"\n")
    return "".join(lines)


@pytest.fixture(scope="module")
def printed(reproduced: Reproduced, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Step, str]]:
    """What each command printed, in the order of the page; the first is the `dvc repro` that all tests share."""
    folder = tmp_path_factory.mktemp("page")
    project = reproduced.project.copy_to(folder / "project")
    first, *others = _steps()
    assert first.command == "dvc repro"
    done, place = [(first, reproduced.printed)], project.folder
    for step in others:
        if step.command in GATES:
            project.change_params({"promote.at_least": GATES[step.command]})
        output, place = _run(step.command, Project(place, project.environment), folder)
        done.append((step, output))
    return done


def _run(command: str, project: Project, folder: Path) -> tuple[str, Path]:
    """What the command prints, and the folder that it leaves the shell in."""
    for said, meant in (  # what the page leaves to its reader, or to make, which would install everything first
        ("/a/shared/folder", str(folder / "storage")),
        ("git clone … ", f"git clone --quiet {project.folder} {folder / 'fakeface'} "),
        ("cd fakeface", f"cd {folder / 'fakeface'}"),
        ("make compare BASE=", "bash tools/compare_with.sh "),
    ):
        command = command.replace(said, meant)
    process = project.run("bash", "-c", f"{command}\ncode=$?\npwd >{folder / 'place'}\nexit $code")
    errors = "" if process.returncode in (0, 2) else process.stderr  # 2: a model that is not promoted
    return process.stdout + errors, Path((folder / "place").read_text().strip())


def test_experiments_page_says_what_its_commands_print(printed: list[tuple[Step, str]]) -> None:
    assert len(printed) > 8
    for step, output in printed:
        assert re.search(_pattern(step.shown), _masked(output)), f"$ {step.command}\n{output}"


def test_experiments_page_names_the_gate_of_params() -> None:
    for command, at_least in GATES.items():
        assert re.search(rf"`at_least: {at_least}`:\n\n```\n\$ {command}\n", PAGE), command
