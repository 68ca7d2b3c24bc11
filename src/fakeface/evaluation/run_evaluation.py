"""Stage evaluate: models/ and datasets/split → the numbers in reports/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fakeface.config.params import Params
from fakeface.constants import FINAL_STAGE, HELDOUT, STAGES
from fakeface.data.image_store import open_store
from fakeface.evaluation.compute_metrics import compute_evaluation_metrics
from fakeface.evaluation.predictions import evaluate_checkpoints, evaluate_robustness
from fakeface.evaluation.write_results import describe_run, write_results
from fakeface.models.checkpoints import ModelCache, read_metadata
from fakeface.models.device import prepare_tensorflow
from fakeface.system.serialization import read_json


def run_evaluation(params: Params, project: Path, tags: Mapping[str, str]) -> dict[str, Any]:
    """Score every checkpoint on the held-out sources and on each stage's test part, and write reports/.

    Args:
        params: of the experiment.
        project: the folder of models/, datasets/ and reports/.
        tags: name commit and experiment in run.json, as `tracking.identity.identify` gives them.

    Returns:
        What metrics.json holds.

    Raises:
        UserError: a checkpoint or a store is missing or damaged, or `evaluate` names a source that is not there.
    """
    checkpoints = {stage: project / "models" / f"{stage}.h5" for stage in STAGES}
    for checkpoint in checkpoints.values():
        read_metadata(checkpoint)  # before TensorFlow takes seconds to load: one that is missing is told at once
    device = prepare_tensorflow(params.device, params.precision, params.seed, params.deterministic)
    stores = {role: open_store(project / "datasets/split" / role) for role in (*STAGES, HELDOUT)}
    settings, models, batch_size = params.evaluate, ModelCache(), params.validation_batch_size
    evaluation = evaluate_checkpoints(checkpoints, stores, settings.sources, batch_size, models)
    robustness = evaluate_robustness(
        checkpoints[FINAL_STAGE],
        stores,
        settings.sources,
        settings.pairs,
        settings.robustness_images,
        batch_size,
        params.seed,
        models,
    )
    split = read_json(project / "reports/data/split.json")
    metrics = {
        "recipe": params.recipe,
        "profile": split["profile"],
        "note": split["note"],
        **compute_evaluation_metrics(evaluation, settings.pairs, robustness, settings.bootstrap, params.seed),
    }
    write_results(evaluation, metrics, robustness, describe_run(params, device, tags), project / "reports")
    return metrics
