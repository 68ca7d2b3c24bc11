"""Stage `evaluate`: every checkpoint on the held-out sources and on each stage's test part → reports/."""

from pathlib import Path

from fakeface.config.params import list_experiment_parameters, load_params
from fakeface.constants import STAGES
from fakeface.system.errors import exit_on_user_error


def main() -> None:
    """Evaluate; the stage `report` makes pages of the result, and `track` takes it to MLflow."""
    params, project = load_params(Path("params.yaml")), Path.cwd()
    from fakeface import tracking

    with tracking.evaluation_run(project, list_experiment_parameters(params)):
        from fakeface.evaluation.run_evaluation import run_evaluation
        from fakeface.system.project import find_main_folder, open_private_folder
        from fakeface.tracking.run_identity import identify_run
        from fakeface.training.resume import remove_finished

        metrics = run_evaluation(params, Path(), identify_run(project).tags)
        for stage in STAGES:  # read, so that what was kept for going on is of no use any more
            remove_finished(open_private_folder(find_main_folder(project), "training"), Path(f"models/{stage}.h5"))
    if left_out := sorted(set(params.evaluate.pairs) - set(metrics["pairs"])):
        print(f"pairs left out, because this data lacks a source of theirs: {', '.join(left_out)}", flush=True)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
