from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fakeface.data.audit.shortcut_probe import (
    FEWEST,
    MOST,
    group_folds,
    probe_shortcut,
    probe_single_property,
    subsample,
)

N = 400
RANDOM = np.random.default_rng(4)
FAKE = RANDOM.random(N) < 0.4
NOISE = RANDOM.normal(size=(N, 4))
GROUPS = np.array([f"{number:016x}" for number in RANDOM.permutation(N)])


def test_facts_without_news_score_like_a_coin() -> None:
    score = probe_shortcut(NOISE, FAKE, GROUPS)
    assert score is not None
    assert score.auc == pytest.approx(0.5, abs=3 * score.error)
    assert (score.real, score.fake) == (int((~FAKE).sum()), int(FAKE.sum()))
    nothing = np.full((N, 1), np.nan)  # the JPEG quality of PNG files, for instance
    assert probe_shortcut(np.hstack([NOISE, nothing]), FAKE, GROUPS) == score
    single = probe_single_property(nothing[:, 0], FAKE, GROUPS)
    assert single is not None
    assert single.auc == 0.5
    single = probe_single_property(NOISE[:, 0], FAKE, GROUPS)
    assert single is not None
    assert single.auc == pytest.approx(0.5, abs=3 * single.error)


@pytest.mark.parametrize(
    "fact",
    [
        np.where(FAKE, 256.0, 200.0),
        np.where(FAKE, np.where(NOISE[:, 0] > 0, 100.0, 300.0), 200.0),  # on both sides: no threshold parts them
        np.where(FAKE, np.nan, 75.0),
    ],
    ids=["two values", "both sides", "known of one class only"],
)
def test_a_fact_that_gives_the_class_away_scores_one(fact: NDArray[np.float64]) -> None:
    for score in (
        probe_shortcut(np.column_stack([NOISE, fact]), FAKE, GROUPS),
        probe_single_property(fact, FAKE, GROUPS),
    ):
        assert score is not None
        assert score.auc > 0.99


def test_a_half_known_class_scores_between() -> None:
    # Half of the fakes are at 1, everything else at 0: the AUC of the best answer is 0.75.
    fact = (FAKE & (RANDOM.random(N) < 0.5)).astype(float)
    expected = 0.5 + fact[FAKE].mean() / 2
    for score in (probe_shortcut(fact[:, None], FAKE, GROUPS), probe_single_property(fact, FAKE, GROUPS)):
        assert score is not None
        assert score.auc == pytest.approx(expected, abs=0.02)


def test_look_alikes_never_help_each_other() -> None:
    # A number that only the two images of a group share, and a class that only they share, teach nothing of others.
    groups = np.repeat(np.arange(N // 2), 2)
    fake = np.repeat(RANDOM.random(N // 2) < 0.5, 2)
    secret = np.repeat(RANDOM.random(N // 2), 2)
    folds = group_folds(fake, groups)
    assert (folds[::2] == folds[1::2]).all()
    score = probe_shortcut(secret[:, None], fake, groups)
    assert score is not None
    assert score.auc == pytest.approx(0.5, abs=0.12)


def test_too_few_images_have_no_score_and_too_many_are_thinned_out() -> None:
    few = np.arange(N) < FEWEST - 1
    assert probe_shortcut(NOISE, few, GROUPS) is None
    many = np.arange(3 * MOST) < 2 * MOST
    rows = subsample(many, [f"{number:016x}" for number in range(len(many))])
    assert rows is not None
    assert (many[rows].sum(), (~many[rows]).sum()) == (MOST, MOST)


def test_the_order_of_the_rows_changes_nothing() -> None:
    order = RANDOM.permutation(N)
    facts = np.column_stack([NOISE, FAKE + RANDOM.normal(size=N)])
    straight, shuffled = probe_shortcut(facts, FAKE, GROUPS), probe_shortcut(facts[order], FAKE[order], GROUPS[order])
    assert straight is not None
    assert shuffled is not None
    assert shuffled.auc == pytest.approx(straight.auc, abs=1e-9)
