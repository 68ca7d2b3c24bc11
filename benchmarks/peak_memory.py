"""Target 5: a training stage's memory on ten times the images.

Anonymous memory is counted (RssAnon of /proc): it is what a process cannot give back. The mapped images are pages of a
file, which the system drops when it needs room; they come and go with the machine's free memory.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from pathlib import Path

import click
import numpy as np

from benchmarks.cli_options import part
from benchmarks.results_table import Row
from benchmarks.startup_time import STAGE
from benchmarks.temporary_project import Project, tiny_project
from fakeface.data.image_store import FACTS, IMAGES, MANIFEST, StoredImage
from fakeface.images.decoding import IMAGE_SIZE
from fakeface.system.serialization import write_json_with_checksum, write_rows

VALID = 256  # images; scoring them takes time, and each is let go
LOOK = 0.05  # s between two looks at the memory
BLACK = hashlib.sha256(bytes(3 * IMAGE_SIZE**2)).hexdigest()  # of the pixels of each image
_IMAGES = click.option(
    "--images",
    type=click.IntRange(1000),
    default=14_000,
    show_default=True,
    help="Of the smaller store; ten times: the larger. They are zeros that take no room on the disk.",
)


@part("peak_memory", _IMAGES)
def main(images: int) -> list[Row]:
    """Peak of the anonymous memory of a training stage, on a store and on one of ten times its images."""
    with tiny_project() as project:
        project.change_params({"image_size": IMAGE_SIZE, "batch_size": 16, "recipe": "default"})
        few, many = (_peak(project, count) for count in (images, 10 * images))
    return [
        Row(
            f"5 memory, {10 * images:,} images against {images:,}",
            200,
            many - few,
            "MB",
            at_most=True,
            how=f"peak of anonymous memory {many:,.0f} against {few:,.0f} MB; file-backed pages not counted",
        )
    ]


def _peak(project: Project, count: int) -> float:
    _write_zeros(project.folder / "datasets/split/stage1", count)
    with subprocess.Popen(
        STAGE, cwd=project.folder, env=project.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as stage:
        peak = 0.0
        while stage.poll() is None:
            peak = max(peak, _anonymous_megabytes(stage.pid))
            time.sleep(LOOK)
        said = stage.stdout.read() if stage.stdout else ""
    if stage.returncode:
        raise RuntimeError(f"the stage failed: {said[-1500:]}")
    return peak


def _anonymous_megabytes(process: int) -> float:
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return float(lines.get("RssAnon", "0 kB").split()[0]) / 1024


def _write_zeros(folder: Path, count: int) -> None:
    """Write a store of black images whose file has a length and no blocks on the disk."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    np.lib.format.open_memmap(folder / IMAGES, "w+", np.uint8, (count, IMAGE_SIZE, IMAGE_SIZE, 3))  # type: ignore[no-untyped-call]
    rows = [_row(number, "valid" if number < VALID else "train") for number in range(count)]
    write_rows(folder / MANIFEST, StoredImage._fields, rows)
    sums = {MANIFEST: hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()}
    facts = {"images": count, "size": IMAGE_SIZE, "note": None, "reencoding": None, "sha256": sums}
    write_json_with_checksum(folder / FACTS, facts)


def _row(number: int, part: str) -> StoredImage:
    label = ("real", "fake")[number % 2]
    path, file_sum = f"{label}/{number:07}.jpg", f"{number:064x}"
    return StoredImage(path, label, label, part, file_sum, "", BLACK)


if __name__ == "__main__":
    main()
