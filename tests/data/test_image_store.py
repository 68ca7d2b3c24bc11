from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fakeface.data.image_store import StoredImage, open_store, write_store
from fakeface.data.raw_dataset import RawFile, Rejected
from fakeface.data.split.decode_cache import DecodedImages, decode_files
from fakeface.images.decoding import decode_image
from fakeface.images.preprocessing import Crop, Limits, Reencoding
from fakeface.system.errors import UserError
from tests.support.image_folders import picture_bytes
from tests.support.project import PROJECT

SIZE = 32
LIMITS = Limits(max_bytes=100_000, max_pixels=100_000)
CROPS = {"people": "centre", "machine": "centre 0.5"}


def put(raw: Path, name: str, content: bytes) -> RawFile:
    """Lay a file in datasets/raw and describe it."""
    path = raw / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    label = "real" if name.startswith("people") else "fake"
    return RawFile(name, name.partition("/")[0], label, len(content), hashlib.sha256(content).hexdigest(), "", "")


def put_pictures(raw: Path, seeds: Sequence[int], source: str = "people") -> list[RawFile]:
    return [put(raw, f"{source}/{seed:04d}.png", picture_bytes(seed)) for seed in seeds]


def decode(files: Sequence[RawFile], tmp_path: Path, **changes: object) -> tuple[DecodedImages, list[Rejected]]:
    settings: dict[str, object] = {"size": SIZE, "crops": CROPS, "limits": LIMITS, "workers": 1, **changes}
    return decode_files(files, tmp_path / "raw", tmp_path / "decoded", **settings)  # type: ignore[arg-type]


def pixels(images: DecodedImages) -> npt.NDArray[np.uint8]:
    return np.concatenate(list(images.blocks(range(len(images.files)))))


def decoded_rows(tmp_path: Path) -> int:
    return len((tmp_path / "decoded" / "index.csv").read_text().splitlines())


