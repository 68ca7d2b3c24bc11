"""What `device: auto` and `precision: auto` come to on this machine, without TensorFlow, which loads for seconds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from fakeface.models.device import choose_cpu_precision, choose_gpu_precision

_QUERY = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]


def describe_processor(device: str, precision: str, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return `device` (cpu or gpu), `gpus` (names) and `precision` (of Keras) that a stage will have here.

    Args:
        device: auto, cpu or gpu.
        precision: auto, float32, mixed_bfloat16 or mixed_float16.
        environ: CUDA_VISIBLE_DEVICES in it hides GPUs.
    """
    gpus = {} if device == "cpu" or _has_cpu_build() else _list_gpus(environ)
    if precision == "auto":
        precision = choose_gpu_precision(next(iter(gpus.values()))[1]) if gpus else choose_cpu_precision()
    return {"device": "gpu" if gpus else "cpu", "gpus": [name for name, _ in gpus.values()], "precision": precision}


def _has_cpu_build() -> bool:
    try:
        return bool(distribution("tensorflow-cpu"))
    except PackageNotFoundError:
        return False


def _list_gpus(environ: Mapping[str, str]) -> dict[int, tuple[str, tuple[int, int]]]:
    """Return number → (name, compute capability) of the GPUs that CUDA would show."""
    try:
        printed = subprocess.run(_QUERY, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):  # no driver, so no GPU
        return {}
    found = {}
    for number, line in enumerate(printed.splitlines()):
        name, _, capability = (word.strip() for word in line.rpartition(","))
        major, _, minor = capability.partition(".")
        found[number] = (name, (int(major), int(minor or 0)))
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    numbers = [int(word) for word in visible.split(",") if word.strip().isdigit()]
    return {number: found[number] for number in numbers if number in found}
