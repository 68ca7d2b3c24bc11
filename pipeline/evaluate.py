"""Score every checkpoint on the held-out sources and on each stage's test part → reports/."""

from __future__ import annotations

from pathlib import Path

from fakeface.config.params import list_experiment_parameters, load_params
from fakeface.constants import HELDOUT, STAGES
from fakeface.system.errors import exit_on_user_error


def main() -> None:
    """Write reports/; the stage `track` takes them to MLflow."""
    params = load_params(Path("params.yaml"))
    from fakeface import tracking

    with tracking.evaluation_run(Path.cwd(), list_experiment_parameters(params)):
        from fakeface.models.checkpoints import ModelCache, read_metadata
        from fakeface.models.device import prepare_tensorflow

        checkpoints = {stage: Path(f"models/{stage}.h5") for stage in STAGES}
        for checkpoint in checkpoints.values():
            read_metadata(checkpoint)  # before TensorFlow takes seconds to load: one that is missing is told at once
        device = prepare_tensorflow(params.device, params.precision, params.seed, params.deterministic)

        from fakeface.constants import HISTORY_COLUMNS
        from fakeface.data.image_store import open_store
        from fakeface.evaluation.predictions import evaluate_checkpoints, evaluate_robustness
        from fakeface.evaluation.results import compute_evaluation_metrics
        from fakeface.reporting.page import write_result_page
        from fakeface.reporting.results_reader import RUN, describe_run
        from fakeface.reporting.write_results import write_results
        from fakeface.system.project import find_main_folder, open_private_folder
        from fakeface.system.serialization import read_json, read_rows, write_json
        from fakeface.tracking.identity import identify
        from fakeface.training.resume import remove_finished

        stores = {role: open_store(Path("datasets/split") / role) for role in (*STAGES, HELDOUT)}
        for checkpoint in checkpoints.values():
            remove_finished(open_private_folder(find_main_folder(Path.cwd()), "training"), checkpoint)
        detectors = ModelCache()
        evaluation = evaluate_checkpoints(
            checkpoints,
            stores,
            params.evaluate.sources,
            params.validation_batch_size,
            detectors,
        )
        robustness = evaluate_robustness(
            checkpoints[STAGES[-1]],
            stores,
            params.evaluate.sources,
            params.evaluate.pairs,
            params.evaluate.robustness_images,
            params.validation_batch_size,
            params.seed,
            detectors,
        )
        facts = read_json(Path("reports/data/split.json"))
        metrics = {
            "recipe": params.recipe,
            "profile": facts["profile"],
            "note": facts["note"],
            **compute_evaluation_metrics(
                evaluation, params.evaluate.pairs, robustness, params.evaluate.bootstrap, params.seed
            ),
        }
        if left_out := sorted(set(params.evaluate.pairs) - set(metrics["pairs"])):
            print(f"pairs left out, because this data lacks a source of theirs: {', '.join(left_out)}", flush=True)
        histories = {stage: list(read_rows(Path(f"reports/history/{stage}.csv"), HISTORY_COLUMNS)) for stage in STAGES}
        write_results(evaluation, metrics, robustness, histories, facts["note"] or "", Path("reports"))
        write_json(Path("reports") / RUN, describe_run(params, device, identify(Path.cwd()).tags))
        page = write_result_page(Path("reports"), Path("datasets/split") / HELDOUT, params.report.mistakes)
        print(f"the result in words and pictures: open {page} in a browser", flush=True)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
