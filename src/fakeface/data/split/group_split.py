"""Who is in which role and part: decided by content, the same for any order of files, and proven to be without a leak.

A *role* is a stage or the held-out set; a *part* is train, valid or test of a stage. Images that are the same, look the
same or show the same person make a *group*. No group lies on both sides of a line between train, valid, test and the
held-out set, nor its fakes in two stages; photographs of one group may serve two stages, in the same part.

Where a source gives shares (`use`), a group's place depends only on its key (the smallest sha256 in it), so files that
are added leave all others where they are; only a group that a new file joins may move. Where a source gives numbers
(`take`), its images are dealt out in the order of their paths, to the stages and then to the held-out set, and in a
stage to the parts by key until a part is full: exact, at the price that an added file moves those at the cuts.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from fakeface.config.data_params import PartCounts, PartShares, Source
from fakeface.constants import HELDOUT, PARTS, STAGES
from fakeface.data.raw_dataset import Rejected
from fakeface.data.split.leak_check import ROLES, SAME_PERSON, Assignment, SplitItem, list_ties

_Wish: TypeAlias = Mapping[str, float]  # role to share, each above 0
_Bucket: TypeAlias = tuple[str, str]  # source, role


@dataclass(frozen=True)
class Split:
    """All candidates: `placed` in the order of sha256, `set_aside` with a reason, `unused` by source.

    `unused` counts what the shares under `use` leave over when they add up to less than 1, or the numbers under `take`.
    """

    placed: list[Assignment]
    set_aside: list[Rejected]
    repaired: dict[str, int]  # what was set aside, by kind
    unused: dict[str, int]
    groups: int  # of two images or more
    largest_group: int


class _Group(NamedTuple):
    key: str
    members: list[tuple[SplitItem, str]]  # with their roles


def split_images(candidates: Sequence[SplitItem], sources: Mapping[str, Source], shares: PartShares) -> Split:
    """Give every image a role and a part, or set it aside.

    Set aside are equal files with different labels (all of them), further copies of an equal file (all but one), and
    group members whose source may not be where the group is: of a group that touches a held-out source, the training
    side goes; of fakes that belong to two stages, those of the stage that loses fewer, or else the larger one's.
    """
    wishes = _allowed_roles(candidates, sources)
    wanted = [candidate for candidate in candidates if wishes[candidate.file.path]]
    unused = Counter(candidate.file.source for candidate in candidates if not wishes[candidate.file.path])
    sizes = _plan_sizes(wanted, sources)
    gone = _RemovedItems([], [], [])
    groups: list[_Group] = []
    lengths = [0]
    for group in group_items(wanted):
        members = _drop_contradictions(group, gone.contradicting)
        if not members:
            continue
        lengths.append(len(members))
        key = min(member.file.sha256 for member in members)
        roles = _assign_roles(members, [wishes[member.file.path] for member in members], key, sizes)
        if roles is None:
            unused.update(member.file.source for member in members)
        else:
            groups.append(_Group(key, _drop_copies(_filter_group(members, roles, gone.crossing), gone.copies)))
    placed = list(_assign_parts(groups, sources, shares.model_dump()))
    return Split(
        placed=sorted(placed, key=lambda image: (image.file.sha256, image.file.path)),
        set_aside=sorted(gone.contradicting + gone.copies + gone.crossing),
        repaired={
            "contradicting_labels": len(gone.contradicting),
            "copies": len(gone.copies),
            "near_duplicates_across_roles": len(gone.crossing),
        },
        unused=dict(sorted(unused.items())),
        groups=sum(length > 1 for length in lengths),
        largest_group=max(lengths),
    )


class _RemovedItems(NamedTuple):
    contradicting: list[Rejected]
    copies: list[Rejected]
    crossing: list[Rejected]


def group_items(candidates: Sequence[SplitItem]) -> list[list[SplitItem]]:
    """Join candidates that share bytes, looks, a listed near-duplicate group or an identity, directly or by others."""
    from scipy.cluster.hierarchy import DisjointSet

    tied = DisjointSet(range(len(candidates)))
    first: dict[Hashable, int] = {}
    for number, candidate in enumerate(candidates):
        for tie in list_ties(candidate.file, candidate.lookalike):
            tied.merge(number, first.setdefault(tie, number))
    groups: dict[int, list[SplitItem]] = defaultdict(list)
    for number, candidate in enumerate(candidates):
        groups[tied[number]].append(candidate)
    return list(groups.values())


def _hash_to_unit(salt: str, key: str) -> float:
    """Map a key to [0, 1) by the first 53 bits of a sha256, the same on every machine."""
    digest = hashlib.sha256(f"{salt}:{key}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def _pick_by_share(position: float, shares: Mapping[str, float]) -> str | None:
    """Return the name in whose stretch of the cumulated shares the position lies; None behind them all."""
    end = 0.0
    for name, share in shares.items():
        end += share
        if position < end:
            return name
    last = [name for name, share in shares.items() if share > 0][-1]
    return last if end > 1 - 1e-9 else None  # shares that add up to 1 but for rounding


def _allowed_roles(candidates: Sequence[SplitItem], sources: Mapping[str, Source]) -> dict[str, _Wish]:
    """Return, by path, in which roles an image may be and with which share; nothing for one that no role takes."""
    by_source: dict[str, _Wish] = {}
    for name, source in sources.items():
        by_source[name] = {role: share for role in ROLES if (share := source.use.get(role, 0.0)) > 0}  # type: ignore[call-overload]
    wishes = {one.file.path: by_source[one.file.source] for one in candidates}
    for name, source in sources.items():
        paths = sorted(one.file.path for one in candidates if one.file.source == name) if source.take else []
        start, counts = 0, source.taken()
        for role in ROLES:
            only: _Wish = {role: 1.0}
            stop = start + counts.get(role, 0)
            wishes.update((path, only) for path in paths[start:stop])
            start = stop
    return wishes


def _plan_sizes(candidates: Sequence[SplitItem], sources: Mapping[str, Source]) -> Counter[str]:
    """Return how many images each role is to have, about."""
    sizes: Counter[str] = Counter()
    for name, count in Counter(one.file.source for one in candidates).items():
        for role, share in sources[name].use.items():
            sizes[role] += round(share * count)
        sizes.update(sources[name].taken())
    return sizes


def _assign_roles(
    members: Sequence[SplitItem], wishes: Sequence[_Wish], key: str, sizes: Mapping[str, int]
) -> Sequence[str | None] | None:
    """Return each member's role, None where it has to go; None in place of all for a group that the shares leave over.

    One role for all if there is one that all may have, else the held-out set if a source is held out, else stages.
    """
    position = _hash_to_unit("role", key)
    owner = min(zip(members, wishes, strict=True), key=lambda one: (one[0].file.sha256, one[0].file.path))[1]
    common = set(owner).intersection(*wishes)
    if common:
        role = _pick_by_share(position, owner if len(common) == len(owner) else _renormalize(owner, common))
        return None if role is None else [role] * len(members)
    if any(set(wish) == {HELDOUT} for wish in wishes):
        return [HELDOUT if HELDOUT in wish else None for wish in wishes]
    fakes = [wish for member, wish in zip(members, wishes, strict=True) if member.file.label == "fake"]
    stage = _choose_stage(fakes, position, sizes) if fakes else ""
    return [
        (stage if stage in wish else None)
        if member.file.label == "fake"
        else _pick_by_share(position, _renormalize(wish, set(wish) - {HELDOUT}))
        for member, wish in zip(members, wishes, strict=True)
    ]


def _renormalize(wish: _Wish, roles: Set[str]) -> _Wish:
    """Return the shares of some of the roles, made to add up to 1."""
    total = sum(share for role, share in wish.items() if role in roles)
    return {role: share / total for role, share in wish.items() if role in roles}


def _choose_stage(fakes: Sequence[_Wish], position: float, sizes: Mapping[str, int]) -> str:
    """Choose the one stage of a group's fakes: one that all may have, else what keeps most, else the smallest."""
    stages = set(fakes[0]).intersection(*fakes) - {HELDOUT}
    if stages:
        return str(_pick_by_share(position, _renormalize(fakes[0], stages)))
    return max(STAGES, key=lambda stage: (sum(stage in wish for wish in fakes), -sizes[stage]))


