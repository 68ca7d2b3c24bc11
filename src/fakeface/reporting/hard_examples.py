"""The most confident wrong answers on a set of faces, and their pictures for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from fakeface.constants import FAKE, LABELS
from fakeface.data.image_store import Store
from fakeface.reporting.results_reader import SetScores
from fakeface.system.errors import UserError

_LARGEST = 160  # pixels a side: sharp enough on a page, and 12 of them far below its 3 MB
_QUALITY = 88
_NAMES = {label: name for name, label in LABELS.items()}


class Mistake(NamedTuple):
    """A wrong answer: `score` is the probability of fake that was given to a face of this label ("real", "fake")."""

    path: str
    source: str
    label: str
    answer: str
    score: float


def find_hardest_mistakes(faces: SetScores, stage: str, threshold: float, at_most: int) -> list[Mistake]:
    """Return wrong answers at the threshold, the most confident first, those of equal confidence by path.

    Confidence is the probability given to the wrong class: the score of a real face, 1 - score of a fake one.
    """
    scores = faces.scores[stage]
    answers = (scores >= threshold).astype(int)
    confidence = np.where(faces.labels == FAKE, 1 - scores, scores)
    wrong = np.flatnonzero(answers != faces.labels).tolist()
    order = sorted(wrong, key=lambda row: (-confidence[row], faces.paths[row]))
    return [
        Mistake(
            path=faces.paths[row],
            source=faces.sources[row],
            label=_NAMES[int(faces.labels[row])],
            answer=_NAMES[int(answers[row])],
            score=float(scores[row]),
        )
        for row in order[:at_most]
    ]


def draw_thumbnails(paths: Sequence[str], store: Store) -> list[str]:
    """Return a JPEG data URI for each path of a store, as the network sees the picture, at most 160 pixels a side.

    Raises:
        UserError: the store does not hold a path.
    """
    rows = {path: row for row, path in enumerate(store.paths.tolist())}
    for path in paths:
        if path not in rows:
            raise UserError(
                f"reports/scores.csv names '{path}', which the held-out images do not hold; run `dvc repro` again."
            )
    return [_encode_data_uri(store.images[rows[path]]) for path in paths]


def _encode_data_uri(pixels: npt.NDArray[np.uint8]) -> str:
    image = Image.fromarray(np.asarray(pixels))
    image.thumbnail((_LARGEST, _LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
