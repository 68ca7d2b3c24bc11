"""Checkpoints and pools of images in, calibrated scores out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fakeface import HELDOUT, STAGES
from fakeface.calibration import Calibration
from fakeface.checkpoints import load_checkpoint
from fakeface.errors import UserError
from fakeface.inputs import ImagePool, pool_of, scoring_dataset
from fakeface.progress import progress
from fakeface.store import Store

if TYPE_CHECKING:
    import tensorflow as tf

Scores = npt.NDArray[np.float64]


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


def score_pool(model: tf.keras.Model, pool: ImagePool, batch_size: int, what: str) -> Scores:
    """Return the network's raw P(fake) for each image of the pool, (N,) float64 in [0, 1], before calibration."""
    scores = []
    with progress(f"scoring {what}", len(pool)) as advance:
        for images, _ in scoring_dataset(pool, batch_size):
            scores.append(np.asarray(model.predict_on_batch(images))[:, 1].astype(np.float64))
            advance(len(images))
    return np.concatenate(scores) if scores else np.empty(0)


def evaluate_checkpoints(
    checkpoints: Mapping[str, Path],
    stores: Mapping[str, Store],
    heldout_sources: Sequence[str] | None,
    batch_size: int,
) -> Evaluation:
    """Score the held-out sources (None: all) and every stage's test part with each stage's checkpoint.

    Raises:
        UserError: a bad checkpoint, or a source named that the held-out set does not have.
    """
    pools = {HELDOUT: _heldout_pool(stores[HELDOUT], heldout_sources)}
    pools |= {stage: pool_of([stores[stage]], "test") for stage in STAGES}
    scores: dict[str, dict[str, Scores]] = {name: {} for name in pools}
    calibrations = {}
    for stage, path in checkpoints.items():
        model, facts = load_checkpoint(path)
        calibrations[stage] = facts.calibration
        for name, pool in pools.items():
            what = "held-out images" if name == HELDOUT else f"test images of {name}"
            raw = score_pool(model, pool, batch_size, f"{what} with {path.name}")
            scores[name][stage] = facts.calibration.apply(raw)
    sets = {
        name: ScoredSet(name, pool.paths(), pool.sources, pool.labels, scores[name]) for name, pool in pools.items()
    }
    return Evaluation(sets.pop(HELDOUT), sets, calibrations)


def _heldout_pool(store: Store, names: Sequence[str] | None) -> ImagePool:
    pool = pool_of([store], HELDOUT)
    if names is None:
        return pool
    present = np.unique(pool.sources).tolist()
    for name in names:
        if name not in present:
            known = ", ".join(present)
            raise UserError(f"params.yaml: evaluate.sources names '{name}', no held-out source; there are {known}.")
    return pool.where(np.isin(pool.sources, names))
