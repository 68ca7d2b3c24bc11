"""The audit of splits whose shortcuts are known, because they were put there."""

from __future__ import annotations

import csv
import hashlib
import html
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fakeface.config.data_params import Data, Reencode
from fakeface.data.audit.image_table import ImageTable, build_image_table
from fakeface.data.audit.property_cache import measure_stored_pixels
from fakeface.data.audit.run_audit import audit_dataset
from fakeface.data.audit.shortcut_probe import KINDS, Score, probe_shortcut
from fakeface.data.download.ingest import collect_sources
from fakeface.data.raw_dataset import read_collection
from fakeface.data.split.build_splits import split_dataset
from fakeface.data.split.leak_check import find_leaks
from fakeface.images.preprocessing import Limits
from fakeface.system.errors import UserError
from fakeface.system.serialization import read_json_with_checksum, write_json_with_checksum, write_rows
from fakeface.visualization.style import FAKE_COLOUR, REAL_COLOUR
from tests.support.image_folders import data_of, picture, profile_of

SIZE = 64
PROFILE = profile_of(
    first=("real", {"stage1": 1}),
    second=("real", {"stage2": 1}),
    third=("real", {"stage3": 1}),
    other=("real", {"heldout": 1}),
    machine=("fake", {"stage1": 0.25, "stage2": 0.25, "stage3": 0.25, "heldout": 0.25}),
)
LIMITS = Limits(1_000_000, 1_000_000)


@dataclass(frozen=True)
class Folder:
    """A project's folders, and the data section they were made with."""

    at: Path
    data: Data

    def audit(self) -> dict[str, Any]:
        at = self.at
        return audit_dataset(at / "raw", at / "split", at / "measured", at / "reports", self.data)

    def images(self, workers: int | None = None) -> ImageTable:
        at = self.at
        raw, bits = at / "raw", self.data.near_duplicate_bits
        return build_image_table(read_collection(raw), raw, at / "split", at / "measured", LIMITS, bits, workers)


def make(
    at: Path, fake_quality: int, real_quality: int = 90, side: int = 96, reencode: Reencode | None = None
) -> Folder:
    """Pictures of one kind, which differ by class in the JPEG quality alone, collected and split."""
    for number, source in enumerate(PROFILE.sources):
        fake = source == "machine"
        (at / "data" / source).mkdir(parents=True)
        for seed in range(1000 * number, 1000 * number + (140 if fake else 36)):
            rough = np.random.default_rng(seed).normal(0, 12, (side, side, 1))
            pixels = (np.asarray(picture(seed, side), float) + rough).clip(0, 255).astype(np.uint8)
            quality = fake_quality if fake else real_quality
            Image.fromarray(pixels).save(at / "data" / source / f"{seed}.jpg", quality=quality)
    first = at / "data" / "first" / "0.jpg"
    Image.open(first).point(lambda level: level + 3).save(first.with_name("again.jpg"), quality=real_quality)
    (at / "data" / "first" / "letter.jpg").write_text("Dear reader, this is no photograph.")
    data = data_of(at / "data", {"own": PROFILE}, rejected_share=0.1).model_copy(update={"reencode": reencode})
    collect_sources(at / "data", "own", PROFILE, at / "raw")
    split_dataset(at / "raw", at / "decoded", at / "split", at / "reports", data, SIZE)
    return Folder(at, data)


def score_of(images: ImageTable, kind: str) -> Score:
    score = probe_shortcut(images.facts(KINDS[kind].facts), images.fake, images.groups)
    assert score is not None
    return score


@pytest.fixture(scope="module")
def unequal(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return make(tmp_path_factory.mktemp("unequal"), fake_quality=25)


@pytest.fixture(scope="module")
def audit(unequal: Folder) -> dict[str, Any]:
    return unequal.audit()


@pytest.fixture(scope="module")
def page(unequal: Folder, audit: dict[str, Any]) -> str:
    assert audit
    return (unequal.at / "reports" / "audit.html").read_text(encoding="utf-8")


def words_of(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page[page.index("<body>") :])).split())


