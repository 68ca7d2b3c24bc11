"""matplotlib's drawings as SVG files and as elements of a page: one style, the same text for the same numbers."""

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

NARROW = 4.4  # inches; letters stay readable on a telephone


class Drawing:
    """Where a drawing's SVG file is found at its end."""

    svg = ""


@contextmanager
def draw_svg(height: float, title: str, note: str = "", width: float = NARROW) -> Iterator[tuple[Figure, Drawing]]:
    """A figure of `width` × `height` inches, and what its SVG file is found in at the end.

    Args:
        height: inches.
        title: stands above; titles differ on a page.
        note: stands visibly below it ("synthetic sample"), so that a figure taken out of its report says what it shows.
        width: inches.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    drawing = Drawing()
    with mpl.rc_context():
        mpl.rcdefaults()  # a matplotlibrc of the user's must not change the figure
        mpl.rcParams.update(STYLE)
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 10})
        figure = Figure(figsize=(width, height + (0.2 if note else 0)), layout="constrained")
        text = f"{title}\n" if note else title
        figure.suptitle(text, x=0.012, ha="left", fontsize=11.5, fontweight="bold", color=INK)
        if note:
            figure.text(0.014, 1 - 0.27 / figure.get_figheight(), note, ha="left", va="top", fontsize=9, color=FAINT)
        yield figure, drawing
        for axes in figure.axes:
            axes.tick_params(colors=INK, labelsize=9.5)
            axes.xaxis.label.set(fontsize=9.5, color=FAINT)
            axes.yaxis.label.set(fontsize=9.5, color=FAINT)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = file.getvalue()
    drawing.svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


def inline_svg(svg: str) -> str:
    """Turn an SVG file of `draw_svg` into an element of a page: without prolog and name spaces, which HTML knows."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Several figures share one page, and their clip paths and markers one space of names.
    title = re.search(r'aria-label="([^"]*)"', svg)
    mark = re.sub(r"\W+", "_", title[1] if title else "")
    svg = re.sub(r'\bid="', f'id="{mark}_', svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{mark}_", svg)
