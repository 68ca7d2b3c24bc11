"""matplotlib's drawings as SVG elements of a page: narrow, in one style, the same text for the same numbers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING

from fakeface.visualization.style import FAINT, INK, STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 4.4  # inches; narrow, so that letters stay readable on a telephone


class Picture:
    """Where a drawing's SVG is found at its end."""

    text = ""


@contextmanager
def svg_drawing(height: float, title: str) -> Iterator[tuple[Figure, Picture]]:
    """A figure of `height` inches with a title, and what its SVG is found in at the end; titles differ on a page."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    picture = Picture()
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 10, "grid.color": "#E6E6E6"})
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        figure.suptitle(title, x=0.012, ha="left", fontsize=11.5, fontweight="bold", color=INK)
        yield figure, picture
        for axes in figure.axes:
            axes.tick_params(colors=INK, labelsize=9.5)
            axes.xaxis.label.set(fontsize=9.5, color=FAINT)
            axes.yaxis.label.set(fontsize=9.5, color=FAINT)
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    picture.text = _inline(file.getvalue(), title)


def _inline(svg: str, title: str) -> str:
    """Turn an SVG file into an element of a page: without prolog and name spaces, which HTML knows."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Several pictures share one page, and their clip paths and markers one space of names.
    mark = re.sub(r"\W+", "_", title)
    svg = re.sub(r'\bid="', f'id="{mark}_', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{mark}_", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
