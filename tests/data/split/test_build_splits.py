from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fakeface.config.data_params import Data, Profile, Source
from fakeface.data.download.ingest import collect_sources
from fakeface.data.image_store import open_store
from fakeface.data.split.build_splits import sources_below_quota, split_dataset
from fakeface.images.decoding import decode_image
from fakeface.images.preprocessing import Crop
from fakeface.system.errors import UserError
from tests.support.image_folders import data_of, fill_folder, picture, picture_bytes, profile_of
from tests.support.project import PROJECT

ROLES = ("stage1", "stage2", "stage3", "heldout")
PROFILE = profile_of(
    aligned=("real", {"stage1": 1}),
    photos=("real", {"stage2": 1}),
    wild=("real", {"stage3": 1}),
    news=("real", {"heldout": 1}),
    machine=("fake", {"stage1": 0.3, "stage2": 0.3, "stage3": 0.3, "heldout": 0.1}),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, source in enumerate(("aligned", "photos", "wild")):
        fill_folder(tmp_path / "data" / source, range(100 * number, 100 * number + 30))
    fill_folder(tmp_path / "data" / "news", range(300, 306))
    fill_folder(tmp_path / "data" / "machine", range(400, 500))
    return tmp_path / "data"


def run(root: Path, tmp_path: Path, profile: Profile = PROFILE, **changes: Any) -> dict[str, Any]:
    data: Data = data_of(root, {"own": profile}, **changes)
    collect_sources(root, "own", profile, tmp_path / "raw")
    return split_dataset(tmp_path / "raw", tmp_path / "decoded", tmp_path / "split", tmp_path / "reports", data, 32)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def manifests(tmp_path: Path) -> dict[str, list[dict[str, str]]]:
    return {role: rows_of(tmp_path / "split" / role / "manifest.csv") for role in ROLES}


def test_every_file_ends_in_one_store_or_in_the_list_of_rejected(root: Path, tmp_path: Path) -> None:
    (root / "photos" / "00100.png").write_bytes(b"")
    (root / "photos" / "copy.png").write_bytes(picture_bytes(101))
    (root / "photos" / "same_as_news.png").write_bytes(picture_bytes(300))
    (root / "photos" / "said_to_be_real.png").write_bytes(picture_bytes(401))
    (root / "photos" / "bad\nname.png").write_bytes(picture_bytes(9))
    summary = run(root, tmp_path, rejected_share=0.1)
    rejected = rows_of(tmp_path / "reports" / "rejected.csv")
    assert {row["path"]: row["reason"] for row in rejected} == {
        "photos/00100.png": "empty file",
        "photos/bad\\nname.png": "name has a line break or control character",
        "photos/copy.png": "same file as photos/00101.png",
        "photos/said_to_be_real.png": "the same file is labelled real and fake",
        "machine/00401.png": "the same file is labelled real and fake",
        "photos/same_as_news.png": "near-duplicate of a held-out image",
    }
    placed = Counter(row["path"] for rows in manifests(tmp_path).values() for row in rows)
    files = {str(path.relative_to(root)) for path in root.rglob("*.png")}
    assert set(placed) == files - {row["path"].replace("\\n", "\n") for row in rejected}
    assert set(placed.values()) == {1}
    assert json.loads((tmp_path / "reports" / "split.json").read_text()) == summary
    assert summary["images"] == len(placed)
    for source in summary["sources"].values():
        inside = sum(count for parts in source["roles"].values() for count in parts.values())
        assert source["found"] == inside + source["unusable"] + source["set_aside"] + source["unused"]


def test_pixels_labels_and_lines_belong_together(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path)
    for role, rows in manifests(tmp_path).items():
        store = open_store(tmp_path / "split" / role)
        assert len(store) == len(rows) > 0
        for image, label, part, row in zip(store.images, store.labels, store.parts, rows, strict=True):
            assert (label, part) == (int(row["label"] == "fake"), row["part"])
            expected = decode_image((root / row["path"]).read_bytes(), 32, Crop(1))
            np.testing.assert_array_equal(image, expected)


def test_saved_again_at_another_quality_counts_as_the_same_picture(root: Path, tmp_path: Path) -> None:
    for seed in range(300, 306):
        picture(seed, 96).save(root / "machine" / f"again{seed}.jpg", quality=60)
        picture(seed, 64).save(root / "photos" / f"again{seed}.jpg", quality=80)
    summary = run(root, tmp_path)
    assert summary["repaired"]["near_duplicates_across_roles"] == 6
    sides = defaultdict(set)
    for role, rows in manifests(tmp_path).items():
        for row in rows:
            sides[row["group"]].add((role, row["part"]))
    assert {len(where) for where in sides.values()} == {1}
    held_out = {row["path"] for row in manifests(tmp_path)["heldout"]}
    assert {f"machine/again{seed}.jpg" for seed in range(300, 306)} <= held_out


def test_one_person_and_one_photograph_stay_in_one_part_by_what_their_names_tell(root: Path, tmp_path: Path) -> None:
    people, taken = range(24), "utkface:201701{:02d}100000000"
    for number in people:
        for photograph in (1, 2):
            save(
                root / "lfw" / f"Person_{number}" / f"Person_{number}_{photograph:04d}.png",
                1000 + 2 * number + photograph,
            )
        name = f"30_0_1_201701{number + 1:02d}100000000.jpg"
        save(root / "utkface_aligned" / f"{name}.chip.png", 2000 + number)
        save(root / "utkface_wild" / f"{name}.png", 3000 + number)
    named = profile_of(
        lfw=("real", {"stage1": 1}), utkface_aligned=("real", {"stage2": 1}), utkface_wild=("real", {"stage3": 1})
    )
    run(root, tmp_path, Profile(note=None, sources={**PROFILE.sources, **named.sources}))
    listed = {row["path"]: row["identity"] for row in rows_of(tmp_path / "raw" / "manifest.csv")}
    assert listed["lfw/Person_7/Person_7_0002.png"] == "lfw:Person_7"
    assert listed["utkface_wild/30_0_1_20170108100000000.jpg.png"] == taken.format(8)
    parts = defaultdict(list)
    for rows in manifests(tmp_path).values():
        for row in rows:
            parts[listed[row["path"]]].append(row["part"])
    del parts[""]
    assert set(parts) == {f"lfw:Person_{number}" for number in people} | {taken.format(n + 1) for n in people}
    for identity, of_one in parts.items():
        assert len(of_one) == 2, identity
        assert len(set(of_one)) == 1, identity


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture_bytes(seed))


