"""The evaluated model in MLflow's registry: one version an experiment, loadable where fakeface is not installed."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakeface.tracking.event_writer import quiet_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient

REGISTERED, CANDIDATE, CHAMPION = "fakeface", "candidate", "champion"
RESULT = "result"  # the tag of a version that says which result it holds
_LONGEST_DESCRIPTION = 5000  # characters: the column of MLflow's database
_CODE = Path(__file__).with_name("pyfunc_model.py")


def log_model(client: MlflowClient, run_id: str, checkpoint: Path, settings: Mapping[str, Any]) -> str:
    """Log the checkpoint as the run's model; return MLflow's id of it.

    Input: images (-1, size, size, 3) uint8. Output: a row each of `score` and `prediction`. TensorFlow is not loaded.
    """
    mlflow = quiet_mlflow()
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    run = client.get_run(run_id)
    logged = client.create_logged_model(
        run.info.experiment_id, name="detector", source_run_id=run_id, tags=dict(settings["tags"])
    )
    described = Model(artifact_path=logged.artifact_location, model_uuid=logged.model_id, run_id=run_id)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model"
        mlflow.pyfunc.save_model(
            path=str(place),
            mlflow_model=described,
            python_model=str(_CODE),
            artifacts={"checkpoint": str(checkpoint)},
            signature=_build_signature(settings["image_size"]),
            input_example=_draw_example(settings["image_size"]),
            pip_requirements=list(settings["requirements"]),
        )
        (place / "README.md").write_text(settings["card"], encoding="utf-8")
        client.log_model_artifacts(logged.model_id, str(place))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


def find_registered(client: MlflowClient, run_id: str, result: str) -> tuple[str, str]:
    """The version that holds a result of a run and MLflow's id of its model; empty where there is none.

    The newest of all versions is the candidate, also where a kill came before that was said.
    """
    versions = client.search_model_versions(f"name = '{REGISTERED}'")  # the newest first
    for version in versions:
        if version.run_id == run_id and version.tags.get(RESULT) == result:
            if version is versions[0]:
                client.set_registered_model_alias(REGISTERED, CANDIDATE, version.version)
            return str(version.version), str(version.source).removeprefix("models:/")
    return "", ""


def register_model(client: MlflowClient, run_id: str, model_id: str, settings: Mapping[str, Any]) -> str:
    """Make a model of a run the registry's newest version and its candidate; return the version."""
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException):  # it exists already; what else may be wrong shows itself in the next line
        client.create_registered_model(REGISTERED, description="Tells computer-made faces from photographs.")
    version = client.create_model_version(
        REGISTERED,
        f"models:/{model_id}",
        run_id=run_id,
        tags=dict(settings["tags"]),
        description=_shorten_card(settings["card"]),
        model_id=model_id,
    )
    client.set_registered_model_alias(REGISTERED, CANDIDATE, version.version)
    return str(version.version)


def _build_signature(size: int) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    images = TensorSpec(np.dtype("uint8"), (-1, size, size, 3))
    return ModelSignature(Schema([images]), Schema([ColSpec("double", "score"), ColSpec("string", "prediction")]))


def _draw_example(size: int) -> Any:
    """One image of noise: the form of an input, and nobody's face."""
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)


def _shorten_card(card: str) -> str:
    if len(card) <= _LONGEST_DESCRIPTION:
        return card
    end = "\n\n… (whole in the model's README.md)"
    return card[: _LONGEST_DESCRIPTION - len(end)] + end
