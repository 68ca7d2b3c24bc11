"""Copies of one picture that differ in size, compression or brightness: found by hash, gathered into groups."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fakeface.system.errors import UserError

_Hashes: TypeAlias = NDArray[np.uint64]
_Numbers: TypeAlias = NDArray[np.int64]

BITS = 64

# Measured on 9,750 images (UTKFace, FFHQ, StyleGAN, All-Age-Faces, LFW and 650 others; 47.5 million pairs) in which 54
# pairs show the same face in the same photograph or from the same code of the generator, as seen by eye:
#
#   distance up to             0      2      4      6      8     10
#   of the 54, found           3     12     22     30     41     47
#   different faces            0      0      0      9     64    489
#
# Copies saved as JPEG of quality 50, halved in size at quality 30, or 15 % brighter lie within 4 for at least 98 of 100
# images; copies cropped by 2 % for 72. Distances are even, because every hash has as many ones as zeros.
# Wrong pairs grow with the square of the number of images: at 200,000, the 9 would be some 4,000.
MAX_DISTANCE = 4
LARGEST_MAX_DISTANCE = 8  # beyond it most groups hold different people, and the search is no longer quick

_SHARED_BANDS = 3
_LARGE_BUCKET = 256  # up to here, comparing all with all is quickest
_REACHED_EACH = 4  # hashes that a comparison must reach on average to go on spreading


def compute_perceptual_hash(images: NDArray[np.uint8]) -> _Hashes:
    """Hash uint8 RGB images (N, S, S, 3) into uint64 (N,); pictures that look alike differ in few bits.

    The DCT hash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), section 3.2.1:
    a bit tells whether one low-frequency coefficient of the luminance is above the median of all. Two changes: the
    coefficients are those of the whole picture, not of one reduced before; and frequencies that are even in both
    directions are left out, because they hold what all centred portraits share.
    Computed in whole numbers (exact for S up to 256), so that every machine and every batch size gives the same bits.
    """
    size = images.shape[1]
    rows = np.arange(1, max(max(pair) for pair in _FREQUENCIES) + 1)
    cosines = np.rint(1024 * np.cos(np.pi / size * np.outer(rows, np.arange(size) + 0.5)))
    # Luminance by ITU-R BT.601 in 256ths, folded into the transform along the rows.
    weighted = np.kron(cosines, [77, 150, 29]).T
    vertical, horizontal = (np.array(_FREQUENCIES) - 1).T
    hashes = np.empty(len(images), np.uint64)
    for start in range(0, len(images), 64):
        pixels = np.asarray(images[start : start + 64], np.float64).reshape(-1, 3 * size)
        coefficients = (cosines @ (pixels @ weighted).reshape(-1, size, len(rows)))[:, vertical, horizontal]
        above = coefficients > np.median(coefficients, axis=1, keepdims=True)
        packed = np.ascontiguousarray(np.packbits(above, axis=1, bitorder="little"))
        hashes[start : start + 64] = packed.view("<u8")[:, 0]
    return hashes


def _compute_low_frequencies() -> list[tuple[int, int]]:
    pairs = [(i, j) for i in range(1, 16) for j in range(1, 16) if i % 2 or j % 2]
    return sorted(pairs, key=lambda pair: (pair[0] ** 2 + pair[1] ** 2, pair))[:BITS]


_FREQUENCIES = _compute_low_frequencies()


def group_near_duplicates(hashes: _Hashes, max_distance: int = MAX_DISTANCE) -> _Numbers:
    """Give every hash (N,) the number of its group, int64 (N,); hashes that differ in few bits share one.

    Two are linked if at most `max_distance` bits differ, and links go on: if A is near B and B near C, all three are
    one group. Every pair within the distance is found. Groups are numbered from 0 by their smallest hash, so neither
    grouping nor numbers depend on the order.

    Raises:
        UserError: `max_distance` is not within 0 to 8.
    """
    if not 0 <= max_distance <= LARGEST_MAX_DISTANCE:
        raise UserError(
            f"The near-duplicate distance {max_distance} is out of range: give 0 to {LARGEST_MAX_DISTANCE} bits."
        )
    distinct, inverse = np.unique(hashes, return_inverse=True)
    _, first, component = np.unique(_find_components(distinct, max_distance), return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[component][inverse]


def _find_components(hashes: _Hashes, max_distance: int) -> _Numbers:
    """Number the connected components of distinct hashes; the numbers may have gaps."""
    labels = np.arange(len(hashes))
    for mask in _build_masks(hashes, max_distance):
        keys = hashes & mask
        order = np.argsort(keys)
        starts = np.flatnonzero(np.r_[True, np.diff(keys[order]) > 0])
        lengths = np.diff(np.r_[starts, len(keys)])
        links = list(_link_small_buckets(hashes, order, lengths, labels, max_distance))
        for start, length in zip(starts[lengths > _LARGE_BUCKET], lengths[lengths > _LARGE_BUCKET], strict=True):
            links.extend(_link_large_bucket(hashes, order[start : start + length], labels, max_distance))
        labels = _joined(labels, links)
    return labels


def _build_masks(hashes: _Hashes, max_distance: int) -> Iterator[np.uint64]:
    """Sets of bits, of which two hashes within the distance are equal in at least one.

    Of max_distance + n bands of bits, such hashes share at least n entirely (Manku, Jain and Das Sarma, "Detecting
    Near-Duplicates for Web Crawling", 2007); the masks are all choices of n bands. Each band gets some of the bits
    that tell the hashes apart best, and bits that are the same in all are left out.
    """
    bits = np.uint64(1) << np.arange(BITS, dtype=np.uint64)
    share = np.array([((hashes & bit) > 0).mean() for bit in bits]) if len(hashes) else np.zeros(BITS)
    varying = [int(bits[place]) for place in np.argsort(np.abs(share - 0.5), kind="stable") if 0 < share[place] < 1]
    if max_distance == 0 or not varying:
        return
    shared = min(_SHARED_BANDS, len(varying) - max_distance)
    if shared <= 0:
        yield np.uint64(0)  # too few bits differ for any two to be apart: one bucket
        return
    bands = [sum(varying[first :: max_distance + shared]) for first in range(max_distance + shared)]
    yield from (np.uint64(sum(chosen)) for chosen in combinations(bands, shared))


def _link_small_buckets(
    hashes: _Hashes, order: _Numbers, lengths: _Numbers, labels: _Numbers, max_distance: int
) -> Iterator[_Numbers]:
    """Compare each hash with every later one of its bucket that it is not linked to yet; give pairs (2, n)."""
    ends = np.repeat(np.cumsum(lengths), lengths)
    places, offset = np.flatnonzero(np.repeat(lengths <= _LARGE_BUCKET, lengths)), 1
    while len(places := places[places + offset < ends[places]]):
        pairs = order[np.stack([places, places + offset])]
        pairs = pairs[:, labels[pairs[0]] != labels[pairs[1]]]
        yield pairs[:, _count_differing_bits(hashes[pairs[0]], hashes[pairs[1]]) <= max_distance]
        offset += 1


def _link_large_bucket(hashes: _Hashes, bucket: _Numbers, labels: _Numbers, max_distance: int) -> Iterator[_Numbers]:
    """Spread from hash to hash, each compared only with those not reached yet; give pairs (2, n).

    A bucket of thousands mostly holds one picture's many variants, or flat pictures: nearly all are reached at once.
    Where few are, the bits that its hashes do not share divide it further.
    """
    if (labels[bucket] == labels[bucket[0]]).all():
        return
    unreached, reached, compared = bucket, [bucket[0]], 0
    while len(unreached) and len(bucket) - len(unreached) >= _REACHED_EACH * (compared - _LARGE_BUCKET):
        if not reached:
            reached, unreached = [unreached[0]], unreached[1:]
        one = reached.pop()
        near = _count_differing_bits(hashes[one], hashes[unreached]) <= max_distance
        found, unreached = unreached[near], unreached[~near]
        yield np.stack([np.full_like(found, one), found])
        reached.extend(found)
        compared += 1
    if len(unreached):
        rest = np.r_[np.array(reached, np.int64), unreached]
        _, first, part = np.unique(_find_components(hashes[rest], max_distance), return_index=True, return_inverse=True)
        yield np.stack([rest[first[part]], rest])


def _joined(labels: _Numbers, links: list[_Numbers]) -> _Numbers:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    one, other = labels[np.concatenate(links, axis=1)] if links else np.empty((2, 0), np.int64)
    if not len(one):
        return labels
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(len(labels), len(labels)))
    joined: _Numbers = connected_components(graph, directed=False)[1][labels]
    return joined


def _count_differing_bits(one: _Hashes | np.uint64, other: _Hashes) -> NDArray[np.uint64]:
    """Count differing bits; the sums of ever larger bit fields are those of Warren, "Hacker's Delight", section 5-1."""
    bits = one ^ other
    bits = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (bits * np.uint64(0x0101010101010101)) >> np.uint64(56)
