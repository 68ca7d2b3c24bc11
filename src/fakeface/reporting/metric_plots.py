"""Metrics, scores and histories onto matplotlib's axes and figures; `figures` makes SVG files of them.

matplotlib is loaded at the first drawing, without pyplot and its global state.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fakeface.constants import FAKE, LABELS, REAL
from fakeface.metrics.classification import (
    CALIBRATION_BINS,
    compute_binary_metrics,
    list_reliability_bins,
    list_roc_points,
    validate_labels_and_scores,
)
from fakeface.visualization.style import FAINT, FAKE_COLOUR, INK, REAL_COLOUR, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ScoredSet: TypeAlias = tuple[npt.ArrayLike, npt.ArrayLike]  # labels (N,), scores (N,)

SEED_ACCURACY = 0.877  # the seed notebook's, on a test set where always "fake" gets about 0.72
HUMAN_ACCURACY = 0.60  # the notebook's survey: about a hundred people, 15 faces each
_COLUMNS = 8  # of a heat map, wide enough for "REAL vs FAKE"


def plot_history(axes: Axes, rows: Sequence[Mapping[str, Any]], metric: str) -> None:
    """Draw one stage's `loss` or `accuracy` by epoch, of training and validation.

    `rows` have epoch, loss, accuracy, val_loss and val_accuracy, numbers or their text as in a CSV.
    """
    from matplotlib.ticker import MaxNLocator

    epochs = [int(float(row["epoch"])) for row in rows]
    for key, label, colour, line in (
        (metric, "training", INK, "--"),
        (f"val_{metric}", "validation", REAL_COLOUR, "-"),
    ):
        values = [float(row[key]) for row in rows]
        axes.plot(epochs, values, line, color=colour, marker="o", markersize=4, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if epochs:
        axes.set_xlim(min(epochs) - 0.4, max(epochs) + 0.4)


def plot_confusion(figure: Figure, labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float) -> None:
    """Draw the confusion matrix of scores (N,) at the threshold: counts, and shares of each actual class."""
    labels, scores = validate_labels_and_scores(labels, scores)
    counts = np.zeros((2, 2), int)
    np.add.at(counts, (labels, (scores >= threshold).astype(int)), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes = figure.subplots()
    _draw_cells(figure, axes, shares, "share of the actual class")
    for (actual, answer), count in np.ndenumerate(counts):
        text = f"{count:,}\n{shares[actual, answer]:.1%}"
        axes.text(answer, actual, text, ha="center", va="center", fontsize=13, color=_ink_on(shares[actual, answer]))
    totals = counts.sum(axis=1)
    axes.set_xticks([REAL, FAKE], [f"called {name}" for name in LABELS])
    axes.set_yticks([REAL, FAKE], [f"{name}\n(n = {totals[label]:,})" for name, label in LABELS.items()])


def _draw_cells(figure: Figure, axes: Axes, values: npt.NDArray[np.float64], label: str, low: float = 0.0) -> None:
    picture = axes.imshow(values, cmap="cividis", vmin=low, vmax=1, aspect="auto")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = figure.colorbar(picture, ax=axes, label=label, fraction=0.05, pad=0.02)
    bar.outline.set_visible(False)


def _ink_on(value: float, low: float = 0.0) -> str:
    """Dark letters on cividis' yellow end, light ones on its blue end."""
    return INK if (value - low) / (1 - low) > 0.55 else "white"


def plot_roc(axes: Axes, curves: Mapping[str, ScoredSet]) -> None:
    """Draw ROC curves {name: (labels, scores)} with AUC, over the chance line; a set of one class has none."""
    for (name, (labels, scores)), colour in zip(curves.items(), _colours(len(curves)), strict=True):
        points = list_roc_points(labels, scores)
        area = f"AUC {compute_binary_metrics(labels, scores, 0.5)['roc_auc']:.3f}" if points else "one class, no curve"
        x, y = ([point[key] for point in points] for key in ("fpr", "tpr"))
        axes.plot(x, y, color=colour, label=f"{name}: {area}")
    axes.plot([0, 1], [0, 1], "--", color=FAINT, linewidth=1.5, label="chance: AUC 0.500")
    axes.set(xlim=(-0.005, 1), ylim=(0, 1.01), xlabel="false positive rate (reals called fake)")
    axes.set_ylabel("true positive rate (fakes called fake)")
    axes.legend(loc="lower right")


