"""params.yaml is strict: what is wrong in it is named, and what is right arrives typed."""

from __future__ import annotations

from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from fakeface.config.params import list_experiment_parameters, load_params
from fakeface.constants import STAGES
from fakeface.images.validation import MAX_BYTES, MAX_PIXELS
from fakeface.system.errors import UserError
from tests.support.project import PROJECT

TEXT = (PROJECT / "params.yaml").read_text(encoding="utf-8")


def params_with(folder: Path, old: str, new: str) -> Path:
    assert old in TEXT
    path = folder / "params.yaml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    return path


def test_params_defaults_are_the_notebooks() -> None:
    params = load_params(PROJECT / "params.yaml")
    assert (params.lr, params.image_size, params.validation_batch_size) == (0.001, 128, 32)
    assert params.reduce_lr.model_dump() == {"monitor": "val_loss", "factor": 0.1, "patience": 10, "min_lr": 0.0001}
    seed = params.recipes["seed"]
    assert (seed.batch_size, set(seed.epochs.values())) == (64, {5})
    assert seed.augmentation_steps("stage1") == [{"op": "gaussian_filter2d", "backend": "addons"}]
    second = {step["op"]: step for step in seed.augmentation_steps("stage2") if step.get("probability") != 0}
    assert list(second) == ["rotate", "shift", "flip", "brightness", "gaussian_blur"]
    assert (second["rotate"]["degrees"], second["shift"]["fraction"]) == (20, 0.18)
    assert (second["brightness"]["low"], second["brightness"]["high"]) == (0.5, 1.3)
    assert (second["gaussian_blur"]["sigma"], second["gaussian_blur"]["backend"]) == (0.5, "imgaug")
    assert seed.augmentation_steps("stage3") == seed.augmentation_steps("stage2")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lr: 0.001", "lr: 1e-3", "write 0.001"),
        ("lr: 0.001", "learning_rate: 0.001", "no parameter 'learning_rate'"),
        ("lr: 0.001", "lr: true", "lr is True"),
        ("epochs: null", "epochs: 0", "epochs is 0"),
        ("epochs: null", "epochz: 5", "perhaps 'epochs'"),
        ("epochs: {stage1: 5, ", "epochs: {", "epochs.stage1 is missing"),
        ("recipe: default", "recipe: best", "known are seed, default"),
        ("flip: {}", "flop: {}", "flop"),
        ("device: auto", "device: tpu", "'auto', 'cpu' or 'gpu'"),
        ("stage3: {lr: null", "stage3: {lr: fast", "stages.stage3.lr is 'fast'"),
        ("profile: auto", "profile: mine", "known are auto, sample, local, left_out, full"),
        ("{train: 0.7, valid: 0.2, test: 0.1}", "{train: 0.7, valid: 0.2, test: 0.2}", "add up to 1"),
        ("{train: 0.7, valid: 0.2, test: 0.1}", "{train: 0.8, valid: 0.2, test: 0}", "each be above 0"),
        ("crop: centre 0.7", "crop: center 0.7", "sources.lfw.crop"),
        ("folder: hard/real", "folder: ../hard/real", "under data.root"),
        ("{real: [lfw]", "{real: []", "evaluate.pairs.lfw_stylegan.real"),
        ("batch_size: null", "batch_size: 1", "batch_size is 1"),
        ("use: {stage1: 1}", "use: {stage1: 1.2}", "less than or equal to 1"),
        ("use: {stage1: 1}", "take: {stage1: 0.5}", "stage1 must be a whole number of images above 0, or {train: …"),
        ("use: {heldout: 1}", "take: {heldout: {train: 1, valid: 1, test: 1}}", "heldout must be a whole number"),
        ("use: {stage1: 1}", "take: {stage9: 5}", "stage9"),
        ("{train: 16875, ", "{trian: 16875, ", "take.stage3.trian'; check its spelling, perhaps 'train'"),
        ("{train: 16875, ", "{train: 0, ", "take.stage3.train is 0"),
        ("use: {stage1: 1}", "use: {stage1: 1}, take: {stage1: 5}", "either `use`"),
        (", use: {stage1: 1}", "", "either `use`"),
        ("collection: lag,", "collection: lagg,", "did you mean 'lag'"),
        ("real, collection: lag,", "fake, collection: lag,", "'lag' is real, not fake"),
        (
            "channels: [64, 32, 64]",
            "channels: [64, 32]",
            "needs 3 numbers, one for each convolution of the network seed, and has 2",
        ),
        ("channels: [16, 32, 64, 128, 192]", "channels: [16]", "needs 2 numbers or more"),
        ("channels: [16, 32, 64, 128, 192]", "channels: [16, 0]", "channels.1 is 0"),
        ("image_size: 128", "image_size: [128", "not valid YAML"),
    ],
)
def test_load_params_names_a_wrong_value(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_params(params_with(tmp_path, old, new))
    assert said in str(caught.value)
    assert "params.yaml" in str(caught.value)


def test_load_params_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"params\.yaml is missing"):
        load_params(tmp_path / "params.yaml")


def test_get_stage_config_stage_overrides_top_level_overrides_recipe(tmp_path: Path) -> None:
    path = params_with(tmp_path, "stage3: {lr: null, epochs: null", "stage3: {lr: 0.0002, epochs: 7")
    path.write_text(path.read_text().replace("batch_size: null ", "batch_size: 48 ", 1))
    params = load_params(path)
    recipe = params.get_recipe()
    assert params.get_stage_config("stage3").model_dump() == {
        "lr": 0.0002,
        "epochs": 7,
        "batch_size": 48,
        "steps_per_epoch": None,
        "validation_steps": None,
    }
    assert (params.get_stage_config("stage2").lr, params.get_stage_config("stage2").epochs) == (
        0.001,
        recipe.epochs["stage2"],
    )


def test_params_step_of_one_stage_changes_no_other(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT, encoding="utf-8")
    apply_overrides(path, ["recipes.default.augmentation.stage1.jpeg.probability=0.75"])
    recipe = load_params(path).recipes["default"]
    chances = {stage: recipe.augmentation[stage]["jpeg"]["probability"] for stage in STAGES}
    assert chances == {"stage1": 0.75, "stage2": 0.3, "stage3": 0.3}


def test_list_experiment_parameters_has_only_the_recipe_used() -> None:
    logged = list_experiment_parameters(load_params(PROJECT / "params.yaml"))
    assert list(logged["recipes"]) == ["default"]
    assert logged["lr"] == 0.001


def test_limits_of_params_are_those_of_prediction() -> None:
    data = load_params(PROJECT / "params.yaml").data
    assert (data.max_megabytes * 1e6, data.max_megapixels * 1e6) == (MAX_BYTES, MAX_PIXELS)
