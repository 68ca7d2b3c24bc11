"""How far a long step is: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STEPS = 10  # plain lines a step, at most
GIGABYTE = 10**9  # a plain line each, of a file on its way


@contextmanager
def show_progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give a function `advance(count)` that shows how much of `total` is done; the display goes to stderr.

    Args:
        what: the step in a few words, "decoding images" for instance.
        total: the number of pieces; nothing is shown for 0.
    """
    if total <= 0:
        yield lambda count: None
    elif sys.stderr.isatty():
        with _show_bar(what, total) as advance:
            yield advance
    else:
        yield _print_lines(what, total)


@contextmanager
def show_bytes_progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """Give a function `show(file, done, total)` for bytes of files; `total` is None where it is not known."""
    if not sys.stderr.isatty():
        yield _print_gigabytes()
        return
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.DownloadColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, rich_progress.TaskID] = {}

        def show(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bar.add_task(file, total=total)
            bar.update(tasks[file], completed=done, total=total)

        yield show


def _print_gigabytes() -> Callable[[str, int, int | None], None]:
    shown: dict[str, int] = {}

    def show(file: str, done: int, total: int | None) -> None:
        if done // GIGABYTE > shown.get(file, 0):
            shown[file] = done // GIGABYTE
            of = f" of {total / GIGABYTE:.1f}" if total else ""
            print(f"{file}: {done // GIGABYTE}{of} GB", file=sys.stderr, flush=True)

    return show


@contextmanager
def _show_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def _print_lines(what: str, total: int) -> Callable[[int], None]:
    done = shown = 0

    def advance(count: int) -> None:
        nonlocal done, shown
        done += count
        step = done * STEPS // total
        if step > shown:
            shown = step
            print(f"{what}: {done:,} of {total:,} ({100 * done // total} %)", file=sys.stderr, flush=True)

    return advance
