"""MLflow's page on this project's runs."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from fakeface.errors import UserError
from fakeface.tracking import local_files
from fakeface.tracking.identity import main_folder
from fakeface.tracking.mlflow_store import QUIET, MlflowStore
from fakeface.tracking.reasons import reason
from fakeface.tracking.runs import bury_the_dead, deliver


def serve_page(project_root: Path, host: str, port: int) -> None:
    """Close the rows of killed runs, send what waits, and become MLflow's server until Ctrl-C.

    Raises:
        UserError: the port is taken, or the runs are on a server that has a page of its own.
    """
    elsewhere = os.environ.get("MLFLOW_TRACKING_URI", "")
    if elsewhere.startswith(("http://", "https://")):
        raise UserError("MLFLOW_TRACKING_URI names a server, which has its own page; open that address in a browser.")
    _refuse_taken_port(host, port)
    main = main_folder(project_root)
    bury_the_dead(project_root)
    deliver(project_root)
    uri = elsewhere or local_files.uri(main)
    try:
        MlflowStore(main, uri).connect()
    except Exception as error:
        raise UserError(f"The tracking store {uri} cannot be opened: {reason(error)}.") from None
    print(f"MLflow's page: http://{host}:{port} (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    command += ["--backend-store-uri", uri, "--default-artifact-root", local_files.artifacts(main), "--workers", "1"]
    os.execve(sys.executable, command, {**os.environ, **QUIET})


def _refuse_taken_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"Port {port} on {host} cannot be had ({error.strerror}); try make ui PORT=5001.") from None
