"""Download and split that are killed at any moment, run twice at once, or run out of disk: real processes."""

from __future__ import annotations

import os
import resource
import signal
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fakeface.data.download.ingest import collect_sources
from fakeface.data.raw_dataset import verify_raw
from fakeface.data.split.build_splits import split_dataset
from fakeface.system.archives import unpack
from fakeface.system.errors import exit_on_user_error
from tests.support.image_folders import data_of, fill_folder, profile_of

PROFILE = profile_of(
    aligned=("real", {"stage1": 1}),
    photos=("real", {"stage2": 1}),
    wild=("real", {"stage3": 1}),
    news=("real", {"heldout": 1}),
    machine=("fake", {"stage1": 0.3, "stage2": 0.3, "stage3": 0.3, "heldout": 0.1}),
)
IMAGES = 156
MOMENTS = 10
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.scandir", "shutil.rmtree"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "data"
    for number, source in enumerate(("aligned", "photos", "wild")):
        fill_folder(folder / source, range(100 * number, 100 * number + 20))
    fill_folder(folder / "news", range(300, 306))
    fill_folder(folder / "machine", range(400, 490))
    return folder


def download(root: Path, into: Path) -> None:
    """Do what pipeline/download.py does."""
    collect_sources(root, "own", PROFILE, into / "raw")


def split(root: Path, into: Path) -> None:
    """Do what pipeline/split.py does."""
    data = data_of(root, {"own": PROFILE})
    split_dataset(into / "raw", into / "decoded", into / "split", into / "reports", data, 32)


def both_stages(root: Path, into: Path) -> None:
    download(root, into)
    split(root, into)


def outputs(into: Path) -> dict[str, bytes]:
    files = (path for name in ("raw", "split", "reports") for path in (into / name).rglob("*"))
    return {path.relative_to(into).as_posix(): path.read_bytes() for path in files if path.is_file()}


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    into = tmp_path_factory.mktemp("whole")
    both_stages(root, into)
    return outputs(into)


def in_child(work: Callable[[], object]) -> int:
    """Do something in another process; give its number."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            work()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.stderr.flush()
            os._exit(code)
    return child


def ended(child: int) -> int:
    """Wait for a process; give its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dying(root: Path, into: Path, moment: int) -> None:
    """Kill this process at its n-th look at a file in `into`."""
    left = moment

    def die_in_time(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in FILE_EVENTS and str(arguments[0]).startswith(str(into)):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die_in_time)
    both_stages(root, into)


def test_stages_killed_at_any_moment_end_as_in_one_go_and_decode_nothing_twice(
    root: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """The copies alone take two looks an image; the last moments lie in the stores and reports."""
    random = np.random.default_rng(8)
    early, late = random.integers(1, 3 * IMAGES, MOMENTS // 2), 3 * IMAGES + random.integers(0, 60, MOMENTS // 2)
    killed = 0
    for moment in (*early.tolist(), *late.tolist()):
        into = tmp_path / str(moment)
        code = ended(in_child(lambda into=into, moment=moment: dying(root, into, moment)))  # type: ignore[misc]
        assert code in (-signal.SIGKILL, 0)
        killed += code != 0
        both_stages(root, into)
        assert outputs(into) == whole
        assert len((into / "decoded" / "index.csv").read_text().splitlines()) == IMAGES
    assert killed >= MOMENTS - 2


def test_a_run_killed_before_its_first_copy_forgets_none_of_the_earlier_ones(root: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    download(root, tmp_path)
    lost = raw / "news" / "00300.png"
    lost.unlink()
    copies = {path: path.stat().st_ino for path in raw.rglob("*.png")}
    assert len(copies) == IMAGES - 1

    def die_at_a_copy(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and str(arguments[0]).startswith(f"{raw}/") and str(arguments[0]).endswith(".partial"):
            os.kill(os.getpid(), signal.SIGKILL)

    def killed() -> None:
        sys.addaudithook(die_at_a_copy)
        download(root, tmp_path)

    assert ended(in_child(killed)) == -signal.SIGKILL
    download(root, tmp_path)
    assert lost.exists()
    assert {path: path.stat().st_ino for path in copies} == copies


def test_two_runs_at_once_make_what_one_makes(root: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    for stage in (download, split):
        children = [in_child(lambda stage=stage: stage(root, tmp_path)) for _ in range(3)]  # type: ignore[misc]
        assert [ended(child) for child in children] == [0, 0, 0]
    assert outputs(tmp_path) == whole


def with_small_files(work: Callable[[], object], largest: int) -> int:
    """Do something where no file may grow beyond so many bytes, as on a disk that is full in the midst of one."""

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        with exit_on_user_error():
            work()

    return ended(in_child(limited))


def test_a_disk_that_fills_up_while_images_are_copied_is_one_sentence(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert with_small_files(lambda: both_stages(root, tmp_path), 1000) == 1
    error = capfd.readouterr().err
    assert error.count("fakeface: ") == 1
    assert "Traceback" not in error
    assert str(tmp_path / "raw") in error
    assert not (tmp_path / "raw" / "manifest.csv").exists()
    both_stages(root, tmp_path)
    assert verify_raw(tmp_path / "raw").clean


def test_a_disk_that_fills_up_while_an_archive_is_unpacked_leaves_nothing_that_looks_whole(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.jpg", b"x" * 500 * (number + 1))
    assert with_small_files(lambda: unpack(tmp_path / "faces.zip", tmp_path / "faces"), 1200) == 1
    error = capfd.readouterr().err
    assert error.count("fakeface: ") == 1
    assert "Traceback" not in error
    assert not (tmp_path / "faces").exists()
    assert unpack(tmp_path / "faces.zip", tmp_path / "faces").files == 3
