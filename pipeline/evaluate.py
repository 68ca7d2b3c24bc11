"""Stage `evaluate`: every checkpoint on the held-out sources and on each stage's test part → reports/."""

from pathlib import Path

from fakeface.config.params import list_experiment_parameters, load_params
from fakeface.system.errors import exit_on_user_error


def main() -> None:
    """Evaluate; the stage `report` makes pages of the result, and `track` takes it to MLflow."""
    params, project = load_params(Path("params.yaml")), Path.cwd()
    from fakeface import tracking

    with tracking.evaluation_run(project, list_experiment_parameters(params)):
        from fakeface.evaluation.run_evaluation import run_evaluation
        from fakeface.tracking.run_identity import identify_run

        metrics = run_evaluation(params, Path(), identify_run(project).tags)
    if left_out := sorted(set(params.evaluate.pairs) - set(metrics["pairs"])):
        print(f"pairs left out, because this data lacks a source of theirs: {', '.join(left_out)}", flush=True)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
