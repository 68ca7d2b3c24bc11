"""The table of `make bench`: what counts as met, and that writing it keeps what was written by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fakeface.system.errors import UserError
from tests.support.project import PROJECT

sys.path.insert(0, str(PROJECT))

from benchmarks.recipe_cost import trained_images, training_images
from benchmarks.results_table import BEGIN, END, Row, markdown, put_into

ROWS = [
    Row("training", 3, 3.42, "×", how="41 images/s against 12"),
    Row("input", 15, 30.0, "%", at_most=True),
    Row("scoring", 8, None, "×"),
]


def test_row_says_target_measured_ratio_and_whether_it_is_met() -> None:
    _, _, *lines = markdown(ROWS).splitlines()
    assert lines == [
        "| training | at least 3 × | 3.42 × | 1.14 | met | 41 images/s against 12 |",
        "| input | at most 15 % | 30 % | 2.00 | not met |  |",
        "| scoring | at least 8 × | failed |  | not met |  |",
    ]


def test_put_into_replaces_the_old_table_alone(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    file.write_text((PROJECT / "benchmarks/RESULTS.md").read_text())
    before, after = file.read_text().split(BEGIN)[0], file.read_text().split(END)[1]
    put_into(file, "| first |")
    put_into(file, "| second |")
    assert file.read_text() == f"{before}{BEGIN}\n\n| second |\n\n{END}{after}"
    assert "What did not help" in after


def test_put_into_leaves_a_file_without_marks(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    file.write_text(f"{END} then {BEGIN}")
    with pytest.raises(UserError, match="needs the lines"):
        put_into(file, "| table |")
    assert file.read_text() == f"{END} then {BEGIN}"


def test_trained_images_of_the_seed_count_each_stage_alone() -> None:
    counts = training_images(PROJECT / "sample")
    assert trained_images("seed", counts) == {stage: int(counts[stage]) // 64 * 64 * 5 for stage in counts}
