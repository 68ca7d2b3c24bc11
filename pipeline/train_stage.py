"""Stages `train_stage1` to `train_stage3`: datasets/split and the checkpoint before → models/ and reports/."""

import sys
from pathlib import Path

from fakeface.config.params import list_experiment_parameters, load_params
from fakeface.constants import STAGES
from fakeface.system.errors import UserError, exit_on_user_error
from fakeface.system.signals import raise_on_termination
from fakeface.training.run_stage import is_worker, run_stage, run_worker


def main(arguments: list[str]) -> None:
    """Train the stage that the one argument names."""
    if len(arguments) != 1 or arguments[0] not in STAGES:
        raise UserError(f"Say which stage to train: python pipeline/train_stage.py {'|'.join(STAGES)}.")
    stage, params = arguments[0], load_params(Path("params.yaml"))
    if is_worker():
        with raise_on_termination():
            run_worker(params, stage)
        return
    parameters = list_experiment_parameters(params)
    of_stage = parameters | params.get_stage_config(stage).model_dump()

    from fakeface import tracking

    with tracking.stage_run(Path.cwd(), stage, parameters, stage_parameters=of_stage) as run:
        run_stage(params, stage, run)


if __name__ == "__main__":
    with exit_on_user_error():
        main(sys.argv[1:])
