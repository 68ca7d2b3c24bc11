"""Downloads from a real server that misbehaves in every way of the catalogue of faults."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fakeface
from fakeface.data.download.hosts import download_from_drive
from fakeface.data.download.transfer import RetryPolicy, download
from fakeface.data.download.verify_download import DownloadError, Expected
from fakeface.system.errors import UserError
from tests.support.faulty_http_server import FaultyServer, serving

AT_ONCE = RetryPolicy(retries=2, backoff=0)
CONTENT = os.urandom(3_000_000)
SHA256 = Expected(len(CONTENT), {"sha256": (hashlib.sha256(CONTENT).hexdigest(), "the test")})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    monkeypatch.setenv("NO_PROXY", "*")
    with serving() as running:
        running.files["/faces.bin"] = CONTENT
        yield running


def a_zip(size: int = 200_000) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        opened.writestr("a.jpg", os.urandom(size))
    return packed.getvalue()


def leftovers(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_a_file_arrives_whole_under_its_name_and_nothing_else_is_left(server: FaultyServer, tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    target = tmp_path / "faces.bin"
    download(f"{server.url}/faces.bin", target, SHA256, progress=lambda *step: told.append(step))
    assert target.read_bytes() == CONTENT
    assert leftovers(target) == ["faces.bin"]
    assert told[-1] == ("faces.bin", len(CONTENT), len(CONTENT))


def test_a_broken_connection_is_gone_on_from_where_it_broke(server: FaultyServer, tmp_path: Path) -> None:
    server.faults["/faces.bin"] = ["breaks"] * 5  # more often than the retries
    download(f"{server.url}/faces.bin", tmp_path / "faces.bin", SHA256, patience=AT_ONCE)
    assert (tmp_path / "faces.bin").read_bytes() == CONTENT
    starts = [int(asked[6:-1]) if asked else 0 for asked in server.ranges("/faces.bin")]
    assert len(starts) == 6
    assert starts == sorted(set(starts))
    assert 1_500_000 - (1 << 16) < starts[1] <= 1_500_000


def test_a_server_that_ignores_range_is_taken_from_the_start(server: FaultyServer, tmp_path: Path) -> None:
    server.faults["/faces.bin"] = ["breaks", "ignores range"]
    download(f"{server.url}/faces.bin", tmp_path / "faces.bin", patience=AT_ONCE)
    assert (tmp_path / "faces.bin").read_bytes() == CONTENT
    assert len(server.seen) == 2


def test_a_server_that_ignores_range_and_breaks_each_time_is_given_up(server: FaultyServer, tmp_path: Path) -> None:
    server.faults["/faces.bin"] = ["ignores range, breaks..."]
    with pytest.raises(DownloadError, match="breaks off"):
        download(f"{server.url}/faces.bin", tmp_path / "faces.bin", patience=AT_ONCE)
    assert len(server.seen) == 3
    assert not (tmp_path / "faces.bin").exists()


@pytest.mark.parametrize("fault", ["wrong range", "part of the range"])
def test_another_range_than_asked_for_is_no_whole_file(server: FaultyServer, tmp_path: Path, fault: str) -> None:
    server.faults["/faces.bin"] = ["breaks", fault]
    download(f"{server.url}/faces.bin", tmp_path / "faces.bin", patience=AT_ONCE)
    assert (tmp_path / "faces.bin").read_bytes() == CONTENT


def test_a_file_that_changed_since_the_first_try_is_taken_from_the_start(server: FaultyServer, tmp_path: Path) -> None:
    server.faults["/faces.bin"] = ["breaks...", ""]
    with pytest.raises(DownloadError):
        download(f"{server.url}/faces.bin", tmp_path / "faces.bin", patience=RetryPolicy(retries=0))
    server.faults.clear()
    server.files["/faces.bin"] = newer = os.urandom(3_000_000)
    download(f"{server.url}/faces.bin", tmp_path / "faces.bin", patience=AT_ONCE)
    assert server.ranges("/faces.bin")[-1] is not None
    assert (tmp_path / "faces.bin").read_bytes() == newer


def test_without_a_validator_nothing_is_spliced(server: FaultyServer, tmp_path: Path) -> None:
    part = tmp_path / "faces.bin.part"
    part.write_bytes(b"of another file")
    server.faults["/faces.bin"] = ["no validator"]
    download(f"{server.url}/faces.bin", tmp_path / "faces.bin", patience=AT_ONCE)
    assert server.ranges("/faces.bin") == [None]
    assert (tmp_path / "faces.bin").read_bytes() == CONTENT


def test_500_and_429_pass(server: FaultyServer, tmp_path: Path) -> None:
    server.faults["/faces.bin"] = ["500", "429"]
    download(f"{server.url}/faces.bin", tmp_path / "faces.bin", SHA256, patience=AT_ONCE)
    assert (tmp_path / "faces.bin").read_bytes() == CONTENT


def test_500_for_good_and_404_do_not(server: FaultyServer, tmp_path: Path) -> None:
    server.faults["/faces.bin"] = ["503..."]
    with pytest.raises(DownloadError, match="503"):
        download(f"{server.url}/faces.bin", tmp_path / "faces.bin", patience=AT_ONCE)
    with pytest.raises(DownloadError, match="404"):
        download(f"{server.url}/other.bin", tmp_path / "other.bin", patience=AT_ONCE)
    assert server.ranges("/other.bin") == [None]
    assert leftovers(tmp_path / "x") == []


def test_nobody_there_is_one_sentence(tmp_path: Path) -> None:
    with serving() as gone:
        url = gone.url
    with pytest.raises(DownloadError, match="connection fails"):
        download(f"{url}/faces.bin", tmp_path / "faces.bin", patience=AT_ONCE)


@pytest.mark.parametrize("fault", ["login", "login as zip"])
@pytest.mark.parametrize("transfer", [download, download_from_drive])
def test_a_login_page_with_status_200_is_never_the_file(
    server: FaultyServer, tmp_path: Path, fault: str, transfer: Callable[..., None]
) -> None:
    server.files["/faces.zip"] = a_zip()
    server.faults["/faces.zip"] = [f"{fault}..."]
    with pytest.raises(DownloadError, match="web page"):
        transfer(f"{server.url}/faces.zip", tmp_path / "faces.zip", patience=AT_ONCE)
    server.faults.clear()
    transfer(f"{server.url}/faces.zip", tmp_path / "faces.zip", patience=AT_ONCE)
    assert (tmp_path / "faces.zip").read_bytes() == server.files["/faces.zip"]


def test_a_length_that_promises_too_much_is_not_a_whole_file(server: FaultyServer, tmp_path: Path) -> None:
    server.faults["/faces.bin"] = ["too long..."]
    with pytest.raises(DownloadError, match=r"breaks off|no more than"):
        download(f"{server.url}/faces.bin", tmp_path / "faces.bin", patience=AT_ONCE)
    assert not (tmp_path / "faces.bin").exists()


def test_a_length_that_promises_too_little_is_noticed_with_and_without_a_digest(
    server: FaultyServer, tmp_path: Path
) -> None:
    server.files["/faces.zip"] = a_zip()
    server.faults = {"/faces.zip": ["too short..."], "/faces.bin": ["too short..."]}
    with pytest.raises(DownloadError, match="damaged or cut off"):
        download(f"{server.url}/faces.zip", tmp_path / "faces.zip", patience=AT_ONCE)
    with pytest.raises(DownloadError, match=r"1,500,000 bytes where 3,000,000 are expected"):
        download(f"{server.url}/faces.bin", tmp_path / "faces.bin", SHA256, patience=AT_ONCE)
    assert leftovers(tmp_path / "x") == []


@pytest.mark.parametrize("transfer", [download, download_from_drive])
def test_a_wrong_hash_keeps_nothing(server: FaultyServer, tmp_path: Path, transfer: Callable[..., None]) -> None:
    expected = Expected(None, {"md5": ("0" * 32, "its owners")})
    with pytest.raises(DownloadError, match=r"md5 is \w+ where its owners states 0000"):
        transfer(f"{server.url}/faces.bin", tmp_path / "faces.bin", expected, patience=AT_ONCE)
    assert leftovers(tmp_path / "x") == []


def test_gdown_goes_on_too_and_starts_over_where_it_cannot(server: FaultyServer, tmp_path: Path) -> None:
    target = tmp_path / "faces.bin"
    server.faults["/faces.bin"] = ["breaks..."]
    with pytest.raises(DownloadError, match="breaks off"):
        download_from_drive(f"{server.url}/faces.bin", target, SHA256, patience=RetryPolicy(retries=0))
    assert not target.exists()
    assert [path.stat().st_size > 0 for path in tmp_path.iterdir()] == [True]
    server.faults["/faces.bin"] = ["ignores range", "ignores range"]
    download_from_drive(f"{server.url}/faces.bin", target, SHA256, patience=RetryPolicy(retries=0))
    assert target.read_bytes() == CONTENT
    assert leftovers(target) == ["faces.bin"]


@pytest.mark.parametrize("retries", [0, 1])
def test_gdown_keeps_what_came_where_the_network_is_at_fault(
    server: FaultyServer, tmp_path: Path, retries: int
) -> None:
    target, kept = tmp_path / "faces.bin", tmp_path / "faces.bin.partabcdefgh.part"
    kept.write_bytes(CONTENT[:1000])
    with pytest.raises(DownloadError, match="fails or breaks off"):
        download_from_drive("http://127.0.0.1:1/faces.bin", target, SHA256, patience=RetryPolicy(retries))
    assert kept.read_bytes() == CONTENT[:1000]
    download_from_drive(f"{server.url}/faces.bin", target, SHA256, patience=RetryPolicy(retries))
    assert server.ranges("/faces.bin")[-1] == "bytes=1000-"
    assert target.read_bytes() == CONTENT


def test_gdown_starts_over_where_two_partial_files_are_in_its_way(server: FaultyServer, tmp_path: Path) -> None:
    target = tmp_path / "faces.bin"
    for name in ("abcdefgh", "ijklmnop"):
        (tmp_path / f"faces.bin.part{name}.part").write_bytes(CONTENT[:1000])
    download_from_drive(f"{server.url}/faces.bin", target, SHA256, patience=RetryPolicy(retries=1))
    assert target.read_bytes() == CONTENT
    assert leftovers(target) == ["faces.bin"]


def test_a_killed_download_is_gone_on_from_by_the_next(server: FaultyServer, tmp_path: Path) -> None:
    target = tmp_path / "faces.bin"
    child = os.fork()
    if child == 0:

        def die_half_way(what: str, done: int, total: int | None) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        download(f"{server.url}/faces.bin", target, SHA256, progress=die_half_way)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not target.exists()
    kept = (tmp_path / "faces.bin.part").stat().st_size
    assert 0 < kept < len(CONTENT)
    download(f"{server.url}/faces.bin", target, SHA256)
    assert server.ranges("/faces.bin") == [None, f"bytes={kept}-"]
    assert target.read_bytes() == CONTENT


def test_a_disk_limit_in_the_middle_is_one_sentence_and_keeps_what_came(server: FaultyServer, tmp_path: Path) -> None:
    target = tmp_path / "faces.bin"
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
        try:
            download(f"{server.url}/faces.bin", target, SHA256)
        except UserError as error:
            os._exit(7 if "disk is full" in str(error) else 8)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert not target.exists()
    assert (tmp_path / "faces.bin.part").stat().st_size == 2_000_000
    download(f"{server.url}/faces.bin", target, SHA256)
    assert server.ranges("/faces.bin")[-1] == "bytes=2000000-"
    assert target.read_bytes() == CONTENT


FULL_DISK = """
import sys
from pathlib import Path
from fakeface.system.errors import UserError
from fakeface.data.download.transfer import download
try:
    download(sys.argv[1], Path("faces.bin"))
