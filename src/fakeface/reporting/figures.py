"""The figures of a result as SVG files, which the page holds too."""

from __future__ import annotations

from collections.abc import Mapping

from fakeface.constants import FINAL_STAGE, HELDOUT, STAGES
from fakeface.reporting.metric_plots import (
    ScoredSet,
    plot_confusion,
    plot_generalization,
    plot_history,
    plot_reliability,
    plot_robustness,
    plot_roc,
    plot_score_distributions,
)
from fakeface.reporting.results_reader import Results
from fakeface.visualization.svg import draw_svg

_WIDE = 9.0  # inches; too wide for the page, which has the same numbers as tables


def draw_figures(results: Results) -> dict[str, str]:
    """Return name → SVG file: curves of each stage, roc, calibration, scores, generalization, confusion, robustness."""
    faces, note = results.sets[HELDOUT], str(results.metrics.get("note") or "")
    final, threshold = faces.scores[FINAL_STAGE], results.metrics["threshold"]
    figures = _draw_curves(results, note)
    curves: Mapping[str, ScoredSet] = {f"after {stage}": (faces.labels, faces.scores[stage]) for stage in STAGES}
    with draw_svg(4.3, "Fakes caught against real faces accused", note) as (figure, drawing):
        axes = figure.subplots()
        plot_roc(axes, curves)
        axes.legend(loc="lower right", fontsize=9)
    figures["roc"] = drawing.svg
    figures["calibration"] = _draw_calibration(results, note)
    with draw_svg(1.3 + 0.62 * len(set(faces.sources)), "Scores of each held-out source", note) as (figure, drawing):
        plot_score_distributions(figure, faces.sources, faces.labels, final, threshold, _find_band(results))
    figures["scores"] = drawing.svg
    by_stage = {stage: {**row, "generalization": row["heldout"]} for stage, row in results.metrics["stages"].items()}
    with draw_svg(5.0, "Held-out faces: accuracy after each stage", note, _WIDE) as (figure, drawing):
        plot_generalization(figure, by_stage)
    figures["generalization"] = drawing.svg
    with draw_svg(3.6, f"Confusion matrix at threshold {threshold:.3g}", note) as (figure, drawing):
        plot_confusion(figure, faces.labels, final, threshold)
    figures["confusion"] = drawing.svg
    if results.robustness:
        lines = len({row["perturbation"] for row in results.robustness})
        with draw_svg(1.6 + 0.45 * lines, "Robustness", note, _WIDE) as (figure, drawing):
            plot_robustness(figure, results.robustness)
        figures["robustness"] = drawing.svg
    return figures


def _draw_curves(results: Results, note: str) -> dict[str, str]:
    """Return curves_STAGE → loss over accuracy by epoch, all to one scale."""
    histories = {stage: rows for stage, rows in results.histories.items() if rows}
    losses = [float(row[key]) for rows in histories.values() for row in rows for key in ("loss", "val_loss")]
    accuracies = [
        float(row[key]) for rows in histories.values() for row in rows for key in ("accuracy", "val_accuracy")
    ]
    drawn = {}
    for stage, rows in histories.items():
        with draw_svg(4.0, f"Training of {stage}", note) as (figure, drawing):
            upper, lower = figure.subplots(2, 1, sharex=True)
            plot_history(upper, rows, "loss")
            plot_history(lower, rows, "accuracy")
            upper.set(ylabel="loss", ylim=(0, 1.05 * max(losses)))
            lower.set(ylabel="accuracy", xlabel="epoch", ylim=(min(0.45, *accuracies) - 0.03, 1.03))
            figure.legend(*upper.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
        drawn[f"curves_{stage}"] = drawing.svg
    return drawn


def _draw_calibration(results: Results, note: str) -> str:
    """Return the calibration on the held-out faces and on the last stage's own test images."""
    sets = {"held out": results.sets[HELDOUT], f"{FINAL_STAGE} test": results.sets[FINAL_STAGE]}
    whole = {name: (faces.labels, faces.scores[FINAL_STAGE]) for name, faces in sets.items() if faces.labels.size}
    with draw_svg(5.2, "Does a score mean what it says?", note) as (figure, drawing):
        plot_reliability(figure, whole)
        figure.axes[0].get_legend().remove()  # type: ignore[union-attr]
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower left", fontsize=9)
    return drawing.svg


def _find_band(results: Results) -> tuple[float, float] | None:
    """Return the abstention band (low, high) on the calibrated score; None where it has no width."""
    low, high = (results.metrics["coverage"].get(name) for name in ("abstention_low", "abstention_high"))
    return (low, high) if None not in (low, high) and low < high else None
