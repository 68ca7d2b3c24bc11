"""Where a profile's images lie: a folder or an archive under data.root, or a collection of the catalogue."""

from __future__ import annotations

import shutil
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fakeface.config.catalog import get_source
from fakeface.config.collection import Collection
from fakeface.config.data_params import Data, Profile, Source
from fakeface.data.download.fetch import Fetched, fetch
from fakeface.data.download.transfer import RetryPolicy
from fakeface.images.discovery import escape_name, is_passed_over
from fakeface.system.archives import is_unpacked_whole, read_record, unpack
from fakeface.system.checksums import hash_file
from fakeface.system.errors import UserError
from fakeface.system.filesystem import file_lock
from fakeface.system.progress import show_bytes_progress
from fakeface.system.serialization import summarize_names

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class SourceLocation(NamedTuple):
    """Where one source's images lie.

    `folder` is read; `named` is what the user named, the folder or an archive of it; `listed_as` is the folder's path
    in the data folder's own manifest, None outside the data folder.
    """

    folder: Path
    named: Path
    listed_as: str | None


def resolve_collections_folder(data: Data, project: Path) -> Path:
    """Return the folder of fetched collections; of a relative one, that in the project, not in a workspace of DVC."""
    return project / data.collections


def resolve_data_folder(data: Data, unpacked: Path) -> Path:
    """Return the folder that data.root means: itself, or what the archive unpacks to that it is, or holds alone.

    Args:
        data: the section of params.yaml.
        unpacked: where archives are unpacked, each once; may be deleted between runs.

    Raises:
        UserError: the archive is damaged or not safe to unpack.
    """
    root = Path(data.root)
    named = {name for profile in data.profiles.values() for name in _list_top_names(profile)}
    archive = root if root.is_file() else _find_only_archive(root, named)
    if archive is None:
        return root
    folder = unpack_once(archive, unpacked / "root")
    inside = _list_entries(folder)
    wrapped = len(inside) == 1 and inside[0].is_dir() and inside[0].name not in named
    return inside[0] if wrapped else folder


def _find_only_archive(folder: Path, named: Container[str]) -> Path | None:
    inside = _list_entries(folder)
    alone = len(inside) == 1 and inside[0].is_file() and inside[0].name.lower().endswith(ARCHIVES)
    return inside[0] if alone and inside[0].name not in named else None


def _list_entries(folder: Path) -> list[Path]:
    """List what a user put into a folder, without documents and hidden files."""
    return sorted(path for path in folder.iterdir() if not is_passed_over(path.name)) if folder.is_dir() else []


def _list_top_names(profile: Profile) -> Iterator[str]:
    for name, source in profile.sources.items():
        if source.collection is None:
            yield PurePosixPath(source.folder or name).parts[0]
            if source.folder is None:
                yield from (f"{name}{suffix}" for suffix in ARCHIVES)


def unpack_once(archive: Path, into: Path) -> Path:
    """Unpack an archive, unless `into` is what these very bytes unpack to; return `into`.

    Raises:
        UserError: it is no archive, damaged, or not safe to unpack.
    """
    sha256 = hash_file(archive)
    with file_lock(into):
        if (read_record(into) or {}).get("sha256") == sha256 and is_unpacked_whole(into):
            return into
        if into.exists():
            shutil.rmtree(into)
        with show_bytes_progress() as progress:
            unpack(archive, into, progress=progress, record={"sha256": sha256})
    return into


# Choosing a profile


def choose_profile(data: Data, root: Path) -> tuple[str, Profile]:
    """Return the profile that `data.profile` names; `auto`: the first that finds all its sources in `root`.

    `auto` passes over profiles with a collection: nothing large is downloaded without being asked for.

    Raises:
        UserError: sources are missing; the sentence names them, what is there, and which other profile would fit.
    """
    missing = {name: _list_missing(root, profile) for name, profile in data.profiles.items()}
    fitting = [name for name, places in missing.items() if not places]
    alone = [name for name in fitting if not _list_collections(data.profiles[name])]
    chosen = alone[0] if data.profile == "auto" and alone else data.profile
    if chosen in fitting:
        return chosen, data.profiles[chosen]
    if not root.is_dir():
        raise UserError(
            f"data.root names '{data.root}', which is no folder; give one that holds a folder or archive a source."
        )
    raise UserError(_describe_misfit(data, root, missing, alone))


def _list_missing(root: Path, profile: Profile) -> list[str]:
    places = (_locate(root, name, source) for name, source in profile.sources.items() if source.collection is None)
    return [place.relative_to(root).as_posix() for place in places if not place.exists()]


