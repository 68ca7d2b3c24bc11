"""From candidate to champion in MLflow's registry, if the gate lets it through."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakeface.constants import HELDOUT, LABELS, STAGES
from fakeface.system.errors import UserError
from fakeface.system.project import open_private_folder
from fakeface.tracking import liveness
from fakeface.tracking.event_writer import MlflowStore, quiet_mlflow
from fakeface.tracking.model_registry import CANDIDATE, CHAMPION, REGISTERED
from fakeface.tracking.ui import open_store

if TYPE_CHECKING:
    from fakeface.metrics.model_comparison import Decision, ModelScores


def promote(
    project_root: Path, chosen: str = "", *, other_data: bool = False, environ: Mapping[str, str] = os.environ
) -> Decision:
    """Make a registered model the champion, if it passes the gate of params.yaml and beats the present one.

    `chosen` is a version's number or an experiment's name; by default the candidate, which is the newest.

    Raises:
        UserError: there is no such model, its scores are gone, or the store cannot be opened, read or written to.
    """
    from fakeface.config.params import load_params
    from fakeface.metrics.model_comparison import Decision, decide_promotion

    gate = load_params(project_root / "params.yaml").promote
    with (
        open_store(project_root, environ) as store,
        liveness.hold_lock(open_private_folder(store.main) / "registry.lock"),
    ):
        version, champion = _find_version(store, chosen), _find_by_alias(store, CHAMPION)
        if champion and champion.version == version.version:
            return Decision(True, (f"The candidate, {_name_version(store, version)}, is the champion already.",))
        contenders = [_read_model_scores(store, each) if each else None for each in (version, champion)]
        assert contenders[0] is not None
        decision = decide_promotion(contenders[0], contenders[1], gate.metric, gate.at_least, other_data=other_data)
        store.client.set_model_version_tag(REGISTERED, version.version, "promotion", " ".join(decision.sentences))
        if decision.promoted:
            store.client.set_registered_model_alias(REGISTERED, CHAMPION, version.version)
    now = f"Version {version.version} is now models:/{REGISTERED}@{CHAMPION}."
    stays = "The champion stays." if champion else "There is still no champion."
    return replace(decision, sentences=(*decision.sentences, now if decision.promoted else stays))


def _find_version(store: MlflowStore, chosen: str) -> Any:
    if not chosen:
        found = _find_by_alias(store, CANDIDATE)
    else:
        versions = store.client.search_model_versions(f"name = '{REGISTERED}'")  # the newest first
        found = next((each for each in versions if chosen in (str(each.version), _get_experiment(store, each))), None)
    if found is None:
        what = f"No model of '{chosen}' is registered" if chosen else "No model is registered yet"
        raise UserError(f"{what}; `dvc repro` registers the one it makes, `fakeface runs` lists the experiments.")
    return found


def _find_by_alias(store: MlflowStore, alias: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_model_version_by_alias(REGISTERED, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _get_experiment(store: MlflowStore, version: Any) -> str:
    return str(version.tags.get("experiment", ""))


def _name_version(store: MlflowStore, version: Any) -> str:
    return f"version {version.version} ({_get_experiment(store, version)})"


def _read_model_scores(store: MlflowStore, version: Any) -> ModelScores:
    import numpy as np

    from fakeface.metrics.model_comparison import ModelScores
    from fakeface.system.serialization import read_rows

    final = STAGES[-1]
    with tempfile.TemporaryDirectory() as folder:
        table = _download_scores(store, version, folder)
        rows = [row for row in read_rows(table, ("set", "path", "source", "label", final)) if row["set"] == HELDOUT]
    return ModelScores(
        name=_name_version(store, version),
        heldout=version.tags["heldout"],
        threshold=float(version.tags["threshold"]),
        paths=[row["path"] for row in rows],
        sources=[row["source"] for row in rows],
        labels=np.array([LABELS[row["label"]] for row in rows], np.uint8),
        scores=np.array([float(row[final]) for row in rows]),
        note=store.client.get_run(version.run_id).data.tags.get("data.note"),
    )


def _download_scores(store: MlflowStore, version: Any, folder: str) -> Path:
    try:
        path = quiet_mlflow().artifacts.download_artifacts(
            run_id=version.run_id, artifact_path="evaluation/scores.csv", dst_path=folder, tracking_uri=store.uri
        )
    except Exception as error:
        raise UserError(
            f"The scores of {_name_version(store, version)} cannot be read from its run {version.run_id} "
            f"({' '.join(str(error).split())[:150]}); promote another version, or run its experiment again."
        ) from None
    return Path(path)
