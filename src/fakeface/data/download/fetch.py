"""A collection of the catalogue → images on disk, and the proof that they are the right ones.

`fetch(collection, into)` keeps:
    into/<collection>/<archive>/…               the unpacked images
    into/.archives/<collection>/<archive>       the archive; put one there by hand and it is taken
    into/data_checksums.json                    sha256 and size of each archive found right; keep this one
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fakeface.config.catalog import get_source
from fakeface.config.collection import Archive, Collection
from fakeface.data.download.hosts import download_from_drive, download_from_kaggle
from fakeface.data.download.transfer import RetryPolicy, download, explain_full_disk
from fakeface.data.download.verify_download import DownloadError, Expected, check_downloaded_file
from fakeface.images.discovery import list_images
from fakeface.system.archive_members import ExtractionLimits, Progress
from fakeface.system.archives import is_unpacked_whole, read_record, unpack
from fakeface.system.checksums import CHECKSUMS, hash_file
from fakeface.system.errors import UserError
from fakeface.system.filesystem import atomic_write, file_lock

_TRANSFERS: Final = {"drive": download_from_drive, "kaggle": download_from_kaggle}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchedArchive:
    """One archive in place. `came`: `downloaded`; `found` where an archive should be; `unpacked`, nothing was to do."""

    file: str
    sha256: str
    bytes: int
    came: str


@dataclass(frozen=True)
class Fetched:
    """A collection in place: its folder, the images counted in it, and how many the catalogue expects."""

    collection: str
    folder: Path
    archives: tuple[FetchedArchive, ...]
    images: int
    images_expected: int | None


@dataclass(frozen=True)
class _Job:
    collection: Collection
    folder: Path
    archives: Path
    checksums: Path
    progress: Progress | None
    patience: RetryPolicy
    limits: ExtractionLimits

    def pin_name(self, archive: Archive) -> str:
        return f"{self.collection.name}/{archive.file}"

    def pinned(self, name: str) -> Mapping[str, Any] | None:
        return read_checksums(self.checksums).get(name)

    def pin(self, name: str, sha256: str, size: int) -> None:
        with file_lock(self.archives.parent / "checksums"):
            pin(self.checksums, name, sha256, size)

    def by_hand(self, archive: Archive) -> str:
        target = self.archives / archive.file
        return f"open {self.collection.page}, get {archive.file}, save it as {target} and run the same command again"


def fetch(
    source: Collection | str,
    into: Path,
    *,
    archives: Path | None = None,
    checksums: Path | None = None,
    progress: Progress | None = None,
    patience: RetryPolicy | None = None,
    limits: ExtractionLimits | None = None,
) -> Fetched:
    """Bring a collection to `into/<its name>`, doing only what is not done yet; safe to run twice at once.

    `archives` (default `into/.archives`) keeps the archives by collection, `checksums` (default
    `into/data_checksums.json`) the sha256 of each: what the user keeps there goes before the catalogue.

    Raises:
        UserError: something could not be fetched or proven; it says what to do.
    """
    collection = get_source(source) if isinstance(source, str) else source
    job = _Job(
        collection=collection,
        folder=into / _check_plain_name(collection.name),
        archives=(archives or into / ".archives") / collection.name,
        checksums=checksums or into / CHECKSUMS,
        progress=progress,
        patience=patience or RetryPolicy(),
        limits=limits or ExtractionLimits(),
    )
    with file_lock(job.archives / "fetch"):
        fetched = tuple(_fetch_archive(job, archive) for archive in collection.archives)
    found = len(list_images(job.folder).images)
    if collection.images is not None and found != collection.images:
        _log.warning(
            "%s has %s images where the catalogue expects %s; see docs/data.md for how sure that number is.",
            *(collection.name, f"{found:,}", f"{collection.images:,}"),
        )
    return Fetched(collection.name, job.folder, fetched, found, collection.images)


def _fetch_archive(job: _Job, archive: Archive) -> FetchedArchive:
    archive_file = job.archives / _check_plain_name(archive.file)
    folder = job.folder / _check_plain_name(archive.folder)
    if not archive.unpack:
        return _fetch_plain_file(job, archive)
    if folder.exists():
        return _find_unpacked(job, archive, folder)
    came = _obtain(job, archive, archive_file)
    fetched = _describe_fetched(archive, archive_file, came)
    record = {"sha256": fetched.sha256, "archive_bytes": fetched.bytes, "pinned_as": job.pin_name(archive)}
    unpack(archive_file, folder, limits=job.limits, progress=job.progress, record=record)
    job.pin(job.pin_name(archive), fetched.sha256, fetched.bytes)
    return fetched


def _fetch_plain_file(job: _Job, archive: Archive) -> FetchedArchive:
    placed, pinned = job.folder / archive.file, job.pinned(job.pin_name(archive))
    if placed.is_file() and pinned and hash_file(placed) == pinned["sha256"]:
        return FetchedArchive(archive.file, pinned["sha256"], pinned["bytes"], "unpacked")
    archive_file = job.archives / archive.file
    fetched = _describe_fetched(archive, archive_file, _obtain(job, archive, archive_file))
    staging = placed.with_name(f".{placed.name}.placing")
    staging.parent.mkdir(parents=True, exist_ok=True)
    with explain_full_disk(placed):
        shutil.copyfile(archive_file, staging)
    staging.replace(placed)
    job.pin(job.pin_name(archive), fetched.sha256, fetched.bytes)
    return fetched


def _describe_fetched(archive: Archive, file: Path, came: str) -> FetchedArchive:
    return FetchedArchive(archive.file, hash_file(file), file.stat().st_size, came)


def _find_unpacked(job: _Job, archive: Archive, folder: Path) -> FetchedArchive:
    record = read_record(folder)
    if record is None or not {"sha256", "archive_bytes", "pinned_as"} <= record.keys():
        raise UserError(f"{folder} was not unpacked by this program; move it away and run the same command again.")
    if not is_unpacked_whole(folder):
        raise UserError(f"{folder} is not as it was unpacked; delete it and run the same command again.")
    pinned = job.pinned(record["pinned_as"])
    if pinned and pinned["sha256"] != record["sha256"]:
        raise UserError(
            f"{folder} was unpacked from other bytes than {job.checksums} states for {record['pinned_as']}; delete the "
            "folder, or that entry if the change is meant, and run the same command again."
        )
    job.pin(record["pinned_as"], record["sha256"], record["archive_bytes"])
    return FetchedArchive(archive.file, record["sha256"], record["archive_bytes"], "unpacked")


def _obtain(job: _Job, archive: Archive, target: Path) -> str:
    """See that the archive is in its place, whole and right; say whether it was `found` there or `downloaded`."""
    found = target.exists()
    if archive.method == "manual" and not found:
        raise UserError(f"{job.collection.title} cannot be fetched by a program: {job.by_hand(archive)}.")
    expected = _build_expected(job, archive)
    if not found:
        _download_from_any(job, archive, target, expected)
        return "downloaded"
    try:
        check_downloaded_file(target, expected, archive.file)
    except DownloadError as error:
        raise UserError(f"{target} is not the right file ({error}); delete it and run the same command.") from error
    return "found"


def _download_from_any(job: _Job, archive: Archive, target: Path, expected: Expected) -> None:
    reasons = []
    for address in (archive.address, *archive.mirrors):
        transfer = _TRANSFERS.get(archive.method, download) if address == archive.address else download
        try:
            transfer(address, target, expected, progress=job.progress, patience=job.patience)
        except DownloadError as error:
            reasons.append(f"{address}: {error}")
        else:
            return
    raise UserError(f"{archive.file} could not be fetched ({'; '.join(reasons)}); {job.by_hand(archive)}.")


def _build_expected(job: _Job, archive: Archive) -> Expected:
    """The user's own pin goes before the catalogue: that is how a change of the owners is accepted."""
    pinned = job.pinned(job.pin_name(archive))
    if pinned:
        return Expected(pinned["bytes"], {"sha256": (pinned["sha256"], job.checksums.name)})
    if archive.checksums or archive.listing is None:
        return Expected(archive.bytes, {c.algorithm: (c.digest, c.stated_by) for c in archive.checksums})
    return _read_listing(archive, archive.listing)


