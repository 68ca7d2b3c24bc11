"""zip and tar archives → a folder, safely: nothing outside it, no links, no bombs, and whole or not at all."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from fakeface.system.archive_members import (
    _BLOCK,
    NO_SPACE,
    RECORD,
    ExtractionLimiter,
    ExtractionLimits,
    Progress,
    _escape_unprintable,
    check_name,
    iterate_members,
    wrap_archive_errors,
)
from fakeface.system.errors import UserError


@dataclass(frozen=True)
class Unpacked:
    """What came out of an archive. `renamed` maps a member's name to the safe one that it was given."""

    files: int
    bytes: int
    skipped: tuple[str, ...]
    renamed: Mapping[str, str]


def unpack(
    archive: Path,
    into: Path,
    *,
    limits: ExtractionLimits | None = None,
    progress: Progress | None = None,
    record: Mapping[str, Any] | None = None,
) -> Unpacked:
    """Unpack `archive` to the folder `into`, which must not exist yet and appears only once all of it is there.

    A member outside the folder, a link, a device or a bomb refuses the whole archive. A name with control characters
    or bytes that are not UTF-8 is kept with those bytes written as %XX. `record` is stored with the counts in
    `.unpacked.json`.

    Raises:
        UserError: the archive is refused, is broken, or the disk is full.
    """
    if into.exists():
        raise UserError(f"{into} exists already; delete it to unpack {archive.name} again.")
    staging = into.with_name(f".{into.name}.unpacking")
    _remove(staging)
    staging.mkdir(parents=True)
    try:
        with wrap_archive_errors(archive):
            unpacked = _write_members(archive, staging, limits or ExtractionLimits(), progress)
        text = json.dumps({**asdict(unpacked), **(record or {})}, indent=1, sort_keys=True)
        (staging / RECORD).write_text(text + "\n", encoding="utf-8")
        staging.rename(into)
    except BaseException:
        _remove(staging)
        raise
    return unpacked


def check_readable(archive: Path, *, limits: ExtractionLimits | None = None) -> None:
    """Read every byte of an archive without writing one; a truncated or damaged archive raises UserError."""
    meter = ExtractionLimiter(archive, limits or ExtractionLimits(), None)
    with wrap_archive_errors(archive):
        for member in iterate_members(archive, meter):
            meter.declare(member)
            while block := member.stream.read(_BLOCK):
                meter.add(len(block))


def read_record(folder: Path) -> dict[str, Any] | None:
    """What `unpack` wrote down about `folder`; None where it is not a whole unpacked folder."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def is_unpacked_whole(folder: Path) -> bool:
    """Whether a folder has as many files and bytes as its record says; equal sizes of other bytes go unnoticed."""
    record = read_record(folder)
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.name != RECORD and path.is_file()]
    return record is not None and (len(sizes), sum(sizes)) == (record.get("files"), record.get("bytes"))


def _write_members(archive: Path, folder: Path, limits: ExtractionLimits, progress: Progress | None) -> Unpacked:
    meter = ExtractionLimiter(archive, limits, progress)
    skipped: list[str] = []
    renamed: dict[str, str] = {}
    for member in iterate_members(archive, meter):
        name = check_name(archive, member.name)
        if name is None:
            skipped.append(_escape_unprintable(member.name))
            continue
        meter.declare(member)
        if name != str(PurePosixPath(member.name)):
            renamed[_escape_unprintable(member.name)] = name
        _write_one(archive, member.stream, folder / name, meter)
    return Unpacked(meter.files, meter.bytes, tuple(skipped), renamed)


def _write_one(archive: Path, stream: IO[bytes], target: Path, meter: ExtractionLimiter) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            while block := stream.read(_BLOCK):
                file.write(block)
                meter.add(len(block))
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"{archive} holds {target.name!r} twice or as a file and a folder; repack it.") from error
    except OSError as error:
        if error.errno in NO_SPACE:
            raise UserError(f"The disk is full, so {archive.name} is not unpacked; free some and run again.") from error
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{archive} holds the name {target.name[:40]!r}…, too long for a disk.") from error
        raise


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
