"""Trainings that are killed and stopped, and what becomes of them: real processes, real signals."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakeface.device import prepare_tensorflow, quiet_tensorflow
from fakeface.errors import UserError, one_sentence_errors
from fakeface.params import Params, load_params
from fakeface.stage_inputs import stage_digest
from fakeface.store import Store
from fakeface.training_state import KEPT, Progress, SavedTraining, remove_finished, saved_training

PROJECT = Path(__file__).parents[1]
SIZE, EPOCHS = 32, 4
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.scandir"}

quiet_tensorflow()
PROCESSES = multiprocessing.get_context("forkserver")  # one process imports TensorFlow, others are forked from it
PROCESSES.set_forkserver_preload(["fakeface.training_callbacks", "fakeface.augment"])


class Images(np.ndarray):  # type: ignore[type-arg]
    """Images that kill the process when they are read for the n-th time."""

    left = 0

    def __getitem__(self, index: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.asarray(self)[index]


def noise(killed_at_read: int = 0) -> Store:
    rng = np.random.default_rng(5)
    count = 120
    labels = (np.arange(count) % 2).astype(np.uint8)
    images = rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8).view(Images)
    images.left = killed_at_read
    parts = np.array(["train", "train", "train", "train", "valid", "valid"])[np.arange(count) % 6]
    names = np.array(["camera", "generator"])[labels]
    return Store(images, labels, parts, names, np.arange(count).astype(str))


def parameters() -> Params:
    """The notebook's network, with dropout, and a rate that falls after epoch 3: what it watches never gets better."""
    params = load_params(PROJECT / "params.yaml")
    plateau = params.reduce_lr.model_copy(update={"monitor": "lr", "patience": 2, "min_lr": 1e-6})
    small = {"image_size": SIZE, "batch_size": 16, "epochs": EPOCHS, "reduce_lr": plateau, "recipe": "seed"}
    return params.model_copy(update=small)


def train(folder: Path, params: Params, saved: SavedTraining, killed_at_read: int = 0) -> bytes:
    """Train as pipeline/train_stage.py does; gives the bytes of checkpoint and history."""
    prepare_tensorflow("cpu", "float32", params.seed, deterministic=True)
    from fakeface.checkpoints import save_checkpoint
    from fakeface.training import train_stage, write_history

    trained = train_stage(params, "stage2", {"stage2": noise(killed_at_read)}, None, "float32", saved=saved)
    write_history(trained.fit.history, folder / "history.csv")
    save_checkpoint(trained.model, trained.facts, folder / "stage2.h5")
    return (folder / "stage2.h5").read_bytes() + (folder / "history.csv").read_bytes()


def train_and_die(folder: Path, params: Params, read: int) -> None:
    with saved_training(folder, "stage2") as saved:
        train(folder, params, saved, read)


def test_a_killed_training_ends_with_the_bytes_of_one_in_one_go(tmp_path: Path) -> None:
    # An epoch reads 5 batches and 2 for validation, and tf.data is up to 6 ahead: the 21st falls into epoch 3.
    process = PROCESSES.Process(target=train_and_die, args=(tmp_path, parameters(), 21))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with saved_training(tmp_path, "stage2") as saved:
        assert saved.progress.epoch == 2
        assert saved.progress.counters["wait"] == 1
        cut = train(tmp_path, parameters(), saved)
    with saved_training(tmp_path, "another") as saved:
        whole = train(tmp_path, parameters(), saved)
    assert cut == whole
    rates = [row["lr"] for row in saved.progress.history]
    assert rates[-1] < rates[0]


@pytest.fixture
def values() -> dict[str, object]:
    import tensorflow as tf

    return {"weights": tf.Variable([0.0, 0.0])}


