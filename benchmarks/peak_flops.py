"""The most that this machine multiplies, and what a network asks of it."""

from __future__ import annotations

from math import prod
from typing import Any

from benchmarks.interleaved_runs import Job, Speed, Turns

SIDE = 2048  # of the square matrices
PRECISIONS = ("float32", "bfloat16")


def multiply(turns: Turns, precision: str) -> None:
    """Multiply two square matrices a turn; the amount is GFLOP."""
    from fakeface.models.device import prepare_tensorflow

    prepare_tensorflow("cpu", "float32", seed=0, deterministic=False)
    import tensorflow as tf

    matrix = tf.cast(tf.random.normal((SIDE, SIDE)), precision)
    product = tf.function(lambda: tf.matmul(matrix, matrix))
    product()
    goes_on = turns.begin()
    while goes_on:
        times = 1 if precision == "bfloat16" else 4
        for _ in range(times):
            product().numpy()
        goes_on = turns.end(times * 2 * SIDE**3 / 1e9)


def peak_jobs() -> dict[str, Job]:
    """Return the jobs that measure the peak of both precisions."""
    return {precision: Job(multiply, (precision,)) for precision in PRECISIONS}


def peak_of(speeds: dict[str, Speed]) -> tuple[float, str]:
    """Return the higher peak in GFLOP/s, and both in words."""
    best = max(PRECISIONS, key=lambda precision: speeds[precision].per_second)
    both = ", ".join(f"{precision} {speeds[precision].per_second:,.0f}" for precision in PRECISIONS)
    return speeds[best].per_second, f"matmul peak {both} GFLOP/s: {best}'s counts"


def forward_flops(model: Any) -> int:
    """Return the multiplications and additions of one image through all convolutions and dense layers."""
    return sum(_flops(layer) for layer in _weighted(model))


def training_flops(model: Any) -> int:
    """Return those of a training step: forward, the gradient of the weights, and of the input where one is needed."""
    layers = _weighted(model)
    first = next(number for number, layer in enumerate(layers) if layer.trainable)
    return sum(_flops(layer) * (1 + bool(layer.trainable) + (number > first)) for number, layer in enumerate(layers))


def _weighted(model: Any) -> list[Any]:
    return [layer for layer in model.layers if hasattr(layer, "kernel") or hasattr(layer, "depthwise_kernel")]


def _flops(layer: Any) -> int:
    kernel = layer.kernel if hasattr(layer, "kernel") else layer.depthwise_kernel
    return 2 * int(prod(kernel.shape.as_list()) * prod(layer.output_shape[1:-1]))
