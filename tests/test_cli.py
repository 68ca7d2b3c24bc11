"""The `fakeface` command as a user types it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fakeface.cli import main
from fakeface.images.preprocessing import Reencoding
from fakeface.metrics.by_source import report_evaluation
from fakeface.metrics.calibration import Calibration
from fakeface.models.checkpoints import CheckpointMetadata, save_checkpoint
from fakeface.models.device import quiet_tensorflow
from fakeface.system.serialization import write_json
from tests.support.faulty_http_server import LOGIN_PAGE
from tests.support.image_folders import fill_folder, profile_of
from tests.support.project import PROJECT

quiet_tensorflow()
CHANNELS = (4, 8)
FACTS = CheckpointMetadata(
    stage="stage3",
    recipe="default",
    network="residual",
    channels=CHANNELS,
    image_size=32,
    batch_norm_momentum=0.9,
    flip_tta=False,
    precision="float32",
    note="synthetic sample",
    calibration=Calibration(threshold=0.4, abstention_low=0.4, abstention_high=0.4),
    reencoding=Reencoding(quality=30, size=40),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fakeface.models.networks import build_network

    path = tmp_path_factory.mktemp("models") / "stage3.h5"
    save_checkpoint(build_network("residual", CHANNELS, 32, 0.9), FACTS, path)
    return path


def save_picture(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_help_needs_no_heavy_library() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from fakeface.cli import main; "
        "result = CliRunner().invoke(main, ['--help']); print(result.output); "
        "print([name for name in ('tensorflow', 'mlflow', 'matplotlib', 'sklearn', 'scipy') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "predict" in printed
    assert printed.rstrip().endswith("[]")


def test_predict_scores_files_and_folders(checkpoint: Path, tmp_path: Path) -> None:
    save_picture(tmp_path / "one.png", 1)
    save_picture(tmp_path / "album" / "two, and more.jpg", 2)
    arguments = ["predict", str(tmp_path / "one.png"), str(tmp_path / "album"), "--checkpoint", str(checkpoint)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "trained on the synthetic sample" in result.stderr
    header, first, second = result.stdout.splitlines()
    assert header == "path,score,prediction"
    path, score, prediction = first.rsplit(",", 2)
    assert path == str(tmp_path / "one.png")
    assert prediction == ("fake" if float(score) >= 0.4 else "real")
    assert second.startswith(f'"{tmp_path}/album/two, and more.jpg",')


def test_predict_gives_the_scores_of_the_pipeline(checkpoint: Path, tmp_path: Path) -> None:
    from fakeface.images.decoding import read_image
    from fakeface.images.preprocessing import Crop
    from fakeface.models.checkpoints import load_checkpoint

    save_picture(tmp_path / "one.png", 1)
    result = CliRunner().invoke(main, ["predict", str(tmp_path / "one.png"), "--checkpoint", str(checkpoint)])
    model, facts = load_checkpoint(checkpoint)
    assert facts.reencoding == FACTS.reencoding
    image = read_image(tmp_path / "one.png", facts.image_size, Crop.parse("centre"), reencoding=FACTS.reencoding)
    expected = facts.calibration.apply(model.predict_on_batch(image[None].astype(np.float32))[:, 1])
    assert float(result.stdout.splitlines()[1].split(",")[1]) == pytest.approx(expected[0], abs=1e-4)


def test_predict_names_an_image_it_cannot_use(checkpoint: Path, tmp_path: Path) -> None:
    save_picture(tmp_path / "good.png", 1)
    (tmp_path / "page.jpg").write_text("<html>please log in</html>")
    result = CliRunner().invoke(main, ["predict", str(tmp_path), "--checkpoint", str(checkpoint)])
    assert result.exit_code == 2
    assert "page.jpg" in result.stderr
    assert "HTML" in result.stderr
    assert len(result.stdout.splitlines()) == 2


def test_files_decoded_side_by_side_keep_their_order_scores_and_reasons(checkpoint: Path, tmp_path: Path) -> None:
    from fakeface.images.preprocessing import Crop
    from fakeface.inference.predict import score_files
    from fakeface.models.checkpoints import load_checkpoint

    files = [tmp_path / f"{number}.png" for number in range(9)]
    for number, file in enumerate(files):
        save_picture(file, number)
    files[2].write_text("<html>please log in</html>")
    files[5].unlink()
    model, facts = load_checkpoint(checkpoint)
    alone = [next(score_files([file], model, facts, Crop.parse("centre"))) for file in files]
    together = list(score_files(files, model, facts, Crop.parse("centre"), batch_size=2))
    assert [file for file, _ in together] == files
    assert {number for number, (_, score) in enumerate(together) if isinstance(score, str)} == {2, 5}
    for (_, one), (_, other) in zip(alone, together, strict=True):
        assert one == (other if isinstance(other, str) else pytest.approx(other, abs=1e-5))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "nowhere.jpg"], "nowhere.jpg is neither a file nor a folder"),
        (["predict", "."], "holds no image"),
        (["summary"], "metrics.json is missing"),
        (["predict", "a.png", "--crop", "middle"], "middle"),
    ],
)
def test_bad_input_ends_in_one_sentence(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "a.png" in arguments:
        save_picture(tmp_path / "a.png", 1)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.startswith("fakeface: ")
    assert len(result.stderr.strip().splitlines()) == 1


def test_summary_shows_sources_stages_and_what_a_constant_answer_gets(tmp_path: Path) -> None:
    labels, scores = [0, 0, 0, 1, 1], [0.1, 0.2, 0.7, 0.9, 0.8]
    report = report_evaluation(["lfw"] * 3 + ["stylegan"] * 2, labels, scores, 0.5, resamples=50, seed=0)
    stage = {"test": {"accuracy": 0.91}, "heldout": report["generalization"]}
    report |= {
        "recipe": "seed",
        "note": "synthetic sample",
        "stages": dict.fromkeys(("stage1", "stage2", "stage3"), stage),
        "pairs": {"lfw_stylegan": report["generalization"]},
        "pairs_pooled": {"ece": 0.0421},
        "robustness": {"none": {"change": 0.0}, "jpeg 30": {"change": -0.125}, "blur 1": {"change": -0.05}},
    }
    write_json(tmp_path / "metrics.json", report)
    result = CliRunner().invoke(main, ["summary", "--metrics", str(tmp_path / "metrics.json")])
    assert result.exit_code == 0, result.output
    for said in (
        "synthetic sample",
        "lfw",
        "0.667",
        "stylegan",
        "0.910",
        "0.600",
        "lfw_stylegan",
        "calibration error: 0.260 (",
        "; of every face in a pair 0.042",
        "'jpeg 30' costs most, 0.125",
        "make ui",
    ):
        assert said in result.output


def test_data_list_tells_what_is_in_the_folder_that_the_pipeline_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (PROJECT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("collections: collections", "collections: elsewhere"))
    for folder in ("lag/LAGdataset_200", "utkface_wild/part2"):
        (tmp_path / "elsewhere" / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["data", "list"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    rows = {line.split("│")[1].strip(): line for line in result.output.splitlines() if line.startswith("│")}
    assert set(rows) == {"utkface_aligned", "utkface_wild", "fakes_1m", "faces_140k", "lag", "celeba"}
    assert [name for name, line in rows.items() if "yes" in line] == ["lag"]
    assert [name for name, line in rows.items() if "partly" in line] == ["utkface_wild"]


def test_data_fetch_names_the_collections_it_knows(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["data", "fetch", "celebb", "--into", str(tmp_path)])
    assert result.exit_code == 1
    assert "celeba" in result.stderr


def test_data_fetch_goes_on_where_a_collection_fails_and_names_all_that_did(tmp_path: Path) -> None:
    for place in ("utkface_aligned/crop_part1.tar.gz", "celeba/img_align_celeba.zip", "lag/LAGdataset_200.zip"):
        archive = tmp_path / ".archives" / place
        archive.parent.mkdir(parents=True)
        archive.write_bytes(LOGIN_PAGE)
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("LAGdataset_200/Some_Body/1.png", b"a")
    arguments = ["data", "fetch", "utkface_aligned", "lag", "celeba", "--into", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert result.stdout == f"lag: 1 images of 3,828 expected in {tmp_path / 'lag'}\n"
    sentence = result.stderr.splitlines()[-1]
    assert "2 collections are not complete" in sentence
    for name in ("crop_part1.tar.gz", "img_align_celeba.zip"):
        assert f"{name} is not the right file (it is a web page" in sentence


def test_data_verify_names_a_changed_file(tmp_path: Path) -> None:
    from fakeface.data.download.ingest import collect_sources

    fill_folder(tmp_path / "data" / "camera", range(3))
    profile = profile_of(camera=("real", {"stage1": 1.0}))
    collection = collect_sources(tmp_path / "data", "mine", profile, tmp_path / "raw")
    changed = collection.files[0].path
    (tmp_path / "raw" / changed).write_bytes(b"other bytes")
    result = CliRunner().invoke(main, ["data", "verify", "--raw", str(tmp_path / "raw")])
    assert result.exit_code == 2
    assert f"changed: {changed}" in result.output


def test_data_verify_names_added_files_whatever_their_names(tmp_path: Path) -> None:
    from fakeface.data.download.ingest import collect_sources

    fill_folder(tmp_path / "data" / "camera", range(3))
    collect_sources(tmp_path / "data", "mine", profile_of(camera=("real", {"stage1": 1.0})), tmp_path / "raw")
    for name in (b"/caf\xe9.png", b"/two\nlines.png"):
        Path(os.fsdecode(os.fsencode(tmp_path / "raw") + name)).touch()
    result = CliRunner().invoke(main, ["data", "verify", "--raw", str(tmp_path / "raw")])
    assert result.exit_code == 2, result.exception
    assert result.stderr == "comparing files: 3 of 3 (100 %)\n"
    told = [r"added: caf\xe9.png", r"added: two\nlines.png", "3 files checked: not as written"]
    assert result.stdout.splitlines() == told
