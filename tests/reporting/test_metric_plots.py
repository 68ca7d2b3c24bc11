from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from fakeface.metrics.by_source import report_evaluation
from fakeface.reporting import metric_plots
from fakeface.visualization.style import SERIES
from fakeface.visualization.svg import draw_svg

_RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1], 60)
SCORES = np.clip(_RNG.normal(0.3 + 0.4 * LABELS, 0.2), 0, 1)
SOURCES = ["lfw"] * 60 + ["stylegan"] * 40 + ["stylegan2"] * 20
HISTORY = [
    {"epoch": str(epoch), "loss": 0.7 / epoch, "val_loss": 0.8 / epoch, "accuracy": 0.6, "val_accuracy": 0.55}
    for epoch in (1, 2, 3)
]
ROBUSTNESS = [
    {"perturbation": name, "set": column, "balanced_accuracy": 0.9, "roc_auc": 0.95}
    for name in ("none", "jpeg 75", "blur 1")
    for column in ("macro", "lfw vs stylegan")
]


def plot_all_bars(figure: Figure) -> None:
    report = report_evaluation(SOURCES, LABELS, SCORES, 0.5)
    metric_plots.plot_generalization(figure, {"stage1": report, "stage2": report})


PLOTS: dict[str, Callable[[Figure], None]] = {
    "history": lambda figure: metric_plots.plot_history(figure.subplots(), HISTORY, "loss"),
    "confusion": lambda figure: metric_plots.plot_confusion(figure, LABELS, SCORES, 0.5),
    "roc": lambda figure: metric_plots.plot_roc(figure.subplots(), {"stage1": (LABELS, SCORES)}),
    "generalization": plot_all_bars,
    "reliability": lambda figure: metric_plots.plot_reliability(figure, {"stage1": (LABELS, SCORES)}),
    "scores": lambda figure: metric_plots.plot_score_distributions(figure, SOURCES, LABELS, SCORES, 0.5, (0.4, 0.6)),
    "robustness": lambda figure: metric_plots.plot_robustness(figure, ROBUSTNESS),
}


@pytest.fixture(autouse=True)
def _no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def draw(name: str, note: str = "synthetic sample") -> str:
    with draw_svg(4.0, f"The {name}", note) as (figure, drawing):
        PLOTS[name](figure)
    return drawing.svg


@pytest.mark.parametrize("name", PLOTS)
def test_draw_svg_says_title_and_note_and_has_equal_bytes_again(name: str) -> None:
    import matplotlib as mpl

    first = draw(name)
    with mpl.rc_context({"lines.linewidth": 9, "font.size": 20}):  # a user's own settings
        second = draw(name)
        assert mpl.rcParams["lines.linewidth"] == 9
    assert first == second
    assert ">synthetic sample<" in first
    assert f'aria-label="The {name}"' in first
    assert "<dc:date>" not in first


def test_draw_svg_without_note_has_none() -> None:
    assert "synthetic sample" not in draw("roc", note="")


def find_heights(figure: Figure, colour: str) -> list[float]:
    return [bar.get_height() for bar in figure.axes[0].patches if to_hex(bar.get_facecolor()) == colour.lower()]  # type: ignore[attr-defined]


def test_plot_generalization_draws_the_seeds_and_the_humans_accuracy() -> None:
    figure = Figure()
    plot_all_bars(figure)
    horizontal = {float(np.ravel(line.get_ydata())[0]) for line in figure.axes[0].lines if line.get_linestyle() == "--"}
    assert horizontal == {0.877, 0.60}


@pytest.mark.parametrize("wrong", [0, 5])
def test_plot_generalization_bars_are_the_accuracies(wrong: int) -> None:
    scores = [1.0] * wrong + [0.0] * (10 - wrong) + [1.0] * 10
    report = report_evaluation(["lfw"] * 10 + ["stylegan"] * 10, [0] * 10 + [1] * 10, scores, 0.5)
    figure = Figure()
    metric_plots.plot_generalization(figure, {"stage1": report})
    of_all = (20 - wrong) / 20
    assert find_heights(figure, SERIES[0]) == pytest.approx([of_all, of_all, (10 - wrong) / 10, 1.0])


def test_plots_of_one_class_can_be_drawn() -> None:
    labels, scores = [0] * 5, [0.0, 0.2, 0.5, 0.7, 1.0]
    report = report_evaluation(["lfw"] * 5, labels, scores, 0.5)
    undefined = {"perturbation": "none", "set": "macro", "balanced_accuracy": None, "roc_auc": None}
    plots: list[Callable[[Figure], None]] = [
        lambda figure: metric_plots.plot_generalization(figure, {"stage1": report}),
        lambda figure: metric_plots.plot_confusion(figure, labels, scores, 0.5),
        lambda figure: metric_plots.plot_roc(figure.subplots(), {"stage1": (labels, scores)}),
        lambda figure: metric_plots.plot_reliability(figure, {"stage1": (labels, scores)}),
        lambda figure: metric_plots.plot_score_distributions(figure, ["lfw"] * 5, labels, scores, 0.5),
        lambda figure: metric_plots.plot_robustness(figure, [undefined]),
    ]
    for number, plot in enumerate(plots):
        with draw_svg(4.0, str(number)) as (figure, drawing):
            plot(figure)
        assert drawing.svg.rstrip().endswith("</svg>")


def test_plot_generalization_names_every_source_of_many() -> None:
    sources = [f"a source with a long name {i}" for i in range(10)]
    report = report_evaluation(sources * 4, ([0] * 5 + [1] * 5) * 4, [0.3] * 20 + [0.9] * 20, 0.5)
    with draw_svg(5.0, "Many", width=9.0) as (figure, drawing):
        metric_plots.plot_generalization(figure, {f"stage{i}": report for i in (1, 2, 3)})
    assert all(f"{name} (" in drawing.svg for name in sources)


def test_plot_robustness_of_many_pairs_shows_the_weakest() -> None:
    rows = [
        {"perturbation": "none", "set": f"lfw vs generator {i}", "balanced_accuracy": 1 - i / 40, "roc_auc": 0.9}
        for i in range(20)
    ]
    figure = Figure()
    metric_plots.plot_robustness(figure, rows)
    shown = [label.get_text().replace("\n", " ") for label in figure.axes[0].get_xticklabels()]
    assert shown == ["lfw vs generator 0", *(f"lfw vs generator {i}" for i in range(13, 20))]


def test_metric_plots_load_matplotlib_only_to_draw() -> None:
    code = "import sys, fakeface.reporting.metric_plots; assert not {'matplotlib', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