def plot_generalization(figure: Figure, reports: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw accuracy and balanced accuracy, pooled, and each source's accuracy as bars, one colour a stage.

    `reports`: {stage: `report_evaluation`}. The seed notebook's 0.877 and the human survey's 0.60 are reference lines,
    and a tick shows what a constant answer would get. Whiskers: 95 % intervals.
    """
    groups = _bar_groups(reports)
    axes = figure.subplots()
    width = 0.82 / max(1, len(reports))
    for index, (stage, colour) in enumerate(zip(reports, _colours(len(reports)), strict=True)):
        centres = np.arange(len(groups)) + (index - (len(reports) - 1) / 2) * width
        bars = [group.get(stage) for group in groups.values()]
        _draw_bars(axes, list(centres), bars, width, color=colour, label=stage)
    _draw_reference_lines(axes, reports)
    if len(groups) <= 8:
        axes.set_xticks(range(len(groups)), [textwrap.fill(name, 14) for name in groups])
    else:
        axes.set_xticks(range(len(groups)), list(groups), rotation=35, ha="right", rotation_mode="anchor")
    axes.set(xlim=(-0.6, len(groups) - 0.4), ylim=(0, 1.04))
    axes.grid(visible=False, axis="x")
    axes.axvline(1.5, color=FAINT, linewidth=1)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(reports) + 1)


_Bar: TypeAlias = tuple[float, Mapping[str, float]]


def _bar_groups(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, _Bar]]:
    """{name of the group: {stage: (value, interval)}}, pooled figures first, then the sources by class and name."""
    groups: dict[str, dict[str, _Bar]] = {"all: accuracy": {}, "all: balanced accuracy": {}}
    sources = {name: row["label"] for report in reports.values() for name, row in report["sources"].items()}
    ordered = sorted(sources, key=lambda name: (sources[name] != "real", sources[name], name))
    groups |= {f"{name} ({sources[name]})": {} for name in ordered}
    for stage, report in reports.items():
        pooled = report["generalization"]
        for metric in ("accuracy", "balanced_accuracy"):
            if metric in pooled:
                group = groups[f"all: {metric.replace('_', ' ')}"]
                group[stage] = (pooled[metric], pooled.get("interval", {}).get(metric, {}))
        for name, row in report["sources"].items():
            groups[f"{name} ({sources[name]})"][stage] = (row["accuracy"], row.get("interval", {}))
    return groups


def _draw_bars(axes: Axes, centres: Sequence[float], bars: Sequence[_Bar | None], width: float, **style: str) -> None:
    """One stage's bars; each says its value without the leading zero, upright where the bar is wide enough."""
    drawn = [(centre, *bar) for centre, bar in zip(centres, bars, strict=True) if bar is not None]
    axes.bar([bar[0] for bar in drawn], [bar[1] for bar in drawn], width * 0.92, **style)  # type: ignore[arg-type]
    text = {
        "ha": "center",
        "va": "bottom",
        "fontsize": 10,
        "color": INK,
        "rotation": 90 if len(bars) > 27 * width else 0,
    }
    for centre, value, interval in drawn:
        if interval:
            axes.plot([centre, centre], [interval["low"], interval["high"]], color=INK, linewidth=1.2)
        axes.text(centre, 0.015, f"{value:.2f}".removeprefix("0"), **text)  # type: ignore[arg-type]


def _draw_reference_lines(axes: Axes, reports: Mapping[str, Mapping[str, Any]]) -> None:
    for value, name in ((SEED_ACCURACY, "seed notebook\n0.877"), (HUMAN_ACCURACY, "human survey\n0.60")):
        axes.axhline(value, color=INK, linestyle="--", linewidth=1.3)
        axes.text(1.008, value, name, transform=axes.get_yaxis_transform(), va="center", fontsize=10, color=INK)
    constants = [report["generalization"].get("majority_class_accuracy") for report in reports.values()]
    if constants and constants[0] is not None:
        label = "what one constant answer gets"
        axes.plot([-0.48, 0.48], [constants[0]] * 2, color=FAKE_COLOUR, linewidth=2.5, label=label)
        axes.plot([0.52, 1.48], [0.5] * 2, color=FAKE_COLOUR, linewidth=2.5)


def plot_reliability(figure: Figure, sets: Mapping[str, ScoredSet]) -> None:
    """Draw the share of fakes by score in 15 bins, of {name: (labels, scores)}, over the counts of scores."""
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], "--", color=FAINT, linewidth=1.5, label="perfect")
    for (name, (labels, scores)), colour in zip(sets.items(), _colours(len(sets)), strict=True):
        rows, error = list_reliability_bins(labels, scores), compute_binary_metrics(labels, scores, 0.5)["ece"]
        x, y = ([row[key] for row in rows] for key in ("mean_score", "fake_share"))
        upper.plot(x, y, marker="o", color=colour, label=f"{name}: calibration error {error:.3f}")
        edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
        share = np.histogram(scores, edges)[0] / np.size(scores)
        lower.stairs(share, edges, color=colour, linewidth=2)
    upper.set(ylabel="share that is fake", ylim=(-0.02, 1.02))
    lower.set(ylabel="share of scores", xlabel="score (probability of fake)", xlim=(-0.01, 1.01))
    upper.legend(loc="upper left")