def test_a_class_saved_at_another_quality_is_found_and_said_in_words(audit: dict[str, Any], page: str) -> None:
    for role in ("stage1", "stage2", "stage3", "heldout"):
        result = audit["shortcuts"]["sets"][role]
        assert result["kinds"]["file"]["auc"] >= 0.95
        assert result["kinds"]["seen"]["auc"] >= 0.85
        assert "jpeg_quality" in result["facts"]["file"]
    assert {pair.split("/")[1] for pair in audit["shortcuts"]["pairs"]} == {"machine"}
    words = words_of(page)
    assert re.search(r"In stage 1 the [a-zA-Z ]+ alone separates real from fake almost perfectly \(AUC 1\.00\)", words)
    assert "A shortcut is open" in words
    assert "data.reencode" in words
    assert "{quality: 25, size: 64}" in words


def test_classes_that_are_made_alike_score_like_a_coin(tmp_path: Path) -> None:
    images = make(tmp_path, fake_quality=90).images()
    for kind in KINDS:
        assert 0.3 < score_of(images, kind).auc < 0.6, (
            kind
        )  # folds of few images lean below 0.5 where nothing is to find


def test_the_cure_closes_the_shortcut_for_the_network(unequal: Folder, tmp_path: Path) -> None:
    cured = make(tmp_path, fake_quality=25, reencode=Reencode(quality=20, size=40)).images()
    assert cured.reencoding == (20, 40)  # the stores say it, and the checkpoints take it from them
    before, after = score_of(unequal.images(), "seen"), score_of(cured, "seen")
    assert before.auc >= 0.95
    assert after.auc <= before.auc - 0.2
    assert score_of(cured, "file").auc >= 0.95  # the files themselves stay what they are


