"""Colours and style that all pictures share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Okabe and Ito's palette, which colour-blind readers can tell apart.
REAL_COLOUR, FAKE_COLOUR, INK, FAINT = "#0072B2", "#D55E00", "#222222", "#8A8A8A"
SERIES = ("#56B4E9", "#009E73", "#CC79A7", "#E69F00", "#0072B2", "#D55E00", "#000000")
STYLE: Mapping[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same letters
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 2,
}
