"""Target 4: what is paid before any work: a stage's fixed cost, `fakeface --help`, `dvc repro` with nothing to do."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import yaml

from benchmarks.command import part
from benchmarks.project import Ended, Project, tiny_project
from benchmarks.table import Row

STAGE = ("python", "pipeline/train_stage.py", "stage1")
_TIMES = click.option("--times", type=click.IntRange(1), default=3, show_default=True, help="How often each is run.")


@part("startup", _TIMES)
def main(times: int) -> list[Row]:
    """Seconds of a training stage without its training, of `fakeface --help`, and of a `dvc repro` with nothing new."""
    with tiny_project() as project:
        project.run("dvc", "repro", "train_stage1")  # makes the split, and MLflow's database
        stages = [_without_training(project) for _ in range(min(times, 2))]
        fakeface = str(Path(sys.executable).with_name("fakeface"))
        helps = [project.run(fakeface, "--help") for _ in range(times)]
        _pretend_that_all_ran(project)
        repros = [_nothing_to_do(project) for _ in range(times)]
    return [
        _row("4 fixed cost of a training stage", 8, stages, "imports, opening data, MLflow; the fit taken off"),
        _row("4 `fakeface --help`", 1, helps, "a new process"),
        _row("4 `dvc repro` with nothing to do", 5, repros, "all stages, tiny data"),
    ]


def _row(what: str, limit: float, ended: Iterable[Ended], how: str) -> Row:
    ended = list(ended)
    processor = statistics.median(each.processor for each in ended)
    wall = statistics.median(each.wall for each in ended)
    return Row(what, limit, wall, "s", at_most=True, how=f"{how}; {processor:.2f} s of processor time")


def _without_training(project: Project) -> Ended:
    """Run the stage; the seconds of its fit (which include building TensorFlow's graph) are taken off the wall clock.

    Its processor time stays whole.
    """
    ended = project.run(*STAGE)
    fit = json.loads((project.folder / "reports/timing/stage1.json").read_text(encoding="utf-8"))["seconds"]
    return ended._replace(wall=ended.wall - fit)


def _pretend_that_all_ran(project: Project) -> None:
    """Put something in the place of every output that is missing, and have DVC take it as the result."""
    for stage in yaml.safe_load((project.folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"].values():
        for out in (*stage.get("outs", ()), *stage.get("metrics", ())):
            path = project.folder / _path(out)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("{}", encoding="utf-8")
    project.run("dvc", "commit", "--force", "--quiet")


def _path(out: Any) -> str:
    return str(next(iter(out)) if isinstance(out, dict) else out)


def _nothing_to_do(project: Project) -> Ended:
    ended = project.run("dvc", "repro")
    if "up to date" not in ended.printed:
        raise RuntimeError(f"`dvc repro` had something to do: {ended.printed[-500:]}")
    return ended


if __name__ == "__main__":
    main()
