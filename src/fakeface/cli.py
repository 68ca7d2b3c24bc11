"""The `fakeface` command. Heavy imports wait until a command needs them, so that --help answers at once."""

from __future__ import annotations

from pathlib import Path

import click

from fakeface.system.errors import UserError, exit_on_user_error


class _Commands(click.Group):
    """Commands whose user errors end in one sentence and exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        with exit_on_user_error():
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
    from fakeface.config.params import load_params

    load_params(Path("params.yaml"))


@main.command()
@click.option("--metrics", type=click.Path(path_type=Path), default=Path("reports/metrics.json"), show_default=True)
def summary(metrics: Path) -> None:
    """Show the last result as a table, and where to look next."""
    from fakeface.reporting.terminal_summary import print_summary

    print_summary(metrics)


@main.command(name="report")
@click.option("--reports", type=click.Path(path_type=Path), default=Path("reports"), show_default=True)
def result_report(reports: Path) -> None:
    """Make the page of the last result anew, and say where it is: one HTML file that needs nothing else.

    It holds pictures of the most confident wrong answers, as many as report.mistakes in params.yaml says; with 0, no
    face is inside.
    """
    from fakeface.config.params import load_params
    from fakeface.constants import HELDOUT
    from fakeface.reporting.page import write_result_page

    mistakes = load_params(Path("params.yaml")).report.mistakes
    page = write_result_page(reports, Path("datasets/split") / HELDOUT, mistakes)
    click.echo(f"Open {page} in a browser ({page.stat().st_size / 1000:,.0f} kB).")


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

    waiting, elsewhere = tracking.deliver(Path.cwd()), tracking.count_pending_elsewhere(Path.cwd())
    if waiting:
        click.echo(f"{waiting:,} events still wait; the server is away.")
    for store, count in elsewhere.items():
        how = "unset MLFLOW_TRACKING_URI" if store == "local" else "set MLFLOW_TRACKING_URI to it"
        click.echo(f"{count:,} events wait for the store {store}: {how}, and run this again.")
    if waiting or elsewhere:
        raise SystemExit(1)
    click.echo("Everything is delivered.")


@main.command()
@click.argument("name", default="")
def runs(name: str) -> None:
    """List the experiments, newest first, each with its result and its page in MLflow; or the one of this NAME."""
    from fakeface import tracking
    from fakeface.config.params import load_params

    metric = load_params(Path("params.yaml")).promote.metric
    listing = tracking.list_runs(Path.cwd(), metric)
    found = [row for row in listing.rows if name in ("", row.name)]
    if not found:
        raise UserError(f"MLflow has no experiment{f' {name!r}' if name else ' yet'}; `dvc repro` records the result.")
    width = max(len(row.name) for row in found)
    click.echo(f"{'experiment':{width}}  {metric:>17}  {'status':8}  page in MLflow (`make ui` serves a local one)")
    for row in found:
        value = "–" if row.value is None else f"{row.value:.3f}"
        click.echo(f"{row.name:{width}}  {value:>17}  {row.status:8}  {row.address}  {row.note}".rstrip())
    if not name:
        click.echo(f"all compared: {listing.comparison}")


@main.command()
@click.argument("chosen", default="", metavar="[VERSION|EXPERIMENT]")
@click.option("--other-data", is_flag=True, help="Compare even where the champion was measured on other images.")
def promote(chosen: str, other_data: bool) -> None:
    """Make the newest registered model the champion, if it is good enough and better than the present one.

    Says why or why not; the exit code is 2 where it is not promoted.
    """
    from fakeface import tracking

    decision = tracking.promote(Path.cwd(), chosen, other_data=other_data)
    click.echo("\n".join(decision.sentences))
    raise SystemExit(0 if decision.promoted else 2)


def _collections(into: Path | None) -> Path:
    """The folder that was given, or the one that the pipeline uses."""
    if into is not None or not Path("params.yaml").exists():
        return into or Path("collections")
    from fakeface.config.params import load_params
    from fakeface.data.download.source_resolver import resolve_collections_folder

    return resolve_collections_folder(load_params(Path("params.yaml")).data, Path())


_INTO = click.option(
    "--into", type=click.Path(path_type=Path), help="A folder in place of the one that data.collections names."
)


@main.group(name="data")
def data_commands() -> None:
    """The notebook's public data sets: list, fetch, verify and audit them (docs/data.md)."""


