"""Stages train_stage1 to train_stage3: datasets/split and the checkpoint before → models/, history/ and timing/."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fakeface.config.params import Params
from fakeface.constants import STAGES
from fakeface.data.image_store import Store, open_store
from fakeface.models.checkpoints import read_metadata, save_checkpoint
from fakeface.models.device import Device, prepare_tensorflow
from fakeface.system.filesystem import ensure_dir
from fakeface.system.project import find_main_folder, open_private_folder
from fakeface.system.serialization import write_json
from fakeface.training.distributed.cluster import Cluster, read_cluster
from fakeface.training.stage_fingerprint import compute_stage_digest

if TYPE_CHECKING:
    from fakeface.training.distributed.strategy import Distribution
    from fakeface.training.resume import TrainingState

_OF_THIS_MACHINE = Path("datasets/processor.json")


class RunLogger(Protocol):
    """Where curves and settings of a stage go; `tracking.Run` is one."""

    def log_epoch(self, epoch: int, numbers: Mapping[str, float], *, first: int = 1, of: int | None = None) -> None:
        """Log one epoch's numbers; `first` is the first epoch of this process, `of` how many there are."""

    def log_metrics(self, numbers: Mapping[str, float]) -> None:
        """Log numbers of the whole stage."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tag the run."""


def is_worker(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether TF_CONFIG makes this process the worker of another machine, the chief, which writes all."""
    cluster = read_cluster(environ)
    return cluster is not None and not cluster.is_chief


def run_stage(params: Params, stage: str, run: RunLogger) -> None:
    """Train one stage in the present folder with its curves going to `run`, and write its files.

    Raises:
        UserError: a checkpoint or store is missing or damaged, the loss is not finite, or another machine is gone.
    """
    previous = _find_checkpoint_before(stage)
    # Before TensorFlow takes seconds to load, and a training minutes: what is missing or in the way is told at once
    ensure_dir(Path("models"))
    if previous is not None:
        read_metadata(previous)
    device, distribution = _setup_runtime(params, stage, read_cluster(os.environ))

    import tensorflow as tf

    from fakeface.training.resume import open_training_state, remove_finished

    unfinished = open_private_folder(find_main_folder(Path.cwd()), "training")
    if previous is not None:
        remove_finished(unfinished, previous)
    replicas = [f"{distribution.replicas} replicas"] if distribution else []  # they round otherwise than one
    computed_on = (device.kind, device.precision, tf.__version__, *replicas)
    digest = compute_stage_digest(Path.cwd(), f"train_{stage}", *computed_on)
    with open_training_state(unfinished, f"{stage}-{digest[:16]}") as state:
        if distribution is None:
            _train_and_write(params, stage, device, state, run)
            return
        epochs = params.get_stage_config(stage).epochs
        with distribution.report_lost_workers(lambda: f"{state.progress.epoch} of {epochs} epochs are kept"):
            _train_and_write(params, stage, device, state, run, distribution)
            distribution.wait_for_all()


def run_worker(params: Params, stage: str) -> None:
    """Train one stage as the worker of another machine, which writes all.

    Raises:
        UserError: the machines differ, or another one is gone.
    """
    _, distribution = _setup_runtime(params, stage, read_cluster(os.environ))
    assert distribution is not None
    from fakeface.training.train_and_calibrate import train_as_worker

    with distribution.report_lost_workers(lambda: "the chief has kept what was done"):
        train_as_worker(params, stage, _open_stores(stage), distribution)
        distribution.wait_for_all()


def _setup_runtime(params: Params, stage: str, cluster: Cluster | None) -> tuple[Device, Distribution | None]:
    """Choose what to compute on, and say it; with a cluster, once all its machines are there and have equal inputs."""
    from fakeface.training.distributed.strategy import distribute

    device = prepare_tensorflow(params.device, params.precision, params.seed, params.deterministic)

    import tensorflow as tf

    distribution = distribute(cluster, params.get_stage_config(stage).batch_size)
    parts = f", batches in {distribution.replicas} parts" if distribution else ""
    print(f"{stage}: {params.recipe} recipe on {device.kind} ({device.name}), {device.precision}{parts}", flush=True)
    if distribution is not None:
        # The chief's checkpoint alone counts, and another machine may have other processors
        ours = {path for path in (_find_checkpoint_before(stage), _OF_THIS_MACHINE) if path}
        same = compute_stage_digest(Path.cwd(), f"train_{stage}", device.precision, tf.__version__, without=ours)
        with distribution.report_lost_workers(lambda: "nothing was begun"):
            distribution.check_same_inputs(same)
    return device, distribution


def _open_stores(stage: str) -> dict[str, Store]:
    return {name: open_store(Path("datasets/split") / name) for name in STAGES[: STAGES.index(stage) + 1]}


def _find_checkpoint_before(stage: str) -> Path | None:
    position = STAGES.index(stage)
    return Path(f"models/{STAGES[position - 1]}.h5") if position else None


def _train_and_write(
    params: Params,
    stage: str,
    device: Device,
    state: TrainingState,
    run: RunLogger,
    distribution: Distribution | None = None,
) -> None:
    from fakeface.training.fit import write_history
    from fakeface.training.train_and_calibrate import train_stage

    previous, stores = _find_checkpoint_before(stage), _open_stores(stage)
    epochs, done = params.get_stage_config(stage).epochs, state.progress
    if done.epoch:
        print(f"{stage}: goes on after epoch {done.epoch} of {epochs}", flush=True)
    for row in done.history:  # for a run that is not the one of the interrupted stage
        run.log_epoch(int(row["epoch"]), {name: value for name, value in row.items() if name != "epoch"})
    log_epoch = partial(run.log_epoch, first=done.epoch + 1, of=epochs)
    trained = train_stage(params, stage, stores, previous, device.precision, [log_epoch], state, distribution)
    save_checkpoint(trained.model, trained.facts, Path(f"models/{stage}.h5"))
    write_history(trained.fit.history, Path(f"reports/history/{stage}.csv"))
    speed = {"seconds": trained.fit.seconds, "images_per_second": trained.fit.images_per_second}
    write_json(Path(f"reports/timing/{stage}.json"), speed | {"device": device.name, "precision": device.precision})
    write_json(Path(f"reports/validation/{stage}.json"), trained.validation)
    run.log_metrics({"seconds": trained.fit.seconds})
    run.set_tags({"device": f"{device.kind}: {device.name}", "precision": device.precision})
    state.finish(Path(f"models/{stage}.h5"))
