"""Target 6: what the default recipe costs in processor time, against the seed's."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

import click

from benchmarks import fakeface_runner
from benchmarks.cli_options import DATA, ROUNDS, part
from benchmarks.interleaved_runs import Job, take_turns
from benchmarks.jpeg_samples import ROOT, faces
from benchmarks.results_table import Row
from fakeface.config.params import Params, load_params
from fakeface.constants import STAGES
from fakeface.images.discovery import list_images

RECIPES = ("default", "seed")
_IMAGES = click.option("--images", type=click.IntRange(64), default=128, show_default=True, help="Trained on a turn.")


@part("recipe_cost", DATA, ROUNDS, _IMAGES)
def main(data: Path, rounds: int, images: int) -> list[Row]:
    """Processor time of the default recipe and the seed's: images trained by params.yaml × a training step's cost."""
    with faces(data, 1024) as laid_out:
        jobs = {recipe: Job(fakeface_runner.train, (laid_out.store, recipe, images)) for recipe in RECIPES}
        speeds = take_turns(jobs, rounds)
    counts = training_images(data)
    steps = {recipe: sum(trained_images(recipe, counts).values()) for recipe in RECIPES}
    hours = {job: steps[job] * speeds[job].processor_ms / 3.6e6 for job in jobs}
    mine, theirs = speeds["default"], speeds["seed"]
    return [
        Row(
            "6 the default recipe, processor time in all",
            1,
            hours["default"] / hours["seed"],
            "×",
            at_most=True,
            how=f"{steps['default']:,} images × {mine.processor_ms:.1f} ms = {hours['default']:.2f} h, against "
            f"{steps['seed']:,} × {theirs.processor_ms:.1f} ms = {hours['seed']:.2f} h; validation not counted",
        ),
        Row(
            "6 the default recipe, processor time an image",
            1,
            mine.processor_ms / theirs.processor_ms,
            "×",
            at_most=True,
            how=f"{mine.per_second:.1f} images/s against {theirs.per_second:.1f}",
        ),
    ]


def training_images(data: Path) -> dict[str, float]:
    """Return how many images of a folder each stage trains on, by the first profile whose sources it holds.

    Before near duplicates are kept together; a folder that no profile fits is shared out equally.
    """
    settings = load_params(ROOT / "params.yaml").data
    names = list_images(data).images
    for profile in settings.profiles.values():
        folders = {name: source.folder or name for name, source in profile.sources.items()}
        if any(source.collection for source in profile.sources.values()):
            continue
        if all((data / folder).is_dir() for folder in folders.values()):
            here = {name: sum(path.startswith(f"{folder}/") for path in names) for name, folder in folders.items()}
            shares = {
                name: {str(role): share for role, share in source.use.items()}
                for name, source in profile.sources.items()
            }
            return {
                stage: settings.split.train * sum(here[name] * shares[name].get(stage, 0) for name in here)
                for stage in STAGES
            }
    return dict.fromkeys(STAGES, settings.split.train * len(names) / len(STAGES))


def trained_images(recipe: str, counts: Mapping[str, float]) -> dict[str, int]:
    """Return how many images each stage's steps take in all, from each stage's own number of training images."""
    params = fakeface_runner.params_of(recipe)
    trained = {}
    for stage, images in _seen(params, counts).items():
        settings = params.get_stage_config(stage)
        trained[stage] = settings.steps(images) * settings.batch_size * settings.epochs
    return trained


def _seen(params: Params, counts: Mapping[str, float]) -> dict[str, int]:
    """Return how many images each stage learns from."""
    replayed = dict(zip(STAGES, accumulate(counts[stage] for stage in STAGES), strict=True))
    pool = replayed if params.get_recipe().replay else counts
    return {stage: int(pool[stage]) for stage in STAGES}


if __name__ == "__main__":
    main()
