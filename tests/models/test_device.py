"""What precision suits a processor, and a GPU that is asked for and is not there."""

from __future__ import annotations

import pytest

from fakeface.models.device import choose_gpu_precision, prepare_tensorflow
from fakeface.system.errors import UserError


@pytest.mark.parametrize(
    ("compute_capability", "policy"),
    [
        ((0, 0), "float32"),  # what TensorFlow does not know
        ((6, 1), "float32"),  # Pascal
        ((7, 0), "mixed_float16"),  # Volta: the first tensor cores
        ((7, 5), "mixed_float16"),  # Turing
        ((8, 0), "mixed_bfloat16"),  # Ampere
        ((8, 9), "mixed_bfloat16"),  # Ada
        ((9, 0), "mixed_bfloat16"),  # Hopper
        ((10, 0), "mixed_bfloat16"),  # Blackwell
    ],
)
def test_choose_gpu_precision_by_compute_capability(compute_capability: tuple[int, int], policy: str) -> None:
    assert choose_gpu_precision(compute_capability) == policy


def test_prepare_tensorflow_refuses_a_missing_gpu() -> None:
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is one")
    with pytest.raises(UserError, match=r"device is gpu, and TensorFlow sees none; .*device: auto"):
        prepare_tensorflow("gpu", "auto", seed=1, deterministic=True)
