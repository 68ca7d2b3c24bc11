"""The audit of a split: what a careful engineer reads before believing it, as numbers, a table and a page."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fakeface.config.data_params import Data
from fakeface.data.audit.image_properties import FORMATS, FileProperties, PixelProperties
from fakeface.data.audit.image_table import IDENTITY, ImageTable, build_image_table
from fakeface.data.audit.page import render_audit_page
from fakeface.data.audit.shortcut_probe import KINDS, Score, probe_shortcut, probe_single_property
from fakeface.data.raw_dataset import Rejected, read_collection
from fakeface.data.split.leak_check import ROLES, find_leaks
from fakeface.images.jpeg_metadata import SUBSAMPLINGS
from fakeface.system.filesystem import atomic_write
from fakeface.system.serialization import read_json, read_rows, write_json, write_rows

PAGE, NUMBERS, TABLE = "audit.html", "audit.json", "image_facts.csv"
_TOLD = 3  # single facts named for each set
_OF_PAIRS = ("file", "seen")  # kinds tried on pairs of sources
_PERCENTILES = (5, 25, 50, 75, 95)


def audit_dataset(raw: Path, split: Path, cache: Path, reports: Path, data: Data) -> dict[str, Any]:
    """Write audit.json, image_facts.csv and audit.html to `reports`; return the content of the first.

    Args:
        raw: datasets/raw as `ingest.collect_sources` left it.
        split: datasets/split as `datasets.split_dataset` left it.
        cache: folder for what was measured, which later runs go on with; may be deleted between runs.
        reports: reports/data with the split's split.json and rejected.csv.
        data: the section of params.yaml.

    Raises:
        UserError: files or stores have changed, or do not belong together.
    """
    collection = read_collection(raw)
    limits = data.get_limits()
    images = build_image_table(collection, raw, split, cache, limits, data.near_duplicate_bits)
    counted = read_json(reports / "split.json")
    rejected = [Rejected(**row) for row in read_rows(reports / "rejected.csv", Rejected._fields)]
    crops = {name: source.crop for name, source in data.profiles[collection.profile].sources.items()}
    audit = {
        "profile": collection.profile,
        "note": counted["note"],
        "images": len(images.placed),
        "image_size": images.size,
        "reencode": images.reencoding and images.reencoding._asdict(),
        "crops": crops,
        "counts": counted["sources"],
        "rejected": count_rejected_by_reason(rejected),
        "repaired": counted["repaired"],
        "groups": counted["groups"],
        "near_duplicate_bits": data.near_duplicate_bits,
        "leaks": find_leaks(images.placed),
        "sources": {name: summarize_source(images, images.sources == name) for name in crops if name in images.sources},
        "shortcuts": probe_pairs(images),
    }
    write_rows(reports / TABLE, (*IDENTITY, *FileProperties._fields, *PixelProperties._fields), images.rows())
    with atomic_write(reports / PAGE) as file:
        file.write(render_audit_page(audit, images))
    write_json(reports / NUMBERS, audit)
    return audit


def count_rejected_by_reason(rejected: Iterable[Rejected]) -> dict[str, dict[str, int]]:
    """Count rejected files: {source: {reason: files}}, the commonest reason first."""
    counted: dict[str, Counter[str]] = {}
    for file in rejected:
        same = file.reason.startswith("same file as ")
        counted.setdefault(file.source, Counter())["same file as another" if same else file.reason] += 1
    return {source: dict(reasons.most_common()) for source, reasons in sorted(counted.items())}


def summarize_source(images: ImageTable, rows: NDArray[np.bool_]) -> dict[str, Any]:
    """Summarise the facts of some images: shares, names with their counts, and percentiles of every number."""

    def named(fact: str, names: tuple[str, ...]) -> dict[str, int]:
        values = images.fact(fact)[rows]
        return dict(Counter(names[int(value)] for value in values[~np.isnan(values)]).most_common())

    sizes = Counter(
        f"{int(width)}×{int(height)}"
        for width, height in zip(images.fact("width")[rows], images.fact("height")[rows], strict=True)
    )
    numbers = [
        name for name in (*FileProperties._fields, *PixelProperties._fields) if name not in ("format", "subsampling")
    ]
    return {
        "label": "fake" if images.fake[rows][0] else "real",
        "images": int(rows.sum()),
        "formats": named("format", FORMATS),
        "subsampling": named("subsampling", SUBSAMPLINGS),
        "sizes": dict(sizes.most_common(5)),
        "different_sizes": len(sizes),
        "means": {name: _round(_average(images.fact(name)[rows])) for name in numbers},
        "percentiles": {name: _compute_percentiles(images.fact(name)[rows]) for name in numbers},
    }


def _average(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _compute_percentiles(values: NDArray[np.float64]) -> list[float | None]:
    known = values[~np.isnan(values)]
    return [_round(float(np.percentile(known, percent))) if known.size else None for percent in _PERCENTILES]


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def probe_pairs(images: ImageTable, workers: int | None = None) -> dict[str, dict[str, Any]]:
    """Try every kind of side facts on each stage, the held-out set, and each pair of a real and a fake source.

    Returns:
        {"sets": {role: result}, "pairs": {"real source/fake source": result}}; a result has the number of images of
        each class, `kinds` {kind: {auc, error}} and `facts`, single ones with their AUC, the best of each kind first.
        Pairs are tried on two kinds. A score is None where a class has too few images.
    """
    real, fake = (np.unique(images.sources[images.fake == label]).tolist() for label in (False, True))
    sets = {role: images.roles == role for role in ROLES}
    pairs = {f"{one}/{other}": np.isin(images.sources, (one, other)) for one, other in product(real, fake)}
    tasks = [(rows, tuple(KINDS)) for rows in sets.values()] + [(rows, _OF_PAIRS) for rows in pairs.values()]
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as threads:
        results = list(threads.map(lambda task: _probe_rows(images, *task), tasks))
    names = [*sets, *pairs]
    found = dict(zip(names, results, strict=True))
    return {"sets": {name: found[name] for name in sets}, "pairs": {name: found[name] for name in pairs}}


def _probe_rows(images: ImageTable, rows: NDArray[np.bool_], kinds: tuple[str, ...]) -> dict[str, Any]:
    fake, groups = images.fake[rows], images.groups[rows]
    return {
        "real": int((~fake).sum()),
        "fake": int(fake.sum()),
        "kinds": {
            kind: _serialize_score(probe_shortcut(images.facts(KINDS[kind].facts)[rows], fake, groups))
            for kind in kinds
        },
        "facts": {
            kind: _find_best(
                {name: probe_single_property(images.fact(name)[rows], fake, groups) for name in KINDS[kind].facts}
            )
            for kind in kinds
        },
    }


def _serialize_score(score: Score | None) -> dict[str, float] | None:
    return None if score is None else {"auc": round(score.auc, 4), "error": round(score.error, 4)}


def _find_best(scores: Mapping[str, Score | None]) -> dict[str, float]:
    known = {name: round(score.auc, 4) for name, score in scores.items() if score is not None}
    return dict(sorted(known.items(), key=lambda item: -item[1])[:_TOLD])
