"""`python -m tools.synthetic_sample --out sample`: build the sample, or a part of it to look at."""

from __future__ import annotations

import os
from pathlib import Path

import click
from rich.progress import track

from .render import manifest_row, write_images, write_manifest
from .sources import SOURCES


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write into.")
@click.option("--only", type=click.Choice(list(SOURCES)), help="Make this source only.")
@click.option("--limit", type=click.IntRange(min=1), help="Make at most this many images a source.")
@click.option("--processes", type=click.IntRange(min=1), default=os.cpu_count() or 1, show_default=True)
def main(out: Path, only: str | None, limit: int | None, processes: int) -> None:
    """Build the synthetic sample into --out; a full build also writes its manifest.csv."""
    wanted = [
        (name, index)
        for name, source in SOURCES.items()
        if only in (None, name)
        for index in range(min(source.count, limit or source.count))
    ]
    images = track(write_images(out, wanted, processes), description="Drawing faces", total=len(wanted))
    rows = [manifest_row(*image) for image in images]
    if only is None and limit is None:
        write_manifest(out / "manifest.csv", rows)
    total = sum(int(row["bytes"]) for row in rows)
    click.echo(f"{len(rows)} images, {total / 1e6:.2f} MB, in {out}")


if __name__ == "__main__":
    main()