def plot_score_distributions(
    figure: Figure,
    sources: Sequence[str],
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    threshold: float,
    abstention_band: tuple[float, float] | None = None,
) -> None:
    """Draw a histogram of the scores (N,) of each source, over the threshold and the abstention band (low, high)."""
    labels, scores = validate_labels_and_scores(labels, scores)
    names = np.asarray(sources, dtype=str)
    cells = [
        (f"{source}\n({kind}, n = {int(rows.sum()):,})", scores[rows], REAL_COLOUR if label == REAL else FAKE_COLOUR)
        for kind, label in LABELS.items()
        for source in np.unique(names[labels == label])
        for rows in [(names == source) & (labels == label)]
    ]
    axes = figure.subplots()
    for row, (_, values, colour) in enumerate(cells):
        share = np.histogram(values, np.linspace(0, 1, 41))[0] / values.size
        heights = np.sqrt(share / share.max()) * 0.85  # by the root, so that the rare wrong scores can be seen
        axes.bar(np.arange(0.0125, 1, 0.025), -heights, 0.024, bottom=row, color=colour)
    if abstention_band is not None and abstention_band[0] < abstention_band[1]:
        axes.axvspan(*abstention_band, color=FAINT, alpha=0.22, linewidth=0, label="unsure")
    axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.5, label=f"threshold {threshold:.3g}")
    axes.set_yticks([row - 0.35 for row in range(len(cells))], [cell[0] for cell in cells])
    axes.set(xlim=(0, 1), ylim=(len(cells) - 0.9, -1.0), xlabel="score (probability of fake); heights by square root")
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)


def plot_robustness(figure: Figure, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw a heat map: a line a perturbation, a column a set; in each cell balanced accuracy, and AUC below.

    `rows` of `list_robustness_cells`: perturbation, set, balanced_accuracy, roc_auc; an empty cell is undefined. Of
    more than 8 sets the first and the 7 weakest are drawn, and the title says so.
    """
    lines = list(dict.fromkeys(str(row["perturbation"]) for row in rows))
    columns, note = _weakest_sets(rows)
    values = np.full((len(lines), len(columns)), np.nan)
    axes = figure.subplots()
    for row in rows:
        if row["set"] in columns and row.get("balanced_accuracy") is not None:
            line, column = lines.index(str(row["perturbation"])), columns.index(str(row["set"]))
            values[line, column] = value = float(row["balanced_accuracy"])
            text = f"{value:.3f}\n{float(row['roc_auc']):.3f}"
            axes.text(column, line, text, ha="center", va="center", fontsize=9, color=_ink_on(max(value, 0.5), 0.5))
    _draw_cells(figure, axes, values, "balanced accuracy; AUC below" + note, low=0.5)
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(columns)), [_wrapped(name, 80 // max(5, len(columns))) for name in columns])
    axes.set_yticks(range(len(lines)), lines)


def _wrapped(name: str, width: int) -> str:
    return textwrap.fill(name.replace("_", " "), width)


def _weakest_sets(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], str]:
    """The sets that fit in the width, the first (macro) and the weakest, and a note that says so."""
    sets = list(dict.fromkeys(str(row["set"]) for row in rows))
    if len(sets) <= _COLUMNS:
        return sets, ""
    values = {name: [row["balanced_accuracy"] or 0.0 for row in rows if row["set"] == name] for name in sets}
    weakest = sorted(sets[1:], key=lambda name: float(np.mean(values[name])))[: _COLUMNS - 1]
    kept = [name for name in sets if name in weakest or name == sets[0]]
    return kept, f" (weakest {_COLUMNS - 1} of {len(sets) - 1} pairs)"


def _colours(count: int) -> list[str]:
    return [SERIES[index % len(SERIES)] for index in range(count)]
