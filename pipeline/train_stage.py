"""Train one stage: datasets/split and the checkpoint before it → models/, reports/history/ and reports/timing/."""

from __future__ import annotations

import sys
from pathlib import Path

from fakeface import STAGES
from fakeface.errors import UserError, one_sentence_errors
from fakeface.params import experiment_parameters, load_params


def main(arguments: list[str]) -> None:
    """Train the stage that the one argument names."""
    if len(arguments) != 1 or arguments[0] not in STAGES:
        raise UserError(f"Say which stage to train: python pipeline/train_stage.py {'|'.join(STAGES)}.")
    stage = arguments[0]
    params = load_params(Path("params.yaml"))

    from fakeface.device import prepare_tensorflow

    device = prepare_tensorflow(params.device, params.precision, params.seed, params.deterministic)

    from fakeface import tracking
    from fakeface.checkpoints import save_checkpoint
    from fakeface.store import open_store
    from fakeface.tables import read_json, write_json
    from fakeface.training import train_stage, write_history

    position = STAGES.index(stage)
    stores = {name: open_store(Path("datasets/split") / name) for name in STAGES[: position + 1]}
    previous = Path(f"models/{STAGES[position - 1]}.h5") if position else None
    note = read_json(Path("reports/data/split.json"))["note"]
    print(f"{stage}: {params.recipe} recipe on {device.kind} ({device.name}), {device.precision}", flush=True)
    parameters = experiment_parameters(params)
    in_stage = parameters | params.stage_settings(stage).model_dump()
    with tracking.stage_run(Path.cwd(), stage, parameters, stage_parameters=in_stage) as run:
        trained = train_stage(params, stage, stores, previous, note, device.precision, [run.log_epoch])
        save_checkpoint(trained.model, trained.facts, Path(f"models/{stage}.h5"))
        write_history(trained.fit.history, Path(f"reports/history/{stage}.csv"))
        timing = {"seconds": trained.fit.seconds, "images_per_second": trained.fit.images_per_second}
        write_json(
            Path(f"reports/timing/{stage}.json"), timing | {"device": device.name, "precision": device.precision}
        )
        run.log_metrics(timing)


if __name__ == "__main__":
    with one_sentence_errors():
        main(sys.argv[1:])
