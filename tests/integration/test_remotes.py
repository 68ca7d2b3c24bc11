"""Data, datasets and models handed to a colleague by DVC's remotes, who trains nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tools.tracking_server import object_store

from tests.integration.small_project import Project
from tests.integration.tracking_server import RCLONE, free_port

pytestmark = pytest.mark.slow


def _share(project: Project, remote: str, **settings: str) -> None:
    """What docs/experiments.md says: name the remote, and commit what leads to the bytes."""
    project.done("dvc", "remote", "add", "--quiet", "--default", "storage", remote)
    for name, value in settings.items():
        project.done("dvc", "remote", "modify", "--quiet", "storage", name, value)
    project.done("git", "add", "--force", ".dvc/config", "dvc.lock", "data.dvc")
    project.done("git", "commit", "--quiet", "--message", "Share results")


def _clone(project: Project, folder: Path) -> Project:
    """A colleague's clone: another home, so that no cache but the remote is there."""
    project.done("git", "clone", "--quiet", ".", str(folder))
    home = folder.with_name(f"{folder.name}_home")
    home.mkdir()
    return Project(folder, {**project.environment, "HOME": str(home), "DVC_SITE_CACHE_DIR": str(home / "dvc")})


def _tracked(project: Project) -> dict[str, str]:
    """The files that DVC keeps, those of data.dvc too; the rest of datasets saves time or tells of the machine."""
    found = project.outputs("data").items()
    saved_time = ("datasets/.", "datasets/decoded/", "datasets/measured/")
    of_the_machine = ("datasets/processor.json", "datasets/collections.json")
    return {path: content for path, content in found if not path.startswith(saved_time + of_the_machine)}


def _executed(printed: str) -> set[str]:
    return set(re.findall("Running stage '(.+)'", printed)) - {"fingerprint", "track"}


def test_dvc_pull_from_a_folder_leaves_make_repro_nothing_to_train(copied: Project, tmp_path: Path) -> None:
    _share(copied, str(tmp_path / "a shared folder"))
    copied.done("dvc", "push", "--quiet")
    clone = _clone(copied, tmp_path / "clone")
    clone.done("dvc", "pull", "--quiet")
    assert _tracked(clone) == _tracked(copied)
    of_make = {"DATA": "", "RECIPE": "", "SET": ""}
    printed = replace(clone, environment={**clone.environment, **of_make}).done("bash", "tools/repro.sh")
    assert "Nothing has changed since the last time" in printed
    assert "is complete: http" in printed  # the colleague's MLflow has its row, whole
    assert _executed(printed) == set()
    assert _tracked(clone) == _tracked(copied)


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The address and keys of an empty bucket, in the object store of `make tracking-server`."""
    keys, port = object_store.keys(tmp_path / "keys.json"), free_port()
    server = object_store.start(RCLONE, tmp_path / "objects", ["dvc"], port, keys, tmp_path / "log")
    yield f"http://127.0.0.1:{port}", {"AWS_ACCESS_KEY_ID": keys.access, "AWS_SECRET_ACCESS_KEY": keys.secret}
    server.stop()


@pytest.mark.system
@pytest.mark.skipif(not RCLONE.exists(), reason="the object store is not installed: run `make .venv-server/.installed`")
def test_dvc_pull_from_s3_brings_every_output(
    copied: Project, bucket: tuple[str, Mapping[str, str]], tmp_path: Path
) -> None:
    url, keys = bucket
    _share(copied, "s3://dvc", endpointurl=url)
    with_keys = replace(copied, environment={**copied.environment, **keys})
    with_keys.done("dvc", "push", "--quiet")
    clone = _clone(with_keys, tmp_path / "clone")
    clone.done("dvc", "pull", "--quiet")
    assert _tracked(clone) == _tracked(copied)


def test_dvc_repro_after_one_changed_image_touches_its_stage_only(copied: Project) -> None:
    changed = "camera_3/004.png"  # of stage 3 alone
    before = copied.outputs()
    _change_a_pixel(copied.folder / "sample" / changed)
    printed = copied.done("dvc", "repro", "split")
    assert _executed(printed) == {"download", "split"}
    after = copied.outputs()
    made_anew = {path for path in after if after[path] != before.get(path)}
    assert {path for path in made_anew if path.startswith("datasets/raw/")} == {
        f"datasets/raw/{changed}",
        "datasets/raw/manifest.csv",
        "datasets/raw/collected.json",  # has the manifest's sum
    }
    assert {path.split("/")[2] for path in made_anew if path.startswith("datasets/split/")} == {"stage3"}
    plan = copied.done("dvc", "repro", "--dry")
    unchanged = set(re.findall("Stage '(.+)' didn't change", plan))
    assert {"download", "split", "train_stage1", "train_stage2"} <= unchanged
    assert {"train_stage3", "evaluate"} <= _executed(plan)


def _change_a_pixel(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
    image.putpixel((0, 0), (1, 2, 3))
    image.save(path)