def _read_listing(archive: Archive, listing: str) -> Expected:
    """Size and digests as archive.org's metadata states them today; where it cannot be had, the first download pins."""
    import requests

    with contextlib.suppress(requests.RequestException, ValueError, KeyError, TypeError):
        answer = requests.get(listing, timeout=30).json()
        for entry in answer["result"]:
            if entry["name"] == archive.file:
                digests = {name: (str(entry[name]), listing) for name in ("sha1", "md5") if name in entry}
                return Expected(int(entry["size"]), digests)
    _log.warning("%s does not state a checksum of %s now; this download pins it.", listing, archive.file)
    return Expected(archive.bytes)


def read_checksums(path: Path) -> dict[str, dict[str, Any]]:
    """The user's pins, `sha256` and `bytes` by `collection/archive`; none where the file does not exist yet."""
    if not path.exists():
        return {}
    try:
        pins: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        right = all(re.fullmatch("[0-9a-f]{64}", pin["sha256"]) and pin["bytes"] >= 0 for pin in pins.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        right = False
    if not right:
        raise UserError(f"{path} is not a table of sha256 and bytes by archive; mend it or delete it.")
    return pins


def pin(path: Path, name: str, sha256: str, size: int) -> None:
    """Write down in `path` that `name` has these bytes, unless something is written there already."""
    pins = read_checksums(path)
    if name in pins:
        return
    pins[name] = {"bytes": size, "sha256": sha256}
    with atomic_write(path) as file:
        file.write(json.dumps(pins, indent=2, sort_keys=True) + "\n")


def _check_plain_name(name: str) -> str:
    if name in ("", ".", "..") or re.search(r"[/\\\x00-\x1f]", name):
        raise UserError(f"{name!r} cannot be the name of a data set or an archive; use letters, digits, - and _.")
    return name
