"""reports/metrics.json as a short table on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fakeface.constants import STAGES
from fakeface.system.serialization import read_json


def print_summary(path: Path) -> None:
    """Print the held-out result, each stage's, each source's, and the next commands.

    Raises:
        UserError: there is no such file, or it holds no JSON.
    """
    metrics = read_json(path)
    console = Console(highlight=False)
    note = f" on the {metrics['note']}" if metrics.get("note") else ""
    overall, macro = metrics["generalization"], metrics["macro"]
    console.print(f"\n[bold]Held-out faces[/bold] ({metrics['recipe']} recipe{note})\n")
    console.print(_build_stage_table(metrics))
    console.print(_build_source_table(metrics["sources"]))
    if metrics["pairs"]:
        console.print(_build_pair_table(metrics["pairs"]))
    console.print(
        f"generalization: accuracy {_format_interval(overall, 'accuracy')}, balanced accuracy "
        f"{_format_interval(overall, 'balanced_accuracy')}, ROC AUC {_format_interval(overall, 'roc_auc')}\n"
        f"macro over sources: balanced accuracy {_format_interval(macro, 'balanced_accuracy')}\n"
        f"calibration error: {_format_interval(overall, 'ece')}{_describe_pairs(metrics.get('pairs_pooled', {}))}\n"
        f"One constant answer would get an accuracy of {overall['majority_class_accuracy']:.3f}; the notebook claimed "
        "0.877 on other images, and people reached 0.60.\n"
    )
    if len(metrics["robustness"]) > 1:
        console.print(_describe_robustness(metrics["robustness"]))
    console.print("Next: [bold]make ui[/bold] compares runs in the browser; pictures are in reports/figures/.")


def _build_stage_table(metrics: Mapping[str, Any]) -> Table:
    table = Table("after", "own test accuracy", "held-out accuracy", "balanced", "ROC AUC", title=None)
    for stage in STAGES:
        row = metrics["stages"][stage]
        heldout = row["heldout"]
        table.add_row(
            stage,
            _format_number(row["test"], "accuracy"),
            *(_format_number(heldout, name) for name in ("accuracy", "balanced_accuracy", "roc_auc")),
        )
    return table


def _build_source_table(sources: Mapping[str, Any]) -> Table:
    table = Table("held-out source", "label", "images", "called rightly", "95 % interval")
    for name, row in sources.items():
        interval = f"{row['interval']['low']:.3f} to {row['interval']['high']:.3f}"
        table.add_row(name, row["label"], f"{row['n']:,}", f"{row['accuracy']:.3f}", interval)
    return table


def _build_pair_table(pairs: Mapping[str, Any]) -> Table:
    table = Table("pair", "balanced accuracy", "ROC AUC")
    for name, row in pairs.items():
        table.add_row(name, _format_interval(row, "balanced_accuracy"), _format_interval(row, "roc_auc"))
    return table


def _describe_pairs(pooled: Mapping[str, Any]) -> str:
    return f"; of every face in a pair {_format_number(pooled, 'ece')}" if pooled else ""


def _describe_robustness(robustness: Mapping[str, Any]) -> str:
    changes = {name: row["change"] for name, row in robustness.items() if "change" in row}
    if not changes:
        return "robustness: not defined, because the held-out faces are of one class\n"
    worst = min(changes, key=lambda name: changes[name])
    return (
        f"robustness: of {len(changes) - 1} perturbations '{worst}' costs most, {-changes[worst]:.3f} of balanced "
        "accuracy; all are in reports/robustness.csv\n"
    )


def _format_number(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:.3f}" if name in row else "–"


def _format_interval(row: Mapping[str, Any], name: str) -> str:
    interval = row.get("interval", {}).get(name)
    around = f" ({interval['low']:.3f} to {interval['high']:.3f})" if interval else ""
    return f"{_format_number(row, name)}{around}"
