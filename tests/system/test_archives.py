"""Real archives, honest and hostile, through the only unpacker."""

from __future__ import annotations

import gzip
import io
import os
import signal
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from fakeface.system.archive_members import ExtractionLimits, detect_archive_kind
from fakeface.system.archives import check_readable, read_record, unpack
from fakeface.system.errors import UserError

GIB = 1 << 30


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


def make_tar(path: Path, *members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as opened:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                opened.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                opened.addfile(info, io.BytesIO(member[1]))
    return path


def tar_member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def files_under(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def refused(archive: Path, why: str, limits: ExtractionLimits | None = None) -> None:
    """The archive is refused with one sentence, and nothing of it is left, inside the folder or out of it."""
    before = set(archive.parent.rglob("*"))
    with pytest.raises(UserError, match=why) as caught:
        unpack(archive, archive.parent / "data" / "set", limits=limits)
    assert str(archive) in str(caught.value)
    left = set(archive.parent.rglob("*")) - before
    assert left <= {archive.parent / "data"}


CONTENT = {"a.jpg": b"first", "deep/er/b.jpg": b"second", "deep/é ü.jpg": b"third", "empty.jpg": b""}


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_unpack_tells_kinds_by_content(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "download"
    archive = make_zip(path, CONTENT) if mode == "zip" else make_tar(path, *CONTENT.items(), mode=mode)
    seen: list[int] = []
    result = unpack(
        archive, tmp_path / "set", progress=lambda what, done, total: seen.append(done), record={"sha256": "x"}
    )
    assert files_under(tmp_path / "set") == CONTENT
    assert (result.files, result.bytes) == (4, 16)
    assert result.skipped == ()
    assert result.renamed == {}
    assert seen[-1] == 16
    assert (read_record(tmp_path / "set") or {})["sha256"] == "x"
    check_readable(archive)


def test_unpack_takes_folder_entries_and_dots(tmp_path: Path) -> None:
    archive = make_tar(
        tmp_path / "x.tar", tar_member("./", tarfile.DIRTYPE), tar_member("./f", tarfile.DIRTYPE), ("./f/a", b"1")
    )
    unpack(archive, tmp_path / "set")
    assert files_under(tmp_path / "set") == {"f/a": b"1"}


@pytest.mark.parametrize(
    "name", ["../x.jpg", "a/../../x.jpg", "/abs/x.jpg", "..\\x.jpg", "C:\\x.jpg", "C:x.jpg", "\\x.jpg"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_unpack_refuses_a_member_outside_the_folder(tmp_path: Path, kind: str, name: str) -> None:
    members = {"good.jpg": b"good", name: b"evil"}
    path = tmp_path / "evil"
    refused(
        make_zip(path, members) if kind == "zip" else make_tar(path, *members.items()), "not unpacked because it holds"
    )


@pytest.mark.parametrize("name", ["../out/", "/abs/"])
def test_unpack_refuses_a_folder_outside_the_folder(tmp_path: Path, name: str) -> None:
    refused(make_zip(tmp_path / "evil.zip", {name: b""}), "holds")
    refused(make_tar(tmp_path / "evil.tar", tar_member(name, tarfile.DIRTYPE)), "holds")


@pytest.mark.parametrize(
    "member",
    [
        tar_member("link", tarfile.SYMTYPE, "/etc/passwd"),
        tar_member("link", tarfile.SYMTYPE, "good.jpg"),
        tar_member("link", tarfile.LNKTYPE, "good.jpg"),
        tar_member("null", tarfile.CHRTYPE),
        tar_member("disk", tarfile.BLKTYPE),
        tar_member("pipe", tarfile.FIFOTYPE),
    ],
    ids=["symlink out", "symlink in", "hard link", "character device", "block device", "pipe"],
)
def test_unpack_refuses_links_and_devices_in_a_tar(tmp_path: Path, member: tarfile.TarInfo) -> None:
    refused(
        make_tar(tmp_path / "evil.tar.gz", ("good.jpg", b"good"), member, ("link/x.jpg", b"through")),
        "a link or device",
    )


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_unpack_refuses_links_and_devices_in_a_zip(tmp_path: Path, mode: int) -> None:
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, (mode | 0o777) << 16
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr(info, "/etc/passwd")
    refused(path, "a link or device")


def test_unpack_keeps_odd_names_readable(tmp_path: Path) -> None:
    raw = tarfile.TarInfo("caf\udce9\nx.jpg")
    raw.size = 3
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w", encoding="utf-8", errors="surrogateescape", format=tarfile.GNU_FORMAT) as opened:
        opened.addfile(raw, io.BytesIO(b"odd"))
    for folder in ("once", "twice"):
        result = unpack(path, tmp_path / folder)
        assert files_under(tmp_path / folder) == {"caf%E9%0Ax.jpg": b"odd"}
        assert result.renamed == {"caf%E9%0Ax.jpg": "caf%E9%0Ax.jpg"}


def test_unpack_takes_windows_separators_and_counts_macos_junk(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x.zip", {"a\\b.jpg": b"1", "__MACOSX/._b.jpg": b"junk", "a/._c.jpg": b"junk"})
    result = unpack(archive, tmp_path / "set")
    assert files_under(tmp_path / "set") == {"a/b.jpg": b"1"}
    assert result.files == 1
    assert result.skipped == ("__MACOSX/._b.jpg", "a/._c.jpg")
    assert result.renamed == {"a\\b.jpg": "a/b.jpg"}


def test_unpack_refuses_one_name_twice(tmp_path: Path) -> None:
    refused(make_tar(tmp_path / "twice.tar", ("a.jpg", b"1"), ("./a.jpg", b"2")), "twice")
    refused(make_tar(tmp_path / "both.tar", ("a", b"1"), ("a/b.jpg", b"2")), "twice or as a file and a folder")
    refused(make_tar(tmp_path / "record.tar", (".unpacked.json", b"{}")), "kept for the record")


# --- bombs -------------------------------------------------------------------------------------------------------


def ten_gib_of_zeros() -> tuple[bytes, int]:
    """A raw deflate stream of 10 GiB, made by repeating one 16 MiB block that ends on a byte border."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(16 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * 640 + zlib.compressobj(9, zlib.DEFLATED, -15).flush(), 10 * GIB


def zip_of_one(path: Path, packed: bytes, declared: int) -> Path:
    """A zip64 with one deflated member whose declared size is whatever we say."""
    extra = struct.pack("<HHQQ", 1, 16, declared, len(packed))
    local = struct.pack("<4s5H3I2H", b"PK\x03\x04", 45, 0, 8, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, 5, len(extra))
    local += b"x.jpg" + extra
    central = struct.pack(
        "<4s6H3I5H2I", b"PK\x01\x02", 45, 45, 0, 8, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, 5, len(extra), 0, 0, 0, 0, 0
    )
    central += b"x.jpg" + extra
    offset = len(local) + len(packed)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(central), offset, 0)
    path.write_bytes(local + packed + central + end)
    return path


def test_unpack_refuses_a_ten_gib_zip_bomb(tmp_path: Path) -> None:
    packed, size = ten_gib_of_zeros()
    bomb = zip_of_one(tmp_path / "bomb.zip", packed, size)
    assert bomb.stat().st_size < 11 << 20
    refused(bomb, "more than 2,147,483,648")
    refused(bomb, "over 100 times its size", ExtractionLimits(file_bytes=20 * GIB))
    written: list[int] = []
    with pytest.raises(UserError):
        unpack(
            bomb,
            tmp_path / "set",
            limits=ExtractionLimits(file_bytes=20 * GIB),
            progress=lambda w, done, t: written.append(done),
        )
    assert written == []


def test_unpack_refuses_a_zip_bomb_that_lies_about_its_size(tmp_path: Path) -> None:
    packed, _ = ten_gib_of_zeros()
    refused(zip_of_one(tmp_path / "bomb.zip", packed, 1000), "damaged")


def test_unpack_refuses_a_ten_gib_tar_bomb(tmp_path: Path) -> None:
    packed, size = ten_gib_of_zeros()
    header = tarfile.TarInfo("x.jpg")
    header.size = size
    first = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = first.compress(header.tobuf(tarfile.GNU_FORMAT)) + first.flush(zlib.Z_FULL_FLUSH)
    bomb = tmp_path / "bomb.tar.gz"
    bomb.write_bytes(gzip.compress(b"")[:10] + start + packed + bytes(8))
    refused(bomb, "more than 2,147,483,648")
    refused(bomb, "over 100 times its size", ExtractionLimits(file_bytes=20 * GIB))


def test_unpack_sums_small_members_while_they_stream(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "many.zip", {f"{i}.jpg": bytes(1 << 20) for i in range(8)})
    refused(archive, "over 50 times", ExtractionLimits(ratio=50, ratio_from=2 << 20))
    refused(archive, "more than 3,000,000 bytes", ExtractionLimits(total_bytes=3_000_000))
    refused(archive, "more than 3 files", ExtractionLimits(files=3))
    unpack(archive, tmp_path / "set")


def test_unpack_refuses_a_giant_tar_header(tmp_path: Path) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 40 << 20
    bomb = tmp_path / "header.tar.gz"
    bomb.write_bytes(gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + bytes(40 << 20), 1))
    refused(bomb, "a header of more than 16 MiB")


def test_unpack_counts_a_sparse_file_by_its_size(tmp_path: Path) -> None:
    info = tarfile.TarInfo("sparse.jpg")
    info.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[483:495] = b"%011o\0" % (8 * GIB - 1)  # the most that eleven octal digits hold
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    path = tmp_path / "sparse.tar"
    path.write_bytes(bytes(block) + bytes(10240))
    refused(path, "more than 2,147,483,648")


# --- damage and interruption -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "w:gz", "w:xz"])
def test_unpack_refuses_a_cut_archive(tmp_path: Path, kind: str) -> None:
    members = {f"{i}.jpg": os.urandom(5000) for i in range(5)}
    path = tmp_path / "cut"
    whole = make_zip(path, members) if kind == "zip" else make_tar(path, *members.items(), mode=kind)
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    refused(path, "damaged or cut off")
    with pytest.raises(UserError, match="damaged or cut off"):
        check_readable(path)


def test_unpack_notices_a_changed_byte_in_a_zip(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"a.jpg": os.urandom(5000)})
    content = bytearray(path.read_bytes())
    content[2500] ^= 1
    path.write_bytes(content)
    refused(path, "damaged")


def test_unpack_refuses_a_web_page_and_an_encrypted_zip(tmp_path: Path) -> None:
    page = tmp_path / "page.zip"
    page.write_text("<html>Please log in</html>")
    assert detect_archive_kind(page) is None
    refused(page, "not a zip or tar archive")
    locked = make_zip(tmp_path / "locked.zip", {"a.jpg": b"1"})
    content = bytearray(locked.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    locked.write_bytes(content)
    refused(locked, "encrypted")


def test_unpack_after_a_kill_starts_anew(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x.zip", {f"{i}.jpg": b"12345" for i in range(10)})
    child = os.fork()
    if child == 0:

        def die_half_way(what: str, done: int, total: int | None) -> None:
            if done == 25:
                os.kill(os.getpid(), signal.SIGKILL)

        unpack(archive, tmp_path / "set", progress=die_half_way)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not (tmp_path / "set").exists()
    assert len(list((tmp_path / ".set.unpacking").iterdir())) == 5
    assert unpack(archive, tmp_path / "set").files == 10
    assert len(files_under(tmp_path / "set")) == 10
    assert not (tmp_path / ".set.unpacking").exists()


def test_unpack_never_writes_over_a_folder(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(UserError, match="exists already"):
        unpack(make_zip(tmp_path / "x.zip", {"a": b"1"}), tmp_path / "set")
    assert read_record(tmp_path / "set") is None
