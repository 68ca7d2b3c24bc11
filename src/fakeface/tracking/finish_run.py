"""A finished experiment → its run in MLflow and its model in the registry, from the files that the stages left."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakeface.constants import HELDOUT, STAGES
from fakeface.system.project import read_yaml
from fakeface.tracking import dvc_lock
from fakeface.tracking.model_requirements import read_pinned_requirements
from fakeface.tracking.result_files import Detector, Result, compute_digest
from fakeface.tracking.run_context import result_run
from fakeface.tracking.run_index import find_known_run

if TYPE_CHECKING:
    from fakeface.config.params import Params

CHECKPOINT = Path(f"models/{STAGES[-1]}.h5")
_REPORTS = Path("reports")
_DATA_PAGES = ("audit.html", "audit.json", "split.json", "rejected.csv")


def record_experiment(project_root: Path, environ: Mapping[str, str] = os.environ) -> str:
    """Complete the experiment's run in MLflow, whatever DVC ran or restored; return a sentence that says where it is.

    Where the run has this result already, that is found out without MLflow.

    Raises:
        UserError: params.yaml or a report is missing or wrong.
    """
    of_result = compute_result_digest(project_root)
    if row := find_known_run(project_root, of_result, environ):
        return f"Nothing new for MLflow: its run '{row.name}' has this result ({row.address})."
    with result_run(project_root, environ) as run:  # before slow imports, so that a kill during them is missed
        row = run.complete(*_build_result(project_root, of_result))
    if row is None:
        return (
            "MLflow has not taken the result yet: it waits in .fakeface/undelivered, and `fakeface deliver` sends it."
        )
    return f"MLflow's run '{row.name}' is complete: {row.address}"


def compute_result_digest(project_root: Path) -> str:
    """One sha256 for the parameters that decide a result and every file that shows it."""
    content = read_yaml(project_root / "params.yaml")
    content["recipes"] = (content.get("recipes") or {}).get(content.get("recipe"))
    for section, key in (("data", "profiles"), ("promote", "metric"), ("promote", "at_least")):  # decide no result
        (content.get(section) or {}).pop(key, None)
    histories = [_REPORTS / "history" / f"{stage}.csv" for stage in STAGES]
    return compute_digest(
        content, [project_root / path for path in (*_list_result_files(project_root), *histories, CHECKPOINT)]
    )


def _list_result_files(project_root: Path) -> list[Path]:
    """The files of the evaluation, relative to the project's root."""
    folders = [("plots", "*.csv"), ("figures", "*.svg")]
    found = [path for name, kind in folders for path in sorted((project_root / _REPORTS / name).glob(kind))]
    tables = [_REPORTS / name for name in ("metrics.json", "scores.csv", "robustness.csv", "report.html", "run.json")]
    return [*tables, *(path.relative_to(project_root) for path in found)]


def _build_result(project_root: Path, of_result: str) -> tuple[dict[str, Any], Result, dict[str, str]]:
    """The experiment's parameters (nested), its result, and the tags that lead to the bytes behind it."""
    from fakeface.config.params import list_experiment_parameters, load_params
    from fakeface.system.serialization import read_json

    params = load_params(project_root / "params.yaml")
    parameters = list_experiment_parameters(params)
    metrics = _add_validation(read_json(project_root / _REPORTS / "metrics.json"), project_root)
    hashes = dvc_lock.read_hashes(project_root)
    told = {f"data.{name}": metrics[name] for name in ("profile", "note") if metrics.get(name)}
    result = Result(
        metrics=metrics,
        files=tuple(_list_result_files(project_root)[1:]),
        data_files=tuple(_REPORTS / "data" / name for name in _DATA_PAGES),
        stage_parameters={stage: parameters | params.get_stage_config(stage).model_dump() for stage in STAGES},
        stage_tags=dvc_lock.list_stage_tags(hashes),
        detector=_describe_detector(project_root, params, metrics, hashes),
        digest=of_result,
    )
    tags = told | dvc_lock.list_experiment_tags(hashes, params.data.root)
    return parameters, result, tags


def _add_validation(metrics: dict[str, Any], project_root: Path) -> dict[str, Any]:
    """`metrics`, with what each stage reached on validation images beside what it reached on others."""
    from fakeface.system.serialization import read_json

    of_stages = {
        stage: {
            **metrics["stages"][stage],
            "validation": read_json(project_root / _REPORTS / f"validation/{stage}.json"),
        }
        for stage in STAGES
    }
    return metrics | {"stages": of_stages}


def _describe_detector(
    project_root: Path, params: Params, metrics: Mapping[str, Any], hashes: Mapping[str, str]
) -> Detector:
    from fakeface.models.checkpoints import read_metadata
    from fakeface.models.model_card import write_model_card_text
    from fakeface.system.serialization import read_json

    facts = read_metadata(project_root / CHECKPOINT)
    split = read_json(project_root / _REPORTS / "data/split.json")
    tags = {
        "heldout": compute_heldout_digest(project_root, hashes),
        "threshold": repr(facts.calibration.threshold),
        "recipe": params.recipe,
        "profile": str(metrics["profile"]),
        "checkpoint.md5": hashes.get(CHECKPOINT.as_posix(), ""),
    }
    overall = metrics["generalization"]
    tags |= {name: f"{overall[name]:.4f}" for name in ("accuracy", "balanced_accuracy", "roc_auc") if name in overall}
    return Detector(
        checkpoint=CHECKPOINT,
        image_size=facts.image_size,
        card=write_model_card_text(metrics, split, facts),
        tags=tags,
        requirements=read_pinned_requirements(project_root / "requirements" / "cpu.txt"),
    )


def compute_heldout_digest(project_root: Path, hashes: Mapping[str, str]) -> str:
    """What tells one held-out set from another: DVC's hash of its images, and which of them were scored, as what."""
    from fakeface.system.serialization import read_rows

    rows = read_rows(project_root / _REPORTS / "scores.csv", ("set", "path", "label"))
    scored = sorted(f"{row['path']},{row['label']}" for row in rows if row["set"] == HELDOUT)
    images = hashes.get(f"datasets/split/{HELDOUT}", "")
    return hashlib.sha256("\n".join([images, *scored]).encode()).hexdigest()[:20]
