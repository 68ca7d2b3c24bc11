"""The calibration and abstention band of a model, fitted on validation rows alone; a face is fake from even odds on.

`fit_calibration` is the only door: it wants to know the part of every row and refuses any but "valid", so that no
held-out or test label can move what a later user relies on. The result travels inside the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fakeface.metrics.classification import (
    PROBABILITY_CLIP,
    Floats,
    is_abstained,
    source_balanced_weights,
    validate_labels_and_scores,
)
from fakeface.system.errors import UserError

SLOPE_BOUNDS = (0.05, 20.0)  # temperature 20 to 0.05; never negative, so the order of the scores stays the model's
BIAS_BOUNDS = (-20.0, 20.0)  # a logit of 16 is as far as a clipped score reaches
TARGET_ACCURACY = 0.95
# The calibrated score from which on a face is fake. All validation rows have a say in where that lies; the score of the
# highest balanced accuracy on them hangs on a few and moves twice as far (docs/generalization.md).
DEFAULT_THRESHOLD = 0.5
ROUNDING = 1e-9


@dataclass(frozen=True)
class Calibration:
    """calibrated score = sigmoid(slope · logit(score) + bias); threshold and abstention band are on that scale, [0, 1].

    Fitted on n_real + n_fake validation rows of `sources`, and not at all (slope 1, bias 0) where one count is 0.
    """

    slope: float = 1.0
    bias: float = 0.0
    threshold: float = DEFAULT_THRESHOLD
    abstention_low: float = DEFAULT_THRESHOLD
    abstention_high: float = DEFAULT_THRESHOLD
    target_accuracy: float = TARGET_ACCURACY
    n_real: int = 0
    n_fake: int = 0
    sources: tuple[str, ...] = ()

    @property
    def temperature(self) -> float:
        """What the logits are divided by (Guo et al. 2017): 1 / slope."""
        return 1 / self.slope

    def apply(self, scores: npt.ArrayLike) -> Floats:
        """Calibrated scores of a model's own scores, any shape, in [0, 1]; their order stays."""
        return sigmoid(self.slope * logit(scores) + self.bias)

    def is_abstained(self, calibrated: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """True where a calibrated score (N,) lies in the abstention band."""
        return is_abstained(calibrated, self.abstention_low, self.abstention_high)

    def to_json(self) -> dict[str, Any]:
        """A mapping that `json.dumps` takes and `from_json` turns back into an equal object."""
        return asdict(self) | {"sources": list(self.sources)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Calibration:
        """The object that `to_json` described; keys of other owners in the same mapping are ignored.

        Raises:
            UserError: a key is missing, or a value has the wrong type or is out of range.
        """
        try:
            names, counts = set(asdict(cls())) - {"sources"}, {"n_real", "n_fake"}
            values = {name: int(stored[name]) if name in counts else float(stored[name]) for name in names}
            calibration = cls(**values, sources=tuple(str(name) for name in stored["sources"]))  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"The stored calibration cannot be read ({error!r}); train the stage again.") from error
        calibration._check()
        return calibration

    def _check(self) -> None:
        within = 0 <= self.abstention_low <= self.threshold <= self.abstention_high <= 1
        if not within or not self.slope > 0 or not np.isfinite([self.slope, self.bias]).all():
            raise UserError(f"The stored calibration is out of range ({self}); train the stage again.")


def logit(scores: npt.ArrayLike) -> Floats:
    """Logarithm of the odds of scores in [0, 1], clipped to ±16.1."""
    clipped = np.clip(np.asarray(scores, np.float64), PROBABILITY_CLIP, 1 - PROBABILITY_CLIP)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), np.float64)


def sigmoid(logits: npt.ArrayLike) -> Floats:
    """Inverse of `logit`; 0 below -700, where an exponential is no number any more."""
    return np.asarray(1 / (1 + np.exp(-np.maximum(np.asarray(logits, np.float64), -700))), np.float64)