def save_and_die(folder: Path, moment: int) -> None:
    import tensorflow as tf

    with saved_training(folder, "stage1") as saved:
        saved.save({"weights": tf.Variable([1.0, 1.0])}, Progress(1))
        left = moment

        def die_in_time(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in FILE_EVENTS and str(arguments[0]).startswith(str(saved.folder)):
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(die_in_time)
        saved.save({"weights": tf.Variable([2.0, 2.0])}, Progress(2))


def test_a_kill_within_a_save_costs_no_epoch_before_it(tmp_path: Path, values: dict[str, object]) -> None:
    for moment in np.random.default_rng(3).choice(np.arange(1, 20), 4, replace=False):
        folder = tmp_path / str(moment)
        process = PROCESSES.Process(target=save_and_die, args=(folder, int(moment)))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        with saved_training(folder, "stage1") as saved:
            saved.restore(values)
            assert saved.progress.epoch in (1, 2)
            assert np.array(values["weights"]).tolist() == [saved.progress.epoch] * 2
            saved.save(values, Progress(3))
        assert [path.name for path in saved.folder.iterdir()] == ["epoch-3"]


def test_a_damaged_epoch_is_not_taken_up(
    tmp_path: Path, values: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    with saved_training(tmp_path, "stage1") as saved:
        saved.save(values, Progress(1))
        (data,) = saved.folder.glob("epoch-1/*.data*")
        data.write_bytes(data.read_bytes()[:-1] + b"!")
    with saved_training(tmp_path, "stage1") as again:
        assert again.progress == Progress()
    assert "epoch-1 is damaged" in capsys.readouterr().err


def test_two_processes_of_one_training_keep_out_of_each_others_way(tmp_path: Path, values: dict[str, object]) -> None:
    with saved_training(tmp_path, "stage1") as first, saved_training(tmp_path, "stage1") as second:
        first.save(values, Progress(1))
        assert second.progress.epoch == 0
        second.save(values, Progress(2))
    with saved_training(tmp_path, "stage1") as later:
        assert later.progress.epoch == 1


def test_a_finished_training_is_removed_once_its_checkpoint_is_read(tmp_path: Path, values: dict[str, object]) -> None:
    checkpoint, other = tmp_path / "stage1.h5", tmp_path / "other.h5"
    checkpoint.write_bytes(b"weights")
    other.write_bytes(b"other weights")
    folder = tmp_path / "training"
    with saved_training(folder, "stage1") as saved:
        saved.save(values, Progress(1))
        saved.finish(checkpoint)
    remove_finished(folder, other)
    assert saved.folder.exists()
    remove_finished(folder, checkpoint)
    assert list(folder.iterdir()) == []


def test_unfinished_trainings_do_not_fill_the_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(KEPT + 2):
        with saved_training(tmp_path, f"stage1-{number}x") as saved:
            pass
        os.utime(saved.folder, (number, number))
    kept = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert kept == {f"stage1-{number}x" for number in range(2, KEPT + 2)}
    assert "stage1-0x, an unfinished training, is removed" in capsys.readouterr().out


def test_a_training_of_other_settings_images_or_code_is_another_one(tmp_path: Path) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(PROJECT / name, tmp_path / name)
    code, sums = tmp_path / "src/fakeface/models.py", tmp_path / "datasets/split/stage2/store.json"
    for path in (code, sums):
        path.parent.mkdir(parents=True)
    first = stage_digest(tmp_path, "train_stage2")
    digests = {first}
    code.write_text("x = 1\n")
    digests.add(stage_digest(tmp_path, "train_stage2"))
    sums.write_text("{}")
    digests.add(stage_digest(tmp_path, "train_stage2"))
    settings = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(settings.replace("stage2: {lr: null", "stage2: {lr: 0.5"))
    digests.add(stage_digest(tmp_path, "train_stage2"))
    digests.add(stage_digest(tmp_path, "train_stage2", "gpu"))
    assert len(digests) == 5
    (tmp_path / "params.yaml").write_text(settings.replace("bootstrap: 1000", "bootstrap: 10"))
    assert stage_digest(tmp_path, "train_stage2") in digests


def test_a_training_that_lost_its_loss_is_not_repeated_for_ever(tmp_path: Path, values: dict[str, object]) -> None:
    with saved_training(tmp_path, "stage1") as saved:
        saved.save(values, Progress(3))
        saved.note_divergence("stage1: the loss is nan in epoch 4, step 7", "try a smaller rate")
    with saved_training(tmp_path, "stage1") as again:
        with pytest.raises(UserError, match=r"epoch 4, step 7; .*try a smaller rate; .*delete \S+\.$") as refused:
            again.refuse_known_divergence()
        Path(str(refused.value).rsplit(maxsplit=1)[-1].removesuffix(".")).unlink()
        again.refuse_known_divergence()
        assert again.progress.epoch == 3


@pytest.mark.parametrize(("code", "name"), [(143, "SIGTERM"), (129, "SIGHUP")])
def test_a_signals_end_is_one_sentence_and_keeps_its_code(
    code: int, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end, one_sentence_errors():
        raise SystemExit(code)
    assert end.value.code == code
    error = capsys.readouterr().err
    assert error.startswith(f"fakeface: stopped by {name}; run the same command again")
    assert error.count("\n") == 1