def test_every_image_is_in_the_table_and_counted_on_the_page(unequal: Folder, audit: dict[str, Any], page: str) -> None:
    with (unequal.at / "reports" / "image_facts.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == audit["images"] == 4 * 36 + 1 + 140
    assert {row["jpeg_quality"] for row in rows if row["label"] == "real"} == {"90"}
    assert {(row["format"], row["width"], row["subsampling"]) for row in rows} == {("JPEG", "96", "4:2:0")}
    assert audit["sources"]["machine"]["percentiles"]["jpeg_quality"] == [25] * 5
    assert audit["rejected"] == {"first": {"not an image (text)": 1}}
    assert json.loads((unequal.at / "reports" / "audit.json").read_text()) == audit
    words = words_of(page)
    for said in ("285 images of 5 sources", "0 leaks", "not an image (text)", "all fake", "140"):
        assert said in words


def test_a_leak_that_was_put_there_is_found(unequal: Folder) -> None:
    placed = unequal.images().placed
    twin = placed[0]._replace(role="heldout" if placed[0].role != "heldout" else "stage1")
    assert find_leaks(placed) == []
    assert len(find_leaks([*placed, twin])) == 2  # by its bytes and by its group


def test_each_distribution_is_drawn_with_both_classes_in_it(page: str) -> None:
    drawings = dict(re.findall(r'<svg role="img" aria-label="([^"]+)"(.*?)</svg>', page, flags=re.DOTALL))
    assert list(drawings) == [
        "Width",
        "Height",
        "File size",
        "Bytes per pixel",
        "JPEG quality",
        "Black in the border",
        "Brightness",
        "JPEG blocks in the reduced picture",
        f"Spectrum of the {SIZE}-pixel picture",
        "Spectrum in full size",
    ]
    for title, drawing in drawings.items():
        shown = set(re.findall(r"<text[^>]*>([^<]+)</text>", drawing))
        assert title in shown
        assert set(PROFILE.sources) <= shown, title
        for colour in (REAL_COLOUR, FAKE_COLOUR):
            assert f"stroke: {colour.lower()}" in drawing, title


def test_look_alikes_are_found_whatever_the_split_says_of_their_groups(unequal: Folder, tmp_path: Path) -> None:
    shutil.copytree(unequal.at, tmp_path, dirs_exist_ok=True)
    store = tmp_path / "split" / "stage1"
    with (store / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    one, other = (next(row for row in rows if row["path"] == f"first/{name}.jpg") for name in ("0", "again"))
    assert (one["part"], one["group"]) == (other["part"], other["group"])
    other |= {"part": "test" if one["part"] != "test" else "train", "group": "f" * 16}
    write_rows(store / "manifest.csv", list(other), [list(row.values()) for row in rows])
    facts = read_json_with_checksum(store / "store.json")
    facts["sha256"]["manifest.csv"] = hashlib.sha256((store / "manifest.csv").read_bytes()).hexdigest()
    write_json_with_checksum(store / "store.json", facts)
    (leak,) = find_leaks(Folder(tmp_path, unequal.data).images().placed)
    assert leak.startswith("same looks: ")
    assert "first/0.jpg" in leak
    assert "first/again.jpg" in leak


def test_the_page_is_one_file_that_asks_nobody(page: str) -> None:
    assert not re.search(r"https?:|//[a-z]|<script|<link|<img|@import|<image\b|base64", page)
    assert "NaN" not in words_of(page)
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(names) == len(set(names)) > 0
    for used in re.findall(r'(?:href="#|url\(#)([^")]+)', page):
        assert used in names


def test_the_same_images_have_the_same_facts_on_any_number_of_cores(unequal: Folder, audit: dict[str, Any]) -> None:
    assert audit
    images = unequal.images()
    for path in (unequal.at / "measured").glob("*.csv"):
        path.unlink()
    anew = unequal.images(workers=2)
    np.testing.assert_array_equal(anew.file_facts, images.file_facts)
    np.testing.assert_array_equal(anew.picture_facts, images.picture_facts)


def test_pictures_that_were_measured_are_known_by_their_sums_and_not_read_again(tmp_path: Path) -> None:
    pictures = np.random.default_rng(5).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", pictures)
    stores = [(tmp_path / "images.npy", [hashlib.sha256(picture.data).hexdigest() for picture in pictures])]
    measured = measure_stored_pixels(stores, tmp_path / "cache", workers=1)
    assert len(np.unique(measured, axis=0)) == 3
    (tmp_path / "images.npy").unlink()
    np.testing.assert_array_equal(measure_stored_pixels(stores, tmp_path / "cache", workers=1), measured)


def test_a_killed_run_goes_on_and_nothing_is_measured_twice(unequal: Folder, audit: dict[str, Any]) -> None:
    assert audit
    journal = unequal.at / "measured" / "files.csv"
    expected = unequal.images().file_facts
    os.truncate(journal, journal.stat().st_size * 2 // 3)  # in the middle of a line
    kept = journal.read_text().splitlines()[1:-1]
    known = {line.split(",")[0] for line in kept}
    collection = read_collection(unequal.at / "raw")
    moved = [unequal.at / "raw" / file.path for file in collection.files if file.sha256 in known]
    for path in moved:
        path.rename(path.with_suffix(".away"))  # whoever measures one again will miss it
    try:
        np.testing.assert_array_equal(unequal.images().file_facts, expected)
    finally:
        for path in moved:
            path.with_suffix(".away").rename(path)


def test_bytes_that_changed_behind_the_split_are_named(unequal: Folder, audit: dict[str, Any]) -> None:
    assert audit
    file = unequal.at / "raw" / read_collection(unequal.at / "raw").files[0].path
    content = file.read_bytes()
    (unequal.at / "measured" / "files.csv").unlink()
    file.write_bytes(content + b"\0")
    try:
        with pytest.raises(UserError, match=f"1 files are no longer those that the split has read: .*{file.name}"):
            unequal.images()
    finally:
        file.write_bytes(content)
