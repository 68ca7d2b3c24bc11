"""The audit as one HTML page that needs nothing else: no address, no script, no photograph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fakeface.constants import HELDOUT, PARTS, STAGES
from fakeface.data.audit import text
from fakeface.data.audit.figures import draw_spectra, draw_strips
from fakeface.data.audit.image_table import ImageTable
from fakeface.data.audit.shortcut_probe import KINDS
from fakeface.visualization.html_page import render_page

TEMPLATE = Path(__file__).with_name("page.html.jinja")
_PLACES = [(stage, part) for stage in STAGES for part in PARTS] + [(HELDOUT, HELDOUT)]


def render_audit_page(audit: Mapping[str, Any], images: ImageTable) -> str:
    """Return the page for the content of audit.json and the images that it was made from."""
    sources = sorted(audit["sources"], key=lambda name: (audit["sources"][name]["label"] != "real", name))
    sets = {text.name_set(role): result for role, result in audit["shortcuts"]["sets"].items()}
    return render_page(
        TEMPLATE,
        {"share": _format_share, "colour": _format_colour, "auc_class": _choose_css_class},
        audit=audit,
        sources={name: audit["sources"][name] for name in sources},
        places=_PLACES,
        counts=_count_images(audit),
        leak_sentence=text.describe_leaks(audit),
        sentences={name: text.describe_set(name, result) for name, result in sets.items()},
        sets=sets,
        fairest=text.find_fairest_pair(audit["shortcuts"]["pairs"]),
        cures=text.suggest_remedies(audit),
        kinds=KINDS,
        fact_name=text.name_property,
        strips=draw_strips(images, sources),
        spectra=draw_spectra(images, sources),
    )


def _count_images(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line a source, then the sum of each class: name, label, images in each of _PLACES, and those left out."""
    lines = []
    for name, source in sorted(audit["counts"].items(), key=lambda item: (item[1]["label"] != "real", item[0])):
        places = [source["roles"].get(role, {}).get(part, 0) for role, part in _PLACES]
        left = {key: source[key] for key in ("found", "unusable", "set_aside", "unused")}
        lines.append({"name": name, "label": source["label"], "places": places, "total": sum(places), **left})
    for label in ("real", "fake"):
        own = [line for line in lines if line["label"] == label and line["name"] in audit["counts"]]
        sums = {key: sum(line[key] for line in own) for key in ("total", "found", "unusable", "set_aside", "unused")}
        places = [sum(column) for column in zip(*(line["places"] for line in own), strict=True)]
        lines.append({"name": f"all {label}", "label": label, "places": places, "sum": True, **sums})
    return lines


def _format_share(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1%}" if 0 < value < 0.995 else f"{value:.0%}"


def _format_colour(means: Mapping[str, float], prefix: str = "file_") -> str:
    return "#" + "".join(f"{round(means[prefix + channel]):02x}" for channel in ("red", "green", "blue"))


def _choose_css_class(auc: float) -> str:
    """The colour of a score's cell: bad from text.HIGH on, doubtful from SOME on."""
    return "bad" if auc >= text.HIGH else "doubtful" if auc >= text.SOME else "good"
