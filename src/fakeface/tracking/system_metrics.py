"""How busy the machine is, sampled while a stage runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fakeface.tracking.event_writer import quiet_mlflow


class Sampler:
    """A thread that reports processor, memory, disk, network and GPU as `system/…` every few seconds."""

    def __init__(self, report: Callable[[dict[str, float], int], None], seconds: float) -> None:
        """`report` gets the numbers and the time in whole seconds since 1970, which serves as step."""
        self._report, self._seconds = report, seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="system-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a sample that is being sent is waited for."""
        self._over.set()
        self._thread.join(timeout=60)

    def _run(self) -> None:
        monitors = _monitors()
        while not self._over.wait(self._seconds):
            numbers: dict[str, float] = {}
            for monitor in monitors:
                monitor.collect_metrics()
                numbers |= {f"system/{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
            self._report(numbers, int(time.time()))


def _monitors() -> list[Any]:
    quiet_mlflow()
    from mlflow.system_metrics.metrics import cpu_monitor, disk_monitor, gpu_monitor, network_monitor

    makers: list[Callable[[], Any]] = [
        cpu_monitor.CPUMonitor,
        disk_monitor.DiskMonitor,
        network_monitor.NetworkMonitor,
        gpu_monitor.GPUMonitor,
    ]
    monitors = []
    for make in makers:
        with suppress(Exception):  # without a GPU, or in the CPU build, which lacks what reads it, its monitor raises
            monitors.append(make())
    return monitors
