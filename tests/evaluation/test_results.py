"""What metrics.json holds beyond the metrics of one set."""

from __future__ import annotations

import numpy as np
import pytest

from fakeface.config.params import Pair
from fakeface.constants import STAGES
from fakeface.evaluation.compute_metrics import compute_evaluation_metrics
from fakeface.evaluation.predictions import Evaluation, ScoredSet
from fakeface.metrics.calibration import Calibration
from fakeface.metrics.classification import compute_calibration_error


def scored(name: str, sources: list[str], scores: list[float]) -> ScoredSet:
    labels = np.array([source == "gan" for source in sources], np.uint8)
    paths = [f"{number}.png" for number in range(len(sources))]
    return ScoredSet(name, paths, np.array(sources), labels, {stage: np.array(scores) for stage in STAGES})


def test_compute_evaluation_metrics_pools_each_face_of_pairs_once() -> None:
    heldout = scored("heldout", ["lfw", "lfw", "other", "gan", "gan", "gan"], [0.1, 0.4, 0.9, 0.8, 0.7, 0.3])
    tests = {stage: scored(stage, ["ffhq", "gan"], [0.6, 0.99]) for stage in STAGES}
    evaluation = Evaluation(heldout, tests, dict.fromkeys(STAGES, Calibration()))
    pairs = {"one": Pair(real=["lfw"], fake=["gan"]), "other": Pair(real=["ffhq/test"], fake=["gan"])}
    pooled = compute_evaluation_metrics(evaluation, pairs, [], 0, 0)["pairs_pooled"]
    labels, scores = [0, 0, 1, 1, 1, 0, 0, 0], [0.1, 0.4, 0.8, 0.7, 0.3, 0.6, 0.6, 0.6]
    assert (pooled["n_real"], pooled["n_fake"]) == (5, 3)
    assert pooled["ece"] == pytest.approx(compute_calibration_error(labels, scores))
    assert pooled["accuracy"] == pytest.approx(4 / 8)
    assert compute_evaluation_metrics(evaluation, {}, [], 0, 0)["pairs_pooled"] == {}
