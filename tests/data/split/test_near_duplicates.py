from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from fakeface.data.split import near_duplicates
from fakeface.data.split.near_duplicates import LARGEST_MAX_DISTANCE, compute_perceptual_hash, group_near_duplicates
from fakeface.images.decoding import decode_image
from fakeface.system.errors import UserError


def portrait(seed: int) -> Image.Image:
    """A centred head on shoulders before a background; size, colours, light and features are random."""
    rng = np.random.default_rng(seed)

    def colour(low: int = 0, high: int = 255) -> tuple[int, ...]:
        return tuple(int(value) for value in rng.integers(low, high, 3))

    def blob(x: float, y: float, width: float, height: float, fill: tuple[int, ...]) -> None:
        x, y = x + rng.normal(0, 6), y + rng.normal(0, 6)
        width, height = width * rng.uniform(0.7, 1.3), height * rng.uniform(0.7, 1.3)
        draw.ellipse((x - width, y - height, x + width, y + height), fill=fill)

    image = Image.new("RGB", (256, 256), colour())
    draw = ImageDraw.Draw(image)
    for x, y, width, height in rng.uniform((0, 0, 20, 20), (256, 256, 70, 70), (5, 4)):
        blob(x, y, width, height, colour())
    blob(128, 260, 110, 60, colour())
    blob(128, 120, 75, 95, colour(0, 160))
    blob(128, 135, 60, 78, colour(90, 250))
    for x in (103, 153):
        blob(x, 118, 10, 6, colour(0, 90))
    blob(128, 180, 22, 7, colour(80, 200))
    across, down = (np.interp(np.arange(256), (0, 255), rng.uniform(0.6, 1.2, 2)) for _ in range(2))
    light = (down[:, None] * across)[..., None]
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(2))) * light
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def decoded(image: Image.Image, format_: str = "BMP", **options: object) -> NDArray[np.uint8]:
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return decode_image(stream.getvalue())


def brute_force_groups(hashes: NDArray[np.uint64], max_distance: int) -> list[int]:
    """Connected components by comparing all with all, numbered by their smallest hash."""
    near = np.array([[(int(a) ^ int(b)).bit_count() <= max_distance for a in hashes] for b in hashes])
    smallest = hashes.copy()
    while True:
        spread = np.where(near, smallest[None], np.uint64(2**64 - 1)).min(axis=1)
        if (spread == smallest).all():
            return list(np.unique(smallest, return_inverse=True)[1])
        smallest = spread


def random_hashes(count: int, seed: int = 0) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def with_flipped_bits(hashes: NDArray[np.uint64], flips: int, seed: int = 1) -> NDArray[np.uint64]:
    places = np.random.default_rng(seed).random((len(hashes), 64), np.float32).argpartition(flips)[:, :flips]
    masks: NDArray[np.uint64] = (np.uint64(1) << places.astype(np.uint64)).sum(axis=1, dtype=np.uint64)
    return hashes ^ masks


PORTRAITS = [portrait(seed) for seed in range(30)]
HASHES = compute_perceptual_hash(np.stack([decoded(image) for image in PORTRAITS]))


@pytest.mark.parametrize(
    "copy",
    [
        lambda image: decoded(image, "JPEG", quality=50),
        lambda image: decoded(image.resize((128, 128), Image.Resampling.BICUBIC), "JPEG", quality=75),
        lambda image: decoded(image.resize((400, 400), Image.Resampling.BILINEAR)),
        lambda image: decoded(image.resize((300, 200)).resize((256, 256))),
        lambda image: decoded(ImageEnhance.Brightness(image).enhance(1.1)),
        lambda image: decoded(ImageEnhance.Contrast(image).enhance(0.85)),
        lambda image: decoded(image.convert("L"), "JPEG", quality=80),
        lambda image: decoded(image.filter(ImageFilter.GaussianBlur(1)), "WEBP", quality=60),
    ],
    ids=["jpeg", "halved", "enlarged", "stretched and back", "brighter", "paler", "greyscale", "blurred webp"],
)
def test_a_changed_copy_falls_into_the_group_of_its_original(
    copy: Callable[[Image.Image], NDArray[np.uint8]],
) -> None:
    copies = compute_perceptual_hash(np.stack([copy(image) for image in PORTRAITS]))
    groups = group_near_duplicates(np.concatenate([HASHES, copies]))
    assert (groups[:30] == groups[30:]).all()
    assert len(set(groups)) == 30


def test_other_people_in_the_same_pose_and_noise_fall_into_other_groups() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (30, 128, 128, 3), dtype=np.uint8)
    images = np.concatenate([np.stack([decoded(portrait(seed)) for seed in range(100, 160)]), noise])
    assert sorted(group_near_duplicates(compute_perceptual_hash(images))) == list(range(90))


