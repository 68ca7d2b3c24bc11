"""Images a second of a training on this machine's device, and the share of the time that it waits for images."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import fakeface_runner
from benchmarks.cli_options import DATA, ROUNDS, part
from benchmarks.interleaved_runs import Job, take_turns
from benchmarks.jpeg_samples import faces
from benchmarks.results_table import Row

_RECIPE = click.option("--recipe", type=click.Choice(["default", "seed"]), default="default", show_default=True)
_IMAGES = click.option("--images", type=click.IntRange(64), default=512, show_default=True, help="Trained on a turn.")


@part("input_stall", DATA, ROUNDS, _RECIPE, _IMAGES)
def main(data: Path, rounds: int, recipe: str, images: int) -> list[Row]:
    """Train with the images as they come from the store, and with images from memory; the difference is waiting."""
    with faces(data, 1024) as laid_out:
        jobs = {
            "as it is": Job(fakeface_runner.train, (laid_out.store, recipe, images)),
            "from memory": Job(fakeface_runner.train, (laid_out.store, recipe, images, True)),
        }
        speeds = take_turns(jobs, rounds)
    real, at_most = speeds["as it is"].per_second, speeds["from memory"].per_second
    waited = max(0.0, 100 * (1 - real / at_most))
    how = f"{real:.0f} images/s, and {at_most:.0f} with images from memory"
    return [Row(f"{recipe} recipe, time waiting for images", 15, waited, "%", at_most=True, how=how)]


if __name__ == "__main__":
    main()
