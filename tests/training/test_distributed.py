"""One training on two machines and on two GPUs: real processes on loopback, and processors in the place of GPUs.

They are killed and stopped in between, and have to end as one that was left alone.

tests/support/distributed_worker.py is what the processes run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml

from fakeface.config.params import load_params
from fakeface.constants import HISTORY_COLUMNS
from fakeface.data.image_pool import gather_pool
from fakeface.data.image_store import StoredImage, open_store, write_store
from fakeface.data.input_pipeline import BatchShard, build_scoring_dataset, build_training_dataset
from fakeface.models.device import prepare_tensorflow, quiet_tensorflow
from fakeface.models.networks import NETWORKS
from fakeface.system.errors import UserError
from fakeface.system.serialization import read_rows
from fakeface.training.distributed.cluster import Cluster, read_cluster
from fakeface.training.distributed.strategy import count_usable_gpus
from fakeface.training.fit import write_history
from fakeface.training.resume import TrainingState
from fakeface.training.train_and_calibrate import train_stage
from tests.support.distributed_worker import small_features
from tests.support.project import PROJECT

quiet_tensorflow()
SIZE, EPOCHS, BATCH = 32, 3, 8
# Of a loss of about 0.7. Adam divides a gradient by its own size, so the last digit of one next to nothing moves a
# weight by up to the rate: with the seeds 20 to 23 the losses came to differ by up to 0.003.
ROUNDING = 5e-3


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a machine has before the training: settings, pipeline and images."""
    folder = tmp_path_factory.mktemp("machine")
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    small = {"image_size": SIZE, "batch_size": BATCH, "validation_batch_size": 7, "epochs": EPOCHS, "device": "cpu"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params | small))
    (folder / "diverging.yaml").write_text(yaml.safe_dump(diverging(params | small)))
    shutil.copy(PROJECT / "dvc.yaml", folder / "dvc.yaml")
    draw_store(folder / "datasets/split/stage1")
    return folder


def diverging(params: dict[str, Any]) -> dict[str, Any]:
    """Settings by which a weight grows to nine times its size in a step, out of range after the first epoch."""
    recipes = {name: recipe | {"weight_decay": 10} for name, recipe in params["recipes"].items()}
    return params | {"lr": 1, "epochs": 6, "steps_per_epoch": 9, "recipes": recipes}


def draw_store(into: Path) -> None:
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (60, SIZE, SIZE, 3), dtype=np.uint8)
    images[1::2] = images[1::2, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)
    rows = [
        StoredImage(
            path=f"{number}.png",
            source=("camera", "generator")[number % 2],
            label=("real", "fake")[number % 2],
            part="valid" if number % 6 > 3 else "train",
            sha256="",
            group="",
            pixels_sha256=hashlib.sha256(image.tobytes()).hexdigest(),
        )
        for number, image in enumerate(images)
    ]
    write_store(rows, [images], SIZE, into)


@contextmanager
def started(what: str, folder: Path, tf_config: str | None = None) -> Iterator[subprocess.Popen[str]]:
    own = {
        "PYTHONPATH": str(PROJECT / "src"),
        "HOME": str(folder.parent),
        "OMP_NUM_THREADS": "1",
        "DO_NOT_TRACK": "true",
    }
    environment = {**os.environ, **own, **({"TF_CONFIG": tf_config} if tf_config else {})}
    environment.pop("MLFLOW_TRACKING_URI", None)  # which MLflow sets itself, once a test used a store
    with subprocess.Popen(
        [sys.executable, PROJECT / "tests/support/distributed_worker.py", *what.split()],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def two_configs() -> list[str]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in (one, other)]
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}})
        for number in range(2)
    ]


History = npt.NDArray[np.float64]


def history(path: Path) -> History:
    """The columns of a history, an epoch a row."""
    return np.array([[float(row[name]) for name in HISTORY_COLUMNS] for row in read_rows(path, HISTORY_COLUMNS)])


@pytest.fixture(scope="module")
def alone(machine: Path, tmp_path_factory: pytest.TempPathFactory) -> History:
    """The history of the same training on one machine."""
    params, into = load_params(machine / "params.yaml"), tmp_path_factory.mktemp("alone") / "history.csv"
    prepare_tensorflow("cpu", "float32", params.seed, params.deterministic)
    stores = {"stage1": open_store(machine / "datasets/split/stage1")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "residual", small_features)
        write_history(train_stage(params, "stage1", stores, None, "float32").fit.history, into)
    return history(into)


PROGRESS = re.compile(r"worker \d|(scoring [^:]*|stage1: [^:]*): [\d,]+ of [\d,]+ \(\d+ %\)$|stage1 epoch")


