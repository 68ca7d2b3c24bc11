"""What a user gets wrong: one sentence, an exit code that says so, and earlier work left as it was."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.mlflow_runs import TrackedRuns
from tests.integration.small_project import Project, Reproduced

pytestmark = pytest.mark.slow
NOT_NEEDED = (".dvc", ".git", "mlartifacts", "sample")
FULL_DISK = Path("/dev/full")  # Linux's device that answers every write with "no space left"


@dataclass(frozen=True)
class Case:
    """Something wrong, the stage that meets it, and what its sentence names."""

    spoil: Callable[[Project], None]
    stage: str
    named: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    project: Project
    process: subprocess.CompletedProcess[str]
    before: Mapping[str, str]
    after: Mapping[str, str]


def _misspell(project: Project) -> None:
    project.change_params({"batchsize": 8})


def _mistype(project: Project) -> None:
    project.change_params({"lr": "fast"})


def _empty_a_class(project: Project) -> None:
    for path in (project.folder / "data/generator_3").iterdir():
        path.unlink()


def _allow_no_bad_image(project: Project) -> None:
    project.change_params({"data.rejected_share": 0.01})


def _lose_a_checkpoint(project: Project) -> None:
    (project.folder / "models/stage1.h5").unlink()


def _cut_a_checkpoint(project: Project) -> None:
    path = project.folder / "models/stage1.h5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _put_a_file_for_the_folder(name: str) -> Callable[[Project], None]:
    # Root may write wherever modes forbid it, and nobody into a file as if it were a folder.
    def spoil(project: Project) -> None:
        shutil.rmtree(project.folder / name)
        (project.folder / name).write_text("in the way\n")

    return spoil


def _fill_the_disk(name: str) -> Callable[[Project], None]:
    def spoil(project: Project) -> None:
        (project.folder / name).unlink(missing_ok=True)
        (project.folder / name).symlink_to(FULL_DISK)

    return spoil


CASES = {
    "misspelt key": Case(_misspell, "download", ("params.yaml", "batchsize", "batch_size")),
    "mistyped value": Case(_mistype, "split", ("params.yaml", "lr", "fast")),
    "empty class folder": Case(_empty_a_class, "download", ("generator_3",)),
    "too many bad images": Case(_allow_no_bad_image, "split", ("camera_1", "rejected_share", "rejected.csv")),
    "missing checkpoint": Case(_lose_a_checkpoint, "train_stage stage2", ("models/stage1.h5", "dvc repro")),
    "damaged checkpoint": Case(_cut_a_checkpoint, "evaluate", ("models/stage1.h5", "dvc repro")),
    "datasets unwritable": Case(_put_a_file_for_the_folder("datasets/raw"), "download", ("datasets/raw", "folder")),
    "reports unwritable": Case(_put_a_file_for_the_folder("reports/data"), "split", ("reports/data", "folder")),
    "models unwritable": Case(_put_a_file_for_the_folder("models"), "train_stage stage1", ("models", "folder")),
    "disk full at images": Case(_fill_the_disk("datasets/decoded/images.bin"), "split", ("images.bin", "space")),
    "disk full at a checkpoint": Case(
        _fill_the_disk("models/.stage1.h5.partial.h5"), "train_stage stage1", ("stage1", "space")
    ),
}


def _meet(case: Case, project: Project) -> Outcome:
    case.spoil(project)
    before = project.outputs()
    script, *arguments = case.stage.split()
    process = project.run("python", f"pipeline/{script}.py", *arguments)
    return Outcome(project, process, before, project.outputs())


@pytest.fixture(scope="module")
def outcomes(reproduced: Reproduced, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """Each case met in a copy of the project, two at a time; those that load TensorFlow take seconds."""
    folder = tmp_path_factory.mktemp("bad_input")

    def meet(name: str) -> Outcome:
        return _meet(CASES[name], reproduced.project.copy_to(folder / name, without=NOT_NEEDED))

    with ThreadPoolExecutor(2) as threads:
        yield dict(zip(CASES, threads.map(meet, CASES), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_stage_with_bad_input_ends_in_one_sentence(name: str, outcomes: dict[str, Outcome]) -> None:
    process = outcomes[name].process
    assert process.returncode != 0
    assert "Traceback" not in process.stderr
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("fakeface: ")
    assert process.stderr.count("fakeface: ") == 1
    assert last.endswith(".")
    for word in CASES[name].named:
        assert word in last


@pytest.mark.parametrize("name", CASES)
def test_stage_with_bad_input_keeps_earlier_work(name: str, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[name]
    assert len(outcome.before) > 10
    lost = {path for path, content in outcome.before.items() if outcome.after.get(path) != content}
    assert lost == set()


def test_split_lists_bad_images_before_it_stops(outcomes: dict[str, Outcome]) -> None:
    listed = (outcomes["too many bad images"].project.folder / "reports/data/rejected.csv").read_text()
    assert "camera_1/letter.jpg" in listed
    assert "camera_2/half.jpg" in listed


def test_failed_stage_run_says_why(outcomes: dict[str, Outcome]) -> None:
    rows = TrackedRuns(outcomes["missing checkpoint"].project)
    failed = [run for children in rows.children.values() for run in children if run.info.status == "FAILED"]
    assert [run.info.run_name for run in failed] == ["stage2"]
    assert "models/stage1.h5 is missing" in failed[0].data.tags["mlflow.note.content"]


def test_dvc_repro_passes_the_sentence_on_and_keeps_other_outputs(copied: Project) -> None:
    copied.change_params({"data.rejected_share": "none"})
    of_others = ("datasets/raw/", "models/", "reports/metrics.json", "reports/figures/")
    before = {path: content for path, content in copied.outputs().items() if path.startswith(of_others)}
    process = copied.run("dvc", "repro")
    assert process.returncode != 0
    assert "Traceback" not in process.stderr
    (sentence,) = [line for line in process.stderr.splitlines() if line.startswith("fakeface: ")]
    assert "data.rejected_share is 'none'" in sentence
    assert before.items() <= copied.outputs().items()


@pytest.mark.system
def test_dvc_exp_run_refuses_a_name_with_a_space(copied: Project) -> None:
    copied.done("dvc", "exp", "run", "--queue", "-n", "größe", "-S", "lr=0.1")
    before = (copied.outputs(), _queued(copied), copied.params())
    process = copied.run("dvc", "exp", "run", "--queue", "-n", "größe 1", "-S", "lr=0.2")
    assert process.returncode != 0
    assert "Traceback" not in process.stderr
    (sentence,) = [line for line in process.stderr.splitlines() if line.startswith("ERROR: ")]
    assert "größe 1" in sentence
    assert (copied.outputs(), _queued(copied), copied.params()) == before
    assert "größe" in before[1]


def _queued(project: Project) -> str:
    """git's list of what DVC has queued."""
    return project.done("git", "reflog", "show", "--format=%H %gs", "refs/exps/celery/stash")


def test_dvc_exp_run_refuses_an_unknown_key(copied: Project) -> None:
    process = copied.run("dvc", "exp", "run", "-S", "lrr=0.1")
    assert process.returncode != 0
    assert "Traceback" not in process.stderr
    assert "lrr" in process.stderr
