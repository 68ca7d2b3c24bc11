"""What DVC is told of the processor, on machines with other GPUs, as their driver's own program tells of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakeface.models import device_fingerprint as processor
from fakeface.models.device import choose_cpu_precision
from fakeface.models.device_fingerprint import describe_processor


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA A100, 8.0'\necho 'Tesla V100, 7.0'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(processor, "_has_cpu_build", lambda: False)


def test_describe_processor_without_gpu_names_the_cpus_precision() -> None:
    assert describe_processor("cpu", "auto") == {"device": "cpu", "gpus": [], "precision": choose_cpu_precision()}


def test_describe_processor_keeps_a_precision_that_is_asked_for() -> None:
    assert describe_processor("cpu", "float32")["precision"] == "float32"


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("visible", "gpus", "precision"),
    [
        (None, ["NVIDIA A100", "Tesla V100"], "mixed_bfloat16"),
        ("1", ["Tesla V100"], "mixed_float16"),
        ("1,0", ["Tesla V100", "NVIDIA A100"], "mixed_float16"),
        ("-1", [], choose_cpu_precision()),
        ("", [], choose_cpu_precision()),
    ],
)
def test_describe_processor_tells_one_machines_gpus_from_anothers(
    visible: str | None, gpus: list[str], precision: str
) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = describe_processor("auto", "auto", environ)
    assert found == {"device": "gpu" if gpus else "cpu", "gpus": gpus, "precision": precision}


@pytest.mark.usefixtures("two_gpus")
def test_describe_processor_of_device_cpu_has_no_gpu() -> None:
    assert describe_processor("cpu", "auto")["gpus"] == []
