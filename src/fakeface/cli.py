"""The `fakeface` command. Heavy imports wait until a command needs them, so that --help answers at once."""

from __future__ import annotations

from pathlib import Path

import click

from fakeface.errors import one_sentence_errors


class _Commands(click.Group):
    """Commands whose user errors end in one sentence and exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        with one_sentence_errors():
            return super().invoke(ctx)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fakeface")
def main() -> None:
    """Train, track and prove a detector of computer-made faces.

    The pipeline itself runs with `dvc repro` (or `make repro`); these commands show and use its results.
    """


@main.command()
def check() -> None:
    """Check params.yaml: every key known, every value of its type and in its range."""
    from fakeface.params import load_params

    load_params(Path("params.yaml"))


@main.command()
@click.option("--metrics", type=click.Path(path_type=Path), default=Path("reports/metrics.json"), show_default=True)
def summary(metrics: Path) -> None:
    """Show the last result as a table, and where to look next."""
    from fakeface.summary import print_summary

    print_summary(metrics)


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
def ui(port: int, host: str) -> None:
    """Open MLflow's page on this project's runs."""
    from fakeface.tracking import serve_page

    serve_page(Path.cwd(), host, port)


@main.command()
def deliver() -> None:
    """Send what a tracking server that was away has missed."""
    from fakeface import tracking

    waiting = tracking.deliver(Path.cwd())
    click.echo("Everything is delivered." if not waiting else f"{waiting:,} events still wait; the server is away.")
    raise SystemExit(1 if waiting else 0)


@main.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--checkpoint", type=click.Path(path_type=Path), default=Path("models/stage3.h5"), show_default=True)
@click.option("--crop", default="centre", show_default=True, help="whole, centre, or centre and a fraction.")
def predict(images: tuple[Path, ...], checkpoint: Path, crop: str) -> None:
    """Score image files or folders: probability of fake, and the decision.

    Prints a CSV row for each image; one that cannot be used is named on stderr, and the exit code is 2.
    """
    from fakeface.images import Crop
    from fakeface.predict import print_predictions

    raise SystemExit(print_predictions(images, checkpoint, Crop.parse(crop)))
