"""A downloaded file against its stated size and checksums."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fakeface.system.archive_members import detect_archive_kind
from fakeface.system.archives import check_readable
from fakeface.system.checksums import hash_file_with
from fakeface.system.errors import UserError

if TYPE_CHECKING:
    pass


_WEB_PAGE: Final = re.compile(rb"\s*(<!doctype\s+html|<html|<head)", re.IGNORECASE)


_IS_WEB_PAGE: Final = "it is a web page, perhaps a login, instead of the file"


@dataclass(frozen=True)
class Expected:
    """What is known of a file beforehand: its size in bytes, and by algorithm its digest and who states it."""

    bytes: int | None = None
    digests: Mapping[str, tuple[str, str]] = field(default_factory=dict)


class DownloadError(Exception):
    """This address does not give the right file; another one, or a person, may. The text is the end of a sentence."""


def check_downloaded_file(path: Path, expected: Expected, name: str) -> None:
    """Compare a file with its stated size and digests; where no digest is known, read an archive to its end.

    Raises:
        DownloadError: it is not the file that was stated.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise DownloadError("it is empty")
    if _WEB_PAGE.match(head):
        raise DownloadError(_IS_WEB_PAGE)
    size = path.stat().st_size
    if expected.bytes is not None and size != expected.bytes:
        raise DownloadError(f"it has {size:,} bytes where {expected.bytes:,} are expected")
    for algorithm, digest in hash_file_with(path, expected.digests).items():
        stated, stated_by = expected.digests[algorithm]
        if digest != stated.lower():
            raise DownloadError(f"its {algorithm} is {digest} where {stated_by} states {stated}")
    if not expected.digests and re.search(r"\.(zip|tgz|tar|tar\.\w+)$", name):
        _check_archive(path)


def _check_archive(path: Path) -> None:
    if detect_archive_kind(path) is None:
        raise DownloadError("it is not an archive")
    try:
        check_readable(path)
    except UserError as error:
        raise DownloadError(str(error).partition(";")[0].replace(f"{path} ", "it ")) from error