def test_too_many_unusable_files_stop_the_stage_after_they_are_listed(root: Path, tmp_path: Path) -> None:
    for seed in (100, 101):
        (root / "photos" / f"00{seed}.png").write_text("<html>please sign in</html>")
    with pytest.raises(UserError, match=r"'photos' has 2 unusable files of 30, 6\.7% .* 5\.0%: not an image \(HTML\)"):
        run(root, tmp_path, rejected_share=0.05)
    assert len(rows_of(tmp_path / "reports" / "rejected.csv")) == 2
    assert not (tmp_path / "split").exists()
    assert run(root, tmp_path, rejected_share=0.07)["unusable"] == 2


def asking_for(heldout: int) -> Profile:
    take = {"stage1": 30, "stage2": 30, "stage3": 30, "heldout": heldout}
    machine = Source.model_validate({"label": "fake", "take": take})
    return PROFILE.model_copy(update={"sources": {**PROFILE.sources, "machine": machine}})


def test_a_source_with_fewer_images_than_asked_for_stops_the_stage(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'machine' has 100 images where its `take` .* asks for 110"):
        run(root, tmp_path, asking_for(heldout=20), rejected_share=0.05)


def test_a_few_images_fewer_than_asked_for_are_told(root: Path, tmp_path: Path) -> None:
    fill_folder(root / "old", [600])
    (root / "manifest.csv").write_text("path,sha256\nmachine/00400.png,\n")
    summary = run(root, tmp_path, asking_for(heldout=12), rejected_share=0.05)
    assert sources_below_quota(summary) == ["machine in heldout: 10 of 12"]
    assert summary["roles"]["fake"]["stage1"] == {"train": 18, "valid": 6, "test": 6}
    assert (summary["unnamed"], summary["unlisted"]) == (["old/"], 195)


def test_one_percent_more_moves_nothing_and_decodes_little(root: Path, tmp_path: Path) -> None:
    def pixels() -> dict[str, bytes]:
        stores = [open_store(tmp_path / "split" / role) for role in ROLES]
        return {path: image.tobytes() for one in stores for path, image in zip(one.paths, one.images, strict=True)}

    run(root, tmp_path)
    images = pixels()
    before = {row["path"]: (role, row["part"]) for role, rows in manifests(tmp_path).items() for row in rows}
    decoded = len((tmp_path / "decoded" / "index.csv").read_text().splitlines())
    fill_folder(root / "machine", [500, 501])
    run(root, tmp_path)
    after = {row["path"]: (role, row["part"]) for role, rows in manifests(tmp_path).items() for row in rows}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2
    assert images.items() <= pixels().items()
    assert len((tmp_path / "decoded" / "index.csv").read_text().splitlines()) == decoded + 2


def test_the_same_images_give_the_same_bytes_whatever_was_decoded_before(root: Path, tmp_path: Path) -> None:
    def outputs() -> dict[str, bytes]:
        folders = [tmp_path / "split", tmp_path / "reports"]
        return {str(path): path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}

    fill_folder(root / "aligned", [99])
    run(root, tmp_path)
    (root / "aligned" / "00099.png").unlink()
    run(root, tmp_path)
    late = outputs()
    for name in ("decoded/images.bin", "decoded/index.csv"):
        (tmp_path / name).unlink()
    run(root, tmp_path)
    assert outputs() == late


def test_params_that_changed_behind_the_download_are_noticed(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path)
    other = data_of(root, {"own": profile_of(aligned=("fake", {"stage1": 1}))})
    with pytest.raises(UserError, match="run the download stage again"):
        split_dataset(tmp_path / "raw", tmp_path / "decoded", tmp_path / "split", tmp_path / "reports", other, 32)


class TestScripts:
    """The stages as DVC runs them."""

    @pytest.fixture
    def workspace(self, root: Path, tmp_path: Path) -> Path:
        params = yaml.safe_load((PROJECT / "params.yaml").read_text())
        profile = {"note": "test", "sources": {n: s.model_dump(exclude={"folder"}) for n, s in PROFILE.sources.items()}}
        params["image_size"] = 32
        params["data"] |= {"root": "data", "profile": "auto", "profiles": {"own": profile}}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        return tmp_path

    def stage(self, name: str, workspace: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(PROJECT / "pipeline" / f"{name}.py")],
            cwd=workspace,
            env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},
            capture_output=True,
            text=True,
            check=False,
        )

    def test_download_and_split_make_what_training_reads(self, workspace: Path) -> None:
        download, split = self.stage("download", workspace), self.stage("split", workspace)
        assert (download.returncode, split.returncode) == (0, 0), download.stderr + split.stderr
        assert "196 images of 5 sources" in download.stdout
        assert "196 images in datasets/split, 0 unusable" in split.stdout
        assert sum(len(open_store(workspace / "datasets" / "split" / role)) for role in ROLES) == 196
        assert (workspace / "reports" / "data" / "rejected.csv").read_text() == "path,source,reason\n"

    def test_bad_input_ends_in_one_sentence(self, workspace: Path) -> None:
        (workspace / "reports").write_text("a file where a folder should be")
        assert self.stage("download", workspace).returncode == 0
        blocked = self.stage("split", workspace)
        (workspace / "data" / "news" / "00300.png").rename(workspace / "data" / "00300.png")
        (workspace / "data" / "news").rename(workspace / "data" / "olds")
        absent = self.stage("download", workspace)
        for run, words in ((blocked, "reports"), (absent, "lacks news")):
            assert run.returncode == 1
            assert "Traceback" not in run.stderr
            assert run.stderr.splitlines()[-1].startswith("fakeface: ")
            assert words in run.stderr.splitlines()[-1]

    def test_a_full_disk_is_named_and_what_was_decoded_stays(self, workspace: Path) -> None:
        (workspace / "reports" / "data").mkdir(parents=True)
        (workspace / "reports" / "data" / ".rejected.csv.partial").symlink_to("/dev/full")
        assert self.stage("download", workspace).returncode == 0
        full = self.stage("split", workspace)
        assert full.returncode == 1
        sentence = full.stderr.splitlines()[-1]
        assert sentence.startswith("fakeface: reports/data/rejected.csv: no space is left")
        assert not (workspace / "reports" / "data" / "rejected.csv").exists()
        assert len((workspace / "datasets" / "decoded" / "index.csv").read_text().splitlines()) == 196
