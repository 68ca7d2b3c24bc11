from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fakeface.metrics.classification import report_evaluation
from fakeface.reporting import metric_plots
from fakeface.visualization.style import SERIES

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

Draw = Callable[[Path, str], None]


def draw_all_bars(path: Path, note: str) -> None:
    report = report_evaluation(SOURCES, LABELS, SCORES, 0.5)
    metric_plots.draw_generalization({"stage1": report, "stage2": report}, path, note)


def draw_scores(path: Path, note: str) -> None:
    metric_plots.draw_score_distributions(SOURCES, LABELS, SCORES, 0.5, path, note, abstention_band=(0.4, 0.6))


DRAWINGS: dict[str, Draw] = {
    "curves": lambda path, note: metric_plots.draw_curves({"stage1": HISTORY, "stage2": HISTORY[:1]}, path, note),
    "confusion": lambda path, note: metric_plots.draw_confusion(LABELS, SCORES, 0.5, path, note),
    "roc": lambda path, note: metric_plots.draw_roc({"stage1": (LABELS, SCORES)}, path, note),
    "generalization": draw_all_bars,
    "reliability": lambda path, note: metric_plots.draw_reliability({"stage1": (LABELS, SCORES)}, path, note),
    "scores": draw_scores,
    "robustness": lambda path, note: metric_plots.draw_robustness(ROBUSTNESS, path, note),
}


@pytest.fixture(autouse=True)
def _no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def count_of_colour(picture: Any, colour: str) -> int:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(picture - rgb).max(axis=2) <= 2).sum())


@pytest.mark.parametrize("name", DRAWINGS)
def test_picture_is_1000_wide_says_its_note_and_has_the_same_bytes_again(name: str, tmp_path: Path) -> None:
    import matplotlib as mpl

    first, second = (tmp_path / "new folder" / f"{i}.png" for i in range(2))
    DRAWINGS[name](first, "synthetic sample")
    with mpl.rc_context({"lines.linewidth": 9, "font.size": 20}):  # a user's own settings
        DRAWINGS[name](second, "synthetic sample")
        assert mpl.rcParams["lines.linewidth"] == 9
    assert first.read_bytes() == second.read_bytes()
    assert pixels(first).shape[1] == 1000
    assert count_of_colour(pixels(first), "#FFF3C4") > 500
    with Image.open(first) as image:
        assert not {"Software", "Creation Time", "Title"} & set(image.info)


def test_no_note_leaves_no_box(tmp_path: Path) -> None:
    DRAWINGS["roc"](tmp_path / "roc.png", "")
    assert count_of_colour(pixels(tmp_path / "roc.png"), "#FFF3C4") == 0


def test_reference_lines_stand_at_the_seeds_and_the_humans_accuracy(tmp_path: Path) -> None:
    # All answers wrong: no bar hides a line. A line's rows are those dark over a large part of the width.
    report = report_evaluation(["lfw", "stylegan"] * 5, [0, 1] * 5, [1.0, 0.0] * 5, 0.5)
    report["generalization"]["majority_class_accuracy"] = None
    for row in report["sources"].values():
        row.pop("interval")
    metric_plots.draw_generalization({"stage1": report}, tmp_path / "bars.png")
    middle = pixels(tmp_path / "bars.png")[:, 100:800].max(axis=2)
    dark = np.flatnonzero((middle < 110).mean(axis=1) > 0.4)
    seed, human = (int(rows.mean()) for rows in np.split(dark, np.flatnonzero(np.diff(dark) > 20) + 1)[:2])
    bottom = np.flatnonzero((np.abs(middle - 0x8A) < 30).mean(axis=1) > 0.9).max()
    assert (bottom - seed) / (bottom - human) == pytest.approx(0.877 / 0.60, abs=0.01)


def test_bars_follow_the_accuracy(tmp_path: Path) -> None:
    heights = []
    for wrong in (0, 5):
        scores = [1.0] * wrong + [0.0] * (10 - wrong) + [1.0] * 10
        report = report_evaluation(["lfw"] * 10 + ["stylegan"] * 10, [0] * 10 + [1] * 10, scores, 0.5)
        metric_plots.draw_generalization({"stage1": report}, tmp_path / "bars.png")
        lfw = pixels(tmp_path / "bars.png")[:, 480:600]  # the third of four groups
        blue = [int(SERIES[0][i : i + 2], 16) for i in (1, 3, 5)]
        heights.append(int((np.abs(lfw - blue).max(axis=2) <= 2).any(axis=1).sum()))
    assert heights[1] / heights[0] == pytest.approx(0.5, abs=0.03)


def test_one_class_can_be_drawn(tmp_path: Path) -> None:
    labels, scores = [0] * 5, [0.0, 0.2, 0.5, 0.7, 1.0]
    report = report_evaluation(["lfw"] * 5, labels, scores, 0.5)
    metric_plots.draw_generalization({"stage1": report}, tmp_path / "bars.png", "one class")
    metric_plots.draw_confusion(labels, scores, 0.5, tmp_path / "confusion.png")
    metric_plots.draw_roc({"stage1": (labels, scores)}, tmp_path / "roc.png")
    metric_plots.draw_reliability({"stage1": (labels, scores)}, tmp_path / "reliability.png")
    metric_plots.draw_score_distributions(["lfw"] * 5, labels, scores, 0.5, tmp_path / "scores.png")
    undefined = {"perturbation": "none", "set": "macro", "balanced_accuracy": None, "roc_auc": None}
    metric_plots.draw_robustness([undefined], tmp_path / "robustness.png")
    assert len(list(tmp_path.glob("*.png"))) == 6


def test_many_stages_and_sources_still_fit(tmp_path: Path) -> None:
    sources = [f"a source with a long name {i}" for i in range(10)]
    report = report_evaluation(sources * 4, ([0] * 5 + [1] * 5) * 4, [0.3] * 20 + [0.9] * 20, 0.5)
    metric_plots.draw_generalization(
        {f"stage{i}": report for i in (1, 2, 3)}, tmp_path / "bars.png", "synthetic sample"
    )
    assert pixels(tmp_path / "bars.png").shape[1] == 1000


def test_heat_map_of_many_pairs_shows_the_weakest(tmp_path: Path) -> None:
    rows = [
        {"perturbation": "none", "set": f"lfw vs generator {i}", "balanced_accuracy": 1 - i / 40, "roc_auc": 0.9}
        for i in range(20)
    ]
    metric_plots.draw_robustness(rows, tmp_path / "all.png")
    metric_plots.draw_robustness([rows[0], *rows[-7:]], tmp_path / "weakest.png")
    cells = [pixels(tmp_path / f"{name}.png")[60:] for name in ("all", "weakest")]  # below the title
    np.testing.assert_array_equal(*cells)


def test_matplotlib_is_loaded_only_to_draw() -> None:
    code = "import sys, fakeface.reporting.metric_plots; assert not {'matplotlib', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
