from __future__ import annotations

import pytest

from fakeface.system.progress import show_bytes_progress, show_progress


def test_show_progress_writes_ten_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("decoding", 1000) as advance:
        for _ in range(1000):
            advance(1)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "decoding: 100 of 1,000 (10 %)"
    assert lines[-1] == "decoding: 1,000 of 1,000 (100 %)"


def test_show_progress_of_few_pieces_writes_no_line_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("decoding", 3) as advance:
        for _ in range(3):
            advance(1)
    assert [line[-6:] for line in capsys.readouterr().err.splitlines()] == ["(33 %)", "(66 %)", "100 %)"]


def test_show_progress_of_nothing_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("decoding", 0) as advance:
        advance(0)
    assert capsys.readouterr().err == ""


def test_show_bytes_progress_writes_a_line_each_gigabyte(capsys: pytest.CaptureFixture[str]) -> None:
    with show_bytes_progress() as show:
        for done in (5, 999_999_999, 1_000_000_000, 1_500_000_000, 2_100_000_000):
            show("faces.tar", done, 2_500_000_000)
        show("small.zip", 70_000, None)
    assert capsys.readouterr().err.splitlines() == ["faces.tar: 1 of 2.5 GB", "faces.tar: 2 of 2.5 GB"]
