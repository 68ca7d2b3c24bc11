"""What the result's numbers mean, in sentences for people who read no dashboards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fakeface.constants import MACRO, STAGES, UNCHANGED
from fakeface.reporting.metric_plots import HUMAN_ACCURACY, SEED_ACCURACY

UNDEFINED = "–"
NOTEBOOK_CONSTANT = 0.72  # what always "fake" gets on the notebook's own test set
_LARGE_FALL, _FALL = 0.15, 0.05  # of balanced accuracy
_FINAL = STAGES[-1]


def format_percent(share: float | None) -> str:
    """Return a share as per cent with one decimal; never 0 or 100 for what is not quite that."""
    if share is None:
        return UNDEFINED
    if 0 < share < 0.0005:
        return "under 0.1\u00a0%"
    return "over 99.9\u00a0%" if 0.9995 <= share < 1 else f"{100 * share:.1f}\u00a0%"


def format_number(value: float | None) -> str:
    """Return a number with three decimals."""
    return UNDEFINED if value is None else f"{value:.3f}"


def format_percent_interval(interval: Mapping[str, float] | None) -> str:
    """Return a 95 % interval of a share."""
    return f"{format_percent(interval['low'])} to {format_percent(interval['high'])}" if interval else UNDEFINED


def format_number_interval(interval: Mapping[str, float] | None) -> str:
    """Return a 95 % interval with three decimals."""
    return f"{interval['low']:.3f} to {interval['high']:.3f}" if interval else UNDEFINED


def find_missing_class(row: Mapping[str, Any]) -> str | None:
    """Say why some numbers of a set are undefined; None where both classes are there."""
    if row["n_real"] and row["n_fake"]:
        return None
    there, lacking = ("real", "fake") if row["n_real"] else ("fake", "real")
    return (
        f"{UNDEFINED}: all {row['n_real'] + row['n_fake']:,} faces are {there}; without {lacking} ones there is no "
        "balanced accuracy and no AUC."
    )


def write_headline(metrics: Mapping[str, Any]) -> str:
    """Say the result in one sentence."""
    pooled = metrics["generalization"]
    faces = pooled["n_real"] + pooled["n_fake"]
    note = f" ({metrics['note']})" if metrics.get("note") else ""
    interval = (pooled.get("interval") or {}).get("accuracy")
    around = f" (95\u00a0% interval {format_percent_interval(interval)})" if interval else ""
    return (
        f"Of {faces:,} held-out faces{note} that no training has seen, the detector judged "
        f"{format_percent(pooled['accuracy'])} rightly{around}; answering the same for every face would get "
        f"{format_percent(pooled['majority_class_accuracy'])}."
    )


def write_context(metrics: Mapping[str, Any]) -> str:
    """Compare the result with the notebook's claim and the survey, and say how far that goes."""
    here = f"; those here: {metrics['note']}" if metrics.get("note") else ""
    return (
        f"For comparison: the notebook from which this began claimed {format_percent(SEED_ACCURACY)}, "
        f"on a test set where "
        f"always answering “fake” gets about {100 * NOTEBOOK_CONSTANT:.0f}\u00a0%; about a hundred people, asked "
        f"about 15 faces each, were right in {format_percent(HUMAN_ACCURACY)}. Both stood on other images, so they "
        f"give a scale and no race{here}."
    )


def describe_balanced_accuracy(metrics: Mapping[str, Any]) -> str:
    """Say what becomes of the result when real and fake count the same."""
    pooled = metrics["generalization"]
    if reason := find_missing_class(pooled):
        return reason
    return (
        f"It called {format_percent(pooled['real_accuracy'])} of {pooled['n_real']:,} real faces real and "
        f"{format_percent(pooled['fake_accuracy'])} of {pooled['n_fake']:,} fakes fake; the mean of "
        f"the two, the balanced "
        f"accuracy, is {format_percent(pooled['balanced_accuracy'])}, where a coin gets "
        f"50\u00a0%. Given one real face and "
        f"one fake, it ranks them rightly in {format_percent(pooled['roc_auc'])} of cases (the AUC)."
    )


def describe_stages(metrics: Mapping[str, Any]) -> list[str]:
    """Say what each stage added on the held-out faces, and what the last one made the detector forget."""
    stages = metrics["stages"]
    key = "balanced_accuracy" if "balanced_accuracy" in stages[_FINAL]["heldout"] else "accuracy"
    levels = [stages[stage]["heldout"][key] for stage in STAGES]
    idle = [stage for stage, before, after in zip(STAGES[1:], levels, levels[1:], strict=False) if after <= before]
    way = ", then ".join(format_percent(level) for level in levels)
    adds = f"Stage by stage the held-out {key.replace('_', ' ')} was {way}"
    adds += f"; {' and '.join(idle)} added nothing to it." if idle else "; each stage added to it."
    falls = {
        stage: stages[stage]["test"]["accuracy"] - stages[stage]["test_after_last_stage"]["accuracy"]
        for stage in STAGES[:-1]
    }
    worst = max(falls, key=lambda stage: falls[stage])
    if falls[worst] <= 0:
        return [adds, "Nothing was forgotten: on each stage's own test images the last stage is no worse."]
    before, after = stages[worst]["test"]["accuracy"], stages[worst]["test_after_last_stage"]["accuracy"]
    return [
        adds,
        f"Most was forgotten of {worst}: {format_percent(before)} of its own test images were judged "
        f"rightly right after it, "
        f"and {format_percent(after)} after {_FINAL}.",
    ]


