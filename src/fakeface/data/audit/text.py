"""What the audit's numbers mean, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fakeface.constants import HELDOUT

HIGH, SOME = 0.85, 0.6  # shortcut scores from which side facts count as a way to the answer, and as a hint

FACT_NAMES = {
    "format": "file format",
    "width": "width in pixels",
    "height": "height in pixels",
    "bytes": "file size in bytes",
    "bytes_per_pixel": "bytes per pixel",
    "jpeg_quality": "JPEG quality",
    "jpeg_divisor": "JPEG tables",
    "subsampling": "chroma subsampling",
    "progressive": "progressive JPEG",
    "grey": "greyscale",
    "red": "mean red",
    "green": "mean green",
    "blue": "mean blue",
    "contrast": "contrast",
    "border_red": "red of the border",
    "border_green": "green of the border",
    "border_blue": "blue of the border",
    "black_border": "black border",
    "blockiness": "blockiness",
    "slope": "slope of the spectrum",
}
_BORDER = ("border_red", "border_green", "border_blue", "black_border")


def name_property(fact: str) -> str:
    """Return a fact's name for a sentence."""
    kind, _, number = fact.rpartition("_")
    if kind.endswith("band"):
        return f"detail of the {'full-size' if kind.startswith('full') else 'reduced'} picture (band {number})"
    return FACT_NAMES[fact]


def name_set(role: str) -> str:
    """Return a role's name for a heading."""
    return "Held-out set" if role == HELDOUT else f"Stage {role.removeprefix('stage')}"


def describe_auc(auc: float) -> str:
    """Return the words for a shortcut score."""
    for least, words in ((0.95, "almost perfectly"), (HIGH, "well"), (0.7, "in part"), (SOME, "a little")):
        if auc >= least:
            return words
    return "hardly better than a coin"


def describe_set(name: str, result: Mapping[str, Any]) -> list[str]:
    """Say how bad the shortcuts of one set are: what follows, what the file gives away, what the network sees."""
    kinds, facts = result["kinds"], result["facts"]
    if kinds["file"] is None:
        return [f"{name}: a class has too few images for a score."]
    file, full, look, seen = (kinds[kind]["auc"] for kind in ("file", "full_size", "look", "seen"))
    (of_file, file_alone), (of_seen, seen_alone) = (next(iter(facts[kind].items())) for kind in ("file", "seen"))
    where = f"In the {name.lower()}" if name.endswith("set") else f"In {name.lower()}"
    return [
        _describe_verdict(file, full, look, seen),
        f"{where} the {name_property(of_file)} alone separates real from fake {describe_auc(file_alone)} (AUC "
        f"{file_alone:.2f}), and all that is known of the file {describe_auc(file)} (AUC {file:.2f}); "
        "the network does not see this directly.",
        f"Of what it does see, colour, border and greyscale separate the classes {describe_auc(look)} "
        f"(AUC {look:.2f}), "
        f"and together with sharpness and JPEG blocks {describe_auc(seen)} (AUC {seen:.2f}); "
        f"the strongest single fact is {name_property(of_seen)} (AUC {seen_alone:.2f}).",
    ]


def _describe_verdict(file: float, full: float, look: float, seen: float) -> str:
    if max(file, look) >= HIGH <= seen:
        return (
            "A shortcut is open: the classes come from different places and carry the marks of it into the reduced "
            "picture, so that a high accuracy here proves little."
        )
    if seen >= HIGH:
        return (
            "Sharpness gives the answer though the files are alike: it may be the trace of the generator, which the "
            "network is to find, or of the way one class was resized."
        )
    if seen >= SOME:
        trace = "; sharpness may be the generator's own trace" if look < SOME else ""
        return f"A hint, no answer: an AUC well above {seen:.2f} has to come from the faces{trace}."
    if max(file, full) >= HIGH:
        return "What gives the files away is gone in the reduced picture: a high accuracy has to come from the faces."
    return "No shortcut was found."


def find_fairest_pair(pairs: Mapping[str, Any]) -> str | None:
    """Name the pair of sources that side facts tell apart least; None where no pair has a score."""
    known = {name: result["kinds"] for name, result in pairs.items() if result["kinds"]["file"] is not None}
    if not known:
        return None
    name = min(known, key=lambda pair: max(known[pair]["file"]["auc"], known[pair]["seen"]["auc"]))
    (real, fake), scores = name.split("/"), known[name]
    return (
        f"The pair that side facts tell apart least is {real} against {fake}: the files give "
        f"{scores['file']['auc']:.2f}, what the network sees {scores['seen']['auc']:.2f}. "
        "Of all results on pairs, believe that one most."
    )


def describe_leaks(audit: Mapping[str, Any]) -> str:
    """Say what the second proof of the split found."""
    leaks = audit["leaks"]
    if leaks:
        return f"{len(leaks):,} leaks, and this must not be: {'; '.join(leaks[:3])}. Run the split stage again."
    return (
        f"0 leaks: of {audit['images']:,} images no copy, no near-duplicate within {audit['near_duplicate_bits']} bits "
        "of a perceptual hash and, where the person is known, no other photograph of the same person lies on two sides "
        "of a line between train, valid, test, the stages and the held-out set. This was proven again from the files' "
        "sums and names and from the stored pictures, which were hashed and compared anew, not taken from the split's "
        "own word."
    )


def suggest_remedies(audit: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List what params.yaml offers against shortcuts: (key, sentence), each saying what holds now."""
    reencode, crops = audit["reencode"], audit["crops"]
    now = f"now quality {reencode['quality']} at {reencode['size']} pixels" if reencode else "now off"
    own = [f"{name} {crop}" for name, crop in crops.items() if crop != "centre"]
    return [
        (
            "data.reencode",
            f"Brings every picture to one size and one JPEG quality before it is reduced, in training and prediction "
            f"alike ({now}). It works best at the size and quality of the worst source, here "
            f"{_name_worst_source(audit)}. What "
            "differs in compression and resolution then shrinks, and with it a part of the generators' own trace; "
            "focus and framing stay. Audit again to see what it did.",
        ),
        (
            "crop of a source",
            "Cuts the same part of every face, and borders away (now "
            + (f"{', '.join(own)}; the others centre)." if own else "centre for every source)."),
        ),
        (
            "recipes.*.balance: source",
            "Draws every source of a class equally often in training, so that the marks of the largest one do not "
            "become those of its class (on in the default recipe).",
        ),
        (
            "recipes.*.augmentation",
            "Brightness, blur and JPEG at random make colour, sharpness and blocks less of a sign (on in the default "
            "recipe).",
        ),
    ]


def _name_worst_source(audit: Mapping[str, Any]) -> str:
    facts = [source["percentiles"] for source in audit["sources"].values()]
    side = int(min(min(one["width"][0], one["height"][0]) for one in facts))
    quality = int(min((one["jpeg_quality"][0] for one in facts if one["jpeg_quality"][0] is not None), default=75))
    return f"{{quality: {quality}, size: {max(32, min(side, audit['image_size']))}}}"
