"""Processor time and speed of a training step of each network, in one run on this machine.

    make bench

The images are random numbers, read from memory: the input pipeline is not part of it. Processor time is that of all
threads together, so it says more than images a second on a machine that also does other work.
"""

from __future__ import annotations

import time

import numpy as np

from fakeface.device import prepare_tensorflow

BATCH, STEPS, SIZE = 64, 10, 128


def measure(network: str) -> tuple[float, float]:
    """Return milliseconds of processor time an image, and images a second, after one step of warming up."""
    from fakeface.models import build_network
    from fakeface.training import compile_for_training

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (BATCH, SIZE, SIZE, 3)).astype(np.float32)
    labels = random.integers(0, 2, BATCH)
    model = build_network(network, SIZE, 0.9)
    compile_for_training(model, "constant", 0.001, STEPS)
    model.train_on_batch(images, labels)
    processor, wall = time.process_time(), time.perf_counter()
    for _ in range(STEPS):
        model.train_on_batch(images, labels)
    count = BATCH * STEPS
    return 1000 * (time.process_time() - processor) / count, count / (time.perf_counter() - wall)


def main() -> None:
    """Print a row for each network, and the ratio."""
    device = prepare_tensorflow("auto", "auto", seed=0, deterministic=False)
    print(f"training step, batch {BATCH}, {SIZE}x{SIZE}, {device.precision}, {device.name}")
    rows = {network: measure(network) for network in ("seed", "residual")}
    for network, (milliseconds, speed) in rows.items():
        print(f"{network:<10}{milliseconds:7.1f} ms of processor time an image {speed:7.1f} images/s")
    print(f"seed / residual: {rows['seed'][0] / rows['residual'][0]:.2f} times the processor time")


if __name__ == "__main__":
    main()
