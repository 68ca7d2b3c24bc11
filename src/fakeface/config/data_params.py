"""The section `data` of params.yaml: profiles, their sources, and how images are shared out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from fakeface.config.catalog import get_source
from fakeface.config.section import _Section
from fakeface.constants import HELDOUT
from fakeface.images.preprocessing import Crop, Limits, Reencoding
from fakeface.system.errors import UserError

Share = Annotated[float, Field(ge=0, le=1)]


Positive = Annotated[int, Field(ge=1)]


SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


Label = Literal["real", "fake"]


Role = Literal["stage1", "stage2", "stage3", "heldout"]


class PartCounts(_Section):
    """Images of one source in each part of a stage."""

    train: Positive
    valid: Positive
    test: Positive

    @property
    def total(self) -> int:
        """Images in all three parts."""
        return self.train + self.valid + self.test


def _tag_count(wanted: Any) -> str:
    return "[parts]" if isinstance(wanted, Mapping | PartCounts) else "[number]"


# Told apart by a tag, so that an error names what is wrong in the one that was meant
Count = Annotated[
    Annotated[Positive, Tag("[number]")] | Annotated[PartCounts, Tag("[parts]")], Discriminator(_tag_count)
]


class Source(_Section):
    """Images of one label, where they lie, and their place: a share in each role (`use`) or a number (`take`)."""

    label: Label
    use: Mapping[Role, Share] = {}
    take: Mapping[Role, Count] = {}
    folder: str | None = None
    collection: str | None = None
    crop: str = "centre"

    @field_validator("crop")
    @classmethod
    def _check_crop(cls, crop: str) -> str:
        try:
            Crop.parse(crop)
        except UserError as error:
            raise ValueError(str(error).removesuffix(".")) from None
        return crop

    @field_validator("folder")
    @classmethod
    def _check_folder(cls, folder: str | None) -> str | None:
        # DVC watches data.root alone, so a change elsewhere would go unnoticed
        if folder is not None and (PurePosixPath(folder).is_absolute() or ".." in PurePosixPath(folder).parts):
            raise ValueError("give a folder or archive under data.root, without a leading / or ..")
        return folder

    @field_validator("take", mode="before")
    @classmethod
    def _check_counts(cls, take: Any) -> Any:
        for role, wanted in take.items() if isinstance(take, Mapping) else ():
            by_part = _tag_count(wanted) == "[parts]" and role != HELDOUT
            if not by_part and (type(wanted) is not int or wanted < 1):
                parts = "" if role == HELDOUT else ", or {train: …, valid: …, test: …} with three of them"
                raise ValueError(f"{role} must be a whole number of images above 0{parts}, not {wanted!r}")
        return take

    @model_validator(mode="after")
    def _check_place(self) -> Source:
        if bool(self.use) == bool(self.take):
            raise ValueError("give either `use` (a share of the images in each role) or `take` (a number of them)")
        total = sum(self.use.values())
        if self.use and (total <= 0 or total > 1 + 1e-9):
            raise ValueError(f"the shares under `use` must add up to more than 0 and at most 1, not {total:g}")
        return self

    @model_validator(mode="after")
    def _check_collection(self) -> Source:
        if self.collection is None:
            return self
        try:
            label = get_source(self.collection).label
        except UserError as error:
            raise ValueError(str(error).removesuffix(".")) from None
        if label not in (None, self.label):
            raise ValueError(f"the catalogue's collection '{self.collection}' is {label}, not {self.label}")
        return self

    def taken(self) -> dict[str, int]:
        """Return how many images `take` asks for, by role."""
        return {role: wanted.total if isinstance(wanted, PartCounts) else wanted for role, wanted in self.take.items()}


class Profile(_Section):
    """A named set of sources that make a whole experiment."""

    note: str | None
    sources: Mapping[SourceName, Source]


class PartShares(_Section):
    """How a stage's images are cut into train, valid and test."""

    train: Share
    valid: Share
    test: Share

    @model_validator(mode="after")
    def _check_sum(self) -> PartShares:
        total = self.train + self.valid + self.test
        if abs(total - 1) > 1e-9 or min(self.train, self.valid, self.test) <= 0:
            raise ValueError(f"train, valid and test must each be above 0 and add up to 1; they give {total:g}")
        return self


class Reencode(_Section):
    """One size and JPEG quality that every picture goes through before the network's own size."""

    quality: Annotated[int, Field(ge=1, le=100)]
    size: Annotated[int, Field(ge=32, le=2048)]


class Data(_Section):
    """Where the images are and how they are shared out."""

    root: Annotated[str, Field(min_length=1)]
    profile: str
    collections: Annotated[str, Field(min_length=1)]
    rejected_share: Share
    max_megabytes: Annotated[float, Field(gt=0)]
    max_megapixels: Annotated[float, Field(gt=0)]
    near_duplicate_bits: Annotated[int, Field(ge=0, le=8)]
    reencode: Reencode | None = None
    split: PartShares
    profiles: Mapping[SourceName, Profile]

    @model_validator(mode="after")
    def _check_profile(self) -> Data:
        if self.profile != "auto" and self.profile not in self.profiles:
            raise ValueError(f"profile is '{self.profile}'; known are auto, {', '.join(self.profiles)}")
        return self

    def get_limits(self) -> Limits:
        """Return what is set aside undecoded."""
        return Limits(int(self.max_megabytes * 1e6), int(self.max_megapixels * 1e6))

    def get_reencoding(self) -> Reencoding | None:
        """Return `reencode` as the decoder takes it."""
        return Reencoding(**self.reencode.model_dump()) if self.reencode else None
