"""Which experiment a process belongs to, told by DVC's environment, git and the project's files; no MLflow here."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import shlex
import socket
import subprocess
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fakeface.system.project import find_main_folder, open_private_folder, read_yaml

_CODE = ("src", "pipeline", "dvc.yaml")  # what, beside params.yaml and the data, decides the result of a run


@dataclass(frozen=True)
class RunIdentity:
    """One run of MLflow.

    `key` finds the run: one DVC experiment, or one state of code, parameters and data under `dvc repro`.
    `content_key` finds an interrupted run that the same work goes on with under another experiment name.
    """

    key: str
    content_key: str
    name: str
    note: str
    experiment_name: str = "fakeface"  # what MLflow calls an experiment: the table that holds the run
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_dvc_experiment(self) -> bool:
        """Whether `dvc exp run` made it, rather than `dvc repro`."""
        return "dvc.experiment" in self.tags

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON types; `RunIdentity(**…)` is the way back."""
        return {**asdict(self), "tags": dict(self.tags)}


def identify_run(project_root: Path, environ: Mapping[str, str] = os.environ) -> RunIdentity:
    """The experiment of this process: the same for every stage of one `dvc repro` or `dvc exp run`."""
    commit = _run_git(project_root, "rev-parse", "HEAD") or "no-commit"
    name, baseline = environ.get("DVC_EXP_NAME", ""), environ.get("DVC_EXP_BASELINE_REV", "")
    chosen = read_yaml(project_root / "params.yaml")
    parameters = json.dumps(chosen, sort_keys=True, default=str)
    repository = _read_repository_id(find_main_folder(project_root, environ))
    content = _sha256(
        "\n".join([repository, baseline or commit, parameters, _hash_data(project_root), _hash_code(project_root)])
    )
    key = _sha256("\n".join([repository, baseline, name, parameters])) if name else content
    shown = name or f"repro-{commit[:7]}-{key[:6]}"
    return RunIdentity(
        key=key[:20],
        content_key=content[:20],
        name=shown,
        note=_describe(name, baseline, commit, shown),
        experiment_name=environ.get("MLFLOW_EXPERIMENT_NAME")
        or (chosen.get("tracking") or {}).get("experiment")
        or "fakeface",
        tags=_list_tags(project_root, commit, name, baseline),
    )


def _describe(name: str, baseline: str, commit: str, shown: str) -> str:
    if name:
        apply = f"dvc exp apply {shlex.quote(name)}"
        return f"DVC experiment **{name}** on {baseline[:7]}. Back to its files:\n\n    {apply}\n"
    return f"**{shown}**: `dvc repro` on commit {commit[:7]}. Back to its code:\n\n    git checkout {commit}\n"


def _list_tags(project_root: Path, commit: str, name: str, baseline: str) -> dict[str, str]:
    kept_by_dvc = ("dvc.lock", "params.yaml") if name else ("dvc.lock",)
    changed = [path for path in _list_changed_files(project_root) if Path(path).name not in kept_by_dvc]
    tags = {
        "git.commit": commit,
        "git.dirty": str(bool(changed)).lower(),
        "mlflow.source.git.commit": commit,
        "mlflow.source.name": "dvc exp run" if name else "dvc repro",
        "mlflow.source.type": "PROJECT",
        "mlflow.user": _get_user(),
    }
    if changed:
        tags["git.dirty_files"] = ", ".join(changed)
    if name:
        tags |= {"dvc.experiment": name, "dvc.baseline": baseline}
    return tags


def _list_changed_files(project_root: Path) -> list[str]:
    lines = _run_git(project_root, "status", "--porcelain", "--untracked-files=no", "--", ".").splitlines()
    return [line.strip().split(maxsplit=1)[-1] for line in lines]


def _hash_data(project_root: Path) -> str:
    """The hashes DVC has locked for the outputs of the stages that make the data, known before any training starts."""
    stages = read_yaml(project_root / "dvc.lock").get("stages") or {}
    outs = (stages.get("split") or {}).get("outs") or []
    return ",".join(sorted(str(out.get("md5")) for out in outs))


def _hash_code(project_root: Path) -> str:
    """Uncommitted changes of the code, so that work tried before a commit gets a run of its own."""
    present = [path for path in _CODE if (project_root / path).exists()]
    return _sha256(_run_git(project_root, "diff", "HEAD", "--", *present)) if present else ""


def _read_repository_id(main: Path) -> str:
    """A random name for this clone, so that colleagues on one server do not write into each other's runs."""
    try:
        path = open_private_folder(main) / "repository_id"
        if not path.exists():
            draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
            draft.write_text(uuid.uuid4().hex)
            with suppress(FileExistsError):  # another process was first: its name counts
                os.link(draft, path)
            draft.unlink()
        return path.read_text().strip()
    except OSError:  # a folder that cannot be written to still has a place
        return f"{socket.gethostname()}:{main}"


def _run_git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return re.sub(r"\n\Z", "", done.stdout) if done.returncode == 0 else ""


def _get_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return str(os.getuid())


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
