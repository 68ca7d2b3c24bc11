"""The page of a small evaluation made by hand, whose numbers, mistakes and names are known."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from fakeface.cli import main
from fakeface.config.params import Pair, list_experiment_parameters, load_params
from fakeface.constants import STAGES
from fakeface.data.image_store import StoredImage, write_store
from fakeface.evaluation.compute_metrics import compute_evaluation_metrics
from fakeface.evaluation.predictions import Evaluation, ScoredSet
from fakeface.metrics.calibration import Calibration
from fakeface.reporting.hard_examples import find_hardest_mistakes
from fakeface.reporting.results_reader import SetScores
from fakeface.system.serialization import write_json, write_rows
from tests.support.browser import browser
from tests.support.project import PROJECT

CAMERA, GENERATOR = "camera", "gan<b>&co"
ODD_NAME = "gan/<script>alert(1)</script> & a\nnew line.png"
# (path, source, label, score): wrong from 0.4 on for real, below for fake
FACES = [
    *[(f"camera/{number}.png", CAMERA, 0, 0.01 * number) for number in range(1, 8)],
    ("camera/accused.png", CAMERA, 0, 0.97),
    ("camera/near.png", CAMERA, 0, 0.41),
    *[(f"gan/{number}.png", GENERATOR, 1, 0.9 + 0.01 * number) for number in range(1, 8)],
    (ODD_NAME, GENERATOR, 1, 0.005),
    ("gan/missed.png", GENERATOR, 1, 0.2),
]
WORST_FIRST = [ODD_NAME, "camera/accused.png", "gan/missed.png", "camera/near.png"]
THRESHOLD, SIZE = 0.4, 24


@dataclass(frozen=True)
class Made:
    """A page, the metrics.json that it tells, and what the command said."""

    page: str
    metrics: Mapping[str, Any]
    said: str

    @property
    def words(self) -> str:
        return " ".join(
            html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"(?s)<style>.*?</style>", "", self.page))).split()
        )


def pixels_sum(image: Any) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def colour_of(path: str) -> tuple[int, int, int]:
    number = [face[0] for face in FACES].index(path)
    return 10 * number, 255 - 10 * number, 60


def make(folder: Path, faces: list[tuple[str, str, int, float]], mistakes: int) -> Made:
    """What an evaluation leaves, and `fakeface report` on it."""
    content = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    content["report"]["mistakes"] = mistakes
    content["evaluate"]["pairs"] = {"the_pair": {"real": ["camera"], "fake": ["gan"]}}
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    paths, sources, labels, scores = zip(*faces, strict=True)
    own = ScoredSet(
        "stage3",
        ["a", "b"],
        np.array(["own", "own"]),
        np.array([0, 1], np.uint8),
        {s: np.array([0.2, 0.9]) for s in STAGES},
    )
    heldout = ScoredSet(
        "heldout",
        paths,
        np.array(sources),
        np.array(labels, np.uint8),
        {stage: np.array(scores) for stage in STAGES},
    )
    evaluation = Evaluation(
        heldout, dict.fromkeys(STAGES, own), dict.fromkeys(STAGES, Calibration(threshold=THRESHOLD, abstention_low=0.3))
    )
    both = len(set(labels)) == 2
    robustness = [
        {"perturbation": name, "set": "macro", "n_real": 9, "n_fake": 9}
        | dict.fromkeys(("balanced_accuracy", "roc_auc"), value if both else None)
        | {"change": value - 0.9 if both else None}
        for name, value in (("none", 0.9), ("blur 3", 0.52), ("equalised", 0.7))
    ]
    pairs = {"the_pair": Pair(real=[CAMERA], fake=[GENERATOR])}
    metrics = {"recipe": "default", "profile": "own", "note": "drawn & small"} | compute_evaluation_metrics(
        evaluation, pairs, robustness, 20, 0
    )
    leave(folder, evaluation, metrics, robustness)
    block = np.stack([np.full((SIZE, SIZE, 3), colour_of(path), np.uint8) for path, *_ in faces])
    rows = [
        StoredImage(path, source, "fake" if label else "real", "heldout", "0", "0", pixels_sum(image))
        for (path, source, label, _), image in zip(faces, block, strict=True)
    ]
    if mistakes:
        write_store(rows, [block], SIZE, folder / "datasets" / "split" / "heldout")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(main, ["report"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    written = json.loads((folder / "reports" / "metrics.json").read_text())
    return Made((folder / "reports" / "report.html").read_text(encoding="utf-8"), written, result.output)


def leave(folder: Path, evaluation: Evaluation, metrics: Mapping[str, Any], robustness: list[dict[str, Any]]) -> None:
    reports = folder / "reports"
    write_json(reports / "metrics.json", metrics)
    scored = [
        (each.name, path, source, ("real", "fake")[label], *(each.scores[stage][row] for stage in STAGES))
        for each in (evaluation.heldout, evaluation.tests["stage3"])
        for row, (path, source, label) in enumerate(zip(each.paths, each.sources, each.labels, strict=True))
    ]
    write_rows(reports / "scores.csv", ("set", "path", "source", "label", *STAGES), scored)
    columns = ("perturbation", "set", "balanced_accuracy", "change", "roc_auc", "n_real", "n_fake")
    write_rows(reports / "robustness.csv", columns, [[row[name] for name in columns] for row in robustness])
    for stage in STAGES:
        of_epochs = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy")
        write_rows(reports / "history" / f"{stage}.csv", of_epochs, [(1, 0.7, 0.5, 0.6, 0.6), (2, 0.5, 0.7, 0.6, 0.6)])
    sources = {CAMERA: {"label": "real", "roles": {"heldout": {"heldout": 9}}}}
    sources[GENERATOR] = {"label": "fake", "roles": {"stage2": {"train": 5}, "heldout": {"heldout": 9}}}
    write_json(reports / "data" / "split.json", {"images": 23, "sources": sources})
    params = load_params(folder / "params.yaml")
    run = {
        "parameters": list_experiment_parameters(params),
        "stages": {stage: params.get_stage_config(stage).model_dump() for stage in STAGES},
        "device": "a processor",
        "precision": "float32",
        "versions": {"Python": "3.11"},
        "commit": "0123abc",
        "uncommitted": "",
        "experiment": "a try's <name>",
    }
    write_json(reports / "run.json", run)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("made"), FACES, mistakes=3)


@pytest.fixture(scope="module")
def one_class(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("one_class"), [face for face in FACES if face[2]], mistakes=0)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"  # str.split() makes a plain blank of the page's no-break space


def test_the_sentence_tells_what_metrics_json_has(made: Made) -> None:
    pooled = made.metrics["generalization"]
    assert pooled["accuracy"] == pytest.approx(14 / 18)
    interval = pooled["interval"]["accuracy"]
    assert (
        "Of 18 held-out faces (drawn & small) that no training has seen, the detector judged "
        f"{percent(pooled['accuracy'])} rightly (95 % interval {percent(interval['low'])} to "
        f"{percent(interval['high'])}); answering the same for every face would get "
        f"{percent(pooled['majority_class_accuracy'])}."
    ) in made.words
    assert f"the balanced accuracy, is {percent(pooled['balanced_accuracy'])}" in made.words
    assert "4 of 18 answers are wrong: 2 real faces called fake, and 2 fakes called real." in made.words
    assert "“blur 3” on macro, balanced accuracy 0.520 (AUC 0.520), 0.380 below" in made.words
    band = made.metrics["coverage"]
    assert f"it lets {percent(band['coverage'])} be answered" in made.words
    pair = made.metrics["pairs"]["the_pair"]
    assert f"the_pair camera / gan 18 {percent(pair['balanced_accuracy'])}" in made.words
    assert made.words.count("drawn & small") >= 8  # beside every result


def test_the_mistakes_are_the_most_confident_ones_in_their_order_with_their_own_pictures(made: Made) -> None:
    pictures = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', made.page)
    colours = [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))).mean(axis=(0, 1)) for each in pictures]
    assert len(colours) == 3
    for colour, path in zip(colours, WORST_FIRST, strict=False):
        np.testing.assert_allclose(colour, colour_of(path), atol=4)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", made.page)
    assert ["accused" in caption for caption in captions] == [False, True, False]
    assert "Faces inside." in made.page


def test_equally_confident_mistakes_come_by_path_and_a_score_at_the_threshold_is_fake() -> None:
    scores = dict.fromkeys(STAGES, np.array([0.9, 0.1, 0.9, 0.5, 0.5]))
    faces = SetScores(["b", "c", "a", "d", "e"], ["s"] * 5, np.array([0, 1, 0, 0, 1]), scores)
    found = find_hardest_mistakes(faces, "stage3", 0.5, 12)
    assert [(each.path, each.answer) for each in found] == [("a", "fake"), ("b", "fake"), ("c", "real"), ("d", "fake")]
    assert find_hardest_mistakes(faces, "stage3", 0.5, 2) == found[:2]


def test_every_part_of_the_page_is_there(made: Made) -> None:
    headings = [re.sub("<[^>]+>", "", each).removesuffix(" drawn &amp; small") for each in _all(made, "h2")]
    assert headings == [
        "Held-out faces",
        "Pairs: one kind of real face against one kind of fake",
        "After each stage",
        "Training curves",
        "Catching fakes without accusing real faces",
        "Calibration, and the abstention band",
        "Robustness",
        "The hardest mistakes",
        "What was run",
        "How to repeat it",
    ]


def test_each_cell_of_the_heat_map_has_its_number_and_the_colour_of_it(made: Made) -> None:
    (heat_map,) = re.findall(r'<table class="heat">.*?</table>', made.page, re.DOTALL)
    cells = re.findall(r'<tr><td>([^<]+)</td><td style="background:([^"]+)">([\d.]+)<br>', heat_map)
    shown = {name: value for name, _, value in cells}
    assert shown == {"none": "0.900", "blur 3": "0.520", "equalised": "0.700"}
    colours = {name: [int(part) for part in re.findall(r"\d+", colour)] for name, colour, _ in cells}
    assert colours["blur 3"][1] < colours["equalised"][1]  # more green
    assert colours["none"][0] < colours["equalised"][0]  # less red


def test_each_drawing_has_its_lines_and_says_what_they_are(made: Made) -> None:
    drawings = dict(re.findall(r'<svg role="img" aria-label="([^"]+)"(.*?)</svg>', made.page, re.DOTALL))
    expected: dict[str, tuple[str, ...]] = {f"Training of {stage}": ("loss", "accuracy", "epoch") for stage in STAGES}
    expected["Fakes caught against real faces accused"] = tuple(f"after {stage}" for stage in STAGES)
    expected["Does a score mean what it says?"] = ("held out", "stage3 test")
    expected["Scores of each held-out source"] = (CAMERA, html.escape(GENERATOR, quote=False))
    assert set(drawings) == set(expected)
    for title, said in expected.items():
        texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawings[title])
        assert [each for each in said if not any(each in text for text in texts)] == [], title
        assert drawings[title].count("<path") > 5, title


@pytest.mark.system
def test_the_page_fits_a_telephone(made: Made, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(made.page, encoding="utf-8")
    with browser(tmp_path) as window:
        window.narrow_to(390)
        window.open(page.as_uri())
        sizes = "const page = document.documentElement; return [innerWidth, page.clientWidth, page.scrollWidth];"
        width, shown, needed = window.wait_for(sizes, tmp_path / "telephone.png")
    assert width == 390
    assert needed == shown  # nothing scrolls sideways but a table by itself


def _all(made: Made, tag: str) -> list[str]:
    return re.findall(rf"<{tag}>(.*?)</{tag}>", made.page, re.DOTALL)


def test_names_are_escaped_and_stay_on_their_line(made: Made) -> None:
    assert "<script" not in made.page
    assert "gan<b>" not in made.page
    assert r"&lt;script&gt;alert(1)&lt;/script&gt; &amp; a\nnew line.png" in made.page
    assert "dvc exp apply 'a try'\"'\"'s <name>'" in made.words


def test_the_page_asks_nobody_and_is_small(made: Made, one_class: Made) -> None:
    for each in (made, one_class):
        assert not re.search(r"https?:|<script|<link|@import|<iframe", each.page)
        assert all(src.startswith("data:") for src in re.findall(r'src="([^"]+)', each.page))
        assert not re.search(r"\b(NaN|nan|None|Undefined)\b", each.words)
        names = re.findall(r'\bid="([^"]+)"', each.page)
        assert len(names) == len(set(names)) > 0
        assert len(each.page.encode()) < 3_000_000
    assert "reports/report.html" in made.said


def test_without_mistakes_no_picture_is_inside(one_class: Made) -> None:
    assert not re.search(r"<img|base64|data:image|<image\b", one_class.page)
    assert "No picture is inside this file" in one_class.words


def test_one_class_shows_what_is_undefined_and_why(one_class: Made) -> None:
    assert "balanced_accuracy" not in one_class.metrics["generalization"]
    assert f"the detector judged {percent(one_class.metrics['generalization']['accuracy'])} rightly" in one_class.words
    assert "–: all 9 faces are fake; without real ones there is no balanced accuracy and no AUC." in one_class.words
    assert "Shortcut probe: –" in one_class.words
    assert "balanced accuracy – – – –" in one_class.words
    assert "ROC AUC – – – –" in one_class.words
