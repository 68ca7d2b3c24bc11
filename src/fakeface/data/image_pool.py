"""Images of one or several stores under one numbering, with their labels and sources; no TensorFlow here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fakeface.data.image_store import Store

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImagePool:
    """Images of one or several stores under one numbering.

    `store_of` and `index_of` (both (N,) int64) say where image i lies; labels (N,) uint8; sources (N,) str.
    """

    stores: tuple[Store, ...]
    store_of: Indices
    index_of: Indices
    labels: npt.NDArray[np.uint8]
    sources: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.labels)

    def paths(self) -> list[str]:
        """Return the path of each image as the manifest has it."""
        pairs = zip(self.store_of, self.index_of, strict=True)
        return [str(self.stores[store].paths[index]) for store, index in pairs]

    def subset(self, chosen: npt.NDArray[np.bool_]) -> ImagePool:
        """Return the pool of the images where `chosen` (N,) is true."""
        return ImagePool(
            self.stores, self.store_of[chosen], self.index_of[chosen], self.labels[chosen], self.sources[chosen]
        )

    def gather(self, positions: Indices) -> npt.NDArray[np.uint8]:
        """Return images (len(positions), size, size, 3) uint8 in the order of `positions`."""
        size = self.stores[0].images.shape[1]
        batch = np.empty((len(positions), size, size, 3), np.uint8)
        for number, store in enumerate(self.stores):
            here = np.flatnonzero(self.store_of[positions] == number)
            batch[here] = store.images[self.index_of[positions[here]]]
        return batch


def gather_pool(stores: Sequence[Store], part: str) -> ImagePool:
    """Gather one part (train, valid, test or heldout) of several stores."""
    chosen = [store.select(part) for store in stores]
    return ImagePool(
        stores=tuple(stores),
        store_of=np.concatenate([np.full(len(rows), number, np.int64) for number, rows in enumerate(chosen)]),
        index_of=np.concatenate(chosen).astype(np.int64),
        labels=np.concatenate([store.labels[rows] for store, rows in zip(stores, chosen, strict=True)]),
        sources=np.concatenate([store.sources[rows] for store, rows in zip(stores, chosen, strict=True)]),
    )


def concat_pools(pools: Sequence[ImagePool]) -> ImagePool:
    """Put pools one after the other."""
    offsets = np.cumsum([0, *(len(pool.stores) for pool in pools)])
    return ImagePool(
        stores=tuple(store for pool in pools for store in pool.stores),
        store_of=np.concatenate([pool.store_of + offset for pool, offset in zip(pools, offsets, strict=False)]),
        index_of=np.concatenate([pool.index_of for pool in pools]),
        labels=np.concatenate([pool.labels for pool in pools]),
        sources=np.concatenate([pool.sources for pool in pools]),
    )