# Parts


def _assign_parts(
    groups: Sequence[_Group], sources: Mapping[str, Source], shares: Mapping[str, float]
) -> Iterator[Assignment]:
    """Give every group its part: by its key, or, where that part of a `take` is full, the one with most room.

    Large groups come first, so that single images fill what is left to the last place.
    """
    weights = _weigh_parts(sources, shares)
    counts = Counter((one.file.source, role) for group in groups for one, role in group.members)
    room = {
        bucket: apportion(count, weights[bucket])
        for bucket, count in counts.items()
        if sources[bucket[0]].take and bucket[1] != HELDOUT
    }
    in_order = sorted((-len(group.members), _hash_to_unit("part", group.key), n) for n, group in enumerate(groups))
    for _, position, number in in_order:
        key, members = groups[number]
        part = HELDOUT if members[0][1] == HELDOUT else _choose_part(members, position, weights, room)
        yield from (Assignment(*one, role, part, key[:16]) for one, role in members)


def _choose_part(
    members: Sequence[tuple[SplitItem, str]],
    position: float,
    weights: Mapping[_Bucket, Mapping[str, float]],
    room: Mapping[_Bucket, dict[str, int]],
) -> str:
    buckets = [(one.file.source, role) for one, role in members]
    owner = min(members, key=lambda one: (one[0].file.sha256, one[0].file.path))
    part = str(_pick_by_share(position, weights[owner[0].file.source, owner[1]]))
    if not room:
        return part
    needs = Counter(bucket for bucket in buckets if bucket in room)
    if any(room[bucket][part] < count for bucket, count in needs.items()):
        left = {other: min(room[bucket][other] - count for bucket, count in needs.items()) for other in PARTS}
        roomiest = max(PARTS, key=lambda other: left[other])
        part = roomiest if left[roomiest] >= 0 else part  # where no part has room, the numbers are missed
    for bucket, count in needs.items():
        room[bucket][part] -= count
    return part


