"""One digest of all that decides the outputs of a stage, as dvc.yaml lists it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from fakeface.data.image_store import FACTS
from fakeface.system.checksums import hash_file


def compute_stage_digest(project: Path, stage: str, *more: str, without: Collection[Path] = ()) -> str:
    """Return a SHA-256 (hex) over the parameters, code and data of a stage of dvc.yaml, and over `more`.

    A file counts with its bytes; a folder of images with the checksums that stand in it, which open_store compares with
    the bytes; any other folder with every file in it, but for compiled Python; what is missing counts as that.
    """
    description = yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    parameters = {
        key: _get_parameter(params, key.replace("${recipe}", params["recipe"])) for key in description["params"]
    }
    files = {path: _hash_dependency(project / path) for path in description["deps"] if Path(path) not in without}
    text = json.dumps([stage, parameters, files, more], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _get_parameter(params: Any, key: str) -> Any:
    for part in key.split("."):
        params = params[part]
    return params


def _hash_dependency(path: Path) -> str:
    if path.is_dir() and not (path / FACTS).is_file():
        files = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        text = "\n".join(f"{file.relative_to(path).as_posix()} {hash_file(file)}" for file in files)
        return hashlib.sha256(text.encode()).hexdigest()
    file = path / FACTS if path.is_dir() else path
    return hash_file(file) if file.is_file() else "missing"
