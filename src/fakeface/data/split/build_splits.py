"""datasets/raw → datasets/split: decoded, shared out, proven and written, with every file accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fakeface.config.data_params import Data, Profile
from fakeface.constants import HELDOUT, PARTS
from fakeface.data.image_store import StoredImage, write_store
from fakeface.data.raw_dataset import Collection, Rejected, read_collection
from fakeface.data.split.decode_cache import DecodedImages, decode_files
from fakeface.data.split.group_split import Split, split_images
from fakeface.data.split.leak_check import ROLES, Assignment, SplitItem, assert_no_leak, find_leaks, require_every_part
from fakeface.data.split.near_duplicates import group_near_duplicates
from fakeface.images.preprocessing import Reencoding
from fakeface.system.errors import UserError
from fakeface.system.filesystem import file_lock, recreate_dir
from fakeface.system.serialization import summarize_names, write_json, write_rows


def split_dataset(raw: Path, cache: Path, into: Path, reports: Path, data: Data, size: int) -> dict[str, Any]:
    """Write a store for each role, `reports`/rejected.csv and `reports`/split.json; return the content of the latter.

    Args:
        raw: datasets/raw as `ingest.collect_sources` left it.
        cache: folder for decoded images, which later runs go on with; may be deleted between runs.
        into: datasets/split.
        reports: reports/data.
        data: the section of params.yaml.
        size: pixels a side.

    Raises:
        UserError: raw files differ from their manifest, a source has fewer images than its `take` asks for, too many of
            one are unusable, or a part has no image of a label. rejected.csv is written before the last two.
    """
    with file_lock(into):  # two runs at once would clear each other's folder
        return _split_dataset(raw, cache, into, reports, data, size)


def _split_dataset(raw: Path, cache: Path, into: Path, reports: Path, data: Data, size: int) -> dict[str, Any]:
    collection = read_collection(raw)
    profile = _find_profile(collection, data)
    check_source_counts([file.source for file in collection.files], profile, data.rejected_share)
    limits = data.get_limits()
    crops = {name: source.crop for name, source in profile.sources.items()}
    reencoding = data.get_reencoding()
    images, undecodable = decode_files(collection.files, raw, cache, size, crops, limits, reencoding=reencoding)
    unusable = sorted(collection.rejected + undecodable)
    write_rows(reports / "rejected.csv", Rejected._fields, unusable)
    check_rejected_share(unusable, [file.source for file in images.files], data.rejected_share, reports)
    looks = group_near_duplicates(images.hashes, data.near_duplicate_bits).tolist()
    candidates = [SplitItem(file, look) for file, look in zip(images.files, looks, strict=True)]
    split = split_images(candidates, profile.sources, data.split)
    write_rows(reports / "rejected.csv", Rejected._fields, sorted(unusable + split.set_aside))
    assert_no_leak(split.placed)
    require_every_part(split.placed, data.split)
    (reports / "split.json").unlink(missing_ok=True)
    _write_stores(split, images, into, profile.note, reencoding)
    summary = _summarize(collection, profile, unusable, split)
    write_json(reports / "split.json", summary)
    return summary


def check_rejected_share(unusable: Sequence[Rejected], usable: Iterable[str], limit: float, reports: Path) -> None:
    """Check the share of unusable files in each source.

    Args:
        unusable: the files set aside.
        usable: the source of each other file.
        limit: the largest share allowed, 0 to 1.
        reports: where rejected.csv lies.

    Raises:
        UserError: a source is above the limit.
    """
    good, bad = Counter(usable), Counter(file.source for file in unusable)
    for source, count in sorted(bad.items()):
        total = count + good[source]
        if count > limit * total:
            reasons = Counter(file.reason for file in unusable if file.source == source)
            listed = summarize_names([f"{reason} ({times:,})" for reason, times in reasons.most_common()], 3)
            raise UserError(
                f"Source '{source}' has {count:,} unusable files of {total:,}, {count / total:.1%} where "
                f"data.rejected_share allows {limit:.1%}: {listed}; see {reports / 'rejected.csv'}, then mend or "
                "remove them, or raise the share."
            )


def check_source_counts(found: Iterable[str], profile: Profile, limit: float) -> None:
    """Check that each source has the images that its `take` asks for.

    Args:
        found: the source of each file.
        profile: the sources.
        limit: the largest share that may be missing, 0 to 1; within it the split says what is missing.

    Raises:
        UserError: a source is below the limit.
    """
    there = Counter(found)
    for name, source in profile.sources.items():
        asked = sum(source.taken().values())
        if there[name] < (1 - limit) * asked:
            raise UserError(
                f"Source '{name}' has {there[name]:,} images where its `take` in params.yaml asks for {asked:,}; "
                "add what is missing, or lower the numbers."
            )


def sources_below_quota(summary: Mapping[str, Any]) -> list[str]:
    """Say, from the content of split.json, where a source gives fewer images than its `take` asks for."""
    return [
        f"{name} in {role}: {placed:,} of {asked:,}"
        for name, source in summary["sources"].items()
        for role, asked in source["asked"].items()
        if (placed := sum(source["roles"].get(role, {}).values())) < asked
    ]


def _find_profile(collection: Collection, data: Data) -> Profile:
    profile = data.profiles.get(collection.profile)
    if profile is None or collection.sources != {name: source.label for name, source in profile.sources.items()}:
        raise UserError(
            f"params.yaml has other sources for the profile '{collection.profile}' than datasets/raw was made with; "
            "run the download stage again."
        )
    return profile


def _write_stores(
    split: Split, images: DecodedImages, into: Path, note: str | None, reencoding: Reencoding | None
) -> None:
    numbers = {file.path: number for number, file in enumerate(images.files)}

    def write(role: str) -> None:
        chosen = [image for image in split.placed if image.role == role]
        order = [numbers[image.file.path] for image in chosen]
        rows = [_describe_image(image, images, number) for image, number in zip(chosen, order, strict=True)]
        write_store(rows, images.blocks(order), images.size, into / role, note, reencoding)

    recreate_dir(into)  # a killed run shall not leave stores of two splits side by side
    with ThreadPoolExecutor(len(ROLES)) as threads:
        list(threads.map(write, ROLES))


def _describe_image(image: Assignment, images: DecodedImages, number: int) -> StoredImage:
    file = image.file
    return StoredImage(
        path=file.path,
        source=file.source,
        label=file.label,
        part=image.part,
        sha256=file.sha256,
        group=image.group,
        pixels_sha256=images.sums[number],
    )


def _summarize(collection: Collection, profile: Profile, unusable: Sequence[Rejected], split: Split) -> dict[str, Any]:
    found = Counter(file.source for file in collection.files)
    bad = Counter(file.source for file in unusable)
    aside = Counter(file.source for file in split.set_aside)
    sources = {
        name: {
            "label": source.label,
            "found": found[name] + sum(file.source == name for file in collection.rejected),
            "unusable": bad[name],
            "set_aside": aside[name],
            "unused": split.unused.get(name, 0),
            "not_taken": collection.not_taken.get(name, 0),
            "asked": source.taken(),
            "roles": _count_images(image for image in split.placed if image.file.source == name),
        }
        for name, source in profile.sources.items()
    }
    return {
        "profile": collection.profile,
        "note": profile.note,
        "images": len(split.placed),
        "unusable": len(unusable),
        "ignored": collection.ignored,
        "unlisted": collection.unlisted,
        "unnamed": collection.unnamed,
        "repaired": split.repaired,
        "groups": {"of_two_or_more": split.groups, "largest": split.largest_group},
        "leaks": len(find_leaks(split.placed)),
        "roles": {
            label: _count_images(image for image in split.placed if image.file.label == label)
            for label in ("real", "fake")
        },
        "sources": sources,
    }


def _count_images(placed: Iterable[Assignment]) -> dict[str, dict[str, int]]:
    counted = Counter((image.role, image.part) for image in placed)
    return {
        role: {part: counted[role, part] for part in (*PARTS, HELDOUT) if counted[role, part]}
        for role in ROLES
        if any(counted[role, part] for part in (*PARTS, HELDOUT))
    }
