"""Target 3: scoring a folder of JPEGs, decoding included, against the notebook's `evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import baseline_notebook, fakeface_runner
from benchmarks.cli_options import DATA, ROUNDS, part
from benchmarks.interleaved_runs import Job, take_turns
from benchmarks.jpeg_samples import faces
from benchmarks.peak_flops import forward_flops, peak_jobs, peak_of
from benchmarks.results_table import Row
from fakeface.inference.predict import BATCH_SIZE

_IMAGES = click.option("--images", type=click.IntRange(128), default=256, show_default=True, help="JPEGs a turn.")


@part("inference_throughput", DATA, ROUNDS, _IMAGES)
def main(data: Path, rounds: int, images: int) -> list[Row]:
    """Images a second of the scoring of a folder, and the network's share of the matmul peak."""
    with faces(data, images) as laid_out:
        speeds = take_turns(
            {
                "ours": Job(fakeface_runner.predict, (laid_out.by_class, "seed")),
                "default": Job(fakeface_runner.predict, (laid_out.by_class, "default")),
                "notebook": Job(baseline_notebook.evaluate, (laid_out.by_class,), baseline_notebook.ENVIRONMENT),
                "alone": Job(fakeface_runner.predict_alone, ("seed", BATCH_SIZE, images // BATCH_SIZE)),
                **peak_jobs(),
            },
            rounds,
        )
    mine, theirs, alone, default = (speeds[name] for name in ("ours", "notebook", "alone", "default"))
    peak, in_words = peak_of(speeds)
    gflop = forward_flops(fakeface_runner.seed_network()) / 1e9
    return [
        Row(
            "3 scoring JPEGs, the seed's network",
            8,
            mine.per_second / theirs.per_second,
            "×",
            how=f"{mine.per_second:.0f} images/s against {theirs.per_second:.0f}; processor time "
            f"{mine.processor_ms:.1f} against {theirs.processor_ms:.1f} ms an image",
        ),
        Row(
            "3 scoring JPEGs, the default network",
            8,
            default.per_second / theirs.per_second,
            "×",
            how=f"{default.per_second:.0f} images/s against {theirs.per_second:.0f}; processor time "
            f"{default.processor_ms:.1f} ms an image",
        ),
        Row(
            "3 the seed's network alone, share of the matmul peak",
            60,
            100 * alone.per_second * gflop / peak,
            "%",
            how=f"{alone.per_second:.0f} images/s, {gflop:.2f} GFLOP each; {in_words}",
        ),
    ]


if __name__ == "__main__":
    main()
