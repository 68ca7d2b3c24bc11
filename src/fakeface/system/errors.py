"""Errors a user can mend, and how they end a command: one sentence, no traceback."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SYSTEM_ERRORS = {
    errno.ENOSPC: "no space is left on the disk; free some and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EACCES: "permission is denied; make it readable and writable for you and run the same command again",
    errno.EPERM: "the operation is not permitted; check the owner and mode of the file",
    errno.EROFS: "the file system is read-only; use a writable folder",
    errno.ENOENT: "there is no such file or folder; check the path",
    errno.EEXIST: "a file or folder of that name is in the way; move it away",
    errno.EIO: "the disk or network drive does not answer rightly; check it",
    errno.ELOOP: "its symbolic links go round in a circle; remove one of them",
    errno.ENAMETOOLONG: "the name is too long for this file system; use a shorter one",
    errno.EBUSY: "another program is using it; end that and run the same command again",
    errno.EISDIR: "a file is expected there, and it is a folder; move the folder away",
    errno.ENOTDIR: "a folder is expected there, and part of the path is a file; move the file away",
}
_SIGNALS = {128 + number: number.name for number in (signal.SIGTERM, signal.SIGHUP)}


class UserError(Exception):
    """Something the user can mend; its text is one sentence that names what is wrong and what to do."""


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End the process with one sentence: after a UserError or an operating system error (exit code 1), and a signal.

    Ctrl-C exits with 130; SystemExit(143) and (129), which handlers of SIGTERM and SIGHUP raise, keep their codes.
    """
    try:
        yield
    except KeyboardInterrupt:
        _exit_with("stopped by you; run the same command again to go on with what is left.", 130)
    except SystemExit as end:
        if end.code not in _SIGNALS:
            raise
        _exit_with(f"stopped by {_SIGNALS[end.code]}; run the same command again to go on with what is left.", end.code)
    except UserError as error:
        _exit_with(str(error))
    except OSError as error:
        if error.errno is None:
            raise
        what = _SYSTEM_ERRORS.get(error.errno, f"{error.strerror}; mend that and run the same command again")
        _exit_with(f"{error.filename or 'A file'}: {what}.")
    except MemoryError:
        _exit_with("the memory is used up; close other programs, or set a smaller batch_size in params.yaml.")


def _exit_with(sentence: str, code: int = 1) -> None:
    print(f"fakeface: {' '.join(sentence.split())}", file=sys.stderr, flush=True)
    raise SystemExit(code)
