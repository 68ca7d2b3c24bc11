"""What datasets/raw holds: the bytes of each source, and the lists that prove them, written, read and verified."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from fakeface.system.checksums import VerifyReport, hash_file, verify_folder
from fakeface.system.errors import UserError
from fakeface.system.progress import show_progress
from fakeface.system.serialization import (
    read_json_with_checksum,
    read_rows,
    summarize_names,
    write_json_with_checksum,
    write_rows,
)

MANIFEST, REJECTED, COLLECTED = "manifest.csv", "rejected.csv", "collected.json"


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
    """What datasets/raw holds, and what of the data was left where it is.

    `ignored` counts files that are passed over by rule, `unlisted` those that the data folder's own manifest lacks,
    `not_taken` by source those beyond the numbers of its `take`; `unnamed` lists what no source of the profile names.
    """

    profile: str
    sources: dict[str, str]  # name: label
    files: list[RawFile]
    rejected: list[Rejected]
    ignored: int
    unlisted: int
    unnamed: list[str]
    not_taken: dict[str, int]

    def list_remarks(self) -> list[str]:
        """Return a line for each kind of file that was left where it is."""
        beyond = [f"{count:,} of {source}" for source, count in self.not_taken.items()]
        return [
            *([f"beyond the numbers under `take`: {summarize_names(beyond)}"] if beyond else []),
            *([f"named by no source of the profile: {summarize_names(self.unnamed)}"] if self.unnamed else []),
            *([f"not in the data folder's manifest.csv: {self.unlisted:,} files"] if self.unlisted else []),
        ]


def write_collection(collection: Collection, into: Path) -> None:
    """Write both lists of files, then collected.json, which proves itself and them: without it nothing is whole."""
    write_rows(into / REJECTED, Rejected._fields, collection.rejected)
    write_rows(into / MANIFEST, RawFile._fields, collection.files)
    facts = {name: value for name, value in vars(collection).items() if name not in ("files", "rejected")}
    sums = {name: hash_file(into / name) for name in (MANIFEST, REJECTED)}
    write_json_with_checksum(into / COLLECTED, facts | {"sha256": sums})


def read_collection(raw: Path) -> Collection:
    """Read what `write_collection` wrote.

    Raises:
        UserError: the folder is not whole, or collected.json, manifest.csv or rejected.csv is not as it was written.
    """
    facts = _read_facts(raw)
    files = []
    for row in read_rows(raw / MANIFEST, RawFile._fields):
        if not row["bytes"].isdecimal() or len(row["sha256"]) != 64 or not _is_plain_path(row["path"]):
            raise UserError(f"{raw / MANIFEST} has a damaged line for '{row['path']}'; run the download stage again.")
        files.append(RawFile(**{**row, "bytes": int(row["bytes"])}))  # type: ignore[arg-type]
    rejected = [Rejected(**row) for row in read_rows(raw / REJECTED, Rejected._fields)]
    try:
        return Collection(files=files, rejected=rejected, **facts)
    except TypeError:
        raise _describe_version_error(raw) from None


def _read_facts(raw: Path) -> dict[str, Any]:
    """Read collected.json, and hold its sums against the two lists beside it."""
    for name in (MANIFEST, REJECTED):
        if not (raw / name).is_file():
            raise UserError(f"{raw / name} is missing; run the download stage again.")
    facts = read_json_with_checksum(raw / COLLECTED)
    sums = facts.pop("sha256", None)
    if not isinstance(sums, dict):
        raise _describe_version_error(raw)
    for name in (MANIFEST, REJECTED):
        if hash_file(raw / name) != sums.get(name):
            raise UserError(f"{raw / name} is damaged: its bytes are not those written; run the download stage again.")
    return facts


def _describe_version_error(raw: Path) -> UserError:
    return UserError(f"{raw / COLLECTED} was written by another version; run the download stage again.")


def _is_plain_path(path: str) -> bool:
    parts = path.split("/")
    return len(parts) > 1 and ".." not in parts and parts[0] != ""


def verify_raw(raw: Path) -> VerifyReport:
    """Compare the bytes of every file in datasets/raw with its manifest's sha256.

    Raises:
        UserError: the folder has no readable manifest.
    """
    files = read_collection(raw).files
    with show_progress("comparing files", len(files)) as advance:
        report = verify_folder(raw, (file._asdict() for file in files), advance=advance)
    own = (REJECTED, COLLECTED)
    return replace(report, added=tuple(name for name in report.added if name not in own))
