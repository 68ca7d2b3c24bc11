"""A journal keeps every whole line, through a killed process and a second run."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakeface.system.journal import open_journal, read_journal


def test_read_journal_gives_nothing_for_a_missing_file(tmp_path: Path) -> None:
    assert list(read_journal(tmp_path / "journal.csv")) == []


def test_open_journal_writes_each_line_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.csv"
    with open_journal(path) as append:
        append(("a,b", 1))
        assert list(read_journal(path)) == [["a,b", "1"]]
        append(("c", 2))
        assert list(read_journal(path)) == [["a,b", "1"], ["c", "2"]]


def test_open_journal_keeps_its_lines_when_the_work_fails(tmp_path: Path) -> None:
    path = tmp_path / "journal.csv"

    def fail_after_one() -> None:
        with open_journal(path) as append:
            append(("a", 1))
            raise KeyError

    with pytest.raises(KeyError):
        fail_after_one()
    assert list(read_journal(path)) == [["a", "1"]]


def test_open_journal_adds_no_line_behind_a_cut_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.csv"
    path.write_text("a,1\nb,2")
    with open_journal(path, list(read_journal(path))) as append:
        append(("c", 3))
    assert path.read_text() == "a,1\nc,3\n"
