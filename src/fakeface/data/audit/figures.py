"""Distributions of side facts by source, as SVG for the audit's page. No picture shows a pixel of any image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fakeface.data.audit.image_properties import FULL_SIZE_BANDS, PICTURE_BANDS
from fakeface.data.audit.image_table import ImageTable
from fakeface.visualization.style import FAKE_COLOUR, REAL_COLOUR
from fakeface.visualization.svg import draw_svg, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINES = ("-", "--", ":", "-.")
_MARKS = "osD^v<>PX*"
_COLOURS = {False: REAL_COLOUR, True: FAKE_COLOUR}

# fact: (title, axis, whether the axis is logarithmic)
STRIPS = {
    "width": ("Width", "pixels", True),
    "height": ("Height", "pixels", True),
    "bytes": ("File size", "bytes", True),
    "bytes_per_pixel": ("Bytes per pixel", "bytes", True),
    "jpeg_quality": ("JPEG quality", "1 to 100", False),
    "file_black_border": ("Black in the border", "share of the border's pixels", False),
    "brightness": ("Brightness", "mean of red, green and blue, 0 to 255", False),
    "blockiness": ("JPEG blocks in the reduced picture", "steps at block edges over steps elsewhere", False),
}


def draw_strips(images: ImageTable, sources: Sequence[str]) -> dict[str, str]:
    """Return an SVG for each of STRIPS: a line a source with median, middle half and middle 90 %."""
    return {name: _draw_strip(_values(images, name), images, sources, *words) for name, words in STRIPS.items()}


def _values(images: ImageTable, name: str) -> NDArray[np.float64]:
    return images.facts(("red", "green", "blue")).mean(axis=1) if name == "brightness" else images.fact(name)


def _draw_strip(
    values: NDArray[np.float64], images: ImageTable, sources: Sequence[str], title: str, axis: str, log: bool
) -> str:
    with draw_svg(0.95 + 0.27 * len(sources), title) as (figure, drawing):
        axes = figure.subplots()
        for row, source in enumerate(sources):
            chosen = images.sources == source
            known = values[chosen & ~np.isnan(values)]
            if known.size:
                low, left, middle, right, high = np.percentile(known, (5, 25, 50, 75, 95))
                colour = _COLOURS[bool(images.fake[chosen][0])]
                axes.plot([low, high], [row, row], color=colour, linewidth=1.4, solid_capstyle="butt")
                axes.plot([left, right], [row, row], color=colour, linewidth=7, alpha=0.45, solid_capstyle="butt")
                axes.plot([middle], [row], "o", color=colour, markersize=5)
        axes.set_yticks(range(len(sources)), sources)
        axes.set(ylim=(len(sources) - 0.5, -0.5), xlabel=axis)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        if log:
            _set_log(axes)
    return inline_svg(drawing.svg)


def _set_log(axes: Axes) -> None:
    """Give a wide range of values a logarithmic axis, with plain numbers in either case."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    low, high = axes.dataLim.intervalx
    if high < 4 * low:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    else:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def draw_spectra(images: ImageTable, sources: Sequence[str]) -> dict[str, str]:
    """Return an SVG of the median power spectrum by source, of the reduced and of the full-size picture."""
    bands = {"reduced": ("band", PICTURE_BANDS), "full_size": ("full_band", FULL_SIZE_BANDS)}
    titles = {
        "reduced": f"Spectrum of the {images.size}-pixel picture",
        "full_size": "Spectrum in full size",
    }
    return {
        name: _draw_spectrum(images, sources, titles[name], tuple(f"{prefix}_{n + 1}" for n in range(count)))
        for name, (prefix, count) in bands.items()
    }


def _draw_spectrum(images: ImageTable, sources: Sequence[str], title: str, bands: tuple[str, ...]) -> str:
    powers = images.facts(bands)
    frequencies = (np.arange(len(bands)) + 0.5) / (2 * len(bands))
    drawn = dict.fromkeys((False, True), 0)
    with draw_svg(3.6 + 0.13 * len(sources), title) as (figure, drawing):
        axes = figure.subplots()
        for source in sources:
            rows = images.sources == source
            fake = bool(images.fake[rows][0])
            line, mark = _LINES[drawn[fake] % len(_LINES)], _MARKS[drawn[fake] % len(_MARKS)]
            drawn[fake] += 1
            median = np.median(powers[rows], axis=0)
            style: Mapping[str, Any] = {"color": _COLOURS[fake], "linewidth": 1.5, "markersize": 4}
            axes.plot(frequencies, median, line, marker=mark, label=source, **style)
        axes.set(xlabel="cycles a pixel (0.5: the finest pattern)", ylabel="median log10 power")
        axes.set_xlim(0, 0.5)
        figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return inline_svg(drawing.svg)
