"""The sources of a profile → datasets/raw: every image file found, copied and hashed, and what was left, told."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from fakeface.config.catalog import get_label, get_source
from fakeface.config.data_params import Profile, Source
from fakeface.data.download.copy_journal import open_copy_journal
from fakeface.data.download.identity import choose_identity_reader
from fakeface.data.download.source_resolver import SourceLocation, locate_sources, unmatched_entries
from fakeface.data.download.user_manifest import (
    DataManifest,
    ListedFile,
    check_contradictions,
    check_missing,
    read_data_manifest,
)
from fakeface.data.raw_dataset import COLLECTED, MANIFEST, Collection, RawFile, Rejected, write_collection
from fakeface.images.discovery import list_images
from fakeface.system.errors import UserError
from fakeface.system.filesystem import annotate_os_error, ensure_dir, file_lock
from fakeface.system.progress import show_progress

_BLOCK = 1 << 20  # bytes read at once
_BATCH = 64  # files a task
_A = TypeVar("_A")
_B = TypeVar("_B")


class _Found(NamedTuple):
    source: str
    relative: str  # to the source's folder
    origin: str  # path where it lies
    listed_as: str  # relative to the data folder; empty outside it

    @property
    def path(self) -> str:
        return f"{self.source}/{self.relative}"


class _Findings(NamedTuple):
    files: list[_Found]
    rejected: list[Rejected]
    ignored: int
    not_taken: dict[str, int]


def collect_sources(
    root: Path,
    name: str,
    profile: Profile,
    into: Path,
    collections: Path = Path("collections"),
    unpacked: Path | None = None,
    workers: int | None = None,
) -> Collection:
    """Copy every image file of the profile's sources to `into`/<source>/ and write manifest.csv, rejected.csv there.

    Files are copied, not linked: an image edited in place would change in both folders. A copy from an earlier run is
    kept while it and its original have the size, time and inode they had then. collected.json, which proves itself and
    the other two, is written last: a folder without it is not whole.

    Args:
        root: the data folder; its own manifest.csv, if it has one, must agree with the bytes found.
        name: the profile's name.
        profile: its sources; of one with numbers under `take`, the first by path so many are copied.
        into: datasets/raw; what does not belong there is removed.
        collections: where the catalogue's collections were fetched to.
        unpacked: where archives are unpacked; None: beside `into`.
        workers: threads; None: as many as suit this machine.

    Raises:
        UserError: a source without an image, one folder inside another, an archive that is not safe, bytes or labels
            that contradict the root's manifest.
    """
    origins = locate_sources(root, profile, collections, unpacked or into.parent / "unpacked")
    listing = read_data_manifest(root / MANIFEST)
    _check_nesting(origins, profile, into)
    listed = {origin.listed_as: origin.folder for origin in origins.values() if origin.listed_as is not None}
    check_missing(listing, listed, root / MANIFEST)
    found = _find_images(origins, profile)
    ensure_dir(into)
    with file_lock(into):
        for own in (COLLECTED, MANIFEST):
            (into / own).unlink(missing_ok=True)
        rejected = found.rejected
        copied: dict[_Found, tuple[int, str]] = {}
        for one, outcome in _copy_all(found.files, into, workers):
            if isinstance(outcome, str):
                rejected.append(Rejected(one.path, one.source, outcome))
            else:
                copied[one] = outcome
        check_contradictions(listing, _describe_settings(copied, profile), root / MANIFEST)
        files = _list_raw_files(copied, profile, origins, listing)
        _remove_others(into, {file.path for file in files})
        collection = Collection(
            profile=name,
            sources={source: entry.label for source, entry in profile.sources.items()},
            files=sorted(files),
            rejected=sorted(rejected),
            ignored=found.ignored,
            unlisted=sum(bool(one.listed_as) and one.listed_as not in listing for one in copied) if listing else 0,
            unnamed=unmatched_entries(root, origins),
            not_taken=found.not_taken,
        )
        write_collection(collection, into)
    return collection


def _describe_settings(copied: Mapping[_Found, tuple[int, str]], profile: Profile) -> list[ListedFile]:
    return [
        ListedFile(one.path, one.listed_as, one.source, profile.sources[one.source].label, sha256)
        for one, (_, sha256) in copied.items()
    ]


def _list_raw_files(
    copied: Mapping[_Found, tuple[int, str]],
    profile: Profile,
    origins: Mapping[str, SourceLocation],
    listing: DataManifest,
) -> list[RawFile]:
    identities = {
        source: choose_identity_reader(entry.collection or source, origins[source].folder)
        for source, entry in profile.sources.items()
    }
    return [
        RawFile(
            path=one.path,
            source=one.source,
            label=profile.sources[one.source].label,
            bytes=size,
            sha256=sha256,
            near_duplicate_group=listing.get(one.listed_as, {}).get("near_duplicate_group", ""),
            identity=identities[one.source](one.relative) or "",
        )
        for one, (size, sha256) in copied.items()
    ]


# Finding files


def _check_nesting(origins: Mapping[str, SourceLocation], profile: Profile, into: Path) -> None:
    real = {name: origin.named.resolve() for name, origin in origins.items()} | {"the output folder": into.resolve()}
    for name, folder in real.items():
        for other, outer in real.items():
            if name != other and folder.is_relative_to(outer) and not _split_by_label(profile, name, other):
                raise UserError(
                    f"The folder of {name} ({folder}) lies in that of {other} ({outer}), so that its "
                    "images would count twice; give each source a folder of its own."
                )


def _split_by_label(profile: Profile, one: str, other: str) -> bool:
    """Whether both are the two labels of one collection, which its paths tell apart."""
    first, second = profile.sources.get(one), profile.sources.get(other)
    if first is None or second is None or first.collection is None:
        return False
    return first.collection == second.collection and first.label != second.label


def _find_images(origins: Mapping[str, SourceLocation], profile: Profile) -> _Findings:
    findings = _Findings([], [], 0, {})
    ignored = {}
    for source, origin in origins.items():
        entry = profile.sources[source]
        listing = list_images(origin.folder)
        images = [name for name in listing.images if _belongs_to(entry, name)]
        if not images:
            raise UserError(f"The folder of source '{source}' ({origin.named}) has no image; put its images there.")
        if entry.take and len(images) > (count := sum(entry.taken().values())):
            findings.not_taken[source] = len(images) - count
            images = images[:count]
        listed = f"{origin.listed_as}/" if origin.listed_as is not None else None
        findings.files.extend(
            _Found(source, name, f"{origin.folder}/{name}", f"{listed}{name}" if listed else "") for name in images
        )
        findings.rejected.extend(
            Rejected(f"{source}/{name}", source, reason) for name, reason in listing.refused if _belongs_to(entry, name)
        )
        ignored[origin.folder] = listing.ignored
    return findings._replace(ignored=sum(ignored.values()))


def _belongs_to(source: Source, path: str) -> bool:
    """Whether a path is of the source's label; only the paths of a collection with both tell one."""
    if source.collection is None:
        return True
    return get_label(get_source(source.collection), f"{source.folder or ''}/{path}") == source.label


