"""Train one stage: datasets/split and the checkpoint before it → models/, reports/history/ and reports/timing/."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fakeface.config.params import Params, list_experiment_parameters, load_params
from fakeface.constants import STAGES
from fakeface.system.errors import UserError, exit_on_user_error
from fakeface.system.serialization import write_json
from fakeface.system.signals import raise_on_termination
from fakeface.training.distributed.cluster import Cluster, read_cluster

if TYPE_CHECKING:
    from fakeface import tracking
    from fakeface.data.image_store import Store
    from fakeface.models.device import Device
    from fakeface.training.distributed.strategy import Distribution
    from fakeface.training.resume import TrainingState


def main(arguments: list[str]) -> None:
    """Train the stage that the one argument names."""
    if len(arguments) != 1 or arguments[0] not in STAGES:
        raise UserError(f"Say which stage to train: python pipeline/train_stage.py {'|'.join(STAGES)}.")
    stage = arguments[0]
    params = load_params(Path("params.yaml"))
    cluster = read_cluster(os.environ)
    if cluster is not None and not cluster.is_chief:
        with raise_on_termination():
            help_train(params, stage, cluster)
        return
    parameters = list_experiment_parameters(params)
    in_stage = parameters | params.get_stage_config(stage).model_dump()

    from fakeface import tracking

    with tracking.stage_run(Path.cwd(), stage, parameters, stage_parameters=in_stage) as run:
        train(params, stage, run, cluster)


def train(params: Params, stage: str, run: tracking.Run, cluster: Cluster | None) -> None:
    """Train one stage with its curves going to `run`, and write its files."""
    from fakeface.models.checkpoints import read_metadata
    from fakeface.system.filesystem import ensure_dir
    from fakeface.system.project import find_main_folder, open_private_folder
    from fakeface.training.stage_fingerprint import compute_stage_digest

    previous = _checkpoint_before(stage)
    # Before TensorFlow takes seconds to load, and a training minutes: what is missing or in the way is told at once
    ensure_dir(Path("models"))
    if previous is not None:
        read_metadata(previous)
    device, distribution = _prepared(params, stage, cluster)

    import tensorflow as tf

    from fakeface.training.resume import open_training_state, remove_finished

    stores = _stores(stage)
    unfinished = open_private_folder(find_main_folder(Path.cwd()), "training")
    if previous is not None:
        remove_finished(unfinished, previous)
    replicas = [f"{distribution.replicas} replicas"] if distribution else []  # they round otherwise than one
    digest = compute_stage_digest(
        Path.cwd(), f"train_{stage}", device.kind, device.precision, tf.__version__, *replicas
    )
    with open_training_state(unfinished, f"{stage}-{digest[:16]}") as saved:
        if distribution is None:
            _train_and_write(params, stage, stores, previous, device, saved, run)
            return
        epochs = params.get_stage_config(stage).epochs
        with distribution.report_lost_workers(lambda: f"{saved.progress.epoch} of {epochs} epochs are kept"):
            _train_and_write(params, stage, stores, previous, device, saved, run, distribution)
            distribution.wait_for_all()


def help_train(params: Params, stage: str, cluster: Cluster) -> None:
    """Train one stage as the helper of another machine, which writes all."""
    _, distribution = _prepared(params, stage, cluster)
    assert distribution is not None
    from fakeface.training.train_stage import train_as_worker

    with distribution.report_lost_workers(lambda: "the chief has kept what was done"):
        train_as_worker(params, stage, _stores(stage), distribution)
        distribution.wait_for_all()


def _prepared(params: Params, stage: str, cluster: Cluster | None) -> tuple[Device, Distribution | None]:
    """Choose what to compute on, and say it; with a cluster, once all its machines are there and alike."""
    from fakeface.models.device import prepare_tensorflow
    from fakeface.training.distributed.strategy import distribute
    from fakeface.training.stage_fingerprint import compute_stage_digest

    device = prepare_tensorflow(params.device, params.precision, params.seed, params.deterministic)

    import tensorflow as tf

    distribution = distribute(cluster, params.get_stage_config(stage).batch_size)
    parts = f", batches in {distribution.replicas} parts" if distribution else ""
    print(f"{stage}: {params.recipe} recipe on {device.kind} ({device.name}), {device.precision}{parts}", flush=True)
    if distribution is not None:
        ours = {path for path in [_checkpoint_before(stage)] if path}  # the chief's alone counts
        same = compute_stage_digest(Path.cwd(), f"train_{stage}", device.precision, tf.__version__, without=ours)
        with distribution.report_lost_workers(lambda: "nothing was begun"):
            distribution.check_same_inputs(same)
    return device, distribution


def _stores(stage: str) -> dict[str, Store]:
    from fakeface.data.image_store import open_store

    return {name: open_store(Path("datasets/split") / name) for name in STAGES[: STAGES.index(stage) + 1]}


def _checkpoint_before(stage: str) -> Path | None:
    position = STAGES.index(stage)
    return Path(f"models/{STAGES[position - 1]}.h5") if position else None


def _train_and_write(
    params: Params,
    stage: str,
    stores: dict[str, Store],
    previous: Path | None,
    device: Device,
    saved: TrainingState,
    run: tracking.Run,
    distribution: Distribution | None = None,
) -> None:
    from fakeface.models.checkpoints import save_checkpoint
    from fakeface.training.fit import write_history
    from fakeface.training.train_stage import train_stage

    epochs, done = params.get_stage_config(stage).epochs, saved.progress
    if done.epoch:
        print(f"{stage}: goes on after epoch {done.epoch} of {epochs}", flush=True)
    for row in done.history:  # for a row that is not the one of the interrupted run
        run.log_epoch(int(row["epoch"]), {name: value for name, value in row.items() if name != "epoch"})
    log_epoch = partial(run.log_epoch, first=done.epoch + 1, of=epochs)
    trained = train_stage(params, stage, stores, previous, device.precision, [log_epoch], saved, distribution)
    save_checkpoint(trained.model, trained.facts, Path(f"models/{stage}.h5"))
    write_history(trained.fit.history, Path(f"reports/history/{stage}.csv"))
    seconds = trained.fit.seconds
    speed = {"seconds": seconds, "images_per_second": trained.fit.images_per_second}
    write_json(Path(f"reports/timing/{stage}.json"), speed | {"device": device.name, "precision": device.precision})
    write_json(Path(f"reports/validation/{stage}.json"), trained.validation)
    run.log_metrics({"seconds": seconds})
    run.set_tags({"device": f"{device.kind}: {device.name}", "precision": device.precision})
    saved.finish(Path(f"models/{stage}.h5"))


if __name__ == "__main__":
    with exit_on_user_error():
        main(sys.argv[1:])