def describe_calibration(metrics: Mapping[str, Any]) -> str:
    """Say how far a score can be taken at its word."""
    return (
        f"Of the faces with a score of 0.8, eight in ten ought to be fake. On the held-out faces scores are off by "
        f"{format_number(metrics['generalization']['ece'])} on average (expected calibration error; 0 is perfect)."
    )


def describe_abstention(metrics: Mapping[str, Any]) -> list[str]:
    """Say what the abstention band is and does."""
    band = metrics["coverage"]
    low, high = band.get("abstention_low"), band.get("abstention_high")
    if low is None or high is None:
        return [f"{UNDEFINED}: the abstention band is not in metrics.json, which an older version wrote."]
    target = format_percent(band["target_accuracy"])
    if high <= low:
        return [
            f"The abstention band is empty: on validation images {target} or more of all answers were right "
            "without one (or there was one class only), so every face is answered."
        ]
    said = [
        f"A score from {low:.3f} to {high:.3f} is answered with “unsure”. The band was fitted on validation images, so "
        f"that {target} of the answers given there are right."
    ]
    if not band["n_answered"]:
        return [*said, "On the held-out faces nothing is left to answer: every score is unsure."]
    shares = [
        f"{format_percent(band[f'{name}_coverage'])} of the {name} ones"
        for name in ("real", "fake")
        if f"{name}_coverage" in band
    ]
    return [
        *said,
        f"On the held-out faces it lets {format_percent(band['coverage'])} be answered ({' and '.join(shares)}), and "
        f"{format_percent(band['accuracy'])} of these {band['n_answered']:,} answers are right, against "
        f"{format_percent(metrics['generalization']['accuracy'])} without a band.",
    ]


def describe_worst_cell(rows: Sequence[Mapping[str, Any]]) -> str:
    """Name the cell of the robustness table where the detector does worst."""
    cells = [row for row in rows if row["balanced_accuracy"] is not None and row["perturbation"] != UNCHANGED]
    cells = [row for row in cells if row["set"] != MACRO] or cells
    if not cells:
        return f"{UNDEFINED}: a balanced accuracy needs real and fake faces, and these are of one class."
    worst = min(cells, key=lambda row: row["balanced_accuracy"])
    change = worst["change"]
    against = (
        f"{abs(change):.3f} {'below' if change < 0 else 'above'} the unchanged pictures" if change else "unchanged"
    )
    return (
        f"Worst cell: “{worst['perturbation']}” on {worst['set']}, balanced accuracy "
        f"{format_number(worst['balanced_accuracy'])} (AUC {format_number(worst['roc_auc'])}), {against}. "
        "A coin gets 0.500."
    )


def describe_shortcut_probe(metrics: Mapping[str, Any]) -> str:
    """Say what is left after the same cut, reduction and JPEG compression of every picture."""
    probe, before = metrics.get("shortcut_probe") or {}, metrics["robustness"].get(UNCHANGED) or {}
    if "change" not in probe:
        return f"Shortcut probe: {UNDEFINED}, not measured or of one class only."
    change = probe["change"]
    if change <= -_LARGE_FALL:
        meaning = "much of what it goes by does not survive this: framing, size, coding, or detail finer than that"
    elif change <= -_FALL:
        meaning = "a part of what it goes by does not survive this"
    else:
        meaning = "it hardly goes by any of these"
    return (
        "Shortcut probe: with 10 % cut off each side, half the size and JPEG 75 for every picture alike, the balanced "
        f"accuracy goes from {format_number(before.get('balanced_accuracy'))} to "
        f"{format_number(probe['balanced_accuracy'])}: "
        f"{meaning}."
    )


def count_mistakes(metrics: Mapping[str, Any]) -> str:
    """Count the wrong answers."""
    pooled = metrics["generalization"]
    wrong = {name: round(pooled[f"n_{name}"] * (1 - pooled.get(f"{name}_accuracy", 1))) for name in ("real", "fake")}
    return (
        f"{sum(wrong.values()):,} of {pooled['n_real'] + pooled['n_fake']:,} answers are wrong: {wrong['real']:,} real "
        f"faces called fake, and {wrong['fake']:,} fakes called real."
    )
