"""What ties images together, and the proof that no tie crosses the line between training and test."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple

from fakeface.config.data_params import PartShares
from fakeface.constants import HELDOUT, LABELS, STAGES
from fakeface.data.raw_dataset import RawFile
from fakeface.system.errors import UserError


class SplitItem(NamedTuple):
    """A usable image: its file, and the number of its look-alike group (equal numbers look alike)."""

    file: RawFile
    lookalike: int


class Assignment(NamedTuple):
    """An image's place; `group` is the first 16 hex digits of the smallest sha256 in its group."""

    file: RawFile
    lookalike: int
    role: str
    part: str
    group: str


def list_ties(file: RawFile, lookalike: int) -> Iterator[tuple[str, Hashable]]:
    """Give what ties an image to others: two with an equal tie belong together."""
    yield "same bytes", file.sha256
    yield "same looks", lookalike
    if file.near_duplicate_group:
        yield "same near-duplicate group", file.near_duplicate_group
    if file.identity:
        yield SAME_PERSON, file.identity


def find_leaks(placed: Iterable[Assignment]) -> list[str]:
    """Return a sentence for each image that a tie joins to one beyond a line; an empty list is the proof."""
    first: dict[Hashable, tuple[str, Assignment]] = {}
    leaks = []
    for image in placed:
        # No tie crosses from part to part, nor, among fakes, from stage to stage
        sides = (image.part, image.role) if image.file.label == "fake" else (image.part,)
        for tie in list_ties(image.file, image.lookalike):
            for line, side in enumerate(sides):
                there, other = first.setdefault((line, tie), (side, image))
                if there != side:
                    both = (f"{one.file.path} in {one.role}/{one.part}" for one in (other, image))
                    leaks.append(f"{tie[0]}: {' and '.join(both)}")
                    break
    return leaks


def assert_no_leak(placed: Iterable[Assignment]) -> None:
    """Prove that no tie crosses a line.

    Raises:
        AssertionError: one does; that is a defect of the split, not of the data.
    """
    leaks = find_leaks(placed)
    if leaks:
        raise AssertionError(f"the split leaks {len(leaks)} times, first: {leaks[0]}")


def require_every_part(placed: Iterable[Assignment], shares: PartShares) -> None:
    """Check that each stage has real and fake images in each part, and the held-out set both labels.

    Raises:
        UserError: something that training or evaluation needs is empty.
    """
    there = {(image.role, image.part, image.file.label) for image in placed}
    parts = [part for part, share in shares.model_dump().items() if share > 0]
    for role in ROLES:
        for part in parts if role != HELDOUT else [HELDOUT]:
            for label in LABELS:
                if (role, part, label) not in there:
                    where = "The held-out set" if role == HELDOUT else f"The {part} part of {role}"
                    raise UserError(
                        f"{where} has no {label} image; add images to a {label} source whose `use` names {role}, "
                        "or change the shares under data.profiles and data.split."
                    )


ROLES = (*STAGES, HELDOUT)


SAME_PERSON = "same person"
