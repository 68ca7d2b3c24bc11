"""The catalogue holds together, and the notebook's numbers follow from it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fakeface.config.catalog import get_label, get_source, list_sources
from fakeface.config.collection import Archive, Collection
from fakeface.data.download.identity import choose_identity_reader
from fakeface.system.errors import UserError
from tests.support.project import PROJECT


def test_catalog_collections_say_what_a_user_must_know() -> None:
    collections = list_sources()
    assert [c.name for c in collections] == [
        "utkface_aligned",
        "utkface_wild",
        "fakes_1m",
        "faces_140k",
        "lag",
        "celeba",
    ]
    for collection in collections:
        for text in (collection.title, collection.licence, collection.citation, collection.layout, collection.used_for):
            assert len(text) > 8, collection.name
        assert collection.page.startswith("http")
        assert collection.archives
        assert collection.images
        files = [archive.file for archive in collection.archives]
        assert len(set(files)) == len(files)


@pytest.mark.parametrize("archive", [a for c in list_sources() for a in c.archives], ids=lambda archive: archive.file)
def test_catalog_archives_can_be_proven_or_say_that_they_cannot(archive: Archive) -> None:
    lengths = {"md5": 32, "sha1": 40, "sha256": 64}
    for checksum in archive.checksums:
        assert re.fullmatch(r"[0-9a-f]+", checksum.digest)
        assert len(checksum.digest) == lengths[checksum.algorithm]
        assert checksum.stated_by
    if archive.method == "kaggle":
        assert re.fullmatch(r"[\w-]+/[\w-]+/versions/\d+", archive.address)
    else:
        assert archive.address.startswith("http")
    if not archive.checksums:
        owner = next(c for c in list_sources() if archive in c.archives)
        assert archive.listing or any("checksum" in doubt for doubt in owner.unverified)


def test_archive_with_a_mirror_needs_a_checksum() -> None:
    with pytest.raises(ValueError, match="no checksum"):
        Archive(file="a.zip", method="http", address="http://a", mirrors=("http://b",))


def test_get_source_suggests_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'celeba'"):
        get_source("celebA")
    with pytest.raises(UserError, match="known are utkface_aligned"):
        get_source("imagenet")


def test_get_label_reads_the_folder() -> None:
    assert get_label(get_source("faces_140k"), "real_vs_fake/real-vs-fake/train/fake/0.jpg") == "fake"
    assert get_label(get_source("faces_140k"), "somewhere/0.jpg") is None
    assert get_label(get_source("lag"), "LAGdataset_200/fake/0.jpg") == "real"


@pytest.mark.parametrize(
    ("source", "path", "identity"),
    [
        ("utkface_aligned", "part1/26_1_0_20170119192623081.jpg.chip.jpg", "utkface:20170119192623081"),
        ("utkface_wild", "part1/26_1_0_20170119192623081.jpg", "utkface:20170119192623081"),
        ("utkface_wild", "part2/24_0_1_20170116220224657 .jpg", "utkface:20170116220224657"),
        ("utkface_wild", "part2/61_1_20170109142408075.jpg", "utkface:20170109142408075"),
        ("utkface_wild", "readme.txt", None),
        ("lag", "LAGdataset_200/LAGdataset_200/Some_Body/3.png", "lag:Some_Body"),
        ("lag", "LAGdataset_200/Some_Body/y/1.png", "lag:Some_Body"),
        ("lag", "LAGdataset_200/contact.png", None),
        ("lfw", "lfw/Jean-Claude_Van_Damme_0012.jpg", "lfw:Jean-Claude_Van_Damme"),
        ("lfw", "group.jpg", None),
        ("fakes_1m", "1m_faces_08/FZV5C5L0AI.jpg", "stylegan:FZV5C5L0AI"),
        ("faces_140k", "real_vs_fake/real-vs-fake/train/fake/FZV5C5L0AI.jpg", "stylegan:FZV5C5L0AI"),
        ("faces_140k", "real_vs_fake/real-vs-fake/test/real/00031.jpg", "ffhq:00031"),
        ("celeba", "img_align_celeba/000001.jpg", None),
        ("my_own", "FZV5C5L0AI.jpg", None),
        ("faces_140k_train_fake", "FZV5C5L0AI.jpg", "stylegan:FZV5C5L0AI"),
        ("fakes_1m_00", "1m_faces_00/FZV5C5L0AI.jpg", "stylegan:FZV5C5L0AI"),
    ],
)
def test_choose_identity_reader_reads_names(source: str, path: str, identity: str | None) -> None:
    assert choose_identity_reader(source)(path) == identity


def test_choose_identity_reader_reads_celebas_table(tmp_path: Path) -> None:
    table = tmp_path / "identity_CelebA.txt"
    table.write_text("000001.jpg 2880\n000002.jpg 2937\n000003.jpg 2880\n", encoding="utf-8")
    for folder in (tmp_path, tmp_path / "img_align_celeba"):
        assert choose_identity_reader("celeba", folder)("000002.jpg") == "celeba:2937"
    identity = choose_identity_reader("celeba", tmp_path)
    assert identity("img_align_celeba/img_align_celeba/000003.jpg") == "celeba:2880"
    assert identity("img_align_celeba/000009.jpg") is None
    table.write_text("<html>\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 1"):
        choose_identity_reader("celeba", tmp_path)


def test_catalog_and_fetch_load_nothing_heavy() -> None:
    code = (
        "import sys, fakeface.data.download.fetch\n"
        "heavy = 'tensorflow', 'gdown', 'kagglehub', 'requests', 'pooch', 'numpy', 'PIL'\n"
        "print([module for module in heavy if module in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


@pytest.mark.parametrize("collection", list_sources(), ids=lambda collection: collection.name)
def test_data_page_agrees_with_the_catalog(collection: Collection) -> None:
    page = (PROJECT / "docs" / "data.md").read_text(encoding="utf-8")
    for fact in (f"### `{collection.name}`", collection.page, f"{collection.images:,}"):
        assert fact in page
    for archive in collection.archives:
        assert f"`{archive.file}`" in page
