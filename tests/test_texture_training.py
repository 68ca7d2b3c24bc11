"""The layer on the texture: a real, tiny training of it."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import roc_auc_score

from fakeface import STAGES
from fakeface.augment_arrays import jpeg
from fakeface.device import prepare_tensorflow, quiet_tensorflow
from fakeface.errors import UserError
from fakeface.inputs import ImagePool, pool_of
from fakeface.models import build_network, shapes_alone, texture_alone
from fakeface.params import Params, load_params
from fakeface.scoring import score_pool
from fakeface.store import Store
from fakeface.texture import FEATURES, texture_counts
from fakeface.texture_training import (
    KeptCounts,
    _one_pass,
    _standardise,
    fit_share,
    fit_texture,
    kept_counts,
    of_alike_files,
    seen_as_they_are,
)

quiet_tensorflow()
PROJECT = Path(__file__).parents[1]
SIZE = 32


@pytest.fixture(scope="module")
def store() -> Store:
    """Reals with noise, fakes with noise as strong that neighbours share, on a picture that says nothing."""
    rng = np.random.default_rng(3)
    labels = (np.arange(240) % 2).astype(np.uint8)
    noise = rng.normal(0, 4, (240, SIZE, SIZE + 1, 3))
    shared = (noise[:, :, 1:] + noise[:, :, :-1]) / np.sqrt(2)
    images = rng.uniform(80, 170, (240, 1, 1, 3)) + np.where(labels[:, None, None, None], shared, noise[:, :, 1:])
    return Store(
        images=images.clip(0, 255).astype(np.uint8),
        labels=labels,
        parts=np.array(["train", "train", "valid"])[np.arange(240) // 2 % 3],
        sources=np.array(["camera", "generator"])[labels],
        paths=np.array([f"{number}.png" for number in range(240)]),
    )


def small_params(
    lr: float = 0.003, steps: dict[str, Any] | None = None, again: dict[str, Any] | None = None, **texture: int
) -> Params:
    params = load_params(PROJECT / "params.yaml")
    recipe = params.recipes["default"]
    assert recipe.texture is not None
    settings = {"units": 16, "copies": 3, "passes": 4, "batch_size": 16, "rate": 1.0, **texture}
    learning = recipe.texture.again.model_copy(update=again or {})
    small = recipe.texture.model_copy(update={**settings, "again": learning})
    augmentation = recipe.augmentation if steps is None else dict.fromkeys(STAGES, steps)
    changes = {"channels": [4, 8], "texture": small, "augmentation": augmentation}
    recipes = {"default": recipe.model_copy(update=changes)}
    params = params.model_copy(update={"recipes": recipes, "image_size": SIZE, "batch_size": 16, "lr": lr})
    prepare_tensorflow("cpu", "float32", params.seed, params.deterministic)
    return params


def kept_of(network: Any, params: Params, stage: str, training: ImagePool, copies: int) -> KeptCounts:
    return kept_counts(network, params, stage, training, seen_as_they_are(params, stage, training), copies)


def parts(store: Store) -> tuple[ImagePool, ImagePool]:
    return pool_of([store], "train"), pool_of([store], "valid")


def test_the_texture_is_learned_where_shapes_say_nothing(store: Store) -> None:
    params = small_params()
    network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
    before = [each.copy() for each in shapes_alone(network).get_weights()]
    training, validation = parts(store)
    assert fit_texture(network, params, "stage1", training, validation) > 0
    assert roc_auc_score(validation.labels, score_pool(network, validation, 16, "both")) > 0.95
    for was, now in zip(before, shapes_alone(network).get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_the_same_seed_learns_the_same(store: Store) -> None:
    learned = []
    for _again in range(2):
        params = small_params(passes=1)
        network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
        fit_texture(network, params, "stage1", *parts(store))
        learned.append(
            network.get_layer("texture_units").get_weights() + network.get_layer("texture_logits").get_weights()
        )
    for one, other in zip(*learned, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_stage_goes_on_from_what_one_before_has_learned(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    params = small_params(passes=6, again={"copies": 1, "rate": 0.1, "passes": 1})
    network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
    training, validation = parts(store)
    fit_texture(network, params, "stage1", training, validation)
    learned = network.get_layer("texture_units").get_weights()[0]
    fit_texture(network, params, "stage2", training, validation)
    said = capsys.readouterr().out
    assert "stage1 texture: learned from camera, generator" in said
    assert "stage2 texture: goes on learning from camera, generator" in said
    assert "stage2 texture, pass 1/1" in said
    went_on = network.get_layer("texture_units").get_weights()[0]
    assert not np.array_equal(went_on, learned)
    assert np.corrcoef(went_on.ravel(), learned.ravel())[0, 1] > 0.99
    assert roc_auc_score(validation.labels, score_pool(texture_alone(network), validation, 16, "texture")) > 0.95


def test_to_go_on_without_learning_leaves_every_answer_as_it_was(store: Store) -> None:
    params = small_params(passes=6, again={"copies": 1, "rate": 1e-9, "passes": 1})
    network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
    training, validation = parts(store)
    of_one_label = validation.where(validation.labels == 0)  # by which no share is fitted
    fit_texture(network, params, "stage1", training, of_one_label)
    said_before = score_pool(texture_alone(network), validation, 16, "texture")
    fit_texture(network, params, "stage2", training, of_one_label)
    said_now = score_pool(texture_alone(network), validation, 16, "texture")
    assert np.ptp(said_before) > 0.5
    np.testing.assert_allclose(said_now, said_before, atol=1e-3)


def test_the_units_learn_from_what_the_network_gives_them(store: Store) -> None:
    import tensorflow as tf

    network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
    training, validation = parts(store)
    as_they_are = small_params(steps={"flip": {"probability": 0.0}})
    fit_texture(network, as_they_are, "stage1", training, validation)
    kept = kept_of(network, as_they_are, "stage1", training, copies=1).counts
    _standardise(kept, *network.get_layer("texture_spreads").get_weights())
    of_units = tf.keras.Model(network.input, network.get_layer("texture_units").input)
    given = of_units.predict_on_batch(training.take(np.arange(len(training))))
    nearest = np.abs(kept[:32, None] - given).max(axis=2).min(axis=1)
    np.testing.assert_allclose(nearest, 0, atol=1e-4)
    assert np.abs(kept).max() == 2.0


@pytest.mark.parametrize(
    ("factor", "said"), [(-1, "stage2 texture: learned anew, as the one before tells less than even odds do"), (0, "")]
)
def test_what_is_worse_than_even_odds_or_says_nothing_is_learned_anew(
    store: Store, capsys: pytest.CaptureFixture[str], factor: int, said: str
) -> None:
    params = small_params(again={"copies": 1, "rate": 0.1, "passes": 1})
    network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
    training, validation = parts(store)
    answer = network.get_layer("texture_logits")
    fit_texture(network, params, "stage1", training, validation)
    answer.set_weights([factor * each for each in answer.get_weights()])
    fit_texture(network, params, "stage2", training, validation)
    out = capsys.readouterr().out
    assert said in out
    assert "stage2 texture, pass 4/4" in out
    assert roc_auc_score(validation.labels, score_pool(texture_alone(network), validation, 16, "texture")) > 0.95


def test_a_picture_like_none_before_is_taken_for_no_farther_out_than_the_last_of_those_known(store: Store) -> None:
    import tensorflow as tf

    training, validation = parts(store)
    network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
    fit_texture(network, small_params(), "stage1", training, validation)
    units = network.get_layer("texture_units")
    of_units = tf.keras.Model(network.input, units.input)
    usual = of_units.predict_on_batch(training.take(np.arange(64)))
    flat = of_units.predict_on_batch(np.full((1, SIZE, SIZE, 3), 128, np.uint8))
    assert np.abs(flat).max() == 2.0
    assert 0.5 < usual.std() < 1.0
    assert np.mean(np.abs(usual) == 2.0) < 0.1


def test_how_much_the_texture_counts_comes_from_validation_images(store: Store) -> None:
    training, validation = parts(store)
    swapped = ImagePool(
        validation.stores, validation.store_of, validation.index_of, validation.labels ^ np.uint8(1), validation.sources
    )
    network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
    params = small_params(steps={"flip": {}})
    fit_texture(network, params, "stage1", training, swapped)  # there it says the opposite of what is so
    assert not any(each.any() for each in network.get_layer("texture_logits").get_weights())
    assert set(score_pool(texture_alone(network), validation, 16, "texture")) == {0.5}


def test_a_texture_that_a_saved_file_misleads_is_trusted_less_where_validation_files_are_saved_again(
    store: Store,
) -> None:
    training, validation = parts(store)
    network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
    fit_texture(network, small_params(steps={"flip": {}}), "stage1", training, validation)
    as_they_came = np.abs(network.get_layer("texture_logits").get_weights()[0]).max()
    # Every picture's texture is then the file's; one saved less badly does not mislead counts that end at two spreads
    saved_again = small_params(steps={"resave": {"scale": 1, "quality": 10, "probability": 1.0}})
    fit_share(network, saved_again, "stage1", validation)
    assert np.abs(network.get_layer("texture_logits").get_weights()[0]).max() < as_they_came / 2


def test_validation_images_of_one_class_leave_it_as_learned(store: Store) -> None:
    training, validation = parts(store)
    network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
    fit_texture(network, small_params(), "stage1", training, validation.where(validation.labels == 0))
    assert roc_auc_score(validation.labels, score_pool(texture_alone(network), validation, 16, "texture")) > 0.95
    learned = [each.copy() for each in network.get_layer("texture_logits").get_weights()]
    fit_share(network, small_params(), "stage1", validation.where(validation.labels == 1))
    np.testing.assert_array_equal(network.get_layer("texture_logits").get_weights()[0], learned[0])


def test_a_texture_that_shouts_is_brought_to_the_same_share(store: Store) -> None:
    training, validation = parts(store)
    network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
    fit_texture(network, small_params(), "stage1", training, validation)
    fitted, layer = [], network.get_layer("texture_logits")
    weights = layer.get_weights()
    for loudness in (1, 100):  # logits of some, and of hundreds, which no probability can tell
        layer.set_weights([loudness * each for each in weights])
        fit_share(network, small_params(), "stage1", validation)
        fitted.append(layer.get_weights())
    np.testing.assert_allclose(fitted[1][0], fitted[0][0], rtol=0.02)


def with_file_sizes(store: Store, **of_source: int) -> Store:
    """Half of the real images are another camera's; files are squares of these sides."""
    sources = np.where((store.labels == 0) & (np.arange(240) % 4 == 0), "far_camera", store.sources)
    sides = np.array([of_source[source] for source in sources])
    sides[0] = 99  # one file of another size does not make a source another one
    return replace(store, sources=sources, file_sizes=np.stack([sides, sides], axis=1))


