from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from fakeface.config.data_params import PartCounts, PartShares, Source
from fakeface.data.raw_dataset import RawFile
from fakeface.data.split.group_split import Split, split_images
from fakeface.data.split.leak_check import Assignment, SplitItem, assert_no_leak, find_leaks, require_every_part
from fakeface.system.errors import UserError

SHARES = PartShares(train=0.7, valid=0.2, test=0.1)
SOURCES: Mapping[str, Source] = {
    "aligned": Source(label="real", use={"stage1": 1}),
    "photos": Source(label="real", use={"stage2": 1}),
    "wild": Source(label="real", use={"stage3": 1}),
    "news": Source(label="real", use={"heldout": 1}),
    "machine": Source(label="fake", use={"stage1": 0.25, "stage2": 0.35, "stage3": 0.2, "heldout": 0.2}),
    "other_machine": Source(label="fake", use={"heldout": 1}),
    "half": Source(label="fake", use={"stage1": 0.5}),
    "late_machine": Source(label="fake", use={"stage2": 1}),
    "archive": Source(
        label="fake", take={"heldout": 100, "stage1": 100, "stage3": PartCounts(train=100, valid=100, test=7)}
    ),
}


class Files:
    """Makes candidates; each looks like no other unless told."""

    def __init__(self) -> None:
        self.count = 0

    def make(
        self, source: str, number: int, looks: int | None = None, group: str = "", identity: str = "", same_as: int = -1
    ) -> SplitItem:
        self.count += 1
        sha256 = hashlib.sha256(f"content {number if same_as < 0 else same_as}".encode()).hexdigest()
        file = RawFile(f"{source}/{number:06d}.jpg", source, SOURCES[source].label, 9, sha256, group, identity)
        return SplitItem(file, -self.count if looks is None else looks)


@pytest.fixture
def files() -> Files:
    return Files()


def places(split: Split) -> dict[str, tuple[str, str]]:
    return {image.file.path: (image.role, image.part) for image in split.placed}


def reasons(split: Split) -> dict[str, str]:
    return {file.path: file.reason for file in split.set_aside}


def test_shares_are_met_and_no_fake_serves_twice(files: Files) -> None:
    split = split_images([files.make("machine", number) for number in range(10_000)], SOURCES, SHARES)
    found = Counter(image.role for image in split.placed)
    # four standard deviations of a binomial count
    for role, share in SOURCES["machine"].use.items():
        assert found[role] == pytest.approx(10_000 * share, abs=4 * (10_000 * share * (1 - share)) ** 0.5)
    stage2 = Counter(image.part for image in split.placed if image.role == "stage2")
    for part, share in SHARES.model_dump().items():
        assert stage2[part] / found["stage2"] == pytest.approx(share, abs=0.035)
    assert {image.part for image in split.placed if image.role == "heldout"} == {"heldout"}
    assert len(places(split)) == 10_000


def test_the_order_of_files_does_not_matter(files: Files) -> None:
    candidates = [files.make(source, number, looks=number % 40) for number, source in enumerate(list(SOURCES) * 30)]
    candidates += [files.make("archive", 1000 + number) for number in range(200)]
    shuffled = candidates.copy()
    random.Random(1).shuffle(shuffled)
    assert split_images(candidates, SOURCES, SHARES) == split_images(shuffled, SOURCES, SHARES)


def test_files_that_are_added_move_no_other(files: Files) -> None:
    before = [files.make("machine", number) for number in range(3000)]
    added = [files.make("machine", number) for number in range(3000, 3030)]
    old, new = split_images(before, SOURCES, SHARES), split_images(added + before, SOURCES, SHARES)
    assert len(new.placed) == 3030
    assert places(old).items() <= places(new).items()


def test_places_are_the_same_on_every_machine_and_in_every_version(files: Files) -> None:
    split = split_images([files.make("machine", number) for number in range(6)], SOURCES, SHARES)
    # Pinned: who changes the cut moves images of every experiment made before.
    assert {path[-5]: "/".join(place) for path, place in places(split).items()} == {
        "0": "stage2/train",
        "1": "heldout/heldout",
        "2": "heldout/heldout",
        "3": "stage3/test",
        "4": "heldout/heldout",
        "5": "heldout/heldout",
    }


