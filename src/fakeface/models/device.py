"""Which processor TensorFlow computes on, in which precision, and how repeatably."""

from __future__ import annotations

import os
import platform
import warnings
from dataclasses import dataclass
from pathlib import Path

from fakeface.system.errors import UserError

# Instructions that multiply bfloat16 in hardware; without them it is slower than float32 (tensorflow issue 42422).
_BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}


@dataclass(frozen=True)
class Device:
    """What a training or prediction computes on; `precision` is the Keras policy's name."""

    kind: str
    name: str
    precision: str


def quiet_tensorflow() -> None:
    """Silence TensorFlow's and TensorFlow Addons' start-up notes, and allow oneDNN's kernels on every x86 processor.

    Takes effect only before TensorFlow's first import. oneDNN is off by default on AMD processors, where it halves
    the time of a training step of the seed's network.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # the bytes of a .keras file change at every save, so DVC would run again all that follows; HDF5 is meant
    warnings.filterwarnings("ignore", message="You are saving your model as an HDF5 file")
    warnings.filterwarnings("ignore", message=r"(?s).*TensorFlow Addons \(TFA\) has ended development")


def prepare_tensorflow(device: str, precision: str, seed: int, deterministic: bool) -> Device:
    """Choose device and precision, seed every generator, and return what was chosen.

    Args:
        device: auto, cpu or gpu.
        precision: auto, float32, mixed_bfloat16 or mixed_float16.
        seed: for Python, numpy and TensorFlow.
        deterministic: ask TensorFlow for operations that give equal results in every run.

    Raises:
        UserError: a GPU is asked for and TensorFlow sees none.
    """
    quiet_tensorflow()
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    gpus = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise UserError(
            "device is gpu, and TensorFlow sees none; install the CUDA build (`make repro GPU=1`) or set device: auto."
        )
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
        gpus = []
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    chosen = choose_gpu_precision(details.get("compute_capability", (0, 0))) if gpus else choose_cpu_precision()
    policy = chosen if precision == "auto" else precision
    tf.keras.mixed_precision.set_global_policy(policy)
    tf.keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    return Device("gpu" if gpus else "cpu", details.get("device_name", _read_cpu_name()), policy)


def choose_gpu_precision(compute_capability: tuple[int, int]) -> str:
    """Return the fastest safe policy: bfloat16 from Ampere (8.0) on, float16 with tensor cores from Volta (7.0) on."""
    if compute_capability >= (8, 0):
        return "mixed_bfloat16"
    return "mixed_float16" if compute_capability >= (7, 0) else "float32"


def choose_cpu_precision() -> str:
    """Return mixed_bfloat16 where the processor multiplies it in hardware, else float32."""
    return "mixed_bfloat16" if _BFLOAT16_FLAGS & set(_read_cpu_fields().get("flags", "").split()) else "float32"


def _read_cpu_name() -> str:
    return f"{_read_cpu_fields().get('model name', platform.machine())}, {os.cpu_count()} cores"


def _read_cpu_fields() -> dict[str, str]:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return {}
    first = cpuinfo.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}
