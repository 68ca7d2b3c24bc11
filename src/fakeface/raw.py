"""The folder that data.root names → datasets/raw: the same bytes, one folder a source, a manifest that proves them."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from fakeface.disk import make_folder, naming
from fakeface.errors import UserError
from fakeface.fetch import VerifyReport, exclusive, verify_folder
from fakeface.image_files import list_images
from fakeface.params import Data, Profile
from fakeface.progress import progress
from fakeface.sources import identity_reader
from fakeface.tables import read_json, read_rows, read_whole_lines, some, write_json, write_rows

MANIFEST, REJECTED, COLLECTED = "manifest.csv", "rejected.csv", "collected.json"
_BLOCK = 1 << 20  # bytes read at once
_BATCH = 64  # files a task
_A = TypeVar("_A")
_B = TypeVar("_B")


class RawFile(NamedTuple):
    """One file of datasets/raw, as its manifest.csv lists it.

    `near_duplicate_group` and `identity` are empty where unknown; files of any source that share one belong together.
    """

    path: str  # relative to datasets/raw, POSIX
    source: str
    label: str  # real or fake
    bytes: int
    sha256: str
    near_duplicate_group: str
    identity: str


class Rejected(NamedTuple):
    """A file that is set aside, and why."""

    path: str
    source: str
    reason: str


@dataclass(frozen=True)
class Collection:
    """What datasets/raw holds.

    `ignored` counts files that are passed over by rule, `unlisted` those that the data folder's own manifest lacks.
    """

    profile: str
    sources: dict[str, str]  # name: label
    files: list[RawFile]
    rejected: list[Rejected]
    ignored: int
    unlisted: int


def choose_profile(data: Data) -> tuple[str, Profile]:
    """Return the profile that `data.profile` names; `auto`: the first whose folders all stand in `data.root`.

    Raises:
        UserError: folders are missing; the sentence names them, what is there, and which other profile would fit.
    """
    root = Path(data.root)
    if not root.is_dir():
        raise UserError(f"data.root names '{data.root}', which is no folder; give one that holds a folder a source.")
    missing = {
        name: [folder for folder in source_folders(root, profile).values() if not folder.is_dir()]
        for name, profile in data.profiles.items()
    }
    fitting = [name for name, folders in missing.items() if not folders]
    chosen = fitting[0] if data.profile == "auto" and fitting else data.profile
    if chosen not in fitting:
        raise UserError(_no_profile_fits(data, missing, fitting))
    return chosen, data.profiles[chosen]


def source_folders(root: Path, profile: Profile) -> dict[str, Path]:
    """Return the folder of each source; an absolute `folder` may lie outside `root`."""
    return {name: root / (source.folder or name) for name, source in profile.sources.items()}


def _no_profile_fits(data: Data, missing: Mapping[str, Sequence[Path]], fitting: Sequence[str]) -> str:
    root = Path(data.root)
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    there = f"there are {some(names)}" if names else "it has no folders"

    def lacks(name: str) -> str:
        return f"profile '{name}' lacks {some([_inside(folder, root) for folder in missing[name]])}"

    if data.profile != "auto":
        other = f", or set data.profile to {' or '.join(fitting)}, which would fit" if fitting else ""
        return f"In '{data.root}' {lacks(data.profile)}; {there}; add what lacks{other}."
    nearest = sorted(missing, key=lambda name: len(missing[name]) / len(data.profiles[name].sources))
    return f"No profile fits '{data.root}': {'; '.join(lacks(name) for name in nearest)}; {there}; add what lacks."


def _inside(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


class _Found(NamedTuple):
    source: str
    relative: str  # to the source's folder
    origin: Path  # where it lies
    listed_as: str  # relative to the data folder

    @property
    def path(self) -> str:
        return f"{self.source}/{self.relative}"


def collect_sources(root: Path, name: str, profile: Profile, into: Path, workers: int | None = None) -> Collection:
    """Copy every image file of the profile's sources to `into`/<source>/ and write manifest.csv, rejected.csv there.

    Files are copied, not linked: an image edited in place would change in both folders. A copy from an earlier run is
    kept while it and its original have the size, time and inode they had then. manifest.csv is written last: a folder
    without it is not whole.

    Args:
        root: the data folder; its own manifest.csv, if it has one, must agree with the bytes found.
        name: the profile's name.
        profile: its sources.
        into: datasets/raw; what does not belong there is removed.
        workers: threads; None: as many as suit this machine.

    Raises:
        UserError: a source without an image, one folder inside another, bytes or labels that contradict the root's
            manifest.
    """
    folders = source_folders(root, profile)
    listing = _read_listing(root / MANIFEST)
    _refuse_nested({**folders, "the output folder": into})
    _refuse_missing(listing, folders, root)
    make_folder(into)
    with exclusive(into):
        (into / MANIFEST).unlink(missing_ok=True)
        found, rejected, ignored = _find_images(folders, root)
        copied: dict[_Found, tuple[int, str]] = {}
        for one, outcome in _copy_all(found, into, workers):
            if isinstance(outcome, str):
                rejected.append(Rejected(one.path, one.source, outcome))
            else:
                copied[one] = outcome
        _refuse_contradictions(listing, copied, profile, root)
        files = _raw_files(copied, profile, folders, listing)
        _remove_others(into, {file.path for file in files})
        unlisted = sum(one.listed_as not in listing for one in copied) if listing else 0
        labels: dict[str, str] = {source: entry.label for source, entry in profile.sources.items()}
        collection = Collection(name, labels, sorted(files), sorted(rejected), ignored, unlisted)
        _write_collection(collection, into)
    return collection


def _raw_files(
    copied: Mapping[_Found, tuple[int, str]],
    profile: Profile,
    folders: Mapping[str, Path],
    listing: Mapping[str, Mapping[str, str]],
) -> list[RawFile]:
    identities = {source: identity_reader(source, folder) for source, folder in folders.items()}
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


def _write_collection(collection: Collection, into: Path) -> None:
    write_rows(into / REJECTED, Rejected._fields, collection.rejected)
    facts = {name: getattr(collection, name) for name in ("profile", "sources", "ignored", "unlisted")}
    write_json(into / COLLECTED, facts)
    write_rows(into / MANIFEST, RawFile._fields, collection.files)


def read_collection(raw: Path) -> Collection:
    """Read what `collect_sources` wrote.

    Raises:
        UserError: the folder is not whole, or a line of its manifest is damaged.
    """
    files = []
    for row in read_rows(raw / MANIFEST, RawFile._fields):
        if not row["bytes"].isdecimal() or len(row["sha256"]) != 64 or not _is_tame(row["path"]):
            raise UserError(f"{raw / MANIFEST} has a damaged line for '{row['path']}'; run the download stage again.")
        files.append(RawFile(**{**row, "bytes": int(row["bytes"])}))  # type: ignore[arg-type]
    rejected = [Rejected(**row) for row in read_rows(raw / REJECTED, Rejected._fields)]
    facts = read_json(raw / COLLECTED)
    try:
        return Collection(
            facts["profile"], facts["sources"], files, rejected, int(facts["ignored"]), int(facts["unlisted"])
        )
    except KeyError as error:
        raise UserError(f"{raw / COLLECTED} has no {error}; run the download stage again.") from None


def _is_tame(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return len(parts) > 1 and ".." not in parts and not path.startswith("/")


def verify_raw(raw: Path) -> VerifyReport:
    """Compare the bytes of every file in datasets/raw with its manifest's sha256.

    Raises:
        UserError: the folder has no readable manifest.
    """
    report = verify_folder(raw, (file._asdict() for file in read_collection(raw).files))
    own = (REJECTED, COLLECTED)
    return replace(report, added=tuple(name for name in report.added if name not in own))


# What the data folder's own manifest says


def _read_listing(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    listing: dict[str, dict[str, str]] = {}
    kept = ("sha256", "label", "near_duplicate_group")
    for row in read_rows(path, ("path", "sha256")):
        name = PurePosixPath(row["path"]).as_posix()
        if name in listing:
            raise UserError(f"{path} lists '{name}' twice; keep one line.")
        listing[name] = {column: row[column].strip() for column in kept if row.get(column)}
    return listing


def _refuse_missing(listing: Mapping[str, object], folders: Mapping[str, Path], root: Path) -> None:
    inside = tuple(_inside(folder, root) + "/" for folder in folders.values())
    missing = [name for name in listing if name.startswith(inside) and not os.path.lexists(root / name)]
    if missing:
        raise UserError(
            f"{root / MANIFEST} lists {len(missing):,} files that are not there: {some(missing)}; "
            "bring them back, or take their lines out."
        )


def _refuse_contradictions(
    listing: Mapping[str, Mapping[str, str]], copied: Mapping[_Found, tuple[int, str]], profile: Profile, root: Path
) -> None:
    def listed(one: _Found, column: str, found: str) -> str:
        return listing.get(one.listed_as, {}).get(column, found)

    changed = [one.path for one, (_, sha256) in copied.items() if listed(one, "sha256", sha256).lower() != sha256]
    if changed:
        raise UserError(
            f"{len(changed):,} files do not have the sha256 that {root / MANIFEST} lists: {some(changed)}; "
            "bring the listed bytes back, or correct the list."
        )
    labels = {source: entry.label for source, entry in profile.sources.items()}
    other = [one for one in copied if listed(one, "label", labels[one.source]) != labels[one.source]]
    if other:
        source = other[0].source
        raise UserError(
            f"params.yaml calls source '{source}' {labels[source]}, but {root / MANIFEST} says otherwise "
            f"of {len(other):,} files: {some([one.path for one in other])}; correct one of the two."
        )


# Finding and copying files


def _refuse_nested(folders: Mapping[str, Path]) -> None:
    real = {name: folder.resolve() for name, folder in folders.items()}
    for name, folder in real.items():
        for other, outer in real.items():
            if name != other and folder.is_relative_to(outer):
                raise UserError(
                    f"The folder of {name} ({folders[name]}) lies in that of {other} ({folders[other]}), so that its "
                    "images would count twice; give each source a folder of its own."
                )


def _find_images(folders: Mapping[str, Path], root: Path) -> tuple[list[_Found], list[Rejected], int]:
    found: list[_Found] = []
    rejected: list[Rejected] = []
    ignored = 0
    for source, folder in folders.items():
        listing = list_images(folder)
        if not listing.images:
            raise UserError(f"The folder of source '{source}' ({folder}) has no image; put its images there.")
        shown = _inside(folder, root)
        found += [_Found(source, name, folder / name, f"{shown}/{name}") for name in listing.images]
        rejected += [Rejected(f"{source}/{name}", source, reason) for name, reason in listing.refused]
        ignored += listing.ignored
    return found, rejected, ignored


def _copy_all(
    found: Sequence[_Found], into: Path, workers: int | None
) -> Iterator[tuple[_Found, tuple[int, str] | str]]:
    """Give for each file its size and sha256, or the reason why it cannot be read."""
    with _Journal(into) as journal:

        def copy(one: _Found) -> tuple[int, str] | str:
            target = into / one.path
            known = journal.known(one.path, one.origin, target)
            if known is not None:
                return known
            make_folder(target.parent)
            try:
                return _hash_and_copy(one.origin, target)
            except _UnreadableError as error:
                return f"cannot be read ({error})"

        for one, outcome in _in_threads(copy, found, "collecting images", workers):
            if not isinstance(outcome, str):
                journal.note(one.path, one.origin, into / one.path, *outcome)
            yield one, outcome


class _UnreadableError(Exception):
    """The original, not the copy, is at fault."""


def _hash_and_copy(origin: Path, target: Path) -> tuple[int, str]:
    """Copy a file and return its size and sha256; the copy takes its name when it is whole."""
    digest, size = hashlib.sha256(), 0
    beside = target.with_name(f".{hashlib.sha256(target.name.encode()).hexdigest()[:32]}.partial")
    with naming(target), beside.open("wb") as copy:
        for block in _blocks(origin):
            digest.update(block)
            size += len(block)
            copy.write(block)
    beside.replace(target)
    return size, digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            while block := file.read(_BLOCK):
                yield block
    except OSError as error:
        raise _UnreadableError(error.strerror or str(error)) from error


def _in_threads(
    work: Callable[[_A], _B], items: Sequence[_A], what: str, workers: int | None
) -> Iterator[tuple[_A, _B]]:
    """Give each item with what `work` makes of it, in the items' order."""
    batches = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
    with progress(what, len(items)) as advance, ThreadPoolExecutor(workers) as threads:
        for batch, results in zip(
            batches, threads.map(lambda batch: [work(one) for one in batch], batches), strict=True
        ):
            yield from zip(batch, results, strict=True)
            advance(len(batch))


