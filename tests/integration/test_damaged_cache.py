"""An object of DVC's cache that lost a bit: DVC checks it out without a word, and no stage may work with it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.integration.small_project import Project

pytestmark = [pytest.mark.slow, pytest.mark.system]
RAW, PIXELS, WEIGHTS = "datasets/raw/camera_1/000.png", "datasets/split/stage1/images.npy", "models/stage1.h5"
COLLECTED, STORE = "datasets/raw/collected.json", "datasets/split/stage1/store.json"


def _damage(project: Project, name: str, word: bytes = b"") -> bytes:
    """Flip a bit, of a word if named, in a file's cached object and remove the file; return what the object holds."""
    path = project.folder / name
    digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    cached = project.folder / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    content = bytearray(cached.read_bytes())
    content[content.index(word) if word else -len(content) // 3] ^= 1
    cached.chmod(0o644)
    cached.write_bytes(content)
    cached.chmod(0o444)  # as DVC keeps it, which is why it does not look at the bytes again
    path.unlink()
    return bytes(content)


@pytest.fixture
def damaged(copied: Project) -> Project:
    """A project after `dvc checkout` from a cache in which three objects are damaged."""
    expected = {name: _damage(copied, name) for name in (RAW, PIXELS, WEIGHTS)}
    copied.done("dvc", "checkout")
    assert {name: (copied.folder / name).read_bytes() for name in expected} == expected
    return copied


def _refusal(project: Project, *script: str) -> str:
    process = project.run("python", *script)
    assert process.returncode != 0
    assert "Traceback" not in process.stderr
    (sentence,) = [line for line in process.stderr.splitlines() if line.startswith("fakeface: ")]
    return sentence


def test_stages_refuse_a_file_damaged_in_dvcs_cache(damaged: Project) -> None:
    assert f"{WEIGHTS} is damaged" in _refusal(damaged, "pipeline/evaluate.py")
    sentence = _refusal(damaged, "pipeline/train_stage.py", "stage1")
    assert f"{PIXELS} is damaged: 1 images are not those written" in sentence
    shutil.rmtree(damaged.folder / "datasets/decoded")  # so that every file is read again
    sentence = _refusal(damaged, "pipeline/split.py")
    assert "1 files in datasets/raw" in sentence
    assert Path(RAW).relative_to("datasets/raw").as_posix() in sentence


def test_stages_refuse_facts_damaged_in_dvcs_cache(copied: Project) -> None:
    expected = {COLLECTED: _damage(copied, COLLECTED, b"sample"), STORE: _damage(copied, STORE, b"synthetic sample")}
    copied.done("dvc", "checkout")
    assert {name: (copied.folder / name).read_bytes() for name in expected} == expected
    assert f"{COLLECTED} is damaged" in _refusal(copied, "pipeline/split.py")
    assert f"{STORE} is damaged" in _refusal(copied, "pipeline/train_stage.py", "stage1")