@data_commands.command(name="list")
@_INTO
def list_collections(into: Path | None) -> None:
    """Show the catalogue, and what of it is on the disk."""
    from rich.console import Console
    from rich.table import Table

    from fakeface.config.catalog import list_sources

    folder = _collections(into)
    table = Table("name", "what", "label", "used for", "images", "here")
    for one in list_sources():
        there = [(folder / one.name / (each.folder if each.unpack else each.file)).exists() for each in one.archives]
        images = f"{one.images:,}" if one.images else "?"
        table.add_row(
            one.name,
            one.title,
            one.label or "both",
            one.used_for,
            images,
            "yes" if all(there) else "partly" if any(there) else "no",
        )
    Console(highlight=False).print(table)


@data_commands.command()
@click.argument("names", nargs=-1, required=True)
@_INTO
def fetch(names: tuple[str, ...], into: Path | None) -> None:
    """Bring collections to a folder; interrupted, run it again and it goes on.

    Where one cannot be fetched, the others are all the same.
    """
    from fakeface.config.catalog import get_source
    from fakeface.data.download.source_resolver import fetch_each

    for fetched in fetch_each([get_source(name) for name in names], _collections(into)):
        expected = f" of {fetched.images_expected:,} expected" if fetched.images_expected else ""
        click.echo(f"{fetched.collection}: {fetched.images:,} images{expected} in {fetched.folder}")


@data_commands.command()
@click.option("--raw", type=click.Path(path_type=Path), default=Path("datasets/raw"), show_default=True)
def verify(raw: Path) -> None:
    """Compare every raw file with its manifest: name each one missing, changed or added (exit code 2)."""
    from fakeface.data.raw_dataset import verify_raw
    from fakeface.images.discovery import escape_name

    report = verify_raw(raw)
    for what, names in (("missing", report.missing), ("changed", report.changed), ("added", report.added)):
        for name in names:
            click.echo(f"{what}: {escape_name(name)}")
    click.echo(f"{report.checked:,} files checked: {'all as written' if report.clean else 'not as written'}")
    raise SystemExit(0 if report.clean else 2)


@data_commands.command()
@click.option("--reports", type=click.Path(path_type=Path), default=Path("reports/data"), show_default=True)
def report(reports: Path) -> None:
    """Audit the split anew, and say where the page is: counts, leaks, distributions, shortcut scores."""
    from fakeface.config.params import load_params
    from fakeface.data.audit.run_audit import PAGE, audit_dataset

    data = load_params(Path("params.yaml")).data
    audit = audit_dataset(Path("datasets/raw"), Path("datasets/split"), Path("datasets/measured"), reports, data)
    click.echo(f"{audit['images']:,} images audited, {len(audit['leaks'])} leaks: open {reports / PAGE} in a browser.")


@main.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--checkpoint", type=click.Path(path_type=Path), default=Path("models/stage3.h5"), show_default=True)
@click.option("--crop", default="centre", show_default=True, help="whole, centre, or centre and a fraction.")
def predict(images: tuple[Path, ...], checkpoint: Path, crop: str) -> None:
    """Score image files or folders: probability of fake, and the prediction.

    Prints a CSV row for each image; one that cannot be used is named on stderr, and the exit code is 2.
    """
    from fakeface.images.preprocessing import Crop
    from fakeface.inference.predict import print_predictions

    raise SystemExit(print_predictions(images, checkpoint, Crop.parse(crop)))
