"""Folders of small pictures for tests, drawn from random numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fakeface.config.data_params import Data, PartShares, Profile, Source


def picture(seed: int, side: int = 48) -> Image.Image:
    """Draw soft blobs: two seeds look different, one seed always the same."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def picture_bytes(seed: int, form: str = "PNG", side: int = 48) -> bytes:
    buffer = io.BytesIO()
    picture(seed, side).save(buffer, form, **({"quality": 90} if form == "JPEG" else {}))
    return buffer.getvalue()


def fill_folder(folder: Path, seeds: Sequence[int], form: str = "PNG") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / f"{seed:05d}.{form.lower()}").write_bytes(picture_bytes(seed, form))


def profile_of(**sources: tuple[str, dict[str, float]]) -> Profile:
    return Profile(
        note=None,
        sources={name: Source.model_validate({"label": label, "use": use}) for name, (label, use) in sources.items()},
    )


def data_of(root: Path, profiles: dict[str, Profile], profile: str = "auto", rejected_share: float = 0.01) -> Data:
    return Data(
        root=str(root),
        profile=profile,
        collections="collections",
        rejected_share=rejected_share,
        max_megabytes=1,
        max_megapixels=1,
        near_duplicate_bits=4,
        split=PartShares(train=0.6, valid=0.2, test=0.2),
        profiles=profiles,
    )
