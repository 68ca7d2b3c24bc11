"""Whole collections from a real server, gdown and kagglehub included, to proven images on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fakeface.config.collection import Archive, Checksum, Collection
from fakeface.data.download.fetch import fetch, pin, read_checksums
from fakeface.data.download.transfer import RetryPolicy
from fakeface.system.archive_members import ExtractionLimits
from fakeface.system.errors import UserError
from tests.support.faulty_http_server import LOGIN_PAGE, FaultyServer, serving

AT_ONCE = RetryPolicy(retries=1, backoff=0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    monkeypatch.setenv("NO_PROXY", "*")
    with serving() as running:
        running.files = {
            "/faces.zip": a_zip({"real/a.jpg": b"a", "fake/b.jpg": b"b"}),
            "/more.tar.gz": a_tar({"deep/c.jpg": b"c", "deep/readme.txt": b"text"}),
            "/people.txt": b"a.jpg 1\n",
        }
        yield running


def a_zip(members: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return packed.getvalue()


def a_tar(members: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as opened:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def collection(*archives: Archive) -> Collection:
    return Collection(
        name="faces",
        title="Some faces",
        label="real",
        used_for="a test",
        page="https://faces.example/page",
        licence="none",
        citation="none",
        archives=archives,
        images=3,
        layout="",
        identity_from="",
    )


def http(server: FaultyServer, file: str, **more: Any) -> Archive:
    return Archive(file=file, method="http", address=f"{server.url}/{file}", **more)


def digest(content: bytes, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, content).hexdigest()


def visible(folder: Path) -> list[str]:
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in found if not any(part.startswith(".") for part in name.split("/")))


def test_a_collection_of_several_archives_is_there_after_one_call(server: FaultyServer, tmp_path: Path) -> None:
    wanted = collection(
        http(server, "faces.zip"), http(server, "more.tar.gz"), http(server, "people.txt", unpack=False)
    )
    fetched = fetch(wanted, tmp_path / "data", patience=AT_ONCE)
    assert visible(tmp_path / "data") == [
        "data_checksums.json",
        "faces/faces/fake/b.jpg",
        "faces/faces/real/a.jpg",
        "faces/more/deep/c.jpg",
        "faces/more/deep/readme.txt",
        "faces/people.txt",
    ]
    assert (fetched.images, fetched.images_expected) == (3, 3)
    assert [archive.came for archive in fetched.archives] == ["downloaded"] * 3
    pins = read_checksums(tmp_path / "data" / "data_checksums.json")
    assert pins["faces/faces.zip"] == {
        "sha256": digest(server.files["/faces.zip"]),
        "bytes": len(server.files["/faces.zip"]),
    }
    assert list(tmp_path.iterdir()) == [tmp_path / "data"]


def test_the_second_call_asks_the_server_for_nothing(server: FaultyServer, tmp_path: Path) -> None:
    wanted = collection(http(server, "faces.zip"), http(server, "people.txt", unpack=False))
    first = fetch(wanted, tmp_path)
    server.seen.clear()
    again = fetch(wanted, tmp_path)
    assert server.seen == []
    assert [archive.came for archive in again.archives] == ["unpacked", "unpacked"]
    assert [archive.sha256 for archive in again.archives] == [archive.sha256 for archive in first.archives]


def test_unpacked_images_outlive_their_archive(server: FaultyServer, tmp_path: Path) -> None:
    wanted = collection(http(server, "faces.zip"))
    fetch(wanted, tmp_path)
    (tmp_path / ".archives" / "faces" / "faces.zip").unlink()
    server.seen.clear()
    fetch(wanted, tmp_path)
    assert server.seen == []


def test_an_image_that_went_missing_is_noticed(server: FaultyServer, tmp_path: Path) -> None:
    wanted = collection(http(server, "faces.zip"))
    fetch(wanted, tmp_path)
    (tmp_path / "faces" / "faces" / "real" / "a.jpg").unlink()
    with pytest.raises(UserError, match=r"faces/faces is not as it was unpacked; delete it"):
        fetch(wanted, tmp_path)


def test_archives_and_pins_may_live_elsewhere_and_survive_the_images(server: FaultyServer, tmp_path: Path) -> None:
    wanted, kept = collection(http(server, "faces.zip")), tmp_path / "kept"
    for folder in ("once", "twice"):
        fetch(wanted, tmp_path / folder, archives=kept / "archives", checksums=kept / "checksums.json")
    assert server.ranges("/faces.zip") == [None]
    assert visible(tmp_path / "twice") == ["faces/faces/fake/b.jpg", "faces/faces/real/a.jpg"]


def test_a_file_that_changed_at_its_source_is_refused_until_the_user_agrees(
    server: FaultyServer, tmp_path: Path
) -> None:
    wanted, pins = collection(http(server, "faces.zip")), tmp_path / "data_checksums.json"
    fetch(wanted, tmp_path / "before", checksums=pins)
    server.files["/faces.zip"] = a_zip({"real/z.jpg": b"z", "fake/b.jpg": b"b"})
    with pytest.raises(UserError, match=r"sha256 is \w+ where data_checksums.json states"):
        fetch(wanted, tmp_path / "after", checksums=pins, patience=AT_ONCE)
    assert visible(tmp_path / "after") == []
    pins.unlink()
    fetch(wanted, tmp_path / "after", checksums=pins)
    with pytest.raises(UserError, match="was unpacked from other bytes than"):
        fetch(wanted, tmp_path / "before", checksums=pins)


def test_the_catalogues_checksum_is_held_against_the_bytes(server: FaultyServer, tmp_path: Path) -> None:
    right = Checksum("md5", digest(server.files["/faces.zip"], "md5"), "its owners")
    wrong = Checksum("sha256", "0" * 64, "its owners")
    with pytest.raises(UserError) as caught:
        fetch(collection(http(server, "faces.zip", checksums=(right, wrong))), tmp_path, patience=AT_ONCE)
    said = str(caught.value)
    assert "where its owners states 000" in said
    assert "open https://faces.example/page, get faces.zip, save it as" in said
    assert "\n" not in said
    assert visible(tmp_path) == []
    fetch(collection(http(server, "faces.zip", checksums=(right,))), tmp_path)


def test_a_mirror_serves_where_google_drive_does_not(server: FaultyServer, tmp_path: Path) -> None:
    stated = Checksum("md5", digest(server.files["/faces.zip"], "md5"), "its owners")
    drive = Archive(
        file="faces.zip",
        method="drive",
        address=f"{server.url}/quota",
        checksums=(stated,),
        mirrors=(f"{server.url}/gone.zip", f"{server.url}/faces.zip"),
    )
    server.files["/quota"] = LOGIN_PAGE
    fetched = fetch(collection(drive), tmp_path, patience=AT_ONCE)
    assert fetched.images == 2
    assert [path for path, _ in server.seen] == ["/quota", "/gone.zip", "/faces.zip"]
    with pytest.raises(UserError, match=r"quota: it is a web page.*gone.zip: it answers 404"):
        fetch(collection(dataclasses.replace(drive, mirrors=drive.mirrors[:1])), tmp_path / "b", patience=AT_ONCE)


@pytest.mark.parametrize("expected", [2, 3, None])
def test_another_number_of_images_than_the_catalogues_is_told(
    server: FaultyServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, expected: int | None
) -> None:
    fetch(dataclasses.replace(collection(http(server, "faces.zip")), images=expected), tmp_path, patience=AT_ONCE)
    told = ["faces has 2 images where the catalogue expects 3; see docs/data.md for how sure that number is."]
    assert [record.getMessage() for record in caplog.records] == (told if expected == 3 else [])


@pytest.mark.parametrize("stated", ["right", "wrong", "other files", "no json", "no answer"])
def test_archive_orgs_own_listing_is_the_checksum_where_it_can_be_had(
    server: FaultyServer, tmp_path: Path, stated: str
) -> None:
    content = server.files["/faces.zip"]
    entry = {
        "name": "faces.zip",
        "size": str(len(content)),
        "md5": digest(content, "md5"),
        "sha1": digest(content, "sha1"),
    }
    if stated == "wrong":
        entry["sha1"] = "0" * 40
    if stated == "other files":
        entry["name"] = "other.zip"
    if stated != "no answer":
        server.files["/listing"] = b"<html>" if stated == "no json" else json.dumps({"result": [entry]}).encode()
    wanted = collection(http(server, "faces.zip", listing=f"{server.url}/listing"))
    if stated == "wrong":
        with pytest.raises(UserError, match=r"sha1 is \w+ where http\S+/listing states 000"):
            fetch(wanted, tmp_path, patience=AT_ONCE)
    else:
        assert fetch(wanted, tmp_path, patience=AT_ONCE).images == 2


def test_behind_a_form_the_message_says_what_to_do_and_then_the_same_command_goes_on(
    server: FaultyServer, tmp_path: Path
) -> None:
    wanted = collection(Archive(file="faces.zip", method="manual", address="https://faces.example/form"))
    place = tmp_path / ".archives" / "faces" / "faces.zip"
    with pytest.raises(UserError) as caught:
        fetch(wanted, tmp_path)
    assert "open https://faces.example/page, get faces.zip, save it as" in str(caught.value)
    assert str(place) in str(caught.value)
    place.write_bytes(LOGIN_PAGE)
    with pytest.raises(UserError, match=r"is not the right file \(it is a web page.*delete it"):
        fetch(wanted, tmp_path)
    assert place.exists()
    place.write_bytes(server.files["/faces.zip"])
    fetched = fetch(wanted, tmp_path)
    assert fetched.archives[0].came == "found"
    assert fetched.images == 2


def test_an_evil_archive_leaves_nothing_and_is_not_pinned(server: FaultyServer, tmp_path: Path) -> None:
    server.files["/evil.zip"] = a_zip({"good.jpg": b"1", "../../../evil.jpg": b"2"})
    with pytest.raises(UserError, match="leaves the folder"):
        fetch(collection(http(server, "evil.zip")), tmp_path / "a" / "b" / "data", patience=AT_ONCE)
    assert visible(tmp_path) == []
    assert not list(tmp_path.rglob("evil.jpg"))


def test_names_cannot_lead_out_of_the_data_folder(server: FaultyServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be the name"):
        fetch(dataclasses.replace(collection(http(server, "faces.zip")), name="../evil"), tmp_path / "data")
    with pytest.raises(UserError, match="cannot be the name"):
        fetch(collection(Archive(file="../evil.zip", method="manual", address="")), tmp_path / "data")
    assert not (tmp_path / "evil").exists()


def test_a_folder_of_someone_elses_is_not_taken_for_ours(server: FaultyServer, tmp_path: Path) -> None:
    (tmp_path / "faces" / "faces").mkdir(parents=True)
    with pytest.raises(UserError, match="was not unpacked by this program"):
        fetch(collection(http(server, "faces.zip")), tmp_path)


def test_two_runs_at_once_fetch_once_and_both_succeed(server: FaultyServer, tmp_path: Path) -> None:
    server.files["/faces.zip"] = a_zip({f"{number}.jpg": os.urandom(1000) for number in range(500)})
    wanted = collection(http(server, "faces.zip"), http(server, "more.tar.gz"))
    fork = multiprocessing.get_context("fork")
    runs = [fork.Process(target=fetch, args=(wanted, tmp_path)) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0, 0]
    assert server.ranges("/faces.zip") == [None]
    assert len(visible(tmp_path / "faces")) == 502
    assert set(read_checksums(tmp_path / "data_checksums.json")) == {"faces/faces.zip", "faces/more.tar.gz"}


def test_unreadable_pins_are_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "data_checksums.json"
    for text in ("{", "[]", '{"a": {"sha256": "short", "bytes": 1}}', '{"a": 1}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="not a table of sha256"):
            pin(path, "faces/faces.zip", "0" * 64, 1)
        assert path.read_text(encoding="utf-8") == text


# --- Kaggle: kagglehub itself, against a server where its test environment looks for one --------------------------


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    said: dict[str, Any] = {
        "status": 200,
        "body": a_zip({"train/real/00001.jpg": b"r", "train/fake/0A.jpg": b"f"}),
        "asked": [],
    }

    class Kaggle(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            said["asked"].append(self.headers["Authorization"])
            body = said["body"] if said["status"] == 200 else b"{}"
            self.send_response(said["status"])
            self.send_header("Content-Type", "application/zip" if said["status"] == 200 else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    try:
        httpd = ThreadingHTTPServer(("127.0.0.1", 7777), Kaggle)
    except OSError:
        pytest.skip("port 7777, where kagglehub's test environment looks, is taken")
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLEHUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    yield said
    httpd.shutdown()
    httpd.server_close()


ON_KAGGLE = Archive(file="faces.zip", method="kaggle", address="someone/faces/versions/2")


def test_kaggle_gives_the_images_and_pins_them(
    kaggle: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "my-own-token")
    fetched = fetch(collection(ON_KAGGLE), tmp_path / "data")
    assert visible(tmp_path / "data" / "faces") == ["faces/train/fake/0A.jpg", "faces/train/real/00001.jpg"]
    assert kaggle["asked"] == ["Bearer my-own-token"]
    assert fetch(collection(ON_KAGGLE), tmp_path / "data").archives[0].sha256 == fetched.archives[0].sha256
    assert len(kaggle["asked"]) == 1
    assert fetched.archives[0].sha256 == digest(kaggle["body"])
    kaggle["body"] = a_zip({"train/real/00001.jpg": b"R", "train/fake/0A.jpg": b"f"})
    with pytest.raises(UserError, match=r"sha256 is \w+ where data_checksums.json states"):
        fetch(collection(ON_KAGGLE), tmp_path / "other", checksums=tmp_path / "data" / "data_checksums.json")
    assert visible(tmp_path / "other" / "faces") == []


@pytest.mark.parametrize("status", [401, 403])
def test_without_a_token_kaggle_is_one_clear_sentence(kaggle: dict[str, Any], tmp_path: Path, status: int) -> None:
    kaggle["status"] = status
    with pytest.raises(UserError, match=r"your own token .* https://www.kaggle.com/settings/api") as caught:
        fetch(collection(ON_KAGGLE), tmp_path / "data")
    assert "\n" not in str(caught.value)


def test_kaggle_gone_or_damaged_names_the_way_by_hand_and_takes_it(kaggle: dict[str, Any], tmp_path: Path) -> None:
    kaggle["status"] = 404
    with pytest.raises(UserError, match=r"could not be fetched .* save it as \S+/faces.zip and run the same") as caught:
        fetch(collection(ON_KAGGLE), tmp_path)
    assert "\n" not in str(caught.value)
    kaggle.update(status=200, body=b"not an archive")
    with pytest.raises(UserError, match="it is not an archive"):
        fetch(collection(ON_KAGGLE), tmp_path)
    assert visible(tmp_path) == []
    (tmp_path / ".archives" / "faces" / "faces.zip").write_bytes(a_zip({"a.jpg": b"1"}))
    assert fetch(collection(ON_KAGGLE), tmp_path).archives[0].came == "found"


def test_what_kaggle_sends_is_unpacked_within_the_limits_of_every_archive(
    kaggle: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="holds more than 1 files"):
        fetch(collection(ON_KAGGLE), tmp_path, limits=ExtractionLimits(files=1))
    kaggle["body"] = a_zip({"../evil.jpg": b"x"})
    with pytest.raises(UserError, match="leaves the folder"):
        fetch(collection(ON_KAGGLE), tmp_path / "b")
    assert not list(tmp_path.rglob("*.jpg"))