@pytest.mark.parametrize("tie", ["looks", "group", "identity"])
def test_what_belongs_together_stays_together(files: Files, tie: str) -> None:
    candidates = [
        files.make("machine", number, **{tie: value})  # type: ignore[arg-type]
        for number in range(600)
        for value in [number // 3 if tie == "looks" else f"tie {number // 3}"]
    ]
    split = split_images(candidates, SOURCES, SHARES)
    where = places(split)
    for first in range(0, 600, 3):
        assert len({where[f"machine/{number:06d}.jpg"] for number in range(first, first + 3)}) == 1
    assert len(split.placed) == 600
    assert (split.groups, split.largest_group) == (200, 3)
    assert len({image.group for image in split.placed}) == 200


def test_ties_reach_over_several_steps_and_kinds(files: Files) -> None:
    chain = [
        files.make("machine", 1, looks=7),
        files.make("machine", 2, looks=7, identity="anna"),
        files.make("machine", 3, identity="anna", group="g"),
        files.make("machine", 4, group="g"),
    ]
    split = split_images(chain, SOURCES, SHARES)
    assert len(set(places(split).values())) == 1
    assert len({image.group for image in split.placed}) == 1


def test_a_training_image_that_looks_like_a_held_out_one_goes(files: Files) -> None:
    pairs = [(files.make("photos", n, looks=n), files.make("news", 1000 + n, looks=n)) for n in range(20)]
    split = split_images([one for pair in pairs for one in pair], SOURCES, SHARES)
    assert {image.file.source for image in split.placed} == {"news"}
    assert len(split.placed) == 20
    assert reasons(split) == {f"photos/{n:06d}.jpg": "near-duplicate of a held-out image" for n in range(20)}
    assert split.repaired["near_duplicates_across_roles"] == 20


def test_the_reason_tells_a_person_from_a_copy(files: Files) -> None:
    split = split_images(
        [files.make("photos", 1, identity="anna"), files.make("news", 2, identity="anna")], SOURCES, SHARES
    )
    assert reasons(split) == {"photos/000001.jpg": "near-duplicate or same person as a held-out image"}


def test_a_shared_source_follows_its_look_alike_where_it_may(files: Files) -> None:
    candidates = []
    for number, source in enumerate(["aligned", "photos", "wild", "other_machine"] * 10):
        candidates += [files.make(source, number, looks=number), files.make("machine", 100 + number, looks=number)]
    split = split_images(candidates, SOURCES, SHARES)
    assert len(split.placed) == 80
    assert find_leaks(split.placed) == []


def test_photographs_of_one_face_may_serve_two_stages_in_the_same_part(files: Files) -> None:
    pairs = [
        (files.make("aligned", n, identity=f"p{n}"), files.make("wild", 500 + n, identity=f"p{n}")) for n in range(60)
    ]
    split = split_images([one for pair in pairs for one in pair], SOURCES, SHARES)
    where = places(split)
    assert len(where) == 120
    for aligned, wild in pairs:
        assert [where[one.file.path][0] for one in (aligned, wild)] == ["stage1", "stage3"]
        assert where[aligned.file.path][1] == where[wild.file.path][1]
    assert find_leaks(split.placed) == []


def test_look_alike_fakes_of_two_stages_stay_in_one(files: Files) -> None:
    fakes = [
        files.make("half", 1, looks=0),
        files.make("late_machine", 2, looks=0),
        files.make("late_machine", 3, looks=0),
    ]
    split = split_images([*fakes, files.make("wild", 4, looks=0)], SOURCES, SHARES)
    assert set(places(split)) == {"late_machine/000002.jpg", "late_machine/000003.jpg", "wild/000004.jpg"}
    assert reasons(split) == {"half/000001.jpg": "near-duplicate of an image of stage2"}


def test_of_two_stages_that_share_a_fake_the_larger_gives_it_up(files: Files) -> None:
    more = [files.make("late_machine", number) for number in range(10, 15)]
    split = split_images(
        [files.make("half", 1, looks=0), files.make("late_machine", 2, looks=0), *more], SOURCES, SHARES
    )
    assert reasons(split) == {"late_machine/000002.jpg": "near-duplicate of an image of stage1"}


class TestNumbers:
    """Sources that say how many images each role takes."""

    def split(self, candidates: Sequence[SplitItem]) -> Split:
        return split_images(candidates, SOURCES, SHARES)

    def parts(self, split: Split, source: str, role: str) -> dict[str, int]:
        return dict(Counter(i.part for i in split.placed if i.file.source == source and i.role == role))

    def test_roles_are_cut_by_path_and_parts_are_exact(self, files: Files) -> None:
        split = self.split([files.make("archive", number) for number in reversed(range(430))])
        where = places(split)
        assert {where[f"archive/{n:06d}.jpg"][0] for n in range(100)} == {"stage1"}
        assert {where[f"archive/{n:06d}.jpg"][0] for n in range(100, 307)} == {"stage3"}
        assert {where[f"archive/{n:06d}.jpg"] for n in range(307, 407)} == {("heldout", "heldout")}
        assert self.parts(split, "archive", "stage1") == {"train": 70, "valid": 20, "test": 10}
        assert self.parts(split, "archive", "stage3") == {"train": 100, "valid": 100, "test": 7}
        assert split.unused == {"archive": 23}

    def test_parts_stay_exact_where_images_belong_together(self, files: Files) -> None:
        fives = [files.make("archive", number, looks=number // 5) for number in range(50)]
        pairs = [files.make("archive", number, identity=f"p{number // 2}") for number in range(50, 80)]
        split = self.split([*fives, *pairs, *(files.make("archive", number) for number in range(80, 100))])
        assert self.parts(split, "archive", "stage1") == {"train": 70, "valid": 20, "test": 10}
        assert find_leaks(split.placed) == []

    def test_a_group_across_a_cut_keeps_to_one_side_and_is_counted(self, files: Files) -> None:
        split = self.split([files.make("archive", number, looks=number - (number == 100)) for number in range(407)])
        assert reasons(split) == {"archive/000100.jpg": "near-duplicate of an image of stage1"}
        assert split.repaired["near_duplicates_across_roles"] == 1

    def test_a_file_more_at_the_end_moves_few(self, files: Files) -> None:
        candidates = [files.make("archive", number) for number in range(300)]
        before = places(self.split(candidates))
        after = places(self.split([*candidates, files.make("archive", 300)]))
        moved = [path for path, place in before.items() if after[path] != place]
        assert len(moved) <= 2
        assert {after[path][0] for path in moved} <= {"stage3"}

    def test_with_fewer_images_than_asked_the_parts_keep_their_proportion(self, files: Files) -> None:
        split = self.split([files.make("archive", number) for number in range(50)])
        assert self.parts(split, "archive", "stage1") == {"train": 35, "valid": 10, "test": 5}


def test_equal_files_with_different_labels_all_go(files: Files) -> None:
    split = split_images(
        [files.make("photos", 1), files.make("machine", 2, same_as=1), files.make("photos", 3)], SOURCES, SHARES
    )
    assert set(places(split)) == {"photos/000003.jpg"}
    assert set(reasons(split).values()) == {"the same file is labelled real and fake"}
    assert split.repaired["contradicting_labels"] == 2


def test_of_equal_files_one_stays(files: Files) -> None:
    copies = [files.make("photos", 5), files.make("photos", 6, same_as=5), files.make("news", 7, same_as=5)]
    split = split_images(copies, SOURCES, SHARES)
    assert places(split) == {"news/000007.jpg": ("heldout", "heldout")}
    assert len(split.set_aside) == 2
    split = split_images(copies[:2], SOURCES, SHARES)
    assert reasons(split) == {"photos/000006.jpg": "same file as photos/000005.jpg"}


def test_what_the_shares_leave_over_is_counted(files: Files) -> None:
    split = split_images([files.make("half", number) for number in range(400)], SOURCES, SHARES)
    assert 150 < len(split.placed) < 250
    assert split.unused == {"half": 400 - len(split.placed)}


def test_every_candidate_is_accounted_for(files: Files) -> None:
    rng = random.Random(3)
    candidates = [
        files.make(
            rng.choice(list(SOURCES)),
            number,
            looks=rng.randrange(500),
            identity=rng.choice(["", "", f"p{rng.randrange(300)}"]),
            same_as=rng.choice([-1, -1, -1, rng.randrange(100)]),
        )
        for number in range(900)
    ]
    split = split_images(candidates, SOURCES, SHARES)
    assert find_leaks(split.placed) == []
    assert len(split.placed) + len(split.set_aside) + sum(split.unused.values()) == 900
    assert sum(split.repaired.values()) == len(split.set_aside)
    for image in split.placed:
        source = SOURCES[image.file.source]
        assert image.role in {**source.use, **source.take}


@pytest.mark.parametrize("tie", ["looks", "group", "identity", "same_as"])
@pytest.mark.parametrize("sides", [("stage1/train", "stage1/test"), ("stage1/train", "stage2/train")])
def test_the_proof_finds_a_planted_leak(files: Files, tie: str, sides: tuple[str, str]) -> None:
    value = {"looks": 5, "same_as": 5, "group": "g", "identity": "anna"}[tie]
    candidates = [files.make("machine", number, **{tie: value}) for number in (0, 1)]  # type: ignore[arg-type]
    roles, parts = zip(*(side.split("/") for side in sides), strict=True)
    placed = [
        Assignment(one.file, one.lookalike, role, part, "0")
        for one, role, part in zip(candidates, roles, parts, strict=True)
    ]
    (leak,) = find_leaks([*placed, Assignment(*files.make("machine", 9), "stage3", "train", "1")])
    assert "machine/000000.jpg" in leak
    assert "machine/000001.jpg" in leak
    with pytest.raises(AssertionError, match="leaks 1 times"):
        assert_no_leak(placed)


def test_an_empty_part_is_named(files: Files) -> None:
    sources = ["aligned", "photos", "wild", "news"]
    real = [files.make(source, number) for number, source in enumerate(sources * 40)]
    fake = [files.make("machine", 1000 + number) for number in range(400)]
    placed = split_images(real + fake, SOURCES, SHARES).placed
    require_every_part(placed, SHARES)
    without = [image for image in placed if (image.role, image.part, image.file.label) != ("stage2", "valid", "fake")]
    with pytest.raises(UserError, match="valid part of stage2 has no fake image"):
        require_every_part(without, SHARES)
    without = [image for image in placed if image.role != "heldout" or image.file.label == "fake"]
    with pytest.raises(UserError, match="held-out set has no real image"):
        require_every_part(without, SHARES)
