"""Batches in a known order, and a real training that learns, repeats itself and stops when it must."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakeface.config.params import Params, load_params
from fakeface.constants import STAGES
from fakeface.data.image_pool import gather_pool
from fakeface.data.image_store import Store
from fakeface.data.input_pipeline import (
    build_scoring_dataset,
    build_training_dataset,
    derive_stage_seed,
    draw_epoch_batches,
)
from fakeface.evaluation.predictions import evaluate_checkpoints
from fakeface.inference.scoring import score_pool
from fakeface.metrics.calibration import Calibration, fit_calibration
from fakeface.models.checkpoints import ModelCache, save_checkpoint
from fakeface.models.device import prepare_tensorflow, quiet_tensorflow
from fakeface.models.flip_tta import with_flip_tta
from fakeface.models.networks import build_network
from fakeface.system.errors import UserError
from fakeface.training.fit import compile_for_training, fit_stage, write_history
from fakeface.training.resume import open_training_state
from fakeface.training.train_and_calibrate import TrainedStage, list_network_arguments, train_stage
from tests.support.project import PROJECT

quiet_tensorflow()
SIZE = 32
CHANNELS = (8, 16, 32)


def faces(count: int, seed: int, sources: tuple[str, str] = ("camera", "generator")) -> Store:
    """Smooth reals, and fakes that are doubled from half size: what the residual network is made to see."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype(np.uint8)
    noise = rng.normal(0, 30, (count, SIZE, SIZE, 3)) + rng.uniform(60, 190, (count, 1, 1, 3))
    doubled = noise[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)
    images = np.where(labels[:, None, None, None] == 1, doubled + rng.normal(0, 20, noise.shape), noise)
    parts = np.array(["train", "train", "train", "train", "valid", "valid", "test", "test"])[np.arange(count) % 8]
    return Store(
        images=images.clip(0, 255).astype(np.uint8),
        labels=labels,
        parts=parts,
        sources=np.array(sources)[labels],
        paths=np.array([f"{sources[label]}/{number}.png" for number, label in enumerate(labels)]),
    )


