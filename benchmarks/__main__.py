"""`make bench`: run every part, print one table, and write it into RESULTS.md."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import click

from benchmarks.cli_options import DATA
from benchmarks.jpeg_samples import ROOT, SAMPLE
from benchmarks.results_table import Row, markdown, put_into
from fakeface.system.errors import UserError, exit_on_user_error

PARTS = (
    "training_throughput",
    "input_throughput",
    "inference_throughput",
    "startup_time",
    "peak_memory",
    "recipe_cost",
    "fast_path_accuracy",
)
ON_IMAGES = ("training_throughput", "input_throughput", "inference_throughput", "recipe_cost", "fast_path_accuracy")
RESULTS = ROOT / "benchmarks/RESULTS.md"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@DATA
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="This part alone; may be repeated.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Where the table goes.")
def main(data: Path, only: tuple[str, ...], results: Path) -> None:
    """Measure this machine against the targets; takes about a quarter of an hour on two cores."""
    with exit_on_user_error():
        began = time.perf_counter()
        rows = [row for part in only or PARTS for row in rows_of(part, data)]
        section = f"{markdown(rows)}\n\n{'' if only else profile()}"
        section += machine_facts(data, time.perf_counter() - began)
        click.echo(section)
        if not only:
            put_into(results, section)
        if any(row.measured is None for row in rows):
            raise UserError("A measurement failed; what it said stands above.")


def rows_of(part: str, data: Path) -> list[Row]:
    """Run one part in a process of its own; a row that says so where it fails."""
    click.echo(f"{part} …", err=True)
    with tempfile.TemporaryDirectory() as temporary:
        into = Path(temporary, "rows.json")
        command = [sys.executable, "-m", f"benchmarks.{part}", "--json", str(into)]
        if part in ON_IMAGES:
            command += ["--data", str(data.resolve())]
        if subprocess.run(command, cwd=ROOT, check=False).returncode or not into.is_file():
            return [Row(f"{part} (no result)", 1, None, "×")]
        return [Row(**fields) for fields in json.loads(into.read_text(encoding="utf-8"))]


def profile() -> str:
    """Return the shares of a training step of the seed's network by kind of operation, as a table."""
    click.echo("step_profile …", err=True)
    command = [sys.executable, "-m", "benchmarks.step_profile"]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    lines = result.stdout if not result.returncode else "| failed | | |\n"
    return f"| a training step of the seed's network | share | in operations |\n| --- | --- | --- |\n{lines}\n"


def machine_facts(data: Path, seconds: float) -> str:
    """Say on what, of which commit, and how undisturbed the table was taken."""
    from fakeface.models.device import prepare_tensorflow

    device = prepare_tensorflow("auto", "auto", seed=0, deterministic=False)
    load = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    images = "the synthetic sample" if data.resolve() == SAMPLE.resolve() else "a folder of the user's own"
    return (
        f"{device.name}; {device.precision}; Python {platform.python_version()}; images: {images}. "
        f"Commit {_commit()}, {datetime.now(timezone.utc):%Y-%m-%d}; {seconds:.0f} s in all, {load} at the end."
    )


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
