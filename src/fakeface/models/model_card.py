"""A trained detector's page, after Mitchell et al. 2019: what it is for, what made it, how far it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fakeface.constants import HELDOUT, STAGES
from fakeface.models.checkpoints import CheckpointMetadata

_USE = """Sorts portrait photographs from computer-made faces, to help a person who looks at them. It answers for one
face an image, framed as in the data below, and says `unsure` where validation images did not allow an answer."""
_LIMITS = """- No proof: a score is no evidence about a person or a claim, and must not decide alone.
- A generator, camera or editing program that is not in the tables may be called anything; the rows of the held-out
  sources are the nearest guess.
- Images that were cropped, resized, filtered or compressed again lose what the detector looks at.
- A calibrated score is a probability at even odds; where fakes are rarer or more common, so is the meaning of a score.
- Nothing is known of differences between groups of people: the data carries no such labels."""


def write_model_card_text(metrics: Mapping[str, Any], split: Mapping[str, Any], facts: CheckpointMetadata) -> str:
    """Markdown out of reports/metrics.json, reports/data/split.json and what the checkpoint says of itself."""
    return "\n".join(
        [
            f"# Detector of computer-made faces ({facts.recipe} recipe)",
            "",
            *_note(facts.note),
            "## Intended use",
            "",
            _USE,
            "",
            f"Input: RGB images of {facts.image_size}×{facts.image_size} pixels, uint8, (N, {facts.image_size}, "
            f"{facts.image_size}, 3). Output: `score`, the calibrated probability of fake, and `prediction`.",
            "",
            *_reencoding(facts),
            "## Results on held-out sources",
            "",
            *_overall(metrics["generalization"]),
            "",
            *_source_table(metrics["sources"]),
            "",
            "## Decision",
            "",
            *_describe_prediction(facts),
            "",
            "## Data",
            "",
            *_data(split),
            "",
            "## Limits",
            "",
            _LIMITS,
            "",
        ]
    )


def _note(note: str | None) -> list[str]:
    return [f"**Trained on the {note}: its scores mean nothing on other images.**", ""] if note else []


def _reencoding(facts: CheckpointMetadata) -> list[str]:
    if facts.reencoding is None:
        return []
    size, quality = facts.reencoding.size, facts.reencoding.quality
    return [
        f"Before that, every image must be brought to {size}×{size} pixels and saved as JPEG of quality {quality}, as "
        "the images of the training were; `fakeface predict` does so, the bare model does not.",
        "",
    ]


def _overall(overall: Mapping[str, Any]) -> list[str]:
    titles = {"balanced_accuracy": "balanced accuracy", "accuracy": "accuracy", "roc_auc": "ROC AUC"}
    intervals = overall.get("interval", {})
    lines = [f"{overall['n_real']:,} photographs and {overall['n_fake']:,} fakes of sources kept out of training.", ""]
    for name, title in titles.items():
        if name in overall:
            around = intervals.get(name)
            said = f", 95 % interval {around['low']:.3f} to {around['high']:.3f}" if around else ""
            lines.append(f"- {title} {overall[name]:.3f}{said}")
    return [*lines, f"- one constant answer would get an accuracy of {overall['majority_class_accuracy']:.3f}"]


def _source_table(sources: Mapping[str, Any]) -> list[str]:
    rows = [
        f"| {name} | {row['label']} | {row['n']:,} | {row['accuracy']:.3f} | "
        f"{row['interval']['low']:.3f} to {row['interval']['high']:.3f} |"
        for name, row in sources.items()
    ]
    return ["| held-out source | label | images | called rightly | 95 % interval |", "|---|---|---|---|---|", *rows]


def _describe_prediction(facts: CheckpointMetadata) -> list[str]:
    fitted = facts.calibration
    lines = [
        f"`fake` from a score of {fitted.threshold:.3f} on; calibrated with slope {fitted.slope:.3f} and bias "
        f"{fitted.bias:.3f}, fitted on {fitted.n_real:,} real and {fitted.n_fake:,} fake validation images."
    ]
    if fitted.abstention_high > fitted.abstention_low:
        lines.append(f"`unsure` between {fitted.abstention_low:.3f} and {fitted.abstention_high:.3f}.")
    return lines


def _data(split: Mapping[str, Any]) -> list[str]:
    unusable = f"{split['unusable']:,} unusable ones set aside"
    lines = [f"Profile `{split['profile']}`, {split['images']:,} images; {unusable}.", ""]
    lines += ["| source | label | used in |", "|---|---|---|"]
    for name, source in split["sources"].items():
        counts = {role: sum(source["roles"][role].values()) for role in (*STAGES, HELDOUT) if role in source["roles"]}
        used = [f"{role} {count:,}" for role, count in counts.items()]
        lines.append(f"| {name} | {source['label']} | {', '.join(used) or 'nothing'} |")
    return lines
