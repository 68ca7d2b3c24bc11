"""The order of the test files, so that the cores end at about the same time, and what several of them ask for."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# The first core makes the project that all files in integration/ use; the second has others to do until it is made.
LONGEST_FIRST = (
    "integration/test_experiments.py",
    "integration/test_repro.py",
    "training/test_distributed.py",
    "training/test_train_stage.py",
    "tracking/test_run_context.py",
    "training/test_resume.py",
    "data/audit/test_run_audit.py",
    "integration/",
)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Let Ctrl-C interrupt also where a shell started the tests in the background, with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def float32_again() -> Iterator[None]:
    """Leave the next test no precision that this one has set, or that `auto` has chosen for this processor."""
    yield
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].keras.mixed_precision.set_global_policy("float32")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by file only; pytest-xdist hands the files out in this order."""
    items.sort(key=lambda item: _place(item.path.relative_to(TESTS).as_posix()))


def _place(path: str) -> int:
    places = [place for place, name in enumerate(LONGEST_FIRST) if path.startswith(name)]
    return min(places, default=len(LONGEST_FIRST))
