"""Which files of a folder are taken for images, and which are refused by their name or kind."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from fakeface.system.archive_members import RECORD

# What lies beside images in published collections. Anything else is taken for an image and proven by decoding it.
IGNORED_SUFFIXES = {".md", ".csv", ".tsv", ".txt", ".json", ".ini", ".db", ".dvc"}
IGNORED_STEMS = {"readme", "license", "licence", "sources", "citation", "manifest"}
IGNORED_FOLDERS = {"__MACOSX"}


@dataclass(frozen=True)
class Listing:
    """The files of one folder: `images` by relative POSIX path, sorted; `refused` with escaped paths and reasons."""

    images: list[str]
    refused: list[tuple[str, str]]
    ignored: int  # hidden files and folders, documents and tables


def list_images(folder: Path) -> Listing:
    """List a folder's image files, in all its subfolders; symbolic links to folders are not followed.

    Raises:
        OSError: a folder cannot be read.
    """
    base = os.path.realpath(folder)
    images: list[str] = []
    refused: list[tuple[str, str]] = []
    ignored = 0
    for where, subfolders, names in os.walk(base, onerror=_raise_error):
        skipped = {name for name in subfolders if name.startswith(".") or name in IGNORED_FOLDERS}
        ignored += len(skipped)
        subfolders[:] = sorted(set(subfolders) - skipped)
        links = [name for name in subfolders if Path(where, name).is_symlink()]
        inside = where[len(base) :].strip("/")
        for name in names + links:
            # Plain strings: a Path for each of 100,000 files takes longer than all that is asked of them
            relative = f"{inside}/{name}" if inside else name
            if is_passed_over(name):
                ignored += name != RECORD
            elif (reason := _find_refusal(f"{where}/{name}", relative, base)) is not None:
                refused.append((escape_name(relative), reason))
            else:
                images.append(relative)
    return Listing(sorted(images), sorted(refused), ignored)


def escape_name(name: str) -> str:
    r"""Write a file name in printable UTF-8: bytes that are none, and control characters, as \\xNN."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def is_passed_over(name: str) -> bool:
    """Whether a file is hidden, a document or a table, by its name."""
    suffix = os.path.splitext(name)[1]  # noqa: PTH122
    if name.startswith(".") or suffix.lower() in IGNORED_SUFFIXES:
        return True
    return not suffix and name.lower() in IGNORED_STEMS


def _find_refusal(path: str, relative: str, base: str) -> str | None:
    try:
        relative.encode("utf-8")
    except UnicodeEncodeError:
        return "name is not UTF-8"
    if any(letter < " " or letter == "\x7f" for letter in relative):
        return "name has a line break or control character"
    try:
        mode = os.lstat(path).st_mode
        return _find_link_refusal(Path(path), base) if stat.S_ISLNK(mode) else _find_kind_refusal(mode)
    except OSError:
        return "cannot be read"


def _find_link_refusal(path: Path, base: str) -> str | None:
    try:
        mode = path.stat().st_mode
    except OSError:
        return "symbolic link to nothing"
    if not path.resolve().is_relative_to(base):
        return "symbolic link out of the folder"
    return _find_kind_refusal(mode)


def _find_kind_refusal(mode: int) -> str | None:
    if stat.S_ISDIR(mode):
        return "symbolic link to a folder"
    return None if stat.S_ISREG(mode) else "not a regular file"


def _raise_error(error: OSError) -> None:
    raise error
