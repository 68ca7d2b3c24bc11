"""The named pairs of params.yaml's evaluate.pairs: some sources of real faces against some of fakes.

A name is a held-out source, `lfw`, or the test part of a training source, `ffhq/test`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fakeface.config.params import Pair
from fakeface.constants import FAKE, HELDOUT, REAL
from fakeface.system.errors import UserError

TEST = "test"
ALL_HELDOUT = "all held out"


def name_faces(set_name: str, sources: npt.NDArray[np.str_]) -> npt.NDArray[np.str_]:
    """The names (N,) by which pairs call the rows of the held-out set, or of a stage's test part."""
    return sources.copy() if set_name == HELDOUT else np.char.add(sources, f"/{TEST}")


def select_pair_rows(
    names: npt.NDArray[np.str_], labels: npt.NDArray[np.uint8], pairs: Mapping[str, Pair]
) -> dict[str, npt.NDArray[np.bool_]]:
    """For each pair, which of the rows with these `name_faces` (N,) and labels (N,) are its own, (N,) bool.

    A pair is left out when one of its names has no row.

    Raises:
        UserError: a name has another form.
    """
    rows = {}
    for pair_name, pair in pairs.items():
        wanted = [(name, label) for label, of_label in ((REAL, pair.real), (FAKE, pair.fake)) for name in of_label]
        masks = [(names == _check_name(name)) & (labels == label) for name, label in wanted]
        if all(mask.any() for mask in masks):
            rows[pair_name] = np.logical_or.reduce(masks)
    return rows


def pairs_or_all(
    names: npt.NDArray[np.str_], labels: npt.NDArray[np.uint8], pairs: Mapping[str, Pair]
) -> dict[str, npt.NDArray[np.bool_]]:
    """`select_pair_rows`, or where this data has no pair, the one set of all held-out rows."""
    rows = select_pair_rows(names, labels, pairs)
    return rows or {ALL_HELDOUT: ~np.char.endswith(names, f"/{TEST}")}


def _check_name(name: str) -> str:
    source, slash, part = name.partition("/")
    if slash and part != TEST:
        raise UserError(
            f"params.yaml: evaluate.pairs names '{name}'; write a held-out source, or {source}/{TEST} for a test part."
        )
    return name