class _Journal:
    """Which copies were made of which originals, kept beside the folder so that a killed run goes on where it was."""

    def __init__(self, into: Path) -> None:
        self._path = into.parent / f".{into.name}.journal.csv"
        self._known: dict[str, tuple[str, str, int, str]] = {}
        for row in read_whole_lines(self._path):
            if len(row) == 5 and row[3].isdecimal():
                self._known[row[0]] = (row[1], row[2], int(row[3]), row[4])

    def __enter__(self) -> _Journal:
        self._file = self._path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        with naming(self._path):
            self._writer.writerows((path, *entry) for path, entry in self._known.items())
        return self

    def __exit__(self, *_: object) -> None:
        with naming(self._path):
            self._file.close()

    def known(self, path: str, origin: Path, copy: Path) -> tuple[int, str] | None:
        entry = self._known.get(path)
        if entry is None or entry[:2] != (_stamp(origin), _stamp(copy)):
            return None
        return entry[2], entry[3]

    def note(self, path: str, origin: Path, copy: Path, size: int, sha256: str) -> None:
        with naming(self._path):
            self._writer.writerow((path, _stamp(origin), _stamp(copy), size, sha256))


def _stamp(path: Path) -> str:
    """Size, time and inode: what changes when a file is written to or replaced."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def _paths_in(folder: Path) -> Iterator[str]:
    for where, _, names in os.walk(folder):
        yield from (str(Path(where, name).relative_to(folder)) for name in names)


def _remove_others(folder: Path, wanted: set[str]) -> None:
    for path in list(_paths_in(folder)):
        if path not in wanted:
            (folder / path).unlink()
    for where, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # it is not empty
            Path(where).rmdir()