@dataclass(frozen=True)
class Ended:
    """How one of two machines ended: its exit code, and what it said but for its progress."""

    code: int
    said: str

    @classmethod
    def of(cls, process: subprocess.Popen[str]) -> Ended:
        lines = process.communicate()[0].splitlines()
        told = [line for line in lines if not PROGRESS.match(line)]
        return cls(process.returncode, "\n".join(told[1:]))  # the first tells of the device


def both(chief: Path, helper: Path, what: tuple[str, str]) -> tuple[Ended, Ended, list[str]]:
    """Run a chief and its helper, and return how they ended, and their addresses."""
    configs = two_configs()
    with started(what[0], chief, configs[0]) as first, started(what[1], helper, configs[1]) as second:
        return Ended.of(first), Ended.of(second), json.loads(configs[0])["cluster"]["worker"]


GOES_ON = f"stage1: goes on after epoch 1 of {EPOCHS}\n"
GO_ON = "start the same command again on every machine to go on from there."
KEPT = f"1 of {EPOCHS} epochs are kept"


@pytest.mark.slow
@pytest.mark.system
def test_two_machines_train_as_one_whichever_is_killed_or_stopped(
    machine: Path, alone: History, tmp_path: Path
) -> None:
    chief, helper = (shutil.copytree(machine, tmp_path / name) for name in ("chief", "helper"))

    of_chief, of_helper, addresses = both(chief, helper, ("stage", "stage SIGKILL 7"))
    assert of_helper == Ended(-signal.SIGKILL, "")
    assert of_chief == Ended(1, f"fakeface: {addresses[1]} does not answer any more; {KEPT}; {GO_ON}")

    of_chief, of_helper, addresses = both(chief, helper, ("stage SIGKILL 2", "stage"))
    assert of_chief == Ended(-signal.SIGKILL, GOES_ON.strip())
    chief_is_gone = "does not answer any more; the chief has kept what was done"
    assert of_helper == Ended(1, f"fakeface: {addresses[0]} {chief_is_gone}; {GO_ON}")

    of_chief, of_helper, addresses = both(chief, helper, ("stage SIGINT 2", "stage"))
    by_you = "fakeface: stopped by you; run the same command again to go on with what is left."
    assert of_chief == Ended(130, f"{GOES_ON}stage1: stopped; {KEPT}.\n{by_you}")
    assert of_helper == Ended(1, f"fakeface: {addresses[0]} {chief_is_gone}; {GO_ON}")

    of_chief, of_helper, addresses = both(chief, helper, ("stage", "stage SIGTERM 2"))
    done = f"stage1: stopped; 1 of {EPOCHS} epochs were done, which the chief keeps."
    by_sigterm = "fakeface: stopped by SIGTERM; run the same command again to go on with what is left."
    assert of_helper == Ended(143, f"{done}\n{by_sigterm}")
    assert of_chief == Ended(1, f"{GOES_ON}fakeface: {addresses[1]} does not answer any more; {KEPT}; {GO_ON}")

    assert both(chief, helper, ("stage", "stage"))[:2] == (Ended(0, GOES_ON.strip()), Ended(0, ""))
    np.testing.assert_allclose(history(chief / "reports/history/stage1.csv"), alone, rtol=ROUNDING, atol=ROUNDING)
    made = {path.name for path in chief.iterdir()} - {path.name for path in machine.iterdir()}
    assert {"models", "reports", "mlflow.db", ".fakeface"} <= made
    assert sorted(path.name for path in helper.iterdir()) == sorted(path.name for path in machine.iterdir())


LOST = r"fakeface: stage1: the loss is (nan|inf) in epoch 2, step \d, at learning rate 0\.9\d+; "
SMALLER = r"a smaller rate, for example -S stages\.stage1\.lr=0\.09\d+, starts the stage anew\."
LAST_GOOD = r"the state after epoch 1 is kept in (\S+); the same command ends so again and is refused, "


@pytest.mark.slow
@pytest.mark.system
def test_two_machines_say_where_the_loss_was_lost_and_keep_the_last_good_state(machine: Path, tmp_path: Path) -> None:
    chief, helper = (shutil.copytree(machine, tmp_path / name) for name in ("chief", "helper"))
    for folder in (chief, helper):
        shutil.copy(folder / "diverging.yaml", folder / "params.yaml")
    of_chief, of_helper, _ = both(chief, helper, ("stage", "stage"))
    assert (of_chief.code, of_helper.code) == (1, 1)
    assert re.fullmatch(LOST + SMALLER, of_helper.said), of_helper.said
    kept = re.fullmatch(LOST + LAST_GOOD + SMALLER, of_chief.said)
    assert kept, of_chief.said
    assert TrainingState((chief / kept[2]).parent).progress.epoch == 1