def fit_calibration(
    parts: Sequence[str],
    sources: Sequence[str],
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    target_accuracy: float = TARGET_ACCURACY,
) -> Calibration:
    """Fit slope and bias, then the abstention band, to a model's own scores (N,) of validation rows.

    `parts` (N,) must all be "valid"; raises ValueError otherwise. Both classes weigh the same whatever their counts, so
    a calibrated score is the probability of fake among as many real as fake faces; the threshold is DEFAULT_THRESHOLD.
    With one class only nothing can be fitted: the scores stay as they are and no score is unsure.
    """
    labels, scores = validate_labels_and_scores(labels, scores)
    _check_parts(parts, labels.size)
    n_real, n_fake = (int((labels == label).sum()) for label in (0, 1))
    fitted_on = {"n_real": n_real, "n_fake": n_fake, "sources": tuple(sorted(set(map(str, sources))))}
    if not n_real or not n_fake:
        return Calibration(target_accuracy=target_accuracy, **fitted_on)  # type: ignore[arg-type]
    slope, bias = fit_slope_and_bias(labels, scores)
    calibrated = Calibration(slope, bias).apply(scores)
    low, high = fit_abstention_band(labels, calibrated, DEFAULT_THRESHOLD, target_accuracy)
    return Calibration(slope, bias, DEFAULT_THRESHOLD, low, high, target_accuracy, **fitted_on)  # type: ignore[arg-type]


def _check_parts(parts: Sequence[str], count: int) -> None:
    others = sorted(set(map(str, parts)) - {"valid"})
    if others or len(parts) != count:
        raise ValueError(f"a calibration is fitted on one 'valid' part a row, not on {len(parts)} rows with {others}")


def fit_slope_and_bias(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[float, float]:
    """Platt scaling of the logits: the slope and bias of least log loss, both classes weighing the same.

    Targets are Platt's (1999), (n₁+1)/(n₁+2) for fake and 1/(n₀+2) for real, which keep the slope finite where the
    classes are perfectly apart; SLOPE_BOUNDS and BIAS_BOUNDS hold it where scores are worse than chance or all alike.
    """
    labels, scores = validate_labels_and_scores(labels, scores)
    from scipy.optimize import minimize

    logits = logit(scores)
    n_real, n_fake = np.bincount(labels, minlength=2)
    targets = np.where(labels == 1, (n_fake + 1) / (n_fake + 2), 1 / (n_real + 2))
    weights = source_balanced_weights(labels)

    def loss_and_gradient(parameters: Floats) -> tuple[float, Floats]:
        slope, bias = parameters
        outputs = slope * logits + bias
        losses = np.logaddexp(0, outputs) - targets * outputs
        residuals = weights * (sigmoid(outputs) - targets)
        return float(weights @ losses), np.array([residuals @ logits, residuals.sum()])

    best = minimize(
        loss_and_gradient,
        x0=np.array([1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[SLOPE_BOUNDS, BIAS_BOUNDS],
        options={"ftol": 1e-14, "gtol": 1e-9, "maxiter": 500},
    )
    return float(best.x[0]), float(best.x[1])


def fit_abstention_band(
    labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float, target_accuracy: float = TARGET_ACCURACY
) -> tuple[float, float]:
    """The narrowest band (low, high) around the threshold outside which the answers are right at the target's rate.

    The band reaches equally far on both sides in logits, so that one number is fitted, not two. Both classes weigh the
    same. (threshold, threshold) where no band is needed; (0, 1), all unsure, where no band is wide enough.
    """
    labels, scores = validate_labels_and_scores(labels, scores)
    centre = float(logit(threshold))
    distances, group = np.unique(np.round(np.abs(logit(scores) - centre), 12), return_inverse=True)
    weights = source_balanced_weights(labels)
    correct = weights * ((scores >= threshold) == labels)
    # From the farthest inwards: the accuracy of all rows at least this far from the threshold.
    answered = np.cumsum(np.bincount(group, weights=weights)[::-1])
    accuracy = (np.cumsum(np.bincount(group, weights=correct)[::-1]) / answered)[::-1]
    enough = np.flatnonzero(accuracy >= target_accuracy - ROUNDING)
    if enough.size == 0:
        return 0.0, 1.0
    if enough[0] == 0:
        return float(threshold), float(threshold)
    reach = (distances[enough[0] - 1] + distances[enough[0]]) / 2
    low, high = float(sigmoid(centre - reach)), float(sigmoid(centre + reach))
    return min(low, float(threshold)), max(high, float(threshold))
