"""The shortcut score: how well a plain classifier tells real from fake by side facts alone, without any face.

0.5 is a coin's, 1 a perfect answer. Where it is high, a network can reach a high score without learning what a
generated face is, and nobody can see the difference in its accuracy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fakeface.data.audit.image_properties import FileProperties, PixelProperties

FOLDS = 3
MOST = 2_500  # images of a class that are looked at; the standard error of the score is then below 0.01
FEWEST = 12  # images of a class below which no score is given
_BINS = 16  # of a single fact
_UNKNOWN = -100.0  # no fact reaches it


class PropertyGroup(NamedTuple):
    """Facts that belong together; `of_picture` tells PictureFacts from FileFacts."""

    title: str
    facts: tuple[str, ...]
    of_picture: bool


_SPECTRUM = ("blockiness", "slope", *(name for name in PixelProperties._fields if name.startswith("band_")))
_FULL_SIZE = tuple(name for name in FileProperties._fields if name.startswith("full_"))
_FILE = FileProperties._fields[: FileProperties._fields.index("file_grey")]
_LOOK = tuple(name for name in PixelProperties._fields if name not in _SPECTRUM)
KINDS = {
    "file": PropertyGroup("the file", _FILE, of_picture=False),
    "full_size": PropertyGroup("sharpness in full size", _FULL_SIZE, of_picture=False),
    "look": PropertyGroup("colour, border, grey", _LOOK, of_picture=True),
    "seen": PropertyGroup("all side facts that the network sees", PixelProperties._fields, of_picture=True),
}


class Score(NamedTuple):
    """ROC AUC of held-out images, its standard error, and how many images of each class were looked at."""

    auc: float
    error: float
    real: int
    fake: int


def probe_shortcut(facts: NDArray[np.float64], fake: ArrayLike, groups: ArrayLike) -> Score | None:
    """Cross-validate gradient-boosted trees that tell real from fake by these facts.

    The score is the mean ROC AUC of three folds; images of one group lie in one fold. Of more than 2,500 images of a
    class, those with the smallest group names are taken. The same rows give the same score on any number of cores.

    Args:
        facts: (N, number of facts); NaN where a file does not have one.
        fake: (N,) true or false.
        groups: (N,) names of any kind.

    Returns:
        None where a class has fewer than 12 images.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from threadpoolctl import threadpool_limits

    rows = subsample(fake, groups)
    if rows is None:
        return None
    # A value below all others: scikit-learn's trees take NaN, but not a fact that no image of a fold has.
    facts, labels = np.nan_to_num(facts[rows], nan=_UNKNOWN), np.asarray(fake, bool)[rows]
    folds = group_folds(labels, np.asarray(groups)[rows])
    aucs = []
    for fold in range(FOLDS):
        train, test = folds != fold, folds == fold
        model = HistGradientBoostingClassifier(
            max_iter=25, learning_rate=0.3, max_leaf_nodes=6, min_samples_leaf=10, early_stopping=False, random_state=0
        )
        with threadpool_limits(1):  # sums that several threads share come out in another order
            model.fit(facts[train], labels[train])
            aucs.append(roc_auc_score(labels[test], model.predict_proba(facts[test])[:, 1]))
    return _score(float(np.mean(aucs)), labels)


def probe_single_property(fact: NDArray[np.float64], fake: ArrayLike, groups: ArrayLike) -> Score | None:
    """Cross-validate one fact (N,) alone: 16 bins of equally many images, each scored by its share of fakes.

    Rows, folds and result are those of `probe_shortcut`.
    """
    rows = subsample(fake, groups)
    if rows is None:
        return None
    labels = np.asarray(fake, bool)[rows]
    folds = group_folds(labels, np.asarray(groups)[rows])
    aucs = [_compute_binned_auc(fact[rows], labels, folds == fold) for fold in range(FOLDS)]
    return _score(float(np.mean(aucs)), labels)


def _compute_binned_auc(fact: NDArray[np.float64], fake: NDArray[np.bool_], test: NDArray[np.bool_]) -> float:
    known = fact[~test & ~np.isnan(fact)]
    # Edges between values that occur, so that a few sizes or qualities keep a bin each.
    edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1], method="lower")) if known.size else []
    bins = np.where(np.isnan(fact), len(edges) + 1, np.searchsorted(edges, fact, side="left"))

    def counts(rows: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(bins[rows], minlength=len(edges) + 2)

    train_fake, train_real = counts(~test & fake), counts(~test & ~fake)
    order = np.argsort((train_fake + 1) / (train_fake + train_real + 2), kind="stable")
    test_fake, test_real = counts(test & fake)[order], counts(test & ~fake)[order]
    below = np.cumsum(test_real) - test_real
    return float((test_fake * (below + test_real / 2)).sum() / (test_fake.sum() * test_real.sum()))


def subsample(fake: ArrayLike, groups: ArrayLike) -> NDArray[np.int64] | None:
    """Return the numbers of at most MOST images of each class, ascending, by group name; None for fewer than FEWEST."""
    labels, names = np.asarray(fake, bool), np.asarray(groups)
    order = np.argsort(names, kind="stable")
    chosen = [order[labels[order] == label][:MOST] for label in (False, True)]
    return None if min(map(len, chosen)) < FEWEST else np.sort(np.concatenate(chosen))


def group_folds(fake: NDArray[np.bool_], groups: NDArray[np.generic]) -> NDArray[np.int64]:
    """Deal the groups of each class out to the folds by name; (N,) 0 to FOLDS - 1."""
    names, first, number = np.unique(groups, return_index=True, return_inverse=True)
    fold_of_group = np.empty(len(names), np.int64)
    fold_of_group[np.argsort(fake[first], kind="stable")] = np.arange(len(names)) % FOLDS
    folds: NDArray[np.int64] = fold_of_group[number]
    return folds


def _score(auc: float, fake: NDArray[np.bool_]) -> Score:
    """Standard error by Hanley and McNeil, Radiology 143 (1982), 29-36."""
    positive, negative = int(fake.sum()), int((~fake).sum())
    area = max(auc, 1 - auc)
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positive - 1) * (first - area**2) + (negative - 1) * (second - area**2)
    return Score(auc, float(np.sqrt(max(variance, 0) / (positive * negative))), negative, positive)
