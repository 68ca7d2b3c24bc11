from __future__ import annotations

import csv
import hashlib
import os
import re
from pathlib import Path

import pytest

from fakeface.data.download.ingest import collect_sources
from fakeface.data.download.source_resolver import choose_profile
from fakeface.data.raw_dataset import read_collection, verify_raw
from fakeface.system.errors import UserError
from fakeface.system.serialization import read_json_with_checksum, write_json_with_checksum
from tests.support.image_folders import data_of, fill_folder, picture_bytes, profile_of

PROFILE = profile_of(people=("real", {"stage1": 1}), machine=("fake", {"stage1": 1}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill_folder(tmp_path / "data" / "people", range(4))
    fill_folder(tmp_path / "data" / "machine" / "deeper", range(10, 13))
    return tmp_path / "data"


def write_listing(root: Path, columns: str, *rows: str) -> None:
    (root / "manifest.csv").write_text("\r\n".join([columns, *rows]) + "\r\n")


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_copies_carry_the_bytes_and_the_manifest_proves_them(root: Path, tmp_path: Path) -> None:
    collect_sources(root, "own", PROFILE, tmp_path / "raw")
    with (tmp_path / "raw" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    assert rows[0]["path"] == "machine/deeper/00010.png"
    assert {(row["source"], row["label"]) for row in rows} == {("people", "real"), ("machine", "fake")}
    for row in rows:
        original = (root / row["path"]).read_bytes()
        assert (tmp_path / "raw" / row["path"]).read_bytes() == original
        assert (row["sha256"], int(row["bytes"])) == (hashlib.sha256(original).hexdigest(), len(original))


def test_what_is_written_is_what_is_read(root: Path, tmp_path: Path) -> None:
    (root / "people" / "bad\nname.png").write_bytes(picture_bytes(9))
    written = collect_sources(root, "own", PROFILE, tmp_path / "raw")
    assert read_collection(tmp_path / "raw") == written


def test_documents_and_hidden_files_are_passed_over_and_counted(root: Path, tmp_path: Path) -> None:
    for name in ("README.md", ".hidden.png", "labels.csv", "LICENSE"):
        (root / "people" / name).write_bytes(b"x")
    fill_folder(root / "people" / "__MACOSX", [1])
    fill_folder(root / "people" / ".git", [1])
    collection = collect_sources(root, "own", PROFILE, tmp_path / "raw")
    assert collection.ignored == 6
    assert len(collection.files) == 7


def test_a_file_of_another_kind_is_kept_for_the_decoder_to_judge(root: Path, tmp_path: Path) -> None:
    (root / "people" / "page.jpg").write_text("<html>")
    (root / "people" / "no_suffix").write_bytes(b"")
    paths = {file.path for file in collect_sources(root, "own", PROFILE, tmp_path / "raw").files}
    assert {"people/page.jpg", "people/no_suffix"} <= paths


def test_names_and_kinds_that_cannot_be_used_are_listed_and_never_read(root: Path, tmp_path: Path) -> None:
    people = root / "people"
    fill_folder(tmp_path / "elsewhere", [77])
    (people / "line\nbreak.png").write_bytes(picture_bytes(1))
    Path(os.fsdecode(os.fsencode(people) + b"/latin\xe9.png")).write_bytes(picture_bytes(2))
    (people / "out.png").symlink_to(tmp_path / "elsewhere" / "00077.png")
    (people / "nothing.png").symlink_to("gone.png")
    (people / "folder").symlink_to(tmp_path / "elsewhere")
    (people / "here.png").symlink_to("00000.png")
    os.mkfifo(people / "pipe.png")
    collection = collect_sources(root, "own", PROFILE, tmp_path / "raw")
    assert {(file.path, file.reason) for file in collection.rejected} == {
        ("people/line\\nbreak.png", "name has a line break or control character"),
        ("people/latin\\xe9.png", "name is not UTF-8"),
        ("people/out.png", "symbolic link out of the folder"),
        ("people/nothing.png", "symbolic link to nothing"),
        ("people/folder", "symbolic link out of the folder"),
        ("people/pipe.png", "not a regular file"),
    }
    copied = {str(path.relative_to(tmp_path / "raw")) for path in (tmp_path / "raw").rglob("*.png")}
    assert copied == {file.path for file in collection.files}
    assert "people/here.png" in copied
    assert not (tmp_path / "raw" / "people" / "here.png").is_symlink()


def test_a_source_folder_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (root / "people").rename(tmp_path / "big_disk")
    (root / "people").symlink_to(tmp_path / "big_disk")
    assert len(collect_sources(root, "own", PROFILE, tmp_path / "raw").files) == 7


def test_names_with_commas_quotes_and_foreign_letters_survive(root: Path, tmp_path: Path) -> None:
    name = 'Zoë, "quoted" 名.png'
    (root / "people" / name).write_bytes(picture_bytes(5))
    collect_sources(root, "own", PROFILE, tmp_path / "raw")
    assert f"people/{name}" in {file.path for file in read_collection(tmp_path / "raw").files}


def test_an_empty_class_folder_is_named(root: Path, tmp_path: Path) -> None:
    for path in (root / "machine" / "deeper").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"'machine' .*has no image"):
        collect_sources(root, "own", PROFILE, tmp_path / "raw")


def test_one_source_inside_another_is_refused(root: Path, tmp_path: Path) -> None:
    nested = profile_of(people=("real", {"stage1": 1}), inner=("fake", {"stage1": 1}))
    nested = nested.model_copy(
        update={
            "sources": {**nested.sources, "inner": nested.sources["inner"].model_copy(update={"folder": "people/x"})}
        }
    )
    fill_folder(root / "people" / "x", [50])
    with pytest.raises(UserError, match="count twice"):
        collect_sources(root, "own", nested, tmp_path / "raw")


def test_the_listing_of_the_data_folder_gives_groups_and_must_agree(root: Path, tmp_path: Path) -> None:
    right = sha256_of(root / "people" / "00000.png")
    write_listing(root, "path,sha256,label,near_duplicate_group", f"people/00000.png,{right},real,g7")
    collection = collect_sources(root, "own", PROFILE, tmp_path / "raw")
    assert {file.path: file.near_duplicate_group for file in collection.files}["people/00000.png"] == "g7"
    assert collection.unlisted == 6


@pytest.mark.parametrize(
    ("columns", "row", "sentence"),
    [
        ("path,sha256", f"people/00001.png,{'0' * 64}", r"1 files do not have the sha256.*people/00001\.png"),
        ("path,sha256", f"people/gone.png,{'0' * 64}", r"lists 1 files that are not there: people/gone\.png"),
        ("path,sha256,label", "people/00001.png,,fake", r"'people' real.*says otherwise.*people/00001\.png"),
        ("name,sha256", "people/00001.png,", "no column 'path'"),
        ("path,sha256", "people/00001.png", "line 2"),
    ],
)
def test_a_listing_that_contradicts_stops_and_leaves_nothing_whole(
    root: Path, tmp_path: Path, columns: str, row: str, sentence: str
) -> None:
    write_listing(root, columns, row)
    with pytest.raises(UserError, match=sentence):
        collect_sources(root, "own", PROFILE, tmp_path / "raw")
    with pytest.raises(UserError, match=r"manifest\.csv is missing"):
        read_collection(tmp_path / "raw")


def test_a_listing_of_sources_that_the_profile_leaves_out_is_no_matter(root: Path, tmp_path: Path) -> None:
    write_listing(root, "path,sha256", f"others/a.png,{'0' * 64}", f"../../etc/passwd,{'0' * 64}")
    assert len(collect_sources(root, "own", PROFILE, tmp_path / "raw").files) == 7


def test_a_second_run_follows_what_changed_and_keeps_the_rest(root: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    collect_sources(root, "own", PROFILE, raw)
    kept = (raw / "people" / "00003.png").stat().st_ino
    (root / "people" / "00000.png").unlink()
    (root / "people" / "00001.png").write_bytes(picture_bytes(99))
    (raw / "people" / "00002.png").write_bytes(b"rotten")
    (raw / "people" / ".left.partial").write_bytes(b"half")
    fill_folder(raw / "stranger", [3])
    collect_sources(root, "own", PROFILE, raw)
    assert verify_raw(raw).clean
    assert not (raw / "people" / "00000.png").exists()
    assert (raw / "people" / "00001.png").read_bytes() == picture_bytes(99)
    assert (raw / "people" / "00003.png").stat().st_ino == kept
    assert {path.name for path in raw.iterdir()} == {
        "people",
        "machine",
        "manifest.csv",
        "rejected.csv",
        "collected.json",
    }


def test_the_same_folder_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        collect_sources(root, "own", PROFILE, tmp_path / name / "raw")
    one, two = (
        {p.name: p.read_bytes() for p in (tmp_path / n / "raw").rglob("*.*") if p.is_file()} for n in ("one", "two")
    )
    assert one == two


def test_verify_names_each_file_missing_changed_or_added(root: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    collect_sources(root, "own", PROFILE, raw)
    (raw / "people" / "00000.png").unlink()
    content = bytearray((raw / "people" / "00001.png").read_bytes())
    content[30] ^= 1
    (raw / "people" / "00001.png").write_bytes(content)
    (raw / "people" / "new.png").write_bytes(b"")
    found = verify_raw(raw)
    assert (found.missing, found.changed, found.added) == (
        ("people/00000.png",),
        ("people/00001.png",),
        ("people/new.png",),
    )


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("manifest.csv", r"people/00001\.png,.*\n", ""),  # a line is lost
        ("manifest.csv", r"(?m)^(people/00002\.png,people),real", r"\1,fake"),
        ("manifest.csv", r"(?m),\n", r",somebody\n"),
        ("rejected.csv", "control character", "control characters"),
    ],
)
def test_a_list_that_is_not_as_it_was_written_is_not_believed(
    root: Path, tmp_path: Path, name: str, before: str, after: str
) -> None:
    raw = tmp_path / "raw"
    (root / "people" / "bad\nname.png").write_bytes(picture_bytes(9))
    collect_sources(root, "own", PROFILE, raw)
    text = (raw / name).read_text()
    damaged = re.sub(before, after, text, count=1)
    assert damaged != text
    (raw / name).write_text(damaged)
    for read in (read_collection, verify_raw):
        with pytest.raises(UserError, match=f"{name} is damaged.*run the download stage again"):
            read(raw)
    collect_sources(root, "own", PROFILE, raw)
    assert (raw / name).read_text() == text


def test_no_flipped_bit_of_what_the_collection_says_of_itself_passes_unseen(root: Path, tmp_path: Path) -> None:
    collected = tmp_path / "raw" / "collected.json"
    fill_folder(root / "stranger", [3])
    whole = collect_sources(root, "own", PROFILE, collected.parent)
    assert read_collection(collected.parent) == whole
    written = collected.read_bytes()
    for at in range(len(written)):
        flipped = bytearray(written)
        flipped[at] ^= 1 << at % 7  # each stays ASCII
        collected.write_bytes(flipped)
        with pytest.raises(UserError, match=r"collected\.json .*run the stage that makes it again\.$"):
            read_collection(collected.parent)
    collect_sources(root, "own", PROFILE, collected.parent)
    assert collected.read_bytes() == written


def test_a_collection_without_sums_is_another_versions(root: Path, tmp_path: Path) -> None:
    collect_sources(root, "own", PROFILE, tmp_path / "raw")
    facts = read_json_with_checksum(tmp_path / "raw" / "collected.json")
    del facts["sha256"]
    write_json_with_checksum(tmp_path / "raw" / "collected.json", facts)
    with pytest.raises(UserError, match="was written by another version"):
        read_collection(tmp_path / "raw")


def test_auto_takes_the_first_profile_that_fits(root: Path) -> None:
    absent = profile_of(nobody=("real", {"stage1": 1}))
    assert choose_profile(data_of(root, {"absent": absent, "own": PROFILE}), root)[0] == "own"


def test_a_profile_that_does_not_fit_is_explained(root: Path) -> None:
    absent = profile_of(people=("real", {"stage1": 1}), nobody=("real", {"stage1": 1}))
    profiles = {"absent": absent, "own": PROFILE}
    with pytest.raises(UserError) as wrong:
        choose_profile(data_of(root, profiles, "absent"), root)
    assert "'absent' lacks nobody" in str(wrong.value)
    assert "there are machine, people" in str(wrong.value)
    assert "set data.profile to own" in str(wrong.value)
    with pytest.raises(UserError, match=r"No profile fits .*'absent' lacks nobody"):
        choose_profile(data_of(root, {"absent": absent}), root)
    with pytest.raises(UserError, match="which is no folder"):
        choose_profile(data_of(root / "typo", profiles), root / "typo")
