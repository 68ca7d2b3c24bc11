"""One file, address → disk: resumed, retried, proven, and without its name until it is whole."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fakeface.data.download.verify_download import _IS_WEB_PAGE, DownloadError, Expected, check_downloaded_file
from fakeface.system.archive_members import NO_SPACE, Progress
from fakeface.system.errors import UserError

if TYPE_CHECKING:
    import requests

_NETWORK_BLOCK: Final = 1 << 16  # a connection that breaks costs the block that was under way
TIMEOUT: Final = (10.0, 60.0)  # seconds to connect, seconds between two bytes
_LONGEST_WAIT: Final = 60.0  # seconds
_OK, _PARTIAL, _RANGE_NOT_SATISFIABLE, _TOO_MANY, _SERVER_ERROR = 200, 206, 416, 429, 500


@dataclass(frozen=True)
class RetryPolicy:
    """How often to try again without a byte of progress, and how many seconds to wait at first (doubling)."""

    retries: int = 5
    backoff: float = 1.0


class _RetryableError(Exception):
    """A fault that a second try may mend; `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def download(
    url: str,
    target: Path,
    expected: Expected | None = None,
    *,
    progress: Progress | None = None,
    patience: RetryPolicy | None = None,
) -> None:
    """Fetch `url` to `target` by way of `target.part`, going on from where an earlier try broke off.

    The file gets its name only once its size and every known digest fit; where no digest is known, an archive must at
    least be readable to its end.

    Raises:
        UserError: the disk is full.
        DownloadError: the address does not give the file.
    """
    import requests

    expected, patience = expected or Expected(), patience or RetryPolicy()
    part = PartialFile(target)
    failures = 0
    with requests.Session() as session:
        session.headers.update({"User-Agent": "fakeface", "Accept-Encoding": "identity"})
        while True:
            before = part.size()
            try:
                _transfer(session, url, part, expected, progress)
                break
            except (requests.RequestException, _RetryableError) as error:
                failures = 1 if part.size() > before else failures + 1
                if failures > patience.retries or not _is_retryable(error):
                    raise DownloadError(describe_error(error)) from error
                wait = max(patience.backoff * 2 ** (failures - 1), getattr(error, "wait", 0.0))
                time.sleep(min(wait, _LONGEST_WAIT))
    accept_part(part, expected)


@contextlib.contextmanager
def explain_full_disk(target: Path) -> Iterator[None]:
    """Turn the operating system's word for a full disk into a UserError that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise UserError(
            f"The disk is full while {target} is fetched; what came is kept: free some space and run the same command."
        ) from error


def describe_error(error: Exception) -> str:
    """A network library's error as the end of a sentence."""
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not accepted"
    if isinstance(error, requests.Timeout):
        return "it does not answer in time"
    if isinstance(error, (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        return "the connection fails or breaks off"
    lines = [line.strip(" .:") for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


class PartialFile:
    """`<file>.part` and, beside it, which version of which address it is the beginning of."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self.state = target.with_name(target.name + ".part.json")

    def size(self) -> int:
        """Return the bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    def drop(self) -> None:
        """Forget what came."""
        self.path.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)

    def begin(self, url: str, answer: requests.Response) -> None:
        """Start anew with the version that the server answers with."""
        etag = answer.headers.get("ETag", "")
        validator = answer.headers.get("Last-Modified", "") if etag.startswith("W/") or not etag else etag
        self.path.unlink(missing_ok=True)
        self.state.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")

    def validator(self, url: str) -> str | None:
        """What the server must confirm before going on; None where these bytes cannot be gone on from."""
        try:
            state = json.loads(self.state.read_text(encoding="utf-8"))
            return str(state["validator"]) or None if state["url"] == url else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _is_retryable(error: Exception) -> bool:
    import requests

    lasting = (requests.exceptions.SSLError, requests.exceptions.ProxyError)
    passing = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, _RetryableError)
    return isinstance(error, passing) and not isinstance(error, lasting)


def _transfer(
    session: requests.Session, url: str, part: PartialFile, expected: Expected, progress: Progress | None
) -> None:
    validator = part.validator(url)
    have = part.size() if validator else 0
    headers = {"Range": f"bytes={have}-", "If-Range": validator} if have and validator else {}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        start, total = _parse_range(answer, have, part)
        if "text/html" in answer.headers.get("Content-Type", ""):
            raise DownloadError(_IS_WEB_PAGE)
        if total is not None and expected.bytes is not None and total != expected.bytes:
            raise DownloadError(f"it offers {total:,} bytes where {expected.bytes:,} are expected")
        _check_free_space(part.path.parent, (total or expected.bytes or 0) - start)
        if start == 0:
            part.begin(url, answer)
        _append(answer.iter_content(_NETWORK_BLOCK), part, start, total, progress)
    if total is not None and part.size() != total:
        raise _RetryableError(f"it broke off after {part.size():,} of {total:,} bytes")


def _parse_range(answer: requests.Response, have: int, part: PartialFile) -> tuple[int, int | None]:
    """Where the coming bytes begin and the whole file's size, if told; raises where they cannot be used."""
    status = answer.status_code
    if status == _TOO_MANY or status >= _SERVER_ERROR:
        asked = answer.headers.get("Retry-After", "")
        raise _RetryableError(f"it answers {status} {answer.reason}", float(asked) if asked.isdigit() else 0.0)
    if status == _RANGE_NOT_SATISFIABLE and have:
        part.drop()
        raise _RetryableError(f"it has no more than {have:,} bytes to give")
    if status not in (_OK, _PARTIAL):
        raise DownloadError(f"it answers {status} {answer.reason}")
    if status == _PARTIAL:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != have:
            part.drop()
            raise _RetryableError("it sends another range than it was asked for")
        return have, None if found[2] == "*" else int(found[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() and "Content-Encoding" not in answer.headers else None


def _append(
    blocks: Iterable[bytes], part: PartialFile, start: int, total: int | None, progress: Progress | None
) -> None:
    done = start
    with explain_full_disk(part.target), part.path.open("ab", buffering=0) as file:
        for block in blocks:
            view = memoryview(block)
            while view:  # a nearly full disk takes a part of it only
                view = view[file.write(view) :]
            done += len(block)
            if progress:
                progress(part.target.name, done, total)


def _check_free_space(folder: Path, count: int) -> None:
    free = shutil.disk_usage(folder).free
    if count > free:
        raise UserError(
            f"{folder} has {free:,} bytes free where {count:,} are still to come; free some and run the same command."
        )


def accept_part(part: PartialFile, expected: Expected) -> None:
    """Check what came and give it its name."""
    try:
        check_downloaded_file(part.path, expected, part.target.name)
    except DownloadError:
        part.drop()  # nothing to go on from
        raise
    part.path.replace(part.target)
    part.state.unlink(missing_ok=True)