except UserError as error:
    print(error)
print(*sorted(path.name for path in Path().iterdir()))
"""


def on_a_small_disk(folder: Path, size: str, *arguments: str) -> str:
    mounted = f'mount -t tmpfs -o size={size} tmpfs {folder} && cd {folder} && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted, "sh", sys.executable, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(fakeface.__file__).parents[1])}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if "unshare" in run.stderr or "mount" in run.stderr:
        pytest.skip("no small file system can be mounted here")
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_a_disk_that_is_too_small_is_told_before_it_is_full(server: FaultyServer, tmp_path: Path) -> None:
    said = on_a_small_disk(tmp_path, "1m", "-c", FULL_DISK, f"{server.url}/faces.bin")
    assert "bytes free where 3,000,000 are still to come" in said


def test_a_disk_that_fills_up_keeps_what_came(server: FaultyServer, tmp_path: Path) -> None:
    unaware = "import shutil; real = shutil.disk_usage; shutil.disk_usage = lambda p: real(p)._replace(free=1 << 40)\n"
    said = on_a_small_disk(tmp_path, "1m", "-c", unaware + FULL_DISK, f"{server.url}/faces.bin")
    assert "The disk is full while" in said
    assert said.splitlines()[-1] == "faces.bin.part faces.bin.part.json"
