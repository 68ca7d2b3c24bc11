"""Trainings that are killed and stopped, and what becomes of them: real processes, real signals."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import shutil
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakeface.config.params import Params, load_params
from fakeface.data.image_store import Store
from fakeface.models.device import prepare_tensorflow, quiet_tensorflow
from fakeface.system.errors import UserError, exit_on_user_error
from fakeface.training.resume import KEPT, Progress, open_training_state, remove_finished
from fakeface.training.stage_fingerprint import compute_stage_digest
from tests.support.project import PROJECT

SIZE, EPOCHS = 32, 4
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.scandir"}
SEED_NAME = "FAKEFACE_KILL_SEED"  # in the environment: draws again the moments that a failure named

quiet_tensorflow()
PROCESSES = multiprocessing.get_context("forkserver")  # one process imports TensorFlow, others are forked from it
PROCESSES.set_forkserver_preload(["fakeface.training.callbacks", "fakeface.training.augmentation.build_augmentation"])


class Moments:
    """Counts what happens in a process, from 1, and kills it when the count is `last`."""

    def __init__(self, last: int) -> None:
        self.last = last
        self._numbers = count(1)  # which threads may share
        self.seen = 0

    def one_more(self) -> None:
        self.seen = next(self._numbers)
        if self.seen == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch_files(self, folder: Path) -> None:
        """Count also what Python does with files below `folder`; cannot be undone."""

        def of_files(event: str, arguments: tuple[object, ...]) -> None:
            if event in FILE_EVENTS and str(arguments[0]).startswith(str(folder)):
                self.one_more()

        sys.addaudithook(of_files)


class Images(np.ndarray):  # type: ignore[type-arg]
    """Images of which each read is a moment."""

    moments = Moments(0)

    def __getitem__(self, index: Any) -> Any:
        self.moments.one_more()
        return np.asarray(self)[index]


def noise(seed: int, moments: Moments) -> Store:
    rng = np.random.default_rng(seed)
    number = 120
    labels = (np.arange(number) % 2).astype(np.uint8)
    images = rng.integers(0, 256, (number, SIZE, SIZE, 3), dtype=np.uint8).view(Images)
    images.moments = moments
    parts = np.array(["train", "train", "train", "train", "valid", "valid"])[np.arange(number) % 6]
    names = np.array(["camera", "generator"])[labels]
    return Store(images, labels, parts, names, np.arange(number).astype(str))


def parameters(recipe: str) -> Params:
    """Settings of tiny networks: the notebook's has dropout and a rate that falls after epoch 3.

    What its plateau watches never gets better. The other has residual units and a rate that falls with each step.
    """
    params = load_params(PROJECT / "params.yaml")
    plateau = params.reduce_lr.model_copy(update={"monitor": "lr", "patience": 2, "min_lr": 1e-6})
    chosen = params.recipes[recipe]
    narrow = chosen.model_copy(update={"channels": [4, 4, 4]})
    small = {"image_size": SIZE, "batch_size": 8, "validation_batch_size": 8, "epochs": EPOCHS, "reduce_lr": plateau}
    return params.model_copy(update={**small, "recipe": recipe, "recipes": {**params.recipes, recipe: narrow}})


def train(folder: Path, recipe: str, last_moment: int) -> None:
    """Train as pipeline/train_stage.py does; then `moments` says how many there were."""
    moments, params = Moments(last_moment), parameters(recipe)
    moments.watch_files(folder)
    prepare_tensorflow("cpu", "float32", params.seed, deterministic=True)
    from fakeface.models.checkpoints import save_checkpoint
    from fakeface.training.fit import write_history
    from fakeface.training.train_and_calibrate import train_stage

    stores = {"stage1": noise(4, moments), "stage2": noise(5, moments)}
    with open_training_state(folder, "stage2") as saved:
        trained = train_stage(params, "stage2", stores, None, "float32", saved=saved)
        write_history(trained.fit.history, folder / "history.csv")
        save_checkpoint(trained.model, trained.facts, folder / "stage2.h5")
    (folder / "moments").write_text(str(moments.seen))


def train_in_a_process(folder: Path, recipe: str, last_moment: int = 0) -> int | None:
    process = PROCESSES.Process(target=train, args=(folder, recipe, last_moment))
    process.start()
    process.join()
    return process.exitcode


def result(folder: Path) -> bytes:
    return (folder / "stage2.h5").read_bytes() + (folder / "history.csv").read_bytes()


@pytest.mark.parametrize(
    ("recipe", "kills"), [("seed", 2), pytest.param("default", 3, marks=[pytest.mark.slow, pytest.mark.system])]
)
def test_a_training_killed_at_random_moments_ends_with_the_bytes_of_one_in_one_go(
    recipe: str, kills: int, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    assert train_in_a_process(whole, recipe) == 0
    there_are = int((whole / "moments").read_text())
    seed = int(os.environ.get(SEED_NAME) or secrets.randbits(32))
    # one in each equal part: reads of images for training, validation and calibration, and every step of a save. The
    # last twentieth is left out, because threads that read ahead make a few moments more or fewer in another run.
    bounds = np.linspace(1, 0.95 * there_are, kills + 1).astype(int)
    moments = np.random.default_rng(seed).integers(bounds[:-1], bounds[1:]).tolist()
    told = f"killed at the moments {moments} of {there_are}; {SEED_NAME}={seed} draws them again"
    for moment in moments:
        with open_training_state(cut, "stage2") as saved:
            behind = saved.progress.epoch * there_are // EPOCHS
        assert train_in_a_process(cut, recipe, max(1, moment - behind)) == -signal.SIGKILL, told
    assert train_in_a_process(cut, recipe) == 0, told
    assert result(cut) == result(whole), told
    with open_training_state(cut, "stage2") as saved:
        rates = [row["lr"] for row in saved.progress.history]
    assert rates[-1] < rates[0]


@pytest.fixture
def values() -> dict[str, object]:
    import tensorflow as tf

    return {"weights": tf.Variable([0.0, 0.0])}


def save_and_die(folder: Path, moment: int) -> None:
    import tensorflow as tf

    with open_training_state(folder, "stage1") as saved:
        saved.save({"weights": tf.Variable([1.0, 1.0])}, Progress(1))
        Moments(moment).watch_files(saved.folder)
        saved.save({"weights": tf.Variable([2.0, 2.0])}, Progress(2))


def test_a_kill_within_a_save_costs_no_epoch_before_it(tmp_path: Path, values: dict[str, object]) -> None:
    for moment in np.random.default_rng(3).choice(np.arange(1, 20), 4, replace=False):
        folder = tmp_path / str(moment)
        process = PROCESSES.Process(target=save_and_die, args=(folder, int(moment)))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        with open_training_state(folder, "stage1") as saved:
            saved.restore(values)
            assert saved.progress.epoch in (1, 2)
            assert np.array(values["weights"]).tolist() == [saved.progress.epoch] * 2
            saved.save(values, Progress(3))
        assert [path.name for path in saved.folder.iterdir()] == ["epoch-3"]


def test_a_damaged_epoch_is_not_taken_up(
    tmp_path: Path, values: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    with open_training_state(tmp_path, "stage1") as saved:
        saved.save(values, Progress(1))
        (data,) = saved.folder.glob("epoch-1/*.data*")
        data.write_bytes(data.read_bytes()[:-1] + b"!")
    with open_training_state(tmp_path, "stage1") as again:
        assert again.progress == Progress()
    assert "epoch-1 is damaged" in capsys.readouterr().err


def test_two_processes_of_one_training_keep_out_of_each_others_way(tmp_path: Path, values: dict[str, object]) -> None:
    with open_training_state(tmp_path, "stage1") as first, open_training_state(tmp_path, "stage1") as second:
        first.save(values, Progress(1))
        assert second.progress.epoch == 0
        second.save(values, Progress(2))
    with open_training_state(tmp_path, "stage1") as later:
        assert later.progress.epoch == 1


def test_a_finished_training_is_removed_once_its_checkpoint_is_read(tmp_path: Path, values: dict[str, object]) -> None:
    checkpoint, other = tmp_path / "stage1.h5", tmp_path / "other.h5"
    checkpoint.write_bytes(b"weights")
    other.write_bytes(b"other weights")
    folder = tmp_path / "training"
    with open_training_state(folder, "stage1") as saved:
        saved.save(values, Progress(1))
        saved.finish(checkpoint)
    remove_finished(folder, other)
    assert saved.folder.exists()
    remove_finished(folder, checkpoint)
    assert list(folder.iterdir()) == []


def test_unfinished_trainings_do_not_fill_the_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(KEPT + 2):
        with open_training_state(tmp_path, f"stage1-{number}x") as saved:
            pass
        os.utime(saved.folder, (number, number))
    kept = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert kept == {f"stage1-{number}x" for number in range(2, KEPT + 2)}
    assert "stage1-0x, an unfinished training, is removed" in capsys.readouterr().out


def test_a_training_of_other_settings_images_or_code_is_another_one(tmp_path: Path) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(PROJECT / name, tmp_path / name)
    code, sums = tmp_path / "src/fakeface/models/networks.py", tmp_path / "datasets/split/stage2/store.json"
    for path in (code, sums):
        path.parent.mkdir(parents=True)
    first = compute_stage_digest(tmp_path, "train_stage2")
    digests = {first}
    code.write_text("x = 1\n")
    digests.add(compute_stage_digest(tmp_path, "train_stage2"))
    sums.write_text("{}")
    digests.add(compute_stage_digest(tmp_path, "train_stage2"))
    settings = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(settings.replace("stage2: {lr: null", "stage2: {lr: 0.5"))
    digests.add(compute_stage_digest(tmp_path, "train_stage2"))
    digests.add(compute_stage_digest(tmp_path, "train_stage2", "gpu"))
    of_settings = tmp_path / "src/fakeface/config/params.py"
    of_settings.parent.mkdir()
    of_settings.write_text("precedence = 1\n")  # what a stage makes of params.yaml decides its weights too
    last = compute_stage_digest(tmp_path, "train_stage2")
    digests.add(last)
    assert len(digests) == 6
    (code.parent / "__pycache__").mkdir()
    (code.parent / "__pycache__" / "networks.cpython-311.pyc").write_bytes(b"compiled")
    assert compute_stage_digest(tmp_path, "train_stage2") == last
    of_settings.write_text("precedence = 2\n")
    assert compute_stage_digest(tmp_path, "train_stage2") not in digests
    of_settings.write_text("precedence = 1\n")
    before = compute_stage_digest(tmp_path, "train_stage2")
    (tmp_path / "params.yaml").write_text(
        (tmp_path / "params.yaml").read_text().replace("bootstrap: 1000", "bootstrap: 10")
    )
    assert compute_stage_digest(tmp_path, "train_stage2") == before


def test_a_training_that_lost_its_loss_is_not_repeated_for_ever(tmp_path: Path, values: dict[str, object]) -> None:
    with open_training_state(tmp_path, "stage1") as saved:
        saved.save(values, Progress(3))
        saved.record_divergence("stage1: the loss is nan in epoch 4, step 7", "try a smaller rate")
    with open_training_state(tmp_path, "stage1") as again:
        with pytest.raises(UserError, match=r"epoch 4, step 7; .*try a smaller rate; .*delete \S+\.$") as refused:
            again.check_known_divergence()
        Path(str(refused.value).rsplit(maxsplit=1)[-1].removesuffix(".")).unlink()
        again.check_known_divergence()
        assert again.progress.epoch == 3


@pytest.mark.parametrize(("code", "name"), [(143, "SIGTERM"), (129, "SIGHUP")])
def test_a_signals_end_is_one_sentence_and_keeps_its_code(
    code: int, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end, exit_on_user_error():
        raise SystemExit(code)
    assert end.value.code == code
    error = capsys.readouterr().err
    assert error.startswith(f"fakeface: stopped by {name}; run the same command again")
    assert error.count("\n") == 1
