"""Which person or photograph a file of a known collection shows, from its name or a table beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from fakeface.config.catalog import CELEBA_IDENTITIES
from fakeface.system.errors import UserError

IdentityReader = Callable[[str], str | None]


def read_utkface_photograph(path: str) -> str | None:
    """`utkface:<date and time>`, the same for a photograph's aligned and its uncropped form."""
    found = re.search(r"_(\d{14,17})(?!\d)", PurePosixPath(path).name)
    return f"utkface:{found[1]}" if found else None


def read_lag_person(path: str) -> str | None:
    """`lag:<person>` by the folder, or the folder above where that is `y` (the younger faces)."""
    folders = list(PurePosixPath(path).parts[:-1])
    if folders and folders[-1] == "y":
        folders.pop()
    if not folders or folders[-1].startswith(("LAGdataset", "lag")):
        return None
    return f"lag:{folders[-1]}"


def read_lfw_person(path: str) -> str | None:
    """`lfw:<Name>` of `Name_NNNN.jpg`."""
    found = re.fullmatch(r"(.+)_\d{4}", PurePosixPath(path).stem)
    return f"lfw:{found[1]}" if found else None


def read_ffhq_or_stylegan_image(path: str) -> str | None:
    """`ffhq:<five digits>` or `stylegan:<ten capitals and digits>`: one image, whichever collection holds it."""
    stem = PurePosixPath(path).stem
    if re.fullmatch(r"\d{5}", stem):
        return f"ffhq:{stem}"
    return f"stylegan:{stem}" if re.fullmatch(r"[0-9A-Z]{10}", stem) else None


def read_celeba_table(table: Path) -> IdentityReader:
    """A reader of `celeba:<number>` by image name from identity_CelebA.txt (lines of `000001.jpg 2880`)."""
    people: dict[str, str] = {}
    for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if len(words) != 2 or not words[1].isdigit():
            raise UserError(f"{table} line {number} is not an image and a number; fetch celeba again.")
        people[words[0]] = f"celeba:{words[1]}"
    return lambda path: people.get(PurePosixPath(path).name)


_READERS: Final[Mapping[str, IdentityReader]] = {
    "utkface_aligned": read_utkface_photograph,
    "utkface_wild": read_utkface_photograph,
    "fakes_1m": read_ffhq_or_stylegan_image,
    "faces_140k": read_ffhq_or_stylegan_image,
    "stylegan": read_ffhq_or_stylegan_image,
    "ffhq": read_ffhq_or_stylegan_image,
    "lag": read_lag_person,
    "lfw": read_lfw_person,
}


def choose_identity_reader(source: str, folder: Path | None = None) -> IdentityReader:
    """How to read, from an image's path inside `source`, who or which photograph it shows; None where nothing tells.

    A source named after a part of a collection (`fakes_1m_00`) is read as the collection is. `folder` is the source's
    own; CelebA's people are read from the table in it or beside it.
    """
    if source == "celeba" and folder is not None:
        for place in (folder, folder.parent):
            if (place / CELEBA_IDENTITIES).is_file():
                return read_celeba_table(place / CELEBA_IDENTITIES)
    name = source
    while name and name not in _READERS:
        name = name.rpartition("_")[0]
    return _READERS.get(name, lambda path: None)