def _locate(root: Path, name: str, source: Source) -> Path:
    """Return the folder or archive of a source under data.root, whether it is there or not."""
    place = root / (source.folder or name)
    if source.folder is not None or place.exists():
        return place
    packed = [root / f"{name}{suffix}" for suffix in ARCHIVES if (root / f"{name}{suffix}").is_file()]
    if len(packed) > 1:
        raise UserError(
            f"Source '{name}' has more than one archive: {summarize_names([path.name for path in packed])} in {root}; "
            "keep one, or say which by its `folder` in params.yaml."
        )
    return packed[0] if packed else place


def _describe_misfit(data: Data, root: Path, missing: Mapping[str, Sequence[str]], fitting: Sequence[str]) -> str:
    names = [escape_name(path.name) for path in _list_entries(root)]
    there = f"there are {summarize_names(names)}" if names else "it has no folders"
    if data.profile != "auto":
        other = f", or set data.profile to {' or '.join(fitting)}, which would fit" if fitting else ""
        lacks = f"profile '{data.profile}' lacks {summarize_names(missing[data.profile])}"
        return f"In '{data.root}' {lacks}; {there}; add what lacks{other}."
    nearest = sorted(missing, key=lambda name: len(missing[name]) / len(data.profiles[name].sources))
    said = [f"profile '{name}' lacks {summarize_names(missing[name])}" for name in nearest if missing[name]]
    fetching = [name for name, places in missing.items() if not places]
    other = f", or set data.profile to {' or '.join(fetching)}, which fetches its images" if fetching else ""
    return f"No profile fits '{data.root}': {'; '.join(said)}; {there}; add what lacks{other}."


# Bringing the sources of a profile together


def _list_collections(profile: Profile) -> list[Collection]:
    names = dict.fromkeys(source.collection for source in profile.sources.values() if source.collection is not None)
    return [get_source(name) for name in names]


def fetch_collections(profile: Profile, into: Path, patience: RetryPolicy | None = None) -> None:
    """Fetch the collections that a profile names, as far as they are not there; raises as `fetch_each`."""
    for _ in fetch_each(_list_collections(profile), into, patience):
        pass


def fetch_each(collections: Iterable[Collection], into: Path, patience: RetryPolicy | None = None) -> Iterator[Fetched]:
    """Fetch collections, as far as they are not there, and give each that is; the others go on where one fails.

    Raises:
        UserError: at the end, what could not be fetched, and what to do; for several, one sentence of all.
    """
    faults = []
    for collection in collections:
        outcome = _fetch_or_explain(collection, into, patience)
        if isinstance(outcome, str):
            faults.append(outcome)
        else:
            yield outcome
    if len(faults) == 1:
        raise UserError(f"{faults[0]}.")
    if faults:
        listed = "; ".join(f"({number}) {fault}" for number, fault in enumerate(faults, 1))
        raise UserError(f"{len(faults)} collections are not complete: {listed}.")


def _fetch_or_explain(collection: Collection, into: Path, patience: RetryPolicy | None) -> Fetched | str:
    try:
        with show_bytes_progress() as progress:
            return fetch(collection, into, progress=progress, patience=patience)
    except UserError as error:
        return str(error).removesuffix(".")


def locate_sources(root: Path, profile: Profile, collections: Path, unpacked: Path) -> dict[str, SourceLocation]:
    """Say where each source's images lie, after unpacking the archives among them.

    Raises:
        UserError: an archive is damaged or not safe to unpack.
    """
    origins = {}
    for name, source in profile.sources.items():
        if source.collection is not None:
            folder = collections / source.collection / (source.folder or "")
            origins[name] = SourceLocation(folder, folder, None)
            continue
        place = _locate(root, name, source)
        listed_as = place.relative_to(root).as_posix()
        if place.is_file():
            suffix = next((suffix for suffix in ARCHIVES if listed_as.lower().endswith(suffix)), "")
            folder = unpack_once(place, unpacked / "sources" / name)
            origins[name] = SourceLocation(folder, place, listed_as[: len(listed_as) - len(suffix)])
        else:
            origins[name] = SourceLocation(place, place, listed_as)
    _remove_other_unpacked(unpacked / "sources", origins)
    return origins


def _remove_other_unpacked(unpacked: Path, origins: Mapping[str, SourceLocation]) -> None:
    wanted = {origin.folder.name for origin in origins.values() if origin.folder.parent == unpacked}
    for path in unpacked.iterdir() if unpacked.is_dir() else ():
        if path.is_dir() and path.name not in wanted:
            shutil.rmtree(path)


def unmatched_entries(root: Path, origins: Mapping[str, SourceLocation]) -> list[str]:
    """List folders and files of the data folder that no source names, as escaped paths; a folder ends in a slash."""
    named = {origin.named for origin in origins.values() if origin.listed_as is not None}
    above = {folder for place in named for folder in place.parents}

    def unnamed(folder: Path) -> Iterator[str]:
        for path in _list_entries(folder):
            if path in above:
                yield from unnamed(path)
            elif path not in named:
                yield escape_name(path.relative_to(root).as_posix()) + ("/" if path.is_dir() else "")

    return list(unnamed(root))
