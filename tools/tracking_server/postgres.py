"""PostgreSQL as a child process that nothing but this machine's user can reach: a socket in a private folder."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from fakeface.system.errors import UserError

from . import subprocess_server

SYSTEM_USER = "postgres"  # who runs it where we are root, whom PostgreSQL refuses; Debian's package makes this user
_DEBIAN = Path("/usr/lib/postgresql")
_NEEDED = ("initdb", "postgres")


def find_programs(data: Path) -> Path:
    """The folder of PostgreSQL's programs: of the version that made `data`, or the newest.

    Raises:
        UserError: there is none, or none of that version.
    """
    found = {version: folder for folder in _folders() if (version := _version(folder))}
    if not found:
        raise UserError(
            "PostgreSQL's programs initdb and postgres are neither on the PATH nor in /usr/lib/postgresql; install "
            "them (Debian and Ubuntu: the package postgresql)."
        )
    made_by = data / "PG_VERSION"
    if not made_by.exists():
        return found[max(found, key=int)]
    wanted = made_by.read_text().strip()
    if wanted not in found:
        here = ", ".join(sorted(found, key=int))
        raise UserError(
            f"{data} was made by PostgreSQL {wanted}, and here is {here}; install that version "
            f"(Debian and Ubuntu: the package postgresql-{wanted}), or move the folder away for an empty one."
        )
    return found[wanted]


def _folders() -> list[Path]:
    on_path = shutil.which("initdb")
    return [*([Path(on_path).resolve().parent] if on_path else []), *sorted(_DEBIAN.glob("*/bin"))]


def _version(folder: Path) -> str:
    if not all((folder / name).exists() for name in _NEEDED):
        return ""
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"\) (\d+)", said)
    return match[1] if match else ""


def start(programs: Path, data: Path, socket_folder: Path, log: Path) -> subprocess_server.Child:
    """Start it on `data`, made if need be; it listens in `socket_folder`, which must be private and its path short.

    Raises:
        UserError: it does not start.
    """
    as_whom = _as_system_user(data, socket_folder) if os.geteuid() == 0 else []
    if not (data / "PG_VERSION").exists():
        _make(programs, data, as_whom)
    settings = {"listen_addresses": "", "unix_socket_directories": str(socket_folder), "fsync": "on"}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    command = [str(programs / "postgres"), "-D", str(data), *options]
    # SIGINT ends it without waiting for clients.
    server = subprocess_server.start("PostgreSQL", command, log, {}, signal.SIGINT, as_whom)
    server.wait_until(lambda: _answers(socket_folder), 60)
    return server


def _as_system_user(*folders: Path) -> Sequence[str]:
    """Words that run a command as SYSTEM_USER, who gets `folders`, wherever they lie."""
    try:
        user = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        raise UserError(
            f"PostgreSQL does not run as root, and there is no user {SYSTEM_USER!r} to run it; make one "
            f"(useradd --system {SYSTEM_USER}), or run this command as an ordinary user."
        ) from None
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    # The capability takes it through folders above it that are root's alone.
    reach = ("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override")
    return ["setpriv", "--reuid", SYSTEM_USER, "--regid", str(user.pw_gid), "--init-groups", *reach]


def _make(programs: Path, data: Path, as_whom: Sequence[str]) -> None:
    data.mkdir(parents=True, exist_ok=True)
    # Whoever can open the socket is let in, and the socket's folder is private.
    options = ["--username=mlflow", "--auth=trust", "--encoding=UTF8", "--locale=C", "--data-checksums"]
    command = [*as_whom, str(programs / "initdb"), "-D", str(data), *options]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        why = " ".join((made.stderr.strip() or made.stdout.strip()).splitlines()[-1:])
        raise UserError(f"PostgreSQL could not make {data} ({why}).")


def _answers(socket_folder: Path) -> bool:
    import psycopg2

    try:
        psycopg2.connect(host=str(socket_folder), user="mlflow", dbname="postgres").close()
    except psycopg2.OperationalError:
        return False
    return True


def make_database(socket_folder: Path, name: str) -> str:
    """Make the database if it is not there; returns SQLAlchemy's address of it."""
    import psycopg2

    with closing(psycopg2.connect(host=str(socket_folder), user="mlflow", dbname="postgres")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(f'CREATE DATABASE "{name}"')
    return f"postgresql+psycopg2://mlflow@/{name}?host={socket_folder}"
