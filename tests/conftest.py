"""How tests are shared out to cores: a file stays on one, so that what its tests share is made once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file together, and those of the pipeline, which share one `dvc repro`."""
    for item in items:
        folder = Path(item.path).parent.name
        item.add_marker(pytest.mark.xdist_group("pipeline" if folder == "pipeline" else Path(item.path).name))