# Copying files


def _copy_all(
    found: Sequence[_Found], into: Path, workers: int | None
) -> Iterator[tuple[_Found, tuple[int, str] | str]]:
    """Give for each file its size and sha256, or the reason why it cannot be read."""

    def copy(one: _Found) -> tuple[int, str] | str:
        try:
            return _hash_and_copy(Path(one.origin), into / one.path)
        except _UnreadableError as error:
            return f"cannot be read ({error})"

    with open_copy_journal(into) as journal:
        new = []
        for one in found:
            known = journal.find(one.path, one.origin, f"{into}/{one.path}")
            if known is None:
                new.append(one)
            else:
                yield one, known
        for one, outcome in _thread_map(copy, new, "collecting images", workers):
            if not isinstance(outcome, str):
                journal.add(one.path, one.origin, f"{into}/{one.path}", *outcome)
            yield one, outcome


class _UnreadableError(Exception):
    """The original, not the copy, is at fault."""


def _hash_and_copy(origin: Path, target: Path) -> tuple[int, str]:
    """Copy a file and return its size and sha256; the copy takes its name when it is whole."""
    digest, size = hashlib.sha256(), 0
    ensure_dir(target.parent)
    beside = target.with_name(f".{hashlib.sha256(target.name.encode()).hexdigest()[:32]}.partial")
    with annotate_os_error(target), beside.open("wb") as copy:
        for block in _read_blocks(origin):
            digest.update(block)
            size += len(block)
            copy.write(block)
    beside.replace(target)
    return size, digest.hexdigest()


def _read_blocks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            while block := file.read(_BLOCK):
                yield block
    except OSError as error:
        raise _UnreadableError(error.strerror or str(error)) from error


def _thread_map(
    work: Callable[[_A], _B], items: Sequence[_A], what: str, workers: int | None
) -> Iterator[tuple[_A, _B]]:
    """Give each item with what `work` makes of it, in the items' order."""
    batches = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
    with show_progress(what, len(items)) as advance, ThreadPoolExecutor(workers) as threads:
        for batch, results in zip(
            batches, threads.map(lambda batch: [work(one) for one in batch], batches), strict=True
        ):
            yield from zip(batch, results, strict=True)
            advance(len(batch))


def _list_paths(folder: Path) -> Iterator[str]:
    for where, _, names in os.walk(folder):
        inside = where[len(str(folder)) :].strip("/")
        yield from (f"{inside}/{name}" if inside else name for name in names)


def _remove_others(folder: Path, wanted: set[str]) -> None:
    for path in list(_list_paths(folder)):
        if path not in wanted:
            (folder / path).unlink()
    for where, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # it is not empty
            Path(where).rmdir()