def small_params(**changes: object) -> Params:
    params = load_params(PROJECT / "params.yaml")
    recipe = params.recipes["default"]
    narrow = recipe.model_copy(update={"channels": list(CHANNELS)})
    return params.model_copy(
        update={
            "recipes": {**params.recipes, "default": narrow},
            "image_size": SIZE,
            "batch_size": 16,
            "epochs": 10,
            "lr": 0.003,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def stores() -> dict[str, Store]:
    return {stage: faces(160, number) for number, stage in enumerate(STAGES)}


@pytest.fixture(scope="module")
def first_stage(stores: dict[str, Store]) -> TrainedStage:
    params = small_params()
    prepare_tensorflow("cpu", "float32", params.seed, params.deterministic)
    return train_stage(params, "stage1", stores, None, "float32")


def test_weight_decay_takes_its_share_times_the_rate_off_each_weight_beside_adams_own_step() -> None:
    images, labels = np.full((8, SIZE, SIZE, 3), 7.0, np.float32), np.arange(8) % 2
    weights = []
    for decay in (0.0, 0.3):
        model = build_network("residual", CHANNELS, SIZE, 0.9)
        model.set_weights([np.full_like(weight, 0.1) for weight in model.get_weights()])
        model.get_layer("dropout").rate = 0.0
        compile_for_training(model, "constant", 0.01, 1, weight_decay=decay)
        model.train_on_batch(images, labels)
        weights.append(model.trainable_weights[-2].numpy())
    assert weights[0] - weights[1] == pytest.approx(np.full_like(weights[0], 0.1 * 0.01 * 0.3), rel=1e-3)


def test_every_image_comes_once_an_epoch() -> None:
    pool = gather_pool([faces(160, 0)], "train")
    batches = draw_epoch_batches(pool, 16, 5, "none", seed=1, epoch=0)
    assert batches.shape == (5, 16)
    assert sorted(batches.ravel().tolist()) == list(range(80))
    assert batches.tolist() == draw_epoch_batches(pool, 16, 5, "none", seed=1, epoch=0).tolist()
    assert batches.tolist() != draw_epoch_batches(pool, 16, 5, "none", seed=1, epoch=1).tolist()


def test_balance_gives_each_class_half_and_each_source_its_share() -> None:
    small = faces(16, 1, ("phone", "generator"))
    pool = gather_pool([faces(160, 0), small], "train")
    drawn = draw_epoch_batches(pool, 16, 10, "source", seed=1, epoch=0)
    assert (pool.labels[drawn].sum(axis=1) == 8).all()
    names, counts = np.unique(pool.sources[drawn], return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {"camera": 40, "generator": 80, "phone": 40}


def test_a_pool_takes_images_from_the_store_they_are_in() -> None:
    first, second = faces(16, 0), faces(16, 1)
    pool = gather_pool([first, second], "valid")
    taken = pool.gather(np.array([5, 0]))
    np.testing.assert_array_equal(taken[0], second.images[second.select("valid")[1]])
    np.testing.assert_array_equal(taken[1], first.images[first.select("valid")[0]])
    assert pool.paths()[5] == second.paths[second.select("valid")[1]]


def test_a_later_start_sees_what_an_uninterrupted_training_sees() -> None:
    def augment(images: object, key: object) -> object:
        import tensorflow as tf

        noise = tf.random.stateless_uniform(tf.shape(images), tf.cast(key, tf.int32), 0, 9, tf.int32)
        return tf.cast(images, tf.int32) + noise

    pool = gather_pool([faces(160, 0)], "train")
    whole = list(build_training_dataset(pool, augment, 16, 5, range(3), "source", seed=4))
    resumed = list(build_training_dataset(pool, augment, 16, 5, range(2, 3), "source", seed=4))
    assert len(whole) == 15
    for (images, labels), (again, labels_again) in zip(whole[10:], resumed, strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, labels_again)


def test_no_two_stages_draw_alike(stores: dict[str, Store]) -> None:
    params = small_params().model_copy(update={"epochs": 1})
    pools = gather_pool([stores["stage1"]], "train"), gather_pool([stores["stage1"]], "valid")
    losses = []
    for stage in ("stage1", "stage1", "stage2"):
        prepare_tensorflow("cpu", "float32", params.seed, deterministic=True)
        model = build_network(*list_network_arguments(params))
        losses.append(fit_stage(model, params, stage, *pools).history[0]["loss"])
    assert losses[0] == losses[1] != losses[2]
    assert len({derive_stage_seed(seed, stage) for seed in (20, 21) for stage in STAGES}) == 2 * len(STAGES)


def test_scoring_keeps_order_and_pixels() -> None:
    pool = gather_pool([faces(40, 3)], "test")
    images = np.concatenate([images for images, _ in build_scoring_dataset(pool, 3)])
    np.testing.assert_array_equal(images, pool.gather(np.arange(len(pool))))


def test_tf_datas_tuner_is_off_in_both_datasets() -> None:
    pool = gather_pool([faces(40, 3)], "test")
    batches = build_training_dataset(pool, lambda images, key: images, 4, 2, range(1), "none", seed=4)
    assert [each.options().autotune.enabled for each in (batches, build_scoring_dataset(pool, 3))] == [False, False]


def test_a_stage_learns_and_is_calibrated(first_stage: TrainedStage, stores: dict[str, Store]) -> None:
    assert [row["epoch"] for row in first_stage.fit.history] == list(range(1, 11))
    assert first_stage.fit.history[-1]["loss"] < first_stage.fit.history[0]["loss"]
    test = gather_pool([stores["stage1"]], "test")
    scores = score_pool(with_flip_tta(first_stage.model), test, 16, "test")
    calibration = first_stage.facts.calibration
    assert np.mean((calibration.apply(scores) >= calibration.threshold) == test.labels) > 0.85
    assert calibration.sources == ("camera", "generator")
    assert calibration.n_real + calibration.n_fake == len(gather_pool([stores["stage1"]], "valid"))


def test_the_calibration_is_fitted_on_the_validation_images(
    first_stage: TrainedStage, stores: dict[str, Store]
) -> None:
    validation = gather_pool([stores["stage1"]], "valid")
    scores = score_pool(with_flip_tta(first_stage.model), validation, 32, "validation")
    rows = (["valid"] * len(validation), validation.sources.tolist(), validation.labels)
    fitted = fit_calibration(*rows, scores)
    assert first_stage.facts.calibration == fitted
    assert (fitted.slope, fitted.bias) != (1, 0)


@pytest.mark.usefixtures("ctrl_c")
def test_a_stage_stopped_by_a_signal_goes_on_to_the_same_bytes(
    first_stage: TrainedStage, stores: dict[str, Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = small_params()
    told = []

    def listen(epoch: int, _numbers: object) -> None:
        told.append(epoch)
        if epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    prepare_tensorflow("cpu", "float32", params.seed, params.deterministic)
    with open_training_state(tmp_path, "stage1") as saved, pytest.raises(KeyboardInterrupt):
        train_stage(params, "stage1", stores, None, "float32", [listen], saved)
    assert "stage1: stopped; 2 of 10 epochs are kept." in capsys.readouterr().err
    save_checkpoint(first_stage.model, first_stage.facts, tmp_path / "a.h5")
    for _after_epoch in (2, 3):  # the second time all epochs are behind it, and only the files are not written
        with open_training_state(tmp_path, "stage1") as saved:
            again = train_stage(params, "stage1", stores, None, "float32", [listen], saved)
        save_checkpoint(again.model, again.facts, tmp_path / "b.h5")
        assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert told == list(range(1, 11))
    write_history(first_stage.fit.history, tmp_path / "a.csv")
    write_history(again.fit.history, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


def test_a_stage_goes_on_from_the_checkpoint_before_it(
    first_stage: TrainedStage, stores: dict[str, Store], tmp_path: Path
) -> None:
    save_checkpoint(first_stage.model, first_stage.facts, tmp_path / "stage1.h5")
    # next to no learning: what the second stage answers is what the first one knew
    params = small_params(epochs=1, lr=1e-9)
    second = train_stage(params, "stage2", stores, tmp_path / "stage1.h5", "float32")
    first, later = (layer.get_layer("logits").kernel.numpy() for layer in (first_stage.model, second.model))
    np.testing.assert_allclose(first, later, atol=1e-6)


def test_another_networks_checkpoint_is_refused(
    first_stage: TrainedStage, stores: dict[str, Store], tmp_path: Path
) -> None:
    save_checkpoint(first_stage.model, first_stage.facts, tmp_path / "stage1.h5")
    params = small_params(recipe="seed")
    with pytest.raises(UserError, match="holds the network 'residual'"):
        train_stage(params, "stage2", stores, tmp_path / "stage1.h5", "float32")


def test_a_checkpoint_of_other_channels_is_refused(
    first_stage: TrainedStage, stores: dict[str, Store], tmp_path: Path
) -> None:
    save_checkpoint(first_stage.model, first_stage.facts, tmp_path / "stage1.h5")
    params = small_params()
    wider = {"default": params.recipes["default"].model_copy(update={"channels": [8, 16, 48]})}
    with pytest.raises(UserError, match=r"8, 16, 32 channels for 32 pixels, and .* 8, 16, 48 channels"):
        train_stage(params.model_copy(update={"recipes": wider}), "stage2", stores, tmp_path / "stage1.h5", "float32")


def test_a_loss_that_is_no_number_stops_with_epoch_step_and_rate(stores: dict[str, Store], tmp_path: Path) -> None:
    params = small_params(lr=1.0, recipe="seed")
    from fakeface.models.networks import build_network
    from fakeface.training.fit import fit_stage

    model = build_network("residual", CHANNELS, SIZE, 0.9)
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([np.full_like(kernel, np.nan), bias])
    pool = gather_pool([stores["stage1"]], "train")
    sentence = r"stage1: the loss is nan in epoch 1, step 1, at learning rate 1;"
    with open_training_state(tmp_path, "stage1") as saved:
        with pytest.raises(UserError, match=sentence + r" no epoch was whole; .*-S stages\.stage1\.lr=0\.1"):
            fit_stage(model, params, "stage1", pool, pool, saved=saved)
        with pytest.raises(UserError, match=sentence + ".*come to the same again"):
            fit_stage(model, params, "stage1", pool, pool, saved=saved)


@contextmanager
def negated_logits(model: Any) -> Iterator[None]:
    """Have the network answer the opposite."""
    layer = model.get_layer("logits")
    weights = layer.get_weights()
    layer.set_weights([-each for each in weights])
    yield
    layer.set_weights(weights)


def test_every_checkpoint_is_scored_on_every_set(
    first_stage: TrainedStage, stores: dict[str, Store], tmp_path: Path
) -> None:
    checkpoints = {}
    for stage in STAGES:
        checkpoints[stage] = tmp_path / f"{stage}.h5"
        uncalibrated = replace(first_stage.facts, stage=stage, calibration=Calibration())
        with negated_logits(first_stage.model) if stage == "stage2" else nullcontext():
            save_checkpoint(first_stage.model, uncalibrated, checkpoints[stage])
    unseen = faces(64, 9, ("phone", "other_generator"))
    heldout = replace(unseen, parts=np.full(64, "heldout"))
    evaluation = evaluate_checkpoints(checkpoints, {**stores, "heldout": heldout}, ["phone"], 16, ModelCache())
    assert set(evaluation.heldout.sources.tolist()) == {"phone"}
    assert {name: len(each.labels) for name, each in evaluation.tests.items()} == dict.fromkeys(STAGES, 40)
    for each in (evaluation.heldout, *evaluation.tests.values()):
        np.testing.assert_array_equal(each.scores["stage1"], each.scores["stage3"])
        np.testing.assert_allclose(each.scores["stage1"], 1 - each.scores["stage2"], atol=1e-5)
    with pytest.raises(UserError, match=r"evaluate\.sources names 'fone'"):
        evaluate_checkpoints(checkpoints, {**stores, "heldout": heldout}, ["fone"], 16, ModelCache())
