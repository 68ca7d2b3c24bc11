"""The command that every part has: options in, rows out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks.jpeg_samples import SAMPLE
from benchmarks.results_table import Row, markdown
from fakeface.system.errors import exit_on_user_error

DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=SAMPLE,
    help="A folder with JPEGs; default: the synthetic sample.",
)
ROUNDS = click.option("--rounds", type=click.IntRange(1), default=2, show_default=True, help="Turns that count.")


def part(name: str, *options: Callable[..., Any]) -> Callable[[Callable[..., Sequence[Row]]], click.Command]:
    """Make `python -m benchmarks.NAME` of a function from options to rows; its docstring is the help text."""

    def make(measure: Callable[..., Sequence[Row]]) -> click.Command:
        def run(into: Path | None, **settings: Any) -> None:
            with exit_on_user_error():
                rows = measure(**settings)
            if into is None:
                click.echo(markdown(rows))
            else:
                into.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")

        run.__doc__ = measure.__doc__
        into = click.option("--json", "into", type=click.Path(path_type=Path), help="Write the rows to this file.")
        command = run
        for option in (into, *reversed(options)):
            command = option(command)
        return click.command(name, context_settings={"help_option_names": ["-h", "--help"]})(command)

    return make
