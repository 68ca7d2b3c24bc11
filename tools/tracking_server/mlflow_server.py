"""MLflow's server as a child process: rows in PostgreSQL, files in the object store, nobody without a login."""

from __future__ import annotations

import secrets
import signal
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from fakeface.system.errors import UserError

from . import object_store, subprocess_server

USER = "fakeface"
# One worker answers all requests with threads, so a password that was changed holds at once in spite of the cache.
_LOGIN = """[mlflow]
default_permission = READ
database_uri = {database}
admin_username = {user}
auth_cache_ttl_seconds = 60
"""


@dataclass(frozen=True)
class Stores:
    """Where the server keeps what: SQLAlchemy's addresses of its databases, and a bucket."""

    rows: str
    users: str
    bucket: str
    endpoint: str
    keys: object_store.Keys


def password(path: Path, *, is_known: bool) -> str:
    """The first user's password that `path` holds, drawn the first time; `is_known` to the database already.

    Raises:
        UserError: the file is gone, and the database keeps only a hash.
    """
    if not path.exists():
        if is_known:
            raise UserError(
                f"{path} is gone, and the server does not know the password itself; put the file back (if you changed "
                "the password in MLflow, any text will do)."
            )
        object_store.write_private(path, secrets.token_urlsafe(15) + "\n")
    return path.read_text(encoding="utf-8").strip()


def start(folder: Path, stores: Stores, port: int, password: str, log: Path) -> subprocess_server.Child:
    """Serve on 127.0.0.1; `folder` gets its settings.

    Raises:
        UserError: it does not start.
    """
    settings = folder / "login.ini"
    object_store.write_private(settings, _LOGIN.format(database=stores.users, user=USER))
    secret = folder / "session_key"
    if not secret.exists():
        object_store.write_private(secret, secrets.token_hex(32))
    environ = {
        "MLFLOW_BACKEND_STORE_URI": stores.rows,
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{stores.bucket}",
        "MLFLOW_S3_ENDPOINT_URL": stores.endpoint,
        "AWS_ACCESS_KEY_ID": stores.keys.access,
        "AWS_SECRET_ACCESS_KEY": stores.keys.secret,
        "AWS_DEFAULT_REGION": object_store.REGION,
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secret.read_text(encoding="utf-8"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # works on traces of language models, of which there are none
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_TRACKING_URI": "",  # the user's own settings are for clients
    }
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--serve-artifacts"]
    server = subprocess_server.start("MLflow's server", command, log, environ, signal.SIGTERM)
    server.wait_until(lambda: _answers(port), 120)
    return server


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
