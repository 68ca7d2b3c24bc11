"""Where images come from: folders, archives, a data folder that is an archive; and what is there without a name."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fakeface.config.data_params import Profile, Source
from fakeface.data.download.ingest import collect_sources
from fakeface.data.download.source_resolver import choose_profile, resolve_data_folder
from fakeface.data.raw_dataset import Collection, read_collection, verify_raw
from fakeface.system.errors import UserError
from tests.support.image_folders import data_of, fill_folder, picture_bytes, profile_of


def members(seeds: range, folder: str = "") -> dict[str, bytes]:
    return {f"{folder}{seed:05d}.png": picture_bytes(seed) for seed in seeds}


def write_zip(path: Path, content: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as packed:
        for name, data in content.items():
            packed.writestr(name, data)


def write_tar(path: Path, content: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as packed:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))


def own(**more: Any) -> Profile:
    return Profile(
        note=None,
        sources={
            "people": Source(label="real", use={"stage1": 1}),
            "machine": Source(label="fake", use={"stage1": 1}),
            **{name: Source.model_validate(source) for name, source in more.items()},
        },
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill_folder(tmp_path / "data" / "people", range(4))
    fill_folder(tmp_path / "data" / "machine", range(10, 13))
    return tmp_path / "data"


def collect(root: Path, tmp_path: Path, profile: Profile | None = None) -> Collection:
    return collect_sources(root, "own", profile or own(), tmp_path / "raw")


def paths(collection: Collection, source: str) -> list[str]:
    return [file.path for file in collection.files if file.source == source]


HOLIDAY = {"label": "real", "folder": "holiday.zip", "use": {"stage3": 1}}


class TestArchives:
    def test_a_zip_and_a_tar_join_as_folders_do(self, root: Path, tmp_path: Path) -> None:
        write_zip(root / "holiday.zip", members(range(20, 24), "beach/") | {"readme.txt": b"text"})
        write_tar(root / "party.tar.gz", members(range(30, 33)))
        party = {"label": "fake", "use": {"heldout": 1}}  # by its name alone
        collection = collect(root, tmp_path, own(holiday=HOLIDAY, party=party))
        assert paths(collection, "holiday") == [f"holiday/beach/{n:05d}.png" for n in range(20, 24)]
        assert paths(collection, "party") == [f"party/{n:05d}.png" for n in range(30, 33)]
        assert (tmp_path / "raw" / "party" / "00030.png").read_bytes() == picture_bytes(30)
        assert collection.unnamed == []
        assert collection.ignored == 1
        assert verify_raw(tmp_path / "raw").clean

    def test_one_that_did_not_change_is_not_unpacked_again(self, root: Path, tmp_path: Path) -> None:
        write_zip(root / "holiday.zip", members(range(20, 24)))
        unpacked = tmp_path / "unpacked" / "sources" / "holiday" / "00020.png"
        collect(root, tmp_path, own(holiday=HOLIDAY))
        first = unpacked.stat().st_ino
        (root / "holiday.zip").touch()
        collect(root, tmp_path, own(holiday=HOLIDAY))
        assert unpacked.stat().st_ino == first

    def test_one_that_changed_is_followed(self, root: Path, tmp_path: Path) -> None:
        write_zip(root / "holiday.zip", members(range(20, 24)))
        collect(root, tmp_path, own(holiday=HOLIDAY))
        write_zip(root / "holiday.zip", members(range(23, 26)))
        assert paths(collect(root, tmp_path, own(holiday=HOLIDAY)), "holiday") == [
            f"holiday/{n:05d}.png" for n in range(23, 26)
        ]
        assert verify_raw(tmp_path / "raw").clean

    def test_what_was_unpacked_is_mended_and_forgotten_with_its_source(self, root: Path, tmp_path: Path) -> None:
        write_zip(root / "holiday.zip", members(range(20, 24)))
        collect(root, tmp_path, own(holiday=HOLIDAY))
        (tmp_path / "unpacked" / "sources" / "holiday" / "00021.png").unlink()
        assert len(paths(collect(root, tmp_path, own(holiday=HOLIDAY)), "holiday")) == 4
        collect(root, tmp_path)
        assert not (tmp_path / "unpacked" / "sources" / "holiday").exists()

    def test_the_data_folders_manifest_speaks_of_its_images_too(self, root: Path, tmp_path: Path) -> None:
        write_zip(root / "holiday.zip", members(range(20, 22)))
        (root / "manifest.csv").write_text("path,sha256,near_duplicate_group\nholiday/00020.png,,g1\n")
        collection = collect(root, tmp_path, own(holiday=HOLIDAY))
        assert {file.path: file.near_duplicate_group for file in collection.files}["holiday/00020.png"] == "g1"
        assert collection.unlisted == 8
        (root / "manifest.csv").write_text("path,sha256\nholiday/00029.png,\n")
        with pytest.raises(UserError, match=r"1 files that are not there: holiday/00029\.png"):
            collect(root, tmp_path, own(holiday=HOLIDAY))

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"<html>please sign in</html>", r"holiday\.zip is not a zip or tar archive"),
            (b"PK\x03\x04 cut off", r"holiday\.zip is damaged"),
        ],
    )
    def test_what_is_no_archive_is_named(self, root: Path, tmp_path: Path, content: bytes, said: str) -> None:
        (root / "holiday.zip").write_bytes(content)
        with pytest.raises(UserError, match=said):
            collect(root, tmp_path, own(holiday=HOLIDAY))

    def test_one_that_leads_out_of_its_folder_writes_nothing(self, root: Path, tmp_path: Path) -> None:
        write_zip(root / "holiday.zip", {"a.png": b"a", "../../escaped.png": b"b"})
        with pytest.raises(UserError, match=r"holiday\.zip was not unpacked .*leaves the folder"):
            collect(root, tmp_path, own(holiday=HOLIDAY))
        assert list(tmp_path.rglob("*escaped*")) == []

    def test_two_archives_of_one_source_are_not_guessed_between(self, root: Path, tmp_path: Path) -> None:
        write_zip(root / "holiday.zip", members(range(20, 22)))
        write_tar(root / "holiday.tar.gz", members(range(20, 22)))
        with pytest.raises(UserError, match=r"holiday\.zip, holiday\.tar\.gz .*`folder`"):
            collect(root, tmp_path, own(holiday={"label": "real", "use": {"stage3": 1}}))

    def test_an_archive_named_twice_is_refused(self, root: Path, tmp_path: Path) -> None:
        write_zip(root / "holiday.zip", members(range(20, 22)))
        with pytest.raises(UserError, match="count twice"):
            collect(root, tmp_path, own(holiday=HOLIDAY, again=HOLIDAY))


class TestDataFolder:
    """data.root as an archive: what DVC can import over https."""

    def open(self, data_root: Path, tmp_path: Path) -> tuple[Path, Path]:
        data = data_of(data_root, {"own": own()})
        folder = resolve_data_folder(data, tmp_path / "unpacked")
        assert choose_profile(data, folder)[0] == "own"
        return folder, data_root

    def contents(self, wrapped: str = "") -> dict[str, bytes]:
        return members(range(3), f"{wrapped}people/") | members(range(5, 7), f"{wrapped}machine/")

    @pytest.mark.parametrize("wrapped", ["", "faces-v2/"])
    @pytest.mark.parametrize("name", ["data", "data/faces.zip"])
    def test_an_archive_stands_for_the_folder_inside(self, tmp_path: Path, wrapped: str, name: str) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_zip(tmp_path / name, self.contents(wrapped) | {f"{wrapped}README.md": b"x"})
        folder, _ = self.open(tmp_path / "data", tmp_path)
        collection = collect(folder, tmp_path)
        assert [len(paths(collection, source)) for source in ("people", "machine")] == [3, 2]
        assert collection.unnamed == []

    def test_a_folder_of_sources_stays_what_it_is(self, root: Path, tmp_path: Path) -> None:
        write_zip(root / "faces.zip", self.contents())
        assert self.open(root, tmp_path)[0] == root
        assert not (tmp_path / "unpacked").exists()

    def test_an_archive_of_one_source_is_that_source(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        write_zip(tmp_path / "data" / "people.zip", members(range(3)))
        profile = profile_of(people=("real", {"stage1": 1}))
        data = data_of(tmp_path / "data", {"own": profile})
        assert resolve_data_folder(data, tmp_path / "unpacked") == tmp_path / "data"
        assert len(collect(tmp_path / "data", tmp_path, profile).files) == 3

    def test_a_changed_archive_is_unpacked_anew(self, tmp_path: Path) -> None:
        write_zip(tmp_path / "data", self.contents())
        self.open(tmp_path / "data", tmp_path)
        write_zip(tmp_path / "data", self.contents() | members(range(40, 42), "people/"))
        folder, _ = self.open(tmp_path / "data", tmp_path)
        assert len(paths(collect(folder, tmp_path), "people")) == 5


class TestWhatIsLeft:
    def test_what_no_source_names_is_told(self, root: Path, tmp_path: Path) -> None:
        fill_folder(root / "hard" / "real", [50])
        fill_folder(root / "hard" / "other", [51])
        fill_folder(root / "old", [52])
        write_zip(root / "people.zip", members(range(60, 61)))  # beside the folder of that name
        (root / "README.md").write_text("text")
        hard = {"label": "real", "folder": "hard/real", "use": {"stage1": 1}}
        collection = collect(root, tmp_path, own(hard=hard))
        assert collection.unnamed == ["hard/other/", "old/", "people.zip"]
        assert read_collection(tmp_path / "raw") == collection
        assert collection.list_remarks() == ["named by no source of the profile: hard/other/, old/, people.zip"]

    def test_names_that_no_line_can_hold_are_told_in_letters_that_can(self, root: Path, tmp_path: Path) -> None:
        fill_folder(Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9")), [50])
        fill_folder(root / "two\nlines", [51])
        collection = collect(root, tmp_path)
        assert collection.list_remarks() == [r"named by no source of the profile: caf\xe9/, two\nlines/"]
        assert read_collection(tmp_path / "raw") == collection
        absent = data_of(root, {"absent": profile_of(nobody=("real", {"stage1": 1}))})
        with pytest.raises(UserError, match=r"there are caf\\xe9, machine, people, two\\nlines"):
            choose_profile(absent, root)

    def test_images_beyond_the_numbers_are_left_and_told(self, root: Path, tmp_path: Path) -> None:
        profile = own(few={"label": "real", "folder": "many", "take": {"stage1": 3, "heldout": 2}})
        fill_folder(root / "many", range(20, 29))
        collection = collect(root, tmp_path, profile)
        assert paths(collection, "few") == [f"few/{n:05d}.png" for n in range(20, 25)]
        assert collection.list_remarks() == ["beyond the numbers under `take`: 4 of few"]

    def test_an_empty_class_folder_leaves_the_last_collection_whole(self, root: Path, tmp_path: Path) -> None:
        before = collect(root, tmp_path)
        for path in (root / "machine").iterdir():
            path.unlink()
        with pytest.raises(UserError, match=r"'machine' .*has no image"):
            collect(root, tmp_path)
        assert read_collection(tmp_path / "raw") == before
        assert verify_raw(tmp_path / "raw").clean


def test_nothing_is_downloaded_without_being_asked_for(tmp_path: Path) -> None:
    profile = own(lag={"label": "real", "collection": "lag", "use": {"heldout": 1}})
    fetching = Profile(note=None, sources={"lag": profile.sources["lag"]})
    (tmp_path / "data").mkdir()
    data = data_of(tmp_path / "data", {"full": fetching, "own": own()})
    with pytest.raises(UserError, match=r"set data\.profile to full, which fetches its images"):
        choose_profile(data, tmp_path / "data")
    chosen = data.model_copy(update={"profile": "full"})
    assert choose_profile(chosen, tmp_path / "data")[0] == "full"