class TestDecoding:
    def test_pixels_are_those_of_the_only_decoder_with_the_crop_of_the_source(self, tmp_path: Path) -> None:
        files = put_pictures(tmp_path / "raw", range(5)) + put_pictures(tmp_path / "raw", range(4), "machine")
        images, rejected = decode(files, tmp_path)
        assert rejected == []
        assert images.files == files
        for file, image in zip(files, pixels(images), strict=True):
            content = (tmp_path / "raw" / file.path).read_bytes()
            np.testing.assert_array_equal(image, decode_image(content, SIZE, Crop.parse(CROPS[file.source])))

    def test_bad_files_are_named_and_good_ones_keep_their_pixels(self, tmp_path: Path) -> None:
        raw = tmp_path / "raw"
        good = put_pictures(raw, [1, 2])
        jpeg = picture_bytes(3, "JPEG")
        files = [
            good[0],
            put(raw, "people/empty.jpg", b""),
            put(raw, "people/cut.jpg", jpeg[: len(jpeg) // 2]),
            put(raw, "people/page.jpg", b"<!DOCTYPE html><html>Sign in</html>"),
            put(raw, "people/large.png", picture_bytes(4, side=400)),
            put(raw, "people/heavy.jpg", jpeg + bytes(100_000)),
            good[1],
        ]
        images, rejected = decode(files, tmp_path)
        assert images.files == good
        np.testing.assert_array_equal(pixels(images)[1], decode_image(picture_bytes(2), SIZE, Crop(1)))
        found = {file.path: file.reason for file in rejected}
        assert list(found) == [file.path for file in files[1:-1]]
        for name, reason in {
            "empty.jpg": "empty",
            "cut.jpg": "truncated",
            "page.jpg": "HTML",
            "large.png": "too many pixels",
            "heavy.jpg": "too many bytes",
        }.items():
            assert reason in found[f"people/{name}"]

    def test_processes_make_what_one_makes(self, tmp_path: Path) -> None:
        raw = tmp_path / "raw"
        files = [*put_pictures(raw, range(140)), put(raw, "people/bad.png", b"no image at all, only text in it")]
        alone, bad_alone = decode(files, tmp_path)
        here = pixels(alone)
        (tmp_path / "decoded").rename(tmp_path / "before")
        shared, bad_shared = decode(files, tmp_path, workers=2)
        np.testing.assert_array_equal(pixels(shared), here)
        np.testing.assert_array_equal(shared.hashes, alone.hashes)
        assert bad_shared == bad_alone

    def test_only_new_files_are_decoded_again(self, tmp_path: Path) -> None:
        raw = tmp_path / "raw"
        files = put_pictures(raw, range(6))
        before = pixels(decode(files, tmp_path)[0])
        for file in files:
            (raw / file.path).unlink()  # whoever decodes one again will miss it
        more = [*put_pictures(raw, [60]), *files]
        after, rejected = decode(more, tmp_path)
        assert rejected == []
        np.testing.assert_array_equal(pixels(after)[1:], before)
        assert decoded_rows(tmp_path) == 7

    def test_a_damaged_row_is_noticed_and_decoded_again(self, tmp_path: Path) -> None:
        files = put_pictures(tmp_path / "raw", range(3))
        before = pixels(decode(files, tmp_path)[0])
        with (tmp_path / "decoded" / "images.bin").open("r+b") as file:
            file.seek(SIZE * SIZE * 3 + 100)
            file.write(b"\xff\x00\xff\x00")
        for _ in range(2):
            np.testing.assert_array_equal(pixels(decode(files, tmp_path)[0]), before)
            (tmp_path / "raw" / files[1].path).unlink(
                missing_ok=True
            )  # the row is whole again, and asks for it no more

    def test_a_damaged_row_of_a_file_that_changed_is_told(self, tmp_path: Path) -> None:
        files = put_pictures(tmp_path / "raw", range(3))
        images, _ = decode(files, tmp_path)
        (tmp_path / "decoded" / "images.bin").write_bytes(bytes(3 * SIZE * SIZE * 3))
        (tmp_path / "raw" / files[2].path).write_bytes(picture_bytes(9))
        with pytest.raises(UserError, match=r"1 files .*people/0002\.png.*download stage"):
            pixels(images)

    def test_a_damaged_line_of_the_index_is_decoded_again(self, tmp_path: Path) -> None:
        files = put_pictures(tmp_path / "raw", range(3))
        before, _ = decode(files, tmp_path)
        index = tmp_path / "decoded" / "index.csv"
        look = str(before.hashes[1])
        index.write_text(index.read_text().replace(look, look[:-1] + ("1" if look[-1] == "0" else "0")))
        after, _ = decode(files, tmp_path)
        np.testing.assert_array_equal(after.hashes, before.hashes)
        assert decoded_rows(tmp_path) == 4

    def test_a_cut_array_or_index_costs_only_what_was_cut(self, tmp_path: Path) -> None:
        files = put_pictures(tmp_path / "raw", range(4))
        before = pixels(decode(files, tmp_path)[0])
        cache = tmp_path / "decoded"
        os.truncate(cache / "images.bin", (cache / "images.bin").stat().st_size - 10)
        os.truncate(cache / "index.csv", (cache / "index.csv").stat().st_size - 3)
        for _ in range(2):
            np.testing.assert_array_equal(pixels(decode(files, tmp_path)[0]), before)

    def test_other_settings_never_meet_old_pixels(self, tmp_path: Path) -> None:
        files = put_pictures(tmp_path / "raw", range(3))
        decode(files, tmp_path)
        whole, _ = decode(files, tmp_path, crops={"people": "centre 0.5"})
        np.testing.assert_array_equal(pixels(whole)[0], decode_image(picture_bytes(0), SIZE, Crop(0.5)))
        larger, _ = decode(files, tmp_path, size=40)
        np.testing.assert_array_equal(pixels(larger)[0], decode_image(picture_bytes(0), 40, Crop(1)))
        saved_again, _ = decode(files, tmp_path, reencoding=Reencoding(20, SIZE))
        expected = decode_image(picture_bytes(0), SIZE, Crop(1), reencoding=Reencoding(20, SIZE))
        np.testing.assert_array_equal(pixels(saved_again)[0], expected)
        none, rejected = decode(files, tmp_path, limits=Limits(100_000, 100))
        assert (len(none.files), len(rejected)) == (0, 3)

    def test_bytes_that_are_not_the_manifests_stop_the_run(self, tmp_path: Path) -> None:
        files = put_pictures(tmp_path / "raw", range(4))
        (tmp_path / "raw" / files[1].path).write_bytes(picture_bytes(99))
        (tmp_path / "raw" / files[3].path).unlink()
        with pytest.raises(UserError, match=r"2 files .*people/0001\.png, people/0003\.png.*download stage"):
            decode(files, tmp_path)

    def test_a_killed_run_is_gone_on_with(self, tmp_path: Path) -> None:
        files = put_pictures(tmp_path / "raw", range(300))
        program = """if True:
            import os, signal, sys
            from pathlib import Path
            sys.path.insert(0, sys.argv[1])
            from fakeface.data.split import decode_cache
            from fakeface.system.parallel import CHUNK
            from tests.data import test_image_store as test_store
            decode_chunk = decode_cache._decode_chunk
            def dying(array, settings, items):
                if items[0].row == 2 * CHUNK:
                    os.kill(os.getpid(), signal.SIGKILL)
                return decode_chunk(array, settings, items)
            decode_cache._decode_chunk = dying
            here = Path(sys.argv[2])
            test_store.decode(test_store.put_pictures(here / "raw", range(300)), here)
        """
        run = subprocess.run([sys.executable, "-c", program, str(PROJECT), str(tmp_path)], check=False)
        assert run.returncode == -signal.SIGKILL
        assert decoded_rows(tmp_path) == 128
        images, rejected = decode(files, tmp_path)
        assert decoded_rows(tmp_path) == 300
        assert rejected == []
        for number in (0, 63, 64, 127, 128, 299):
            (block,) = images.blocks([number])
            np.testing.assert_array_equal(block[0], decode_image(picture_bytes(number), SIZE, Crop(1)))


def stored(count: int, part: str = "train", first: int = 0) -> list[StoredImage]:
    return [
        StoredImage(
            f"people/{n}.png",
            "people" if n % 2 else "machine",
            "real" if n % 2 else "fake",
            part,
            f"{n:064x}",
            f"{n}",
            hashlib.sha256(image.data).hexdigest(),
        )
        for n, image in enumerate(np.concatenate(list(blocks(first + count)))[first:])
    ]


def blocks(count: int, size: int = 8) -> Iterator[npt.NDArray[np.uint8]]:
    images = np.random.default_rng(4).integers(0, 256, (count, size, size, 3), np.uint8)
    yield from np.array_split(images, 3)


class TestStore:
    def test_what_is_written_is_what_is_opened(self, tmp_path: Path) -> None:
        rows = stored(5) + stored(4, "valid", first=5)
        write_store(rows, blocks(9), 8, tmp_path / "stage1")
        store = open_store(tmp_path / "stage1")
        np.testing.assert_array_equal(store.images, np.concatenate(list(blocks(9))))
        np.testing.assert_array_equal(store.images, np.load(tmp_path / "stage1" / "images.npy"))
        assert store.images.dtype == np.uint8
        assert store.labels.tolist() == [1, 0, 1, 0, 1, 1, 0, 1, 0]
        assert store.paths.tolist() == [row.path for row in rows]
        assert store.select("valid").tolist() == [5, 6, 7, 8]
        assert store.select("train", "people").tolist() == [1, 3]
        assert store.select("heldout").tolist() == []

    def test_an_empty_store_opens(self, tmp_path: Path) -> None:
        write_store([], iter([]), 8, tmp_path / "heldout")
        assert open_store(tmp_path / "heldout").images.shape == (0, 8, 8, 3)

    @pytest.mark.parametrize("name", ["images.npy", "manifest.csv"])
    def test_one_changed_byte_is_noticed(self, tmp_path: Path, name: str) -> None:
        write_store(stored(6), blocks(6), 8, tmp_path / "stage1")
        content = bytearray((tmp_path / "stage1" / name).read_bytes())
        content[-5] ^= 1
        (tmp_path / "stage1" / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name} is damaged.*split stage"):
            open_store(tmp_path / "stage1")

    def test_damaged_images_are_named(self, tmp_path: Path) -> None:
        write_store(stored(40), blocks(40), 8, tmp_path / "stage1")
        with (tmp_path / "stage1" / "images.npy").open("r+b") as file:
            for number in (3, 37):
                file.seek(128 + number * 8 * 8 * 3)
                file.write(b"\0\0\0\0\0\0")
        with pytest.raises(UserError, match=r"2 images are not those written \(people/3\.png, people/37\.png\)"):
            open_store(tmp_path / "stage1")

    @pytest.mark.parametrize("change", [-1, 1, -600, 5000])
    def test_another_length_is_noticed(self, tmp_path: Path, change: int) -> None:
        write_store(stored(4), blocks(4), 8, tmp_path / "stage1")
        images = tmp_path / "stage1" / "images.npy"
        os.truncate(images, images.stat().st_size + change)
        with pytest.raises(UserError, match=r"images\.npy is damaged.*split stage"):
            open_store(tmp_path / "stage1")

    @pytest.mark.parametrize("name", ["images.npy", "manifest.csv", "store.json"])
    def test_open_store_names_a_missing_file(self, tmp_path: Path, name: str) -> None:
        write_store(stored(6), blocks(6), 8, tmp_path / "stage1")
        (tmp_path / "stage1" / name).unlink()
        with pytest.raises(UserError, match=rf"{name} is missing"):
            open_store(tmp_path / "stage1")

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"sha256": 3}'])
    def test_a_damaged_store_json_is_one_sentence(self, tmp_path: Path, content: str) -> None:
        write_store(stored(6), blocks(6), 8, tmp_path / "stage1")
        (tmp_path / "stage1" / "store.json").write_text(content)
        with pytest.raises(UserError, match=r"split stage again|stage that makes it again"):
            open_store(tmp_path / "stage1")

    def test_rows_and_images_must_be_as_many(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="5 rows"):
            write_store(stored(5), blocks(6), 8, tmp_path / "stage1")
        assert not (tmp_path / "stage1").exists()

    def test_a_store_of_another_size_than_it_says_is_refused(self, tmp_path: Path) -> None:
        for name, size in (("stage1", 8), ("larger", 16)):
            write_store(stored(6), blocks(6, size), size, tmp_path / name)
        shutil.copy(tmp_path / "larger" / "images.npy", tmp_path / "stage1")
        with pytest.raises(UserError, match="does not fit together"):
            open_store(tmp_path / "stage1")

    def test_no_flipped_bit_of_what_it_says_of_itself_passes_unseen(self, tmp_path: Path) -> None:
        into = tmp_path / "stage1"
        write_store(stored(2), blocks(2), 8, into, "synthetic sample", Reencoding(quality=75, size=8))
        assert open_store(into).note == "synthetic sample"
        written = (into / "store.json").read_bytes()
        for at in range(len(written)):
            flipped = bytearray(written)
            flipped[at] ^= 1 << at % 7  # each stays ASCII
            (into / "store.json").write_bytes(flipped)
            with pytest.raises(UserError, match=r"store\.json .*run the stage that makes it again\.$"):
                open_store(into)
        (into / "store.json").write_bytes(written)
        assert open_store(into).reencoding == Reencoding(quality=75, size=8)

    def test_a_run_that_ends_midway_leaves_the_old_store_whole(self, tmp_path: Path) -> None:
        write_store(stored(6), blocks(6), 8, tmp_path / "stage1")

        def broken() -> Iterator[npt.NDArray[np.uint8]]:
            yield next(blocks(9))
            raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space"):
            write_store(stored(9), broken(), 8, tmp_path / "stage1")
        assert len(open_store(tmp_path / "stage1")) == 6
        write_store(stored(9), blocks(9), 8, tmp_path / "stage1")
        assert len(open_store(tmp_path / "stage1")) == 9

    def test_the_same_rows_give_the_same_bytes(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            write_store(stored(6), blocks(6), 8, tmp_path / name)
        for name in ("images.npy", "manifest.csv", "store.json"):
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
