"""Target 4: what is paid before any work: a stage's fixed cost, `fakeface --help`, `dvc repro` with nothing to do."""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from benchmarks.cli_options import part
from benchmarks.results_table import Row
from benchmarks.temporary_project import Ended, Project, tiny_project

STAGE = ("python", "pipeline/train_stage.py", "stage1")
_TIMES = click.option("--times", type=click.IntRange(1), default=3, show_default=True, help="How often each is run.")


@part("startup_time", _TIMES)
def main(times: int) -> list[Row]:
    """Seconds of a training stage without its training, of `fakeface --help`, and of a `dvc repro` with nothing new."""
    with tiny_project() as project:
        project.run("dvc", "repro")
        repros = [_nothing_to_do(project) for _ in range(times)]
        fakeface = str(Path(sys.executable).with_name("fakeface"))
        helps = [project.run(fakeface, "--help") for _ in range(times)]
        stages = [_without_training(project) for _ in range(min(times, 2))]
    return [
        _row("4 fixed cost of a training stage", 8, stages, "imports, opening data, MLflow; the fit taken off"),
        _row("4 `fakeface --help`", 1, helps, "a new process"),
        _row("4 `dvc repro` with nothing to do", 5, repros, "tiny data; `fingerprint` and `track` alone run"),
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


def _nothing_to_do(project: Project) -> Ended:
    ended = project.run("dvc", "repro")
    ran = re.findall("Running stage '(.+)'", ended.printed)
    if ran != ["fingerprint", "track"]:  # which run every time
        raise RuntimeError(f"`dvc repro` had something to do: {', '.join(ran)}")
    return ended


if __name__ == "__main__":
    main()