def test_a_hash_depends_neither_on_its_batch_nor_on_where_the_array_lies() -> None:
    images = np.concatenate([np.stack([decoded(image) for image in PORTRAITS])] * 5)
    together = compute_perceptual_hash(images)
    assert together.dtype == np.uint64
    assert (together == np.tile(HASHES, 5)).all()
    assert [int(compute_perceptual_hash(image[None])[0]) for image in images[:30]] == HASHES.tolist()
    strided = np.repeat(images[:30], 2, axis=0)[::2]
    assert (compute_perceptual_hash(strided) == HASHES).all()


@pytest.mark.parametrize("size", [32, 100, 256])
def test_other_sizes_of_the_array_give_nearly_the_same_hash(size: int) -> None:
    smaller = np.stack([np.asarray(image.resize((size, size), Image.Resampling.LANCZOS)) for image in PORTRAITS])
    groups = group_near_duplicates(np.concatenate([HASHES, compute_perceptual_hash(smaller)]))
    assert (groups[:30] == groups[30:]).mean() > 0.9


def test_flat_pictures_are_one_group_and_no_error() -> None:
    flat = np.stack([np.full((128, 128, 3), level, np.uint8) for level in (1, 40, 128, 255)])
    assert len(set(group_near_duplicates(compute_perceptual_hash(flat)))) == 1


def test_no_images_are_no_groups() -> None:
    assert compute_perceptual_hash(np.empty((0, 128, 128, 3), np.uint8)).shape == (0,)
    assert group_near_duplicates(np.empty(0, np.uint64)).shape == (0,)


@pytest.mark.parametrize("max_distance", range(LARGEST_MAX_DISTANCE + 1))
@pytest.mark.parametrize("large_bucket", [3, 256])
def test_groups_are_those_of_comparing_all_with_all(
    max_distance: int, large_bucket: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_duplicates, "_LARGE_BUCKET", large_bucket)  # few hashes, yet both ways of searching
    seeds = random_hashes(40, max_distance)
    families = [seeds] + [with_flipped_bits(seeds, flips, flips) for flips in range(1, 9)]
    few_bits = random_hashes(150, 7) & np.uint64(0x000F_0000_00FF_F00F)  # as alike as aligned faces, and more
    hashes = np.concatenate([*families, few_bits])
    assert group_near_duplicates(hashes, max_distance).tolist() == brute_force_groups(hashes, max_distance)


def test_small_and_large_buckets_are_searched_to_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = random_hashes(800) & np.uint64(0x7F_FFFF)  # most have a neighbour, and buckets hold up to ten
    groups = []
    for large_bucket, reached_each in ((3, 4), (3, 1000), (1000, 4)):
        monkeypatch.setattr(near_duplicates, "_LARGE_BUCKET", large_bucket)
        monkeypatch.setattr(near_duplicates, "_REACHED_EACH", reached_each)
        groups.append(group_near_duplicates(hashes).tolist())
    assert groups[0] == groups[1] == groups[2]
    assert 50 < len(set(groups[0])) < 750


def test_links_go_on_from_hash_to_hash() -> None:
    chain = np.array([0, 0xF, 0xFF, 0xFFF, 0xFFFF, 0x7F << 40], np.uint64)
    groups = group_near_duplicates(chain, 4)
    assert len(set(groups[:5])) == 1
    assert len(set(groups)) == 2
    assert len(set(group_near_duplicates(chain, 3))) == 6


def test_groups_and_their_numbers_do_not_depend_on_the_order() -> None:
    seeds = random_hashes(500)
    hashes = np.concatenate([seeds, with_flipped_bits(seeds, 2), with_flipped_bits(seeds, 4, 3)])
    groups = group_near_duplicates(hashes)
    order = np.random.default_rng(2).permutation(len(hashes))
    assert (group_near_duplicates(hashes[order]) == groups[order]).all()
    assert set(groups) == set(range(500))


@pytest.mark.parametrize("max_distance", [-1, LARGEST_MAX_DISTANCE + 1])
def test_a_distance_out_of_range_is_one_clear_sentence(max_distance: int) -> None:
    with pytest.raises(UserError, match="out of range: give 0 to 8"):
        group_near_duplicates(random_hashes(3), max_distance)


# At the scale of the full profile: comparing all with all would take minutes to hours


def test_200_000_images_with_their_copies() -> None:
    seeds = random_hashes(100_000)
    groups = group_near_duplicates(np.concatenate([seeds, with_flipped_bits(seeds, 4)]))
    assert (groups[:100_000] == groups[100_000:]).all()
    assert len(np.unique(groups)) == 100_000


def test_200_000_images_that_nearly_all_look_the_same() -> None:
    rng = np.random.default_rng(0)
    identical = np.full(150_000, 12345, np.uint64)
    flickering = with_flipped_bits(np.full(20_000, 2**63, np.uint64), 3)  # flat pictures whose noise decides a few bits
    half_shared = (rng.integers(0, 2**32, 30_000, dtype=np.uint64) << np.uint64(32)) | np.uint64(0xABCD1234)
    groups = group_near_duplicates(np.concatenate([identical, flickering, half_shared]))
    assert len(set(groups[:150_000])) == 1
    assert len(set(groups[150_000:170_000])) == 1
    assert len(np.unique(groups[170_000:])) > 25_000
