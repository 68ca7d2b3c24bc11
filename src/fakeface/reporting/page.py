"""The result as one HTML page that needs nothing else, for people who read no dashboards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fakeface.constants import FINAL_STAGE, HELDOUT, MACRO, PARTS, STAGES
from fakeface.data.image_store import Store, open_store
from fakeface.reporting import text
from fakeface.reporting.figures import draw_figures
from fakeface.reporting.hard_examples import draw_thumbnails, find_hardest_mistakes
from fakeface.reporting.reproduce import list_commands, list_recipe_settings, list_stage_settings
from fakeface.reporting.results_reader import Results, read_results
from fakeface.system.filesystem import atomic_write, recreate_dir
from fakeface.visualization.html_page import render_page
from fakeface.visualization.svg import inline_svg

PAGE = "report.html"
TEMPLATE = Path(__file__).with_name("page.html.jinja")
_COIN = 0.5
_WEAK, _MIDDLING, _STRONG = (248, 207, 194), (255, 240, 194), (217, 239, 226)  # the audit's colours, for 0.5, 0.75, 1
_MOST_PAIRS = 12


def write_result_page(folder: Path, heldout: Path, mistakes: int) -> Path:
    """Write report.html and figures/ into reports/ from what the evaluation has left there; return the page's path.

    Args:
        folder: reports/.
        heldout: the store of the held-out faces, opened only where pictures of it are wanted.
        mistakes: how many of the most confident wrong answers are shown as pictures; 0 for a page without faces.

    Raises:
        UserError: a file is missing, or scores and store do not belong together.
    """
    results = read_results(folder)
    figures = draw_figures(results)
    recreate_dir(folder / "figures")
    for name, svg in figures.items():
        with atomic_write(folder / "figures" / f"{name}.svg") as file:
            file.write(svg)
    page = render_result_page(results, figures, open_store(heldout) if mistakes else None, mistakes)
    with atomic_write(folder / PAGE) as file:
        file.write(page)
    return folder / PAGE


def render_result_page(results: Results, figures: Mapping[str, str], heldout: Store | None, mistakes: int) -> str:
    """Return the page with `draw_figures`; at most `mistakes` wrong answers are shown, none without a store."""
    metrics, faces = results.metrics, results.sets[HELDOUT]
    wrong = find_hardest_mistakes(faces, FINAL_STAGE, metrics["threshold"], mistakes) if heldout else []
    pictures = draw_thumbnails([mistake.path for mistake in wrong], heldout) if heldout else []
    inline = {name: inline_svg(svg) for name, svg in figures.items()}
    return render_page(
        TEMPLATE,
        {
            "percent": text.format_percent,
            "number": text.format_number,
            "percent_interval": text.format_percent_interval,
            "number_interval": text.format_number_interval,
            "heat": _choose_heat_colour,
        },
        metrics=metrics,
        text=text,
        final=FINAL_STAGE,
        stages=STAGES,
        parts=PARTS,
        sources=_list_sources(results),
        pairs=_list_pairs(results),
        heat_map=_build_heat_map(results.robustness),
        robustness_images=results.run["parameters"]["evaluate"]["robustness_images"],
        robustness=results.robustness,
        curves=[svg for name, svg in inline.items() if name.startswith("curves_")],
        roc=inline["roc"],
        calibration=inline["calibration"],
        scores=inline["scores"],
        mistakes=list(zip(wrong, pictures, strict=True)),
        pictures_wanted=bool(mistakes),
        run=results.run,
        timings=results.timings,
        counts=_count_images(results.split),
        split_images=results.split["images"],
        recipe=list_recipe_settings(results.run),
        settings=list_stage_settings(results.run),
        repeat=list_commands(results.run),
    )


def _list_sources(results: Results) -> list[dict[str, Any]]:
    """A line a held-out source, real ones first: its row of metrics.json, its name, and the stages that knew others."""
    lines = []
    for name, row in results.metrics["sources"].items():
        roles = results.split["sources"].get(name, {}).get("roles", {})
        lines.append({**row, "name": name, "known": [stage for stage in STAGES if any(roles.get(stage, {}).values())]})
    return sorted(lines, key=lambda line: (line["label"] != "real", line["label"], line["name"]))


def _list_pairs(results: Results) -> list[dict[str, Any]]:
    """The named pairs with their sources, or where this data has none, the weakest of all pairs of sources."""
    metrics, named = results.metrics, results.run["parameters"]["evaluate"]["pairs"]
    if metrics["pairs"]:
        sources = {
            name: " and ".join(pair["real"]) + " / " + " and ".join(pair["fake"]) for name, pair in named.items()
        }
        return [{**row, "name": name, "sources": sources.get(name, "")} for name, row in metrics["pairs"].items()]
    weakest = sorted(metrics["source_pairs"].items(), key=lambda item: float(item[1]["balanced_accuracy"]))
    return [{**row, "name": name, "sources": name.replace(" vs ", " / ")} for name, row in weakest[:_MOST_PAIRS]]


def _build_heat_map(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{"sets": names, "lines": {perturbation: a row for each set or None}}, the mean over the sets first."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    if len(sets) == 2:  # one set is its own mean
        sets = [name for name in sets if name != MACRO]
    cells = {(row["perturbation"], row["set"]): row for row in rows}
    lines = {
        name: [cells.get((name, each)) for each in sets] for name in dict.fromkeys(row["perturbation"] for row in rows)
    }
    return {"sets": sets, "lines": lines}


def _choose_heat_colour(value: float | None) -> str:
    """The colour of a balanced accuracy: from a coin's to perfect."""
    if value is None:
        return "transparent"
    place = min(max((value - _COIN) / (1 - _COIN), 0), 1) * 2
    low, high = (_WEAK, _MIDDLING) if place <= 1 else (_MIDDLING, _STRONG)
    share = place if place <= 1 else place - 1
    red, green, blue = (round(one + share * (other - one)) for one, other in zip(low, high, strict=True))
    return f"rgb({red}, {green}, {blue})"


def _count_images(split: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line a source: images for each stage in each of PARTS and for the held-out set, real sources first."""
    lines = []
    for name, source in split["sources"].items():
        places = [source["roles"].get(stage, {}).get(part, 0) for stage in STAGES for part in PARTS]
        lines.append(
            {
                "name": name,
                "label": source["label"],
                "places": [*places, sum(source["roles"].get(HELDOUT, {}).values())],
            }
        )
    return sorted(lines, key=lambda line: (line["label"] != "real", line["name"]))
