"""Who is in which role and part: decided by content, the same for any order of files, and proven to be without a leak.

A *role* is a stage or the held-out set; a *part* is train, valid or test of a stage. Images that are the same, look the
same or show the same person make a *group*, and a group lies on one side of every line. A group's place depends only on
its key (the smallest sha256 in it), so files that are added leave all others where they are; only a group that a new
file joins may move.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fakeface import HELDOUT, LABELS, STAGES
from fakeface.errors import UserError
from fakeface.params import PartShares, Source
from fakeface.raw import RawFile, Rejected

ROLES = (*STAGES, HELDOUT)
SAME_PERSON = "same person"


class Candidate(NamedTuple):
    """A usable image: its file, and the number of its look-alike group (equal numbers look alike)."""

    file: RawFile
    lookalike: int


class Placed(NamedTuple):
    """An image's place; `group` is the first 16 hex digits of the smallest sha256 in its group."""

    file: RawFile
    lookalike: int
    role: str
    part: str
    group: str


@dataclass(frozen=True)
class Split:
    """All candidates: `placed` in the order of sha256, `set_aside` with a reason, `unused` by source.

    `unused` counts what the shares under `use` leave over when they add up to less than 1.
    """

    placed: list[Placed]
    set_aside: list[Rejected]
    repaired: dict[str, int]  # what was set aside, by kind
    unused: dict[str, int]
    groups: int  # of two images or more
    largest_group: int


def split_images(candidates: Sequence[Candidate], sources: Mapping[str, Source], shares: PartShares) -> Split:
    """Give every image a role and a part, or set it aside.

    Set aside are equal files with different labels (all of them), further copies of an equal file (all but one), and
    group members whose source may not be where the group is: of a group that touches a held-out source, the training
    side goes.
    """
    placed: list[Placed] = []
    contradicting: list[Rejected] = []
    copies: list[Rejected] = []
    crossing: list[Rejected] = []
    unused: Counter[str] = Counter()
    sizes = [0]
    for group in groups_of(candidates):
        members = _without_contradictions(group, contradicting)
        if not members:
            continue
        sizes.append(len(members))
        key = min(member.file.sha256 for member in members)
        role = _role(members, sources, key)
        if role is None:
            unused.update(member.file.source for member in members)
            continue
        part = HELDOUT if role == HELDOUT else _cut(_uniform("part", key), shares.model_dump())
        staying = _without_copies(_permitted(members, role, sources, crossing), copies)
        placed += [Placed(*member, role, str(part), key[:16]) for member in staying]
    return Split(
        placed=sorted(placed, key=lambda image: (image.file.sha256, image.file.path)),
        set_aside=sorted(contradicting + copies + crossing),
        repaired={
            "contradicting_labels": len(contradicting),
            "copies": len(copies),
            "near_duplicates_across_roles": len(crossing),
        },
        unused=dict(sorted(unused.items())),
        groups=sum(size > 1 for size in sizes),
        largest_group=max(sizes),
    )


