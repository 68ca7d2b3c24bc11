"""Targets 1 and 2: training the seed's network with stage 2's augmentation, against the notebook's own code."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import baseline_notebook, fakeface_runner
from benchmarks.cli_options import DATA, ROUNDS, part
from benchmarks.interleaved_runs import Job, take_turns
from benchmarks.jpeg_samples import faces
from benchmarks.peak_flops import peak_jobs, peak_of, training_flops
from benchmarks.results_table import Row

_STEPS = click.option("--steps", type=click.IntRange(1), default=2, show_default=True, help="Steps of 64 a turn.")


@part("training_throughput", DATA, ROUNDS, _STEPS)
def main(data: Path, rounds: int, steps: int) -> list[Row]:
    """Images a second of a training step, input included; its share of the matmul peak; the input's share of it."""
    with faces(data, 1024) as images:
        speeds = take_turns(
            {
                "ours": Job(fakeface_runner.train, (images.store, "seed", steps * baseline_notebook.BATCH)),
                "notebook": Job(baseline_notebook.train, (images.by_class, steps), baseline_notebook.ENVIRONMENT),
                "input": Job(fakeface_runner.read, (images.store, "seed", "stage2", 8 * baseline_notebook.BATCH)),
                **peak_jobs(),
            },
            rounds,
        )
    mine, theirs, read = speeds["ours"], speeds["notebook"], speeds["input"]
    peak, in_words = peak_of(speeds)
    gflop = training_flops(fakeface_runner.seed_network()) / 1e9
    return [
        Row(
            "1 training, the seed's network",
            3,
            mine.per_second / theirs.per_second,
            "×",
            how=f"{mine.per_second:.1f} images/s against {theirs.per_second:.1f}; processor time "
            f"{mine.processor_ms:.1f} against {theirs.processor_ms:.1f} ms an image",
        ),
        Row(
            "1 training, share of the matmul peak",
            35,
            100 * mine.per_second * gflop / peak,
            "%",
            how=f"{gflop:.2f} GFLOP an image, {mine.per_second * gflop:.0f} GFLOP/s; {in_words}",
        ),
        Row(
            "2 input, share of a training step",
            15,
            100 * read.processor_ms / mine.processor_ms,
            "%",
            at_most=True,
            how=f"{read.processor_ms:.2f} of {mine.processor_ms:.1f} ms of processor time an image",
        ),
    ]


if __name__ == "__main__":
    main()