@pytest.mark.slow
@pytest.mark.system
def test_two_gpus_train_as_one_go_on_where_they_stopped_and_say_where_the_loss_was_lost(
    machine: Path, alone: History, tmp_path: Path
) -> None:
    folder = shutil.copytree(machine, tmp_path / "project")
    with started("mirrored", folder) as process:
        printed = process.communicate()[0]
    np.testing.assert_allclose(history(folder / "mirrored.csv"), alone, rtol=ROUNDING, atol=ROUNDING)
    assert f"stage1: stopped; {KEPT}.\n" in printed
    assert process.returncode == 1, printed
    kept = re.fullmatch(LOST + LAST_GOOD + SMALLER, printed.splitlines()[-1])
    assert kept, printed
    assert TrainingState((folder / kept[2]).parent).progress.epoch == 1


@pytest.mark.slow
@pytest.mark.system
def test_a_machine_that_waits_for_the_others_hears_that_it_is_to_stop(machine: Path) -> None:
    with started("stage", machine, two_configs()[1]) as helper:
        assert helper.stdout
        assert helper.stdout.readline().startswith("worker 2 of 2: waits for 127.0.0.1:")
        helper.terminate()
        said = helper.communicate()[0]
    assert said == "fakeface: stopped by SIGTERM; run the same command again to go on with what is left.\n"
    assert helper.returncode == 143


def test_machines_wait_until_all_answer() -> None:
    addresses = json.loads(two_configs()[0])["cluster"]["worker"]
    first, second = (Cluster(tuple(addresses), number) for number in range(2))
    waiting = threading.Thread(target=first.wait_for_others, daemon=True)
    waiting.start()
    while second.silent() and waiting.is_alive():
        pass
    assert waiting.is_alive()
    second.wait_for_others()
    with socket.create_server(("127.0.0.1", int(addresses[1].rpartition(":")[2]))):  # as TensorFlow does then
        waiting.join()


def test_a_port_that_another_program_has_is_named() -> None:
    with socket.create_server(("", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=f"The port of {address}, .* cannot be opened .*in use"):
            Cluster((address, "127.0.0.1:1"), 0).wait_for_others()


def test_the_parts_of_a_batch_are_the_whole_batch(machine: Path) -> None:
    from fakeface.training.augmentation.build_augmentation import build_augmentation

    pool = gather_pool([open_store(machine / "datasets/split/stage1")], "train")
    steps: list[dict[str, Any]] = [
        {"op": "rotate", "degrees": 20},
        {"op": "flip"},
        {"op": "jpeg", "quality": [40, 90], "probability": 0.5},
    ]
    augment = build_augmentation(steps, 1)
    made = (pool, augment, 8, 4, range(1, 3), "source", 5)
    whole = [np.asarray(images) for images, _ in build_training_dataset(*made)]
    shares = [BatchShard(first=0, count=1, of=4), BatchShard(first=1, count=3, of=4)]
    one, three = ([np.asarray(images) for images, _ in build_training_dataset(*made, share=share)] for share in shares)
    parts = [np.concatenate([one[step], *three[3 * step : 3 * step + 3]]) for step in range(len(whole))]
    np.testing.assert_array_equal(parts, whole)


def test_the_parts_of_what_is_scored_are_the_whole(machine: Path) -> None:
    pool = gather_pool([open_store(machine / "datasets/split/stage1")], "valid")
    counts = [
        [len(images) for images, _ in build_scoring_dataset(pool, 7, BatchShard(first=first, count=1, of=3))]
        for first in range(3)
    ]
    assert counts == [[3, 3, 2], [2, 2, 2], [2, 2, 2]]
    parts = [list(build_scoring_dataset(pool, 7, BatchShard(first, 1, 3))) for first in range(3)]
    labels = np.concatenate([np.concatenate([labels for _, labels in step]) for step in zip(*parts, strict=True)])
    np.testing.assert_array_equal(labels, pool.labels)


@pytest.mark.parametrize(
    ("tf_config", "says"),
    [
        ("{", "TF_CONFIG is not understood; it looks like"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "TF_CONFIG is not understood"),
        ('{"cluster": {"ps": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 0}}', "of the type 'ps'"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}', "the task worker 2"),
    ],
)
def test_a_bad_tf_config_is_refused(tf_config: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_cluster({"TF_CONFIG": tf_config})


def test_the_chief_is_the_task_chief_or_the_first_worker() -> None:
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    found = read_cluster({"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 1}})})
    assert found is not None
    assert (found.chief, found.number, found.is_chief) == ("a:1", 2, False)
    one = {"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}
    assert read_cluster({"TF_CONFIG": json.dumps(one)}) is None
    assert read_cluster({}) is None


def test_a_batch_goes_to_as_many_gpus_as_divide_it() -> None:
    assert [count_usable_gpus(64, gpus) for gpus in (0, 1, 2, 3, 8)] == [0, 1, 2, 2, 8]
