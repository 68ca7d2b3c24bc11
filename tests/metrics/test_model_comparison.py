"""Who becomes champion, told by scores alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fakeface.metrics.model_comparison import ModelScores, bootstrap_difference, decide_promotion

IMAGES = 200
METRIC = "balanced_accuracy"


def _contender(name: str, right: float, *, heldout: str = "a", shift: int = 0) -> ModelScores:
    """A model that calls a share `right` of each class rightly; the wrong images begin at `shift`."""
    labels = (np.arange(IMAGES) % 2).astype(np.uint8)
    wrong = np.zeros(IMAGES, bool)
    wrong[shift : shift + round(IMAGES * (1 - right))] = True
    scores = np.where(labels.astype(bool) ^ wrong, 0.9, 0.1)
    paths = [f"source/{image:03d}.png" for image in range(IMAGES)]
    return ModelScores(name, heldout, 0.5, paths, ["source"] * IMAGES, labels, scores)


def test_decide_promotion_refuses_a_model_below_the_gate() -> None:
    decision = decide_promotion(_contender("version 1", 0.8), None, METRIC, 0.87)
    assert not decision.promoted
    assert "0.800" in decision.sentences[0]
    assert "misses that by 0.070" in decision.sentences[1]


def test_decide_promotion_promotes_the_first_model_above_the_gate() -> None:
    assert decide_promotion(_contender("version 1", 0.87), None, METRIC, 0.87).promoted


@pytest.mark.parametrize(("right", "promoted"), [(0.90, False), (0.91, False), (0.99, True), (0.85, False)])
def test_decide_promotion_wants_more_than_chance(right: float, promoted: bool) -> None:
    decision = decide_promotion(_contender("version 2", right, shift=100), _contender("version 1", 0.90), METRIC, 0.5)
    assert decision.promoted is promoted
    assert "version 1" in decision.sentences[2]


def test_bootstrap_difference_is_narrower_on_the_same_images() -> None:
    candidate, champion = _contender("version 2", 0.95), _contender("version 1", 0.90)  # right wherever it was
    low, high = bootstrap_difference(candidate, champion, METRIC)
    assert 0 < low < 0.05 < high
    apart, _ = bootstrap_difference(candidate, replace(champion, heldout="b"), METRIC)
    assert apart < low


def test_bootstrap_difference_ignores_the_order_of_images() -> None:
    candidate, champion = _contender("version 2", 0.95), _contender("version 1", 0.90)
    turned = replace(champion, paths=champion.paths[::-1], labels=champion.labels[::-1], scores=champion.scores[::-1])
    assert bootstrap_difference(candidate, turned, METRIC) == bootstrap_difference(candidate, champion, METRIC)


def test_decide_promotion_compares_other_images_only_if_asked() -> None:
    candidate, champion = _contender("version 2", 0.99), _contender("version 1", 0.75, heldout="b")
    refused = decide_promotion(candidate, champion, METRIC, 0.87)
    assert not refused.promoted
    assert "different held-out images" in refused.sentences[-1]
    assert decide_promotion(candidate, champion, METRIC, 0.87, other_data=True).promoted
