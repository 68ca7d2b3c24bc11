"""Where the project's own files lie, also for a stage that DVC runs in a temporary folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


def find_main_folder(project_root: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder that outlives the run: DVC_ROOT names it even from the temporary workspace of a queued experiment."""
    return Path(environ.get("DVC_ROOT") or project_root).resolve()


def open_private_folder(main: Path, *parts: str) -> Path:
    """A folder under `.fakeface`, which git ignores by a file of its own."""
    root = main / ".fakeface"
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    ignore = root / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    return folder


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, parsed by the fast parser where there is one; empty where there is no such file or mapping."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError):  # whoever needs the file complains about it
        return {}
    return content if isinstance(content, dict) else {}