@pytest.mark.parametrize(
    ("far_camera", "camera", "generator", "learned_from"),
    [
        (200, 256, 256, {"camera", "generator"}),
        (256, 256, 256, {"camera", "far_camera", "generator"}),
        (200, 200, 256, set()),
    ],
)
def test_it_learns_from_sources_whose_files_are_as_large_as_those_of_the_other_label(
    store: Store, far_camera: int, camera: int, generator: int, learned_from: set[str]
) -> None:
    sized = with_file_sizes(store, far_camera=far_camera, camera=camera, generator=generator)
    training, _ = parts(sized)
    alike = of_alike_files(training)
    assert set(alike.sources) == learned_from
    assert len(alike) == np.isin(training.sources, list(learned_from)).sum()


def test_where_no_real_file_has_a_fakes_size_the_texture_stays_silent(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    training, validation = parts(with_file_sizes(store, far_camera=200, camera=200, generator=256))
    network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
    fit_texture(network, small_params(), "stage1", training, validation)
    assert set(score_pool(texture_alone(network), validation, 16, "texture")) == {0.5}
    assert "stage1 texture: not learned, as no real file has the size of a fake one" in capsys.readouterr().out


@pytest.mark.parametrize(("at_most", "kept"), [(50_000, (160, 480, 480)), (100, (32, 32, 32)), (5, (16, 16, 16))])
def test_counts_are_kept_of_whole_batches_up_to_the_most(
    store: Store, at_most: int, kept: tuple[int, int, int]
) -> None:
    params = small_params(at_most=at_most)
    network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
    found = kept_of(network, params, "stage1", parts(store)[0], copies=3)
    assert found.kinds == kept
    assert found.counts.shape == (sum(kept), FEATURES)
    assert found.labels.mean() == 0.5


def test_each_stage_counts_other_draws_of_the_same_images(store: Store) -> None:
    network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
    first, again, second = (
        kept_of(network, small_params(), stage, parts(store)[0], copies=1) for stage in ("stage1", "stage1", "stage2")
    )
    np.testing.assert_array_equal(first.counts, again.counts)
    assert not np.array_equal(np.unique(first.counts, axis=0), np.unique(second.counts, axis=0))


@pytest.mark.parametrize("saved_again", [0.0, 0.5])
def test_counts_are_kept_of_images_as_they_are_then_saved_again_then_augmented(
    store: Store, saved_again: float
) -> None:
    steps = {"resave": {"probability": saved_again}, "brightness": {"low": 0.0, "high": 0.0}}
    network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
    found = kept_of(network, small_params(steps=steps), "stage1", parts(store)[0], copies=3)
    known = {each.tobytes() for each in counts_of(parts(store)[0].take(np.arange(160)))}
    black = counts_of(np.zeros((1, SIZE, SIZE, 3), np.uint8))[0].tobytes()
    as_they_came = [each.tobytes() in known for each in found.counts]
    assert found.kinds == (160, 3 * 160 if saved_again else 0, 3 * 160)
    assert all(as_they_came[:160])
    if saved_again:
        assert np.mean(as_they_came[160:640]) == pytest.approx(1 - saved_again, abs=0.1)
    assert not any(each.tobytes() == black for each in found.counts[: -3 * 160])
    assert all(each.tobytes() == black for each in found.counts[-3 * 160 :])


@pytest.mark.parametrize(("of_camera", "alike"), [((80, 85, 90, 95), True), ((80, 81, 82, 83), False)])
def test_files_coded_in_many_ways_are_alike_where_most_of_them_are(
    store: Store, of_camera: tuple[int, ...], alike: bool
) -> None:
    fakes, reals = np.resize((80, 85, 90, 95), 240), np.resize(np.repeat(of_camera, 2), 240)
    qualities = np.where(store.labels == 1, np.repeat(fakes[:120], 2), reals)
    codings = np.array([f"JPEG {quality}" for quality in qualities])
    training, _ = parts(replace(store, codings=codings, file_sizes=np.full((240, 2), 256)))
    assert len(of_alike_files(training)) == len(training)
    assert len(of_alike_files(training, coded=True)) == (len(training) if alike else 0)


def test_the_form_of_a_file_is_found_in_each_of_several_stores(store: Store) -> None:
    first = replace(store, codings=np.array(["PNG"] * 240), file_sizes=np.full((240, 2), 256))
    second = replace(store, codings=np.array(["PNG", ""] * 120), file_sizes=np.full((240, 2), (200, 300)))
    pool = pool_of([first, second], "train")
    assert pool.where(pool.store_of == 0).file_forms(coded=True).tolist() == ["256×256 PNG"] * 160  # type: ignore[union-attr]
    of_second = pool.where(pool.store_of == 1)
    expected = ["200×300 PNG" if label == 0 else "" for label in of_second.labels]
    assert of_second.file_forms(coded=True).tolist() == expected  # type: ignore[union-attr]
    assert pool.file_forms(coded=False).tolist() == ["256×256"] * 160 + ["200×300"] * 160  # type: ignore[union-attr]
    assert pool_of([first, store], "train").file_forms(coded=False) is None


@pytest.mark.parametrize(
    ("kinds", "looks"),
    [
        ((100, 300, 300), (600, 300, 300)),
        ((100, 0, 300), (600, 0, 600)),  # without the step `resave`
        ((0, 300, 300), (0, 600, 600)),  # no file is coded alike
        ((10, 300, 300), (60, 570, 570)),  # few are
        ((200, 200, 200), (400, 200, 200)),  # `at_most` reached
    ],
)
def test_a_pass_looks_as_often_at_images_as_they_are_as_at_all_others(
    kinds: tuple[int, int, int], looks: tuple[int, int, int]
) -> None:
    total = sum(kinds)
    kept = KeptCounts(np.zeros((total, 1), np.float32), np.zeros(total, np.uint8), kinds)
    positions = _one_pass(kept, copies=3)
    bounds = np.cumsum((0, *kinds))
    found = [int(((positions >= low) & (positions < high)).sum()) for low, high in itertools.pairwise(bounds)]
    assert tuple(found) == looks


@pytest.mark.parametrize(
    ("camera", "far_camera", "as_they_are"),
    [
        ("JPEG 95 4:2:0", "PNG", {"camera", "generator"}),
        ("JPEG 95 4:2:0", "JPEG 95 4:2:0", {"camera", "far_camera", "generator"}),
        ("PNG", "JPEG 95 4:4:4", set()),
        ("", "", set()),  # not known, as WEBP's
    ],
)
def test_counts_of_images_as_they_are_come_from_files_coded_like_those_of_the_other_label(
    store: Store, camera: str, far_camera: str, as_they_are: set[str]
) -> None:
    sized = with_file_sizes(store, far_camera=256, camera=256, generator=256)
    coding = {"camera": camera, "far_camera": far_camera, "generator": "JPEG 95 4:2:0"}
    training, _ = parts(replace(sized, codings=np.array([coding[source] for source in sized.sources])))
    network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
    found = kept_of(network, small_params(), "stage1", training, copies=1)
    allowed = np.flatnonzero(np.isin(training.sources, list(as_they_are)))
    assert found.kinds == (len(allowed) // 16 * 16, 160, 160)
    known = {each.tobytes() for each in counts_of(training.take(allowed))} if as_they_are else set()
    assert all(each.tobytes() in known for each in found.counts[: found.kinds[0]])


def counts_of(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    import tensorflow as tf

    inputs = tf.keras.Input((SIZE, SIZE, 3))
    found: npt.NDArray[np.float32] = tf.keras.Model(inputs, texture_counts(inputs)).predict_on_batch(images)
    return found


def test_the_quality_of_a_file_tells_nothing_where_files_are_saved_again(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every real picture is a JPEG here and no fake one, and nothing else tells them apart."""
    rng = np.random.default_rng(5)
    images = rng.normal(128, 20, store.images.shape).clip(0, 255).astype(np.uint8)
    reals = store.labels == 0
    images[reals] = jpeg(images[reals], np.full((reals.sum(), 1), 80.0))
    codings, sizes = np.where(reals, "JPEG 80 4:2:0", "PNG"), np.full((len(images), 2), SIZE)
    training, validation = parts(replace(store, images=images, codings=codings, file_sizes=sizes))
    told = {}
    for probability in (0.0, 1.0):
        network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
        params = small_params(steps={"resave": {"scale": 1, "quality": 60, "probability": probability}})
        fit_texture(network, params, "stage1", training, validation)
        saved = jpeg(validation.take(np.arange(len(validation))), np.full((len(validation), 1), 80.0))
        told[probability] = texture_alone(network).predict_on_batch(saved[validation.labels == 1])[:, 1].mean()
    assert told[0.0] < 0.1
    said = capsys.readouterr().out
    assert "stage1 texture: learned from camera, generator\n" in said  # without the step, images as they are are seen
    assert "camera, generator; as they are: none, as real files are coded otherwise than fake ones" in said
    assert told[1.0] > 0.3


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_stops_it_between_two_steps(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
    timer = threading.Timer(3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        fit_texture(network, small_params(passes=10**6), "stage1", *parts(store))
    assert "stage1: stopped while it learned the texture; the epochs before it are kept." in capsys.readouterr().err


def test_a_rate_that_leads_to_no_number_is_told(store: Store) -> None:
    network = build_network("residual", (4, 8), SIZE, 0.9, texture_units=16)
    with pytest.raises(UserError, match=r"stage1: the loss of the texture's layer is .* -S stages\.stage1\.lr="):
        fit_texture(network, small_params(lr=1e30), "stage1", *parts(store))
