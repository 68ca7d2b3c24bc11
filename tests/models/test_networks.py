"""The networks, and what a checkpoint carries from one machine to another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from fakeface.config.params import load_params
from fakeface.metrics.calibration import Calibration
from fakeface.models.checkpoints import CheckpointMetadata, ModelCache, load_checkpoint, read_metadata, save_checkpoint
from fakeface.models.device import quiet_tensorflow
from fakeface.models.flip_tta import with_flip_tta
from fakeface.models.networks import build_network
from fakeface.system.errors import UserError
from tests.support.project import PROJECT

if TYPE_CHECKING:
    pass

quiet_tensorflow()

CHANNELS = (4, 8, 8)
IMAGES = np.random.default_rng(7).integers(0, 256, (4, 32, 32, 3)).astype(np.float32)
METADATA = CheckpointMetadata(
    stage="stage2",
    recipe="default",
    network="residual",
    channels=CHANNELS,
    image_size=32,
    batch_norm_momentum=0.9,
    flip_tta=False,
    precision="float32",
    note=None,
    calibration=Calibration(
        slope=1.5, bias=-0.25, threshold=0.4, abstention_low=0.3, abstention_high=0.6, sources=("a", "b")
    ),
)


def test_build_network_seed_is_the_notebooks() -> None:
    params = load_params(PROJECT / "params.yaml")
    recipe = params.recipes["seed"]
    model = build_network(recipe.network, recipe.channels, params.image_size, recipe.batch_norm_momentum)
    assert model.count_params() == 7_412_962
    assert model.input_shape == (None, 128, 128, 3)
    assert model.output_shape == (None, 2)


@pytest.mark.parametrize("name", ["seed", "residual"])
def test_build_network_gives_two_probabilities(name: str) -> None:
    scores = build_network(name, CHANNELS, 32, 0.9).predict_on_batch(IMAGES)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)


def test_build_network_residual_sees_differences_of_neighbours_only() -> None:
    model = build_network("residual", CHANNELS, 32, 0.9)
    np.testing.assert_allclose(
        model.predict_on_batch(IMAGES * 0.5 + 60), model.predict_on_batch(IMAGES * 0.5 + 90), atol=1e-4
    )


def test_cell_differences_are_the_image_minus_its_doubled_half() -> None:
    import tensorflow as tf

    model = build_network("residual", CHANNELS, 32, 0.9)
    cells = tf.keras.Model(model.input, model.get_layer("cell_differences").output).predict_on_batch(IMAGES)
    doubled = IMAGES[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)
    expected = (IMAGES - doubled) / 32
    np.testing.assert_allclose(cells[..., 0:3], expected[:, 0::2, 1::2], atol=1e-5)
    np.testing.assert_allclose(cells[..., 3:6], expected[:, 1::2, 0::2], atol=1e-5)
    np.testing.assert_allclose(cells[..., 6:9], expected[:, 1::2, 1::2], atol=1e-5)


def test_with_flip_tta_averages_the_logits_of_both_views() -> None:
    model = build_network("residual", CHANNELS, 32, 0.9)
    both = with_flip_tta(model)
    mirrored = IMAGES[:, :, ::-1]
    as_it_is, other = (np.log(model.predict_on_batch(view)) for view in (IMAGES, mirrored))
    mean = (as_it_is + other) / 2  # log-probabilities differ from logits by a constant, which the softmax drops
    expected = np.exp(mean) / np.exp(mean).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(both.predict_on_batch(IMAGES), expected, atol=1e-5)
    np.testing.assert_allclose(both.predict_on_batch(mirrored), expected, atol=1e-5)
    assert not np.allclose(as_it_is, other, atol=1e-3)


def test_pyfunc_model_averages_both_views_too() -> None:
    from fakeface.tracking.pyfunc_model import _with_flip_tta

    model = build_network("residual", CHANNELS, 32, 0.9)
    served = _with_flip_tta(model).predict_on_batch(IMAGES)
    np.testing.assert_allclose(served, with_flip_tta(model).predict_on_batch(IMAGES), atol=1e-6)


def test_model_cache_scores_over_the_views_of_the_checkpoint(tmp_path: Path) -> None:
    model = build_network("residual", CHANNELS, 32, 0.9)
    save_checkpoint(model, replace(METADATA, flip_tta=True), tmp_path / "stage3.h5")
    detector, _ = ModelCache().load(tmp_path / "stage3.h5")
    np.testing.assert_allclose(
        detector.predict_on_batch(IMAGES), with_flip_tta(model).predict_on_batch(IMAGES), atol=1e-6
    )
    trainable, _ = load_checkpoint(tmp_path / "stage3.h5")
    np.testing.assert_array_equal(trainable.predict_on_batch(IMAGES), model.predict_on_batch(IMAGES))


def test_save_checkpoint_keeps_weights_and_metadata(tmp_path: Path) -> None:
    model = build_network("residual", CHANNELS, 32, 0.9)
    scores = model.predict_on_batch(IMAGES)
    save_checkpoint(model, METADATA, tmp_path / "models/stage2.h5")
    loaded, facts = load_checkpoint(tmp_path / "models/stage2.h5")
    assert facts == METADATA
    np.testing.assert_array_equal(loaded.predict_on_batch(IMAGES), scores)


def test_save_checkpoint_of_equal_weights_has_equal_bytes(tmp_path: Path) -> None:
    model = build_network("residual", CHANNELS, 32, 0.9)
    save_checkpoint(model, METADATA, tmp_path / "a.h5")
    loaded, _ = load_checkpoint(tmp_path / "a.h5")
    save_checkpoint(loaded, METADATA, tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_load_checkpoint_of_mixed_precision_in_float32(tmp_path: Path) -> None:
    import tensorflow as tf

    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = build_network("residual", CHANNELS, 32, 0.9)
        mixed = model.predict_on_batch(IMAGES)
        save_checkpoint(model, METADATA, tmp_path / "mixed.h5")
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    loaded, _ = load_checkpoint(tmp_path / "mixed.h5")
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}
    np.testing.assert_allclose(loaded.predict_on_batch(IMAGES), mixed, atol=0.03)


def test_read_metadata_names_the_version_of_an_older_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "stage1.h5"
    save_checkpoint(build_network("residual", CHANNELS, 32, 0.9), METADATA, path)
    with h5py.File(path, "r+") as file:
        stored = json.loads(file.attrs["fakeface"])
        del stored["version"]  # as the first version had it
        file.attrs["fakeface"] = json.dumps(stored)
    with pytest.raises(UserError, match=r"stage1\.h5 is a checkpoint of version 1, and .* version 2"):
        read_metadata(path)


def test_read_metadata_names_a_bad_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stage1\.h5 is missing"):
        read_metadata(tmp_path / "stage1.h5")
    (tmp_path / "text.h5").write_text("no weights")
    with pytest.raises(UserError, match=r"text\.h5 is not a checkpoint of this version"):
        read_metadata(tmp_path / "text.h5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(UserError, match=r"foreign\.h5 is not a checkpoint"):
        read_metadata(tmp_path / "foreign.h5")


def test_load_checkpoint_refuses_a_flipped_bit_anywhere(tmp_path: Path) -> None:
    model, path = build_network("residual", CHANNELS, 32, 0.9), tmp_path / "stage1.h5"
    save_checkpoint(model, METADATA, path)
    content = path.read_bytes()
    of_a_weight = content.index(np.ascontiguousarray(model.get_layer("logits").kernel.numpy()).tobytes())
    of_a_fact = content.index(b'"threshold": 0.4')
    for place in (of_a_weight + 2, of_a_fact + 15, *range(0, len(content), len(content) // 200)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(UserError, match=r"stage1\.h5 is (damaged|not a checkpoint).*`dvc repro` again"):
            load_checkpoint(path)
    path.write_bytes(content)
    assert load_checkpoint(path)[1] == METADATA


def test_load_checkpoint_names_another_network(tmp_path: Path) -> None:
    save_checkpoint(
        build_network("residual", CHANNELS, 32, 0.9), replace(METADATA, network="seed"), tmp_path / "stage2.h5"
    )
    with pytest.raises(UserError, match="does not hold the weights of the network 'seed'"):
        load_checkpoint(tmp_path / "stage2.h5")
