"""Checkpoints in, calibrated scores of the held-out set and of every stage's test part out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fakeface.config.params import Pair
from fakeface.constants import HELDOUT, STAGES
from fakeface.data.image_pool import ImagePool, concat_pools, gather_pool
from fakeface.data.image_store import Store
from fakeface.evaluation.robustness import PERTURBATIONS, list_robustness_cells, stratified_sample
from fakeface.evaluation.source_pairs import TEST, name_faces, pairs_or_all
from fakeface.inference.scoring import Scores, predict_raw_scores, score_pool
from fakeface.metrics.calibration import Calibration
from fakeface.models.checkpoints import ModelCache
from fakeface.system.errors import UserError
from fakeface.system.progress import show_progress


@dataclass(frozen=True)
class ScoredSet:
    """One set of images with the calibrated scores (N,) that each stage's checkpoint gives them.

    `name` is `heldout`, or the stage whose test part it is; paths and sources (N,) str, labels (N,) uint8.
    """

    name: str
    paths: Sequence[str]
    sources: npt.NDArray[np.str_]
    labels: npt.NDArray[np.uint8]
    scores: Mapping[str, npt.NDArray[np.float64]]

    @property
    def face_names(self) -> npt.NDArray[np.str_]:
        """What evaluate.pairs calls each row, (N,)."""
        return name_faces(self.name, self.sources)


@dataclass(frozen=True)
class Evaluation:
    """The held-out set, each stage's test part, and each checkpoint's calibration."""

    heldout: ScoredSet
    tests: Mapping[str, ScoredSet]
    calibrations: Mapping[str, Calibration]

    @property
    def threshold(self) -> float:
        """The decision threshold of the last stage."""
        return self.calibrations[STAGES[-1]].threshold

    def sets(self) -> tuple[ScoredSet, ...]:
        """Return the held-out set and then the test parts."""
        return self.heldout, *self.tests.values()


def evaluate_checkpoints(
    checkpoints: Mapping[str, Path],
    stores: Mapping[str, Store],
    heldout_sources: Sequence[str] | None,
    batch_size: int,
    detectors: ModelCache,
) -> Evaluation:
    """Score the held-out sources (None: all) and every stage's test part with each stage's checkpoint.

    Raises:
        UserError: a bad checkpoint, or a source named that the held-out set does not have.
    """
    pools = _select_pools(stores, heldout_sources)
    everything, ends = concat_pools(list(pools.values())), np.cumsum([len(pool) for pool in pools.values()])[:-1]
    scores: dict[str, dict[str, Scores]] = {name: {} for name in pools}
    calibrations = {}
    for stage, path in checkpoints.items():
        model, facts = detectors.load(path)
        calibrations[stage] = facts.calibration
        calibrated = facts.calibration.apply(score_pool(model, everything, batch_size, f"with {path.name}"))
        for name, of_set in zip(pools, np.split(calibrated, ends), strict=True):
            scores[name][stage] = of_set
    sets = {
        name: ScoredSet(name, pool.paths(), pool.sources, pool.labels, scores[name]) for name, pool in pools.items()
    }
    return Evaluation(sets.pop(HELDOUT), sets, calibrations)


def _select_pools(stores: Mapping[str, Store], heldout_sources: Sequence[str] | None) -> dict[str, ImagePool]:
    tests = {stage: gather_pool([stores[stage]], TEST) for stage in STAGES}
    return {HELDOUT: _select_heldout(stores[HELDOUT], heldout_sources)} | tests


def _select_heldout(store: Store, names: Sequence[str] | None) -> ImagePool:
    pool = gather_pool([store], HELDOUT)
    if names is None:
        return pool
    present = np.unique(pool.sources).tolist()
    for name in names:
        if name not in present:
            known = ", ".join(present)
            raise UserError(f"params.yaml: evaluate.sources names '{name}', no held-out source; there are {known}.")
    return pool.subset(np.isin(pool.sources, names))


def evaluate_robustness(
    checkpoint: Path,
    stores: Mapping[str, Store],
    heldout_sources: Sequence[str] | None,
    pairs: Mapping[str, Pair],
    images_per_source: int,
    batch_size: int,
    seed: int,
    detectors: ModelCache,
) -> list[dict[str, Any]]:
    """`list_robustness_cells` of a checkpoint's pairs, on at most `images_per_source` of each of their sources.

    Where this data has none of the pairs, the table is of all held-out faces. No images, no rows.
    """
    if not images_per_source:
        return []
    pools = _select_pools(stores, heldout_sources)
    names = np.concatenate([name_faces(name, pool.sources) for name, pool in pools.items()])
    pool = concat_pools(list(pools.values()))
    of_pairs = np.logical_or.reduce(list(pairs_or_all(names, pool.labels, pairs).values()))
    among = np.flatnonzero(of_pairs)
    drawn = among[stratified_sample(names[among].tolist(), pool.labels[among], images_per_source, seed)]
    names, labels = names[drawn], pool.labels[drawn]
    model, facts = detectors.load(checkpoint)
    with show_progress("robustness: perturbed images scored", len(PERTURBATIONS) * len(drawn)) as advance:

        def score(images: npt.NDArray[np.uint8]) -> Scores:
            raw = predict_raw_scores(model, images)
            advance(len(images))
            return facts.calibration.apply(raw)

        sets = pairs_or_all(names, labels, pairs)
        return list_robustness_cells(
            score, pool.gather(drawn), labels, sets, facts.calibration.threshold, seed=seed, batch_size=batch_size
        )
