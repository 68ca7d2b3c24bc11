"""The stages download and split on many images: speed, memory, disk, what 1 % more costs and what a kill costs.

    python -m benchmarks.data_stages --images 100000 --side 256 --folder /tmp --out benchmarks/SPLITTING.md

The two stages run as processes of their own, as in `dvc repro`, in a temporary folder that is removed at the end. It
needs 130 kB of disk an image of 256 pixels a side. Drawing the files is not counted. Processor time is that of all
processes together, so it says more than seconds on a machine that also does other work.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil  # type: ignore[import-untyped]
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageOps

from benchmarks.synthetic_jpegs import drawn_pictures, write_folder
from fakeface.images.decoding import decode_image
from fakeface.images.preprocessing import Crop

PROJECT = Path(__file__).resolve().parent.parent
SIZE, COMPARED = 128, 2000  # pixels a side; images in the comparison with Pillow
LOOK = 0.2  # seconds between two looks at a stage, which take the processor some milliseconds
_TABLE = re.compile(r"(?<=<!-- measured -->\n).*?(?=\n<!-- end -->)", re.DOTALL)
SOURCES = {  # label, use, share of all images
    "aligned": ("real", {"stage1": 1.0}, 0.125),
    "photographs": ("real", {"stage2": 1.0}, 0.25),
    "wild": ("real", {"stage3": 1.0}, 0.125),
    "unseen": ("real", {"heldout": 1.0}, 0.05),
    "machine": ("fake", {"stage1": 0.25, "stage2": 0.5, "stage3": 0.2, "heldout": 0.05}, 0.45),
}


class Run(NamedTuple):
    """What one run of both stages took."""

    seconds: float
    processor: float  # seconds, all processes
    memory: int  # bytes, the largest sum of all processes' resident memory; what they share counts for each

    def __add__(self, other: Run) -> Run:  # type: ignore[override]
        return Run(self.seconds + other.seconds, self.processor + other.processor, max(self.memory, other.memory))


def run_stage(name: str, workspace: Path, until: Callable[[], bool] = lambda: False) -> Run:
    """Run a stage; kill all its processes once `until` says so."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
    before, start, memory = _processor_of_children(), time.perf_counter(), 0
    command = [sys.executable, str(PROJECT / "pipeline" / f"{name}.py")]
    process = subprocess.Popen(command, cwd=workspace, env=environment, stdout=sys.stderr, start_new_session=True)
    while process.poll() is None:
        memory = max(memory, _resident(process.pid))
        if until():
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(LOOK)
    if process.wait() not in (0, -signal.SIGKILL):
        raise SystemExit(f"the stage {name} failed")
    return Run(time.perf_counter() - start, _processor_of_children() - before, memory)


def run_both(workspace: Path) -> tuple[Run, Run]:
    """Run download and split."""
    return run_stage("download", workspace), run_stage("split", workspace)