def _weigh_parts(sources: Mapping[str, Source], shares: Mapping[str, float]) -> dict[_Bucket, dict[str, float]]:
    weights = {(name, str(role)): dict(shares) for name in sources for role in STAGES}
    for name, source in sources.items():
        for role, counts in source.take.items():
            if isinstance(counts, PartCounts):
                weights[name, role] = {part: count / counts.total for part, count in counts.model_dump().items()}
    return weights


def apportion(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Cut a whole number in proportion to weights that add up to 1, by largest remainder: exact where that is whole."""
    exact = {name: total * weight for name, weight in weights.items()}
    counts = {name: int(value + 1e-6) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: counts[name] - exact[name])[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


# Who has to go


def _drop_contradictions(group: Sequence[SplitItem], gone: list[Rejected]) -> list[SplitItem]:
    if len(group) == 1 or len({member.file.label for member in group}) == 1:
        return list(group)
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


def _filter_group(
    members: Sequence[SplitItem], roles: Sequence[str | None], gone: list[Rejected]
) -> list[tuple[SplitItem, str]]:
    placed = list(zip(members, roles, strict=True))
    staying = [(member, role) for member, role in placed if role is not None]
    if len(staying) < len(placed):
        ties = Counter(tie for member in members for tie in list_ties(member.file, member.lookalike))
        person = any(kind == SAME_PERSON and count > 1 for (kind, _), count in ties.items())
        what = "near-duplicate or same person as" if person else "near-duplicate of"
        stages = [role for member, role in staying if member.file.label == "fake"]
        where = "a held-out image" if staying[0][1] == HELDOUT else f"an image of {stages[0]}"
        gone += [
            Rejected(member.file.path, member.file.source, f"{what} {where}") for member, role in placed if role is None
        ]
    return staying


def _drop_copies(members: Sequence[tuple[SplitItem, str]], gone: list[Rejected]) -> list[tuple[SplitItem, str]]:
    if len(members) == 1:
        return list(members)
    kept: dict[str, tuple[SplitItem, str]] = {}
    for member, role in sorted(members, key=lambda one: one[0].file.path):
        first, _ = kept.setdefault(member.file.sha256, (member, role))
        if first is not member:
            gone.append(Rejected(member.file.path, member.file.source, f"same file as {first.file.path}"))
    return list(kept.values())
