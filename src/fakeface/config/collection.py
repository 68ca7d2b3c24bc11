"""What is known of a published collection of faces: its archives, and where they come from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

Label = Literal["real", "fake"]


Method = Literal["http", "drive", "kaggle", "manual"]


@dataclass(frozen=True)
class Checksum:
    """A digest in hexadecimal, and who states it."""

    algorithm: Literal["md5", "sha1", "sha256"]
    digest: str
    stated_by: str


@dataclass(frozen=True)
class Archive:
    """One file to fetch. `file` is also the name under which a file fetched by hand is found.

    `mirrors` are http addresses tried after `address`; they need a checksum that proves their bytes.
    `listing` is an archive.org metadata address that states size and checksum at the time of fetching.
    """

    file: str
    method: Method
    address: str
    checksums: tuple[Checksum, ...] = ()
    bytes: int | None = None
    images: int | None = None
    mirrors: tuple[str, ...] = ()
    listing: str | None = None
    unpack: bool = True

    def __post_init__(self) -> None:
        if self.mirrors and not self.checksums:
            raise ValueError(f"{self.file} has mirrors and no checksum to prove them by")

    @property
    def folder(self) -> str:
        """The folder, inside the collection's, that it is unpacked to."""
        return re.sub(r"\.(tar\.(gz|bz2|xz)|tgz|tar|zip)$", "", self.file)


@dataclass(frozen=True)
class Collection:
    """One published collection. `label` is None where the folders `real` and `fake` inside it say it."""

    name: str
    title: str
    label: Label | None
    used_for: str
    page: str
    licence: str
    citation: str
    archives: tuple[Archive, ...]
    images: int | None
    layout: str
    identity_from: str
    unverified: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