def _processor_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _resident(pid: int) -> int:
    total = 0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def prepare(workspace: Path, side: int) -> Callable[[int], float]:
    """Write params.yaml; give a function that adds images and returns the seconds it took."""
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    sources = {name: {"label": label, "use": use} for name, (label, use, _) in SOURCES.items()}
    params["image_size"] = SIZE
    params["data"] |= {"root": "data", "profile": "auto", "profiles": {"drawn": {"note": None, "sources": sources}}}
    (workspace / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    pictures = drawn_pictures(side)
    drawn = 0

    def add(images: int) -> float:
        nonlocal drawn
        start = time.perf_counter()
        for name, (_, _, share) in SOURCES.items():
            count = round(share * images)
            write_folder(workspace / "data" / name, pictures, count, drawn)
            drawn += count
        return time.perf_counter() - start

    return add


def disk(folder: Path) -> int:
    """Bytes on disk of all files in a folder."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def lines(path: Path) -> int:
    """Lines of a file; 0 where there is none."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def grown_beyond(path: Path, limit: int) -> Callable[[], bool]:
    """Return a question: whether a file has more lines than that by now. Reads only what is new since the last time."""
    read = counted = 0

    def answer() -> bool:
        nonlocal read, counted
        if path.exists():
            with path.open("rb") as file:
                file.seek(read)
                new = file.read()
            read, counted = read + len(new), counted + new.count(b"\n")
        return counted > limit

    return answer


def plain_pillow(path: Path) -> NDArray[np.uint8]:
    """Do with Pillow alone what the decoder does: upright, RGB, centre square, antialiased reduction."""
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.array(square.resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def decoder(path: Path) -> NDArray[np.uint8]:
    """Do it with the decoder of the pipeline."""
    return decode_image(path.read_bytes(), SIZE, Crop(1))


def unpacked(path: Path) -> Image.Image:
    """Only read and decode the file: the part of the work that is libjpeg's."""
    with Image.open(path) as file:
        file.load()
        return file


def reduced(path: Path) -> Image.Image:
    """Only decode and reduce: the part that is libjpeg's and the filter's."""
    return unpacked(path).resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def milliseconds(ways: Sequence[Callable[[Path], object]], paths: Sequence[Path]) -> list[float]:
    """Processor time an image of each way; they take turns, so that other work slows all alike."""
    spent = [0.0] * len(ways)
    for first in range(0, len(paths), 50):
        for number, way in enumerate(ways):
            start = time.process_time()
            for path in paths[first : first + 50]:
                way(path)
            spent[number] += time.process_time() - start
    return [1000 * seconds / len(paths) for seconds in spent]


def measure(workspace: Path, images: int, side: int) -> Iterator[tuple[str, str]]:
    """Give rows of the table."""
    said("drawing")
    add = prepare(workspace, side)
    drawing = add(images)
    paths = sorted((workspace / "data").rglob("*.jpg"))
    yield "Images, pixels a side", f"{len(paths):,}, {side}"
    yield "Drawing them (not counted)", f"{drawing:.0f} s"
    said("first run")
    download, split = run_both(workspace)
    yield from first_run(workspace / "datasets", len(paths), download, split)
    said("comparing with Pillow on one core")
    yield from comparison(paths, 1000 * split.processor / len(paths))
    said("again, nothing new")
    yield "Again, nothing new", compared(*run_both(workspace), download + split)
    add(images // 100)
    added = len(list((workspace / "data").rglob("*.jpg"))) - len(paths)
    said("1 % more")
    yield f"1 % more ({added:,} images)", compared(*run_both(workspace), download + split)
    yield from killed_runs(workspace, len(paths) + added, download + split)


def first_run(datasets: Path, images: int, download: Run, split: Run) -> Iterator[tuple[str, str]]:
    """Say what the first run took."""
    yield "First run: `download`", told(download, images)
    yield "First run: `split`", told(split, images)
    yield "Peak memory, all processes", f"{(download + split).memory / 1e6:.0f} MB"
    for what, folder in (("raw files", "raw"), ("decoded once", "decoded"), ("stores", "split")):
        yield f"Disk: {what}", f"{disk(datasets / folder) / 1e9:.2f} GB"


def comparison(paths: Sequence[Path], split: float) -> Iterator[tuple[str, str]]:
    """Compare the decoder, and the split stage with its milliseconds an image, with plain Pillow."""
    ways = [plain_pillow, decoder, unpacked, reduced]
    pillow, ours, jpeg, small = milliseconds(ways, paths[:: max(1, len(paths) // COMPARED)])
    for what, each in (("plain Pillow", pillow), ("the decoder", ours), ("all of `split`", split)):
        yield f"Per core: {what}", f"{1000 / each:.0f} images/s, {each:.2f} ms; {pillow / each:.2f} × plain Pillow"
    yield "of it libjpeg", f"{jpeg:.2f} ms"
    yield "of it the Lanczos filter", f"{small - jpeg:.2f} ms"


def killed_runs(workspace: Path, images: int, first: Run) -> Iterator[tuple[str, str]]:
    """Start anew, kill each stage with all its processes midway, and run it again."""
    datasets = workspace / "datasets"
    index, journal = datasets / "decoded" / "index.csv", datasets / ".raw.journal.csv"
    for folder in ("raw", "decoded", "split"):
        shutil.rmtree(datasets / folder)
    journal.unlink()
    runs = []
    for stage, record in (("download", journal), ("split", index)):
        said(f"{stage}, killed midway and run again")
        killed = run_stage(stage, workspace, grown_beyond(record, images // 2))
        kept = lines(record)
        runs.append(killed + run_stage(stage, workspace))
        yield (
            f"`{stage}` killed midway",
            f"{kept:,} of {images:,} images kept, {lines(record) - kept:,} done afterwards",
        )
    yield (
        "Killed and run again, together",
        f"{(runs[0] + runs[1]).seconds / first.seconds:.1%} of the first run's seconds",
    )


def told(run: Run, images: int) -> str:
    """Say how long it took."""
    return f"{run.seconds:.1f} s, {images / run.seconds:.0f} images/s; {run.processor:.1f} s of processor time"


def compared(download: Run, split: Run, first: Run) -> str:
    """Say how long it took, and which share of the first run that is."""
    both = download + split
    return (
        f"{both.seconds / first.seconds:.1%} of the first run's seconds, {both.processor / first.processor:.1%} of its "
        f"processor time ({download.processor:.1f} s + {split.processor:.1f} s)"
    )


def write_table(rows: Sequence[tuple[str, str]], into: Path) -> None:
    """Replace the table between the two marks of a Markdown file."""
    table = "\n".join(("| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)))
    text = into.read_text(encoding="utf-8")
    into.write_text(_TABLE.sub(lambda _: table, text), encoding="utf-8")


def said(what: str) -> None:
    """Tell how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=256, help="pixels of the drawn files")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made; by default the system's")
    parser.add_argument("--out", type=Path, help="a Markdown file whose table is written anew, such as SPLITTING.md")
    arguments = parser.parse_args()
    if arguments.out and not (arguments.out.is_file() and _TABLE.search(arguments.out.read_text(encoding="utf-8"))):
        parser.error(f"--out {arguments.out}: name a file that has the table's two marks, such as SPLITTING.md")
    rows = [("Machine", f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}")]
    with tempfile.TemporaryDirectory(prefix="fakeface_data_stages_", dir=arguments.folder) as workspace:
        for row in measure(Path(workspace), arguments.images, arguments.side):
            rows.append(row)
            print(f"{row[0]:<40}{row[1]}", flush=True)
    if arguments.out:
        write_table(rows, arguments.out)


if __name__ == "__main__":
    main()
