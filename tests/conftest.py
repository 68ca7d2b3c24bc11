"""The order of the test files: what takes long starts first, so that the cores end at about the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# The first core makes the project that all files in pipeline/ use; the second has others to do until it is made.
LONGEST_FIRST = (
    "pipeline/test_experiments.py",
    "pipeline/test_repro.py",
    "test_distribution.py",
    "test_training.py",
    "test_tracking.py",
    "test_interruption.py",
    "test_audit.py",
    "pipeline/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by file only; pytest-xdist hands the files out in this order."""
    items.sort(key=lambda item: _place(item.path.relative_to(TESTS).as_posix()))


def _place(path: str) -> int:
    places = [place for place, name in enumerate(LONGEST_FIRST) if path.startswith(name)]
    return min(places, default=len(LONGEST_FIRST))
