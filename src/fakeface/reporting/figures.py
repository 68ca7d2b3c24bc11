"""The pictures of the result's page, as SVG: curves, ROC, calibration and scores."""

from __future__ import annotations

from collections.abc import Mapping

from fakeface.constants import HELDOUT, STAGES
from fakeface.reporting.metric_plots import (
    ScoredSet,
    plot_history,
    plot_reliability,
    plot_roc,
    plot_score_distributions,
)
from fakeface.reporting.results_reader import Results, SetScores
from fakeface.visualization.svg import svg_drawing

_FINAL = STAGES[-1]


def draw_histories(reported: Results) -> dict[str, str]:
    """Return an SVG of loss over accuracy by epoch for each stage, all to one scale."""
    histories = {stage: rows for stage, rows in reported.histories.items() if rows}
    losses = [float(row[key]) for rows in histories.values() for row in rows for key in ("loss", "val_loss")]
    accuracies = [
        float(row[key]) for rows in histories.values() for row in rows for key in ("accuracy", "val_accuracy")
    ]
    drawn = {}
    for stage, rows in histories.items():
        with svg_drawing(4.0, f"Training of {stage}") as (figure, picture):
            upper, lower = figure.subplots(2, 1, sharex=True)
            plot_history(upper, rows, "loss")
            plot_history(lower, rows, "accuracy")
            upper.set(ylabel="loss", ylim=(0, 1.05 * max(losses)))
            lower.set(ylabel="accuracy", xlabel="epoch", ylim=(min(0.45, *accuracies) - 0.03, 1.03))
            figure.legend(*upper.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
        drawn[stage] = picture.text
    return drawn


def draw_roc_curves(faces: SetScores) -> str:
    """Return an SVG of the held-out faces' ROC after each stage."""
    curves: Mapping[str, ScoredSet] = {f"after {stage}": (faces.labels, faces.scores[stage]) for stage in STAGES}
    with svg_drawing(4.3, "Fakes caught against real faces accused") as (figure, picture):
        axes = figure.subplots()
        plot_roc(axes, curves)
        axes.legend(loc="lower right", fontsize=9)
    return picture.text


def draw_calibration(reported: Results) -> str:
    """Return an SVG of the calibration on the held-out faces and on the last stage's own test images."""
    sets = {"held out": reported.sets[HELDOUT], f"{_FINAL} test": reported.sets[_FINAL]}
    whole = {name: (faces.labels, faces.scores[_FINAL]) for name, faces in sets.items() if faces.labels.size}
    with svg_drawing(5.2, "Does a score mean what it says?") as (figure, picture):
        plot_reliability(figure, whole)
        figure.axes[0].get_legend().remove()  # type: ignore[union-attr]
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower left", fontsize=9)
    return picture.text


def draw_scores(reported: Results, abstention_band: tuple[float, float] | None) -> str:
    """Return an SVG of the scores of each held-out source."""
    faces = reported.sets[HELDOUT]
    with svg_drawing(1.3 + 0.62 * len(set(faces.sources)), "Scores of each held-out source") as (figure, picture):
        plot_score_distributions(
            figure, faces.sources, faces.labels, faces.scores[_FINAL], reported.metrics["threshold"], abstention_band
        )
    return picture.text
