"""Target 2: the input alone, decoded store to augmented batches, against ImageDataGenerator on the JPEGs."""

from __future__ import annotations

from pathlib import Path

from benchmarks import baseline_notebook, fakeface_runner
from benchmarks.cli_options import DATA, ROUNDS, part
from benchmarks.interleaved_runs import Job, take_turns
from benchmarks.jpeg_samples import faces
from benchmarks.results_table import Row

IMAGES, BATCHES = 2048, 5  # a turn: ours, and the notebook's in batches of 64


@part("input_throughput", DATA, ROUNDS)
def main(data: Path, rounds: int) -> list[Row]:
    """Images a second of the input alone, with stage 2's augmentation of the seed's recipe."""
    with faces(data, 1024) as images:
        speeds = take_turns(
            {
                "ours": Job(fakeface_runner.read, (images.store, "seed", "stage2", IMAGES)),
                "imgaug": Job(fakeface_runner.read, (images.store, "seed", "stage2", IMAGES, False)),
                "notebook": Job(baseline_notebook.read, (images.by_class, BATCHES), baseline_notebook.ENVIRONMENT),
            },
            rounds,
        )
    mine, reference, theirs = speeds["ours"], speeds["imgaug"], speeds["notebook"]
    return [
        Row(
            "2 input alone",
            10,
            mine.per_second / theirs.per_second,
            "×",
            how=f"{mine.per_second:,.0f} images/s against {theirs.per_second:,.0f}, and "
            f"{reference.per_second:,.0f} with imgaug's own blur; processor time {mine.processor_ms:.2f}, "
            f"{theirs.processor_ms:.2f} and {reference.processor_ms:.2f} ms an image",
        )
    ]


if __name__ == "__main__":
    main()
