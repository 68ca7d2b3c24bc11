"""The members of a zip or tar, one by one, with limits that hold before their bytes are written."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from fakeface.system.errors import UserError

Progress = Callable[[str, int, int | None], None]  # what, bytes done, bytes in all where known


_TAR_HEADER_BUDGET: Final = 16 << 20  # an honest pax or GNU header is a few KiB; tarfile reads one into memory whole


NO_SPACE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


_BROKEN: Final = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError),
    *(struct.error, ValueError, OverflowError),  # what zipfile lets through for a forged directory
)


@dataclass(frozen=True)
class ExtractionLimits:
    """What one archive may grow to; images are compressed already, so an honest archive of them has a ratio near 1."""

    total_bytes: int = 64 << 30
    file_bytes: int = 2 << 30
    ratio: float = 100.0  # bytes out per byte of archive, looked at once `ratio_from` bytes are out
    ratio_from: int = 64 << 20
    files: int = 3_000_000


@dataclass(frozen=True)
class Member:
    """A file in an archive: its name, its bytes as the archive declares them, and a stream of what they are."""

    name: str
    size: int
    stream: IO[bytes]


class ExtractionLimiter:
    """Counts what really comes out, because what an archive declares of itself may be a lie."""

    def __init__(self, archive: Path, limits: ExtractionLimits, progress: Progress | None) -> None:
        self.archive, self.limits, self.progress = archive, limits, progress
        self.archive_bytes = max(1, archive.stat().st_size)
        self.files = self.bytes = 0

    def declare(self, member: Member) -> None:
        """Count a member; refuse the archive where what it declares is more than the limits."""
        self.files += 1
        if self.files > self.limits.files:
            self.refuse(f"holds more than {self.limits.files:,} files")
        if member.size > self.limits.file_bytes:
            self.refuse(f"holds {member.name!r} of {member.size:,} bytes, more than {self.limits.file_bytes:,}")
        self._check(self.bytes + member.size)

    def add(self, count: int) -> None:
        """Count bytes that came out; refuse the archive where they are more than the limits."""
        self.bytes += count
        self._check(self.bytes)
        if self.progress:
            self.progress(self.archive.name, self.bytes, None)

    def _check(self, total: int) -> None:
        if total > self.limits.total_bytes:
            self.refuse(f"unpacks to more than {self.limits.total_bytes:,} bytes")
        if total > self.limits.ratio_from and total > self.limits.ratio * self.archive_bytes:
            self.refuse(f"unpacks to over {self.limits.ratio:g} times its size, as a decompression bomb does")

    def refuse(self, why: str) -> None:
        """Refuse the archive.

        Raises:
            UserError: says why.
        """
        raise UserError(f"{self.archive} was not unpacked because it {why}; use another copy of the archive.")


def detect_archive_kind(path: Path) -> str | None:
    """`zip`, `tar`, `gzip`, `bzip2` or `xz` by the file's first bytes, whatever its name; None for anything else."""
    with path.open("rb") as file:
        head = file.read(512)
    for kind, magic in (("gzip", b"\x1f\x8b"), ("bzip2", b"BZh"), ("xz", b"\xfd7zXZ\x00")):
        if head.startswith(magic):
            return kind
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    return "tar" if head[257:262] == b"ustar" else None