def groups_of(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Join candidates that share bytes, looks, a listed near-duplicate group or an identity, directly or by others."""
    root = list(range(len(candidates)))

    def find(number: int) -> int:
        while root[number] != number:
            root[number] = root[root[number]]
            number = root[number]
        return number

    first: dict[Hashable, int] = {}
    for number, candidate in enumerate(candidates):
        for tie in _ties(candidate.file, candidate.lookalike):
            root[find(number)] = find(first.setdefault(tie, number))
    groups: dict[int, list[Candidate]] = defaultdict(list)
    for number, candidate in enumerate(candidates):
        groups[find(number)].append(candidate)
    return list(groups.values())


def _ties(file: RawFile, lookalike: int) -> Iterator[tuple[str, Hashable]]:
    yield "same bytes", file.sha256
    yield "same looks", lookalike
    if file.near_duplicate_group:
        yield "same near-duplicate group", file.near_duplicate_group
    if file.identity:
        yield SAME_PERSON, file.identity


def find_leaks(placed: Iterable[Placed]) -> list[str]:
    """Return a sentence for each image that a tie joins to one beyond a line; an empty list is the proof."""
    first: dict[str, dict[Hashable, Placed]] = defaultdict(dict)
    leaks = []
    for image in placed:
        for kind, value in _ties(image.file, image.lookalike):
            other = first[kind].setdefault(value, image)
            if (other.role, other.part) != (image.role, image.part):
                sides = (f"{one.file.path} in {one.role}/{one.part}" for one in (other, image))
                leaks.append(f"{kind}: {' and '.join(sides)}")
    return leaks


def assert_no_leak(placed: Iterable[Placed]) -> None:
    """Raise AssertionError if a tie crosses a line; it would be a defect of this module, not of the data."""
    leaks = find_leaks(placed)
    if leaks:
        raise AssertionError(f"the split leaks {len(leaks)} times, first: {leaks[0]}")


def require_every_part(placed: Iterable[Placed], shares: PartShares) -> None:
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


def _uniform(salt: str, key: str) -> float:
    """Map a key to [0, 1) by the first 53 bits of a sha256, the same on every machine."""
    digest = hashlib.sha256(f"{salt}:{key}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def _cut(position: float, shares: Mapping[str, float]) -> str | None:
    """Return the name in whose stretch of the cumulated shares the position lies; None behind them all."""
    end = 0.0
    for name, share in shares.items():
        end += share
        if position < end:
            return name
    last = [name for name, share in shares.items() if share > 0][-1]
    return last if end > 1 - 1e-9 else None  # shares that add up to 1 but for rounding


def _role(members: Sequence[Candidate], sources: Mapping[str, Source], key: str) -> str | None:
    """Choose the role of a group: one that all its sources may have, else the held-out set, else the commonest."""
    allowed = [_allowed(member, sources) for member in members]
    common = set(ROLES).intersection(*allowed)
    owner = next(member for member in members if member.file.sha256 == key)
    use = {str(role): share for role, share in sources[owner.file.source].use.items()}
    if common == _allowed(owner, sources):
        return _cut(_uniform("role", key), {role: use[role] for role in ROLES if role in use})
    if common:
        total = sum(use[role] for role in ROLES if role in common)
        return _cut(_uniform("role", key), {role: use[role] / total for role in ROLES if role in common})
    if any(roles == {HELDOUT} for roles in allowed):
        return HELDOUT
    return max(ROLES, key=lambda role: sum(role in roles for roles in allowed))


def _allowed(member: Candidate, sources: Mapping[str, Source]) -> set[str]:
    return {role for role, share in sources[member.file.source].use.items() if share > 0}


def _without_contradictions(group: Sequence[Candidate], gone: list[Rejected]) -> list[Candidate]:
    labels: dict[str, set[str]] = defaultdict(set)
    for member in group:
        labels[member.file.sha256].add(member.file.label)
    clear = []
    for member in group:
        if len(labels[member.file.sha256]) == 1:
            clear.append(member)
        else:
            gone.append(Rejected(member.file.path, member.file.source, "the same file is labelled real and fake"))
    return clear


def _permitted(
    members: Sequence[Candidate], role: str, sources: Mapping[str, Source], gone: list[Rejected]
) -> list[Candidate]:
    ties = Counter(tie for member in members for tie in _ties(member.file, member.lookalike))
    person = any(kind == SAME_PERSON and count > 1 for (kind, _), count in ties.items())
    what = "near-duplicate or same person as" if person else "near-duplicate of"
    where = "a held-out image" if role == HELDOUT else f"an image of {role}"
    staying = []
    for member in members:
        if role in _allowed(member, sources):
            staying.append(member)
        else:
            gone.append(Rejected(member.file.path, member.file.source, f"{what} {where}"))
    return staying


def _without_copies(members: Sequence[Candidate], gone: list[Rejected]) -> list[Candidate]:
    kept: dict[str, Candidate] = {}
    for member in sorted(members, key=lambda member: member.file.path):
        first = kept.setdefault(member.file.sha256, member)
        if first is not member:
            gone.append(Rejected(member.file.path, member.file.source, f"same file as {first.file.path}"))
    return list(kept.values())
