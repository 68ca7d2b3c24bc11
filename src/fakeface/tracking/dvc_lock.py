"""What dvc.lock says of the files behind a result: their hashes, by which DVC finds the very bytes again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fakeface.constants import HELDOUT, STAGES
from fakeface.system.project import read_yaml


def read_hashes(project_root: Path) -> dict[str, str]:
    """md5 of every dependency and output that a stage has locked, by path; a folder's ends in `.dir`.

    The word of the stage that makes a file counts: one that reads it may be locked from an earlier run, as `track` is.
    """
    stages = read_yaml(project_root / "dvc.lock").get("stages") or {}
    entries = [entry for kind in ("deps", "outs") for stage in stages.values() for entry in stage.get(kind, [])]
    return {str(entry["path"]): str(entry["md5"]) for entry in entries if "md5" in entry}


def list_experiment_tags(hashes: Mapping[str, str], data_root: str) -> dict[str, str]:
    """The tags `data.md5`, `split.stage1.md5`, `checkpoint.stage1.md5` … of an experiment."""
    paths = {"data": data_root, "data.raw": "datasets/raw"}
    paths |= {f"split.{role}": f"datasets/split/{role}" for role in (*STAGES, HELDOUT)}
    paths |= {f"checkpoint.{stage}": f"models/{stage}.h5" for stage in STAGES}
    return {f"{name}.md5": hashes[path] for name, path in paths.items() if path in hashes}


def list_stage_tags(hashes: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The tags `split.md5` and `checkpoint.md5` of each stage."""
    paths: dict[str, dict[str, Any]] = {
        stage: {"split": f"datasets/split/{stage}", "checkpoint": f"models/{stage}.h5"} for stage in STAGES
    }
    return {
        stage: {f"{name}.md5": hashes[path] for name, path in of_stage.items() if path in hashes}
        for stage, of_stage in paths.items()
    }