def is_safe_name(name: str) -> str | None:
    r"""A member's name as a relative POSIX path of printable UTF-8; None for a resource fork of macOS, which is junk.

    `\` separates folders as `/` does, since Windows tools write it. A name that leaves the folder raises ValueError.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if name.startswith(("/", "\\")) or re.match(r"^[A-Za-z]:", name):
        raise ValueError("an absolute path")
    if ".." in parts:
        raise ValueError("a path that leaves the folder")
    if not parts:
        raise ValueError("an empty name")
    if parts[0] == "__MACOSX" or parts[-1].startswith("._"):
        return None
    if parts[-1] == RECORD:
        raise ValueError(f"the name {RECORD}, which is kept for the record of unpacking")
    return "/".join("".join(_escapes_folder(letter) for letter in part) for part in parts)


def _escapes_folder(letter: str) -> str:
    if letter.isprintable():
        return letter
    return "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogateescape"))


def check_name(archive: Path, name: str) -> str | None:
    """Return `is_safe_name` of a member's name.

    Raises:
        UserError: the name leads out of the folder.
    """
    try:
        return is_safe_name(name)
    except ValueError as error:
        raise UserError(
            f"{archive} was not unpacked because it holds {_escape_unprintable(name)!r}, {error}."
        ) from error


def _escape_unprintable(name: str) -> str:
    return "".join(map(_escapes_folder, name))


def iterate_members(archive: Path, meter: ExtractionLimiter) -> Iterator[Member]:
    """Give the files of an archive one by one.

    Raises:
        UserError: it is no archive, or holds anything but files and folders.
    """
    kind = detect_archive_kind(archive)
    if kind is None:
        raise UserError(f"{archive} is not a zip or tar archive; download it again.")
    yield from _iterate_zip(archive) if kind == "zip" else _iterate_tar(archive, kind, meter)


def _iterate_zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir():
                _check_folder(archive, info.filename)
                continue
            if mode not in (0, stat.S_IFREG):
                raise UserError(_describe_non_file(archive, info.filename))
            if info.flag_bits & 1:
                raise UserError(f"{archive} is encrypted; unpack it yourself and give the folder instead.")
            with opened.open(info) as stream:
                yield Member(info.filename, info.file_size, stream)


def _open_stream(archive: Path, kind: str) -> IO[bytes]:
    openers: dict[str, Callable[[Path], Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
    opened: IO[bytes] = openers[kind](archive) if kind in openers else archive.open("rb")
    return opened


class _CountedStream(io.RawIOBase):
    """A tar's decompressed bytes, with a budget for headers: tarfile would read a giant one into memory."""

    def __init__(self, stream: IO[bytes], meter: ExtractionLimiter) -> None:
        self.stream, self.meter, self.budget = stream, meter, _TAR_HEADER_BUDGET

    def read(self, size: int = -1) -> bytes:
        block = self.stream.read(size)
        self.budget -= len(block)
        if self.budget < 0:
            self.meter.refuse("has a header of more than 16 MiB")
        return block


def _iterate_tar(archive: Path, kind: str, meter: ExtractionLimiter) -> Iterator[Member]:
    with _open_stream(archive, kind) as raw:
        counted = _CountedStream(raw, meter)
        with tarfile.open(fileobj=counted, mode="r|", bufsize=_BLOCK, encoding="utf-8") as tar:
            while (info := tar.next()) is not None:
                if info.isdir():
                    _check_folder(archive, info.name)
                    continue
                stream = tar.extractfile(info) if info.isreg() else None
                if stream is None:
                    raise UserError(_describe_non_file(archive, info.name))
                counted.budget = info.size + _TAR_HEADER_BUDGET
                yield Member(info.name, info.size, stream)
                while stream.read(_BLOCK):  # what the caller skipped is not the next header's
                    pass
                counted.budget = _TAR_HEADER_BUDGET
                tar.members = []  # type: ignore[attr-defined]  # or a million entries stay in memory


def _describe_non_file(archive: Path, name: str) -> str:
    return (
        f"{archive} was not unpacked because it holds {_escape_unprintable(name)!r}, "
        "a link or device; repack it with plain files only."
    )


@contextmanager
def wrap_archive_errors(archive: Path) -> Iterator[None]:
    """Turn what the libraries raise for a broken archive into a UserError."""
    try:
        yield
    except _BROKEN as error:
        raise UserError(f"{archive} is damaged or cut off ({error}); delete it and fetch it again.") from error
    except RuntimeError as error:  # a compression that this Python was built without
        raise UserError(f"{archive} cannot be read here ({error}); repack it as zip or tar.gz.") from error


RECORD: Final = ".unpacked.json"  # in every unpacked folder: what it was made from


_BLOCK: Final = 1 << 20


def _check_folder(archive: Path, name: str) -> None:
    if name.strip("./\\"):  # `./` and the like name no folder of their own
        check_name(archive, name)
