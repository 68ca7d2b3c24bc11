"""An S3-compatible object store as a child process: rclone, which keeps each bucket as a folder of plain files."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fakeface.system.errors import UserError

from . import subprocess_server

REGION = "us-east-1"  # S3's signature wants one; rclone takes any


@dataclass(frozen=True)
class Keys:
    """What a client signs its requests with."""

    access: str
    secret: str


def keys(path: Path) -> Keys:
    """The keys that `path` holds, drawn the first time."""
    if not path.exists():
        write_private(path, json.dumps(asdict(Keys(secrets.token_hex(10), secrets.token_hex(20)))))
    return Keys(**json.loads(path.read_text(encoding="utf-8")))


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def program() -> Path:
    """Rclone's program, which lies beside this Python.

    Raises:
        UserError: it does not.
    """
    found = Path(sys.executable).with_name("rclone")
    if not found.exists():
        raise UserError("The object store rclone is not installed; start the server by `make tracking-server`.")
    return found


def start(
    rclone: Path, folder: Path, buckets: Sequence[str], port: int, keys: Keys, log: Path
) -> subprocess_server.Child:
    """Serve `folder` on 127.0.0.1, with a bucket of each name; `rclone` is the program.

    Raises:
        UserError: it does not start.
    """
    for bucket in buckets:
        (folder / bucket).mkdir(parents=True, exist_ok=True)
    command = [str(rclone), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--config", os.devnull]
    command += ["--vfs-cache-mode", "off", "--dir-cache-time", "1s", str(folder)]
    environ = {"RCLONE_AUTH_KEY": f'"{keys.access},{keys.secret}"'}  # hidden from `ps`
    server = subprocess_server.start("The object store", command, log, environ, signal.SIGTERM)
    server.wait_until(lambda: _answers(port), 30)
    return server


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
    except urllib.error.HTTPError:
        return True  # an answer, to an unsigned request: no
    except OSError:
        return False
    return True
