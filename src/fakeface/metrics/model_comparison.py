"""Whether a model may take the champion's place: scores of both on held-out images in, a decision in words out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fakeface.metrics.bootstrap import compute_weighted_metrics
from fakeface.metrics.classification import Floats, compute_binary_metrics

CONFIDENCE = 0.95
_RESAMPLES = 2000
_CELLS_AT_ONCE = 4_000_000  # weights held in memory at a time


@dataclass(frozen=True)
class ModelScores:
    """A model and its calibrated scores on held-out images.

    `paths` and `sources` (N,) str, `labels` (N,) 0 or 1, `scores` (N,) in [0, 1]; `heldout` tells one set of images
    from another.
    """

    name: str
    heldout: str
    threshold: float
    paths: Sequence[str]
    sources: Sequence[str]
    labels: npt.NDArray[np.uint8]
    scores: Floats
    note: str | None = None  # to be shown with every result, such as "synthetic sample"


@dataclass(frozen=True)
class Decision:
    """Whether the candidate is promoted, and why, a sentence each."""

    promoted: bool
    sentences: tuple[str, ...]


def decide_promotion(
    candidate: ModelScores, champion: ModelScores | None, metric: str, at_least: float, *, other_data: bool = False
) -> Decision:
    """Promote a candidate that passes the absolute gate and is better than the champion by more than chance.

    `metric` is a name of `compute_binary_metrics`; more is better. `other_data` allows different images.
    """
    name, value = metric.replace("_", " "), _compute_metric(candidate, metric)
    images = f"{len(candidate.labels):,} held-out images" + (f" ({candidate.note})" if candidate.note else "")
    said = [f"The candidate, {candidate.name}, has a {name} of {value:.3f} on {images}."]
    must = f"It must reach {at_least:.3f} (promote.at_least in params.yaml)"
    if value < at_least:
        return Decision(False, (*said, f"{must}, and misses that by {at_least - value:.3f}."))
    said.append(f"{must}, and does.")
    if champion is None:
        return Decision(True, (*said, "There is no champion yet to be beaten."))
    same = candidate.heldout == champion.heldout
    where = "the same" if same else "other"
    said.append(f"The champion, {champion.name}, has {_compute_metric(champion, metric):.3f} on {where} images.")
    if not same and not other_data:
        said.append("Numbers on different held-out images do not compare; --other-data compares them all the same.")
        return Decision(False, tuple(said))
    low, high = bootstrap_difference(candidate, champion, metric)
    return Decision(low > 0, (*said, _describe_verdict(value - _compute_metric(champion, metric), low, high)))


def _describe_verdict(difference: float, low: float, high: float) -> str:
    drawn = f"drawing the images {_RESAMPLES:,} times anew puts it between {low:+.3f} and {high:+.3f} in 95 % of draws"
    end = "better by more than chance" if low > 0 else "which chance alone may give" if high >= 0 else "worse"
    return f"The difference is {difference:+.3f}; {drawn}: {end}."


def bootstrap_difference(
    candidate: ModelScores, champion: ModelScores, metric: str, resamples: int = _RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of candidate − champion, drawn within each source and class.

    On the same images both are judged by the same draws, which leaves out what is hard or easy for both.
    """
    one, other = _sort_by_path(candidate), _sort_by_path(champion)
    paired = one.heldout == other.heldout and list(one.paths) == list(other.paths)
    draws, own_draws = np.random.default_rng(seed), np.random.default_rng(seed if paired else seed + 1)
    step = max(1, _CELLS_AT_ONCE // max(len(one.labels), len(other.labels)))
    parts = []
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        parts.append(_resample_metric(one, metric, count, draws) - _resample_metric(other, metric, count, own_draws))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(parts), (tail, 1 - tail))
    return float(low), float(high)


def _compute_metric(contender: ModelScores, metric: str) -> float:
    return float(compute_binary_metrics(contender.labels, contender.scores, contender.threshold)[metric])


def _resample_metric(contender: ModelScores, metric: str, count: int, draws: np.random.Generator) -> Floats:
    """The metric (count,) of as many draws of the contender's images."""
    weights = np.zeros((count, len(contender.labels)))
    cells = np.char.add(np.asarray(contender.sources, str), np.asarray(contender.labels).astype(str))
    for cell in np.unique(cells):
        rows = np.flatnonzero(cells == cell)
        weights[:, rows] = draws.multinomial(rows.size, np.full(rows.size, 1 / rows.size), size=count)
    order = np.argsort(-contender.scores, kind="stable")
    labels = contender.labels[order].astype(np.int64)
    return compute_weighted_metrics(labels, contender.scores[order], contender.threshold, weights[:, order])[metric]


def _sort_by_path(contender: ModelScores) -> ModelScores:
    order = np.argsort(np.asarray(contender.paths, str), kind="stable")
    return ModelScores(
        contender.name,
        contender.heldout,
        contender.threshold,
        [contender.paths[row] for row in order],
        [contender.sources[row] for row in order],
        contender.labels[order],
        contender.scores[order],
    )
