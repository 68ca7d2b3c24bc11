"""MLflow's page on this project's runs."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fakeface.system.errors import UserError
from fakeface.tracking import comparison, local_files, undelivered
from fakeface.tracking.addresses import without_password
from fakeface.tracking.identity import identify
from fakeface.tracking.mlflow_store import QUIET, MlflowStore
from fakeface.tracking.reasons import reason
from fakeface.tracking.recorder import Recorder
from fakeface.tracking.runs import bury_the_dead

_NO_WORKERS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # six processes of 250 MB for jobs that nobody submits


def serve_page(project_root: Path, host: str, port: int) -> None:
    """Send what waits or was refused, close the rows of killed runs, and become MLflow's server until Ctrl-C.

    Raises:
        UserError: the port is taken, the store cannot be opened, or it is a server that has a page of its own.
    """
    elsewhere = os.environ.get("MLFLOW_TRACKING_URI", "")
    if elsewhere.startswith(("http://", "https://")):
        raise UserError("MLFLOW_TRACKING_URI names a server, which has its own page; open that address in a browser.")
    _refuse_taken_port(host, port)
    place = f"http://{host}:{port}"
    with opened_store(project_root, refused_too=True) as store:
        collection = store.client.get_experiment_by_name(identify(project_root).collection)
    print(f"MLflow's page: {place} (Ctrl-C ends it)", flush=True)
    if collection:
        print(f"The experiments compared: {comparison.address(place, collection.experiment_id)}", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    command += ["--backend-store-uri", store.uri, "--default-artifact-root", local_files.artifacts(store.main)]
    command += ["--workers", "1"]
    os.execve(sys.executable, command, {**os.environ, **QUIET, **_NO_WORKERS})


@contextmanager
def opened_store(
    project_root: Path, environ: Mapping[str, str] = os.environ, *, refused_too: bool = False
) -> Iterator[MlflowStore]:
    """The project's tracking store while the block runs; what waits for it is sent, and rows of the killed are closed.

    With `refused_too`, what it refused before is tried again.

    Raises:
        UserError: it cannot be opened, or fails while the block runs.
    """
    recorder = Recorder(project_root, environ)
    store = recorder.store
    try:
        store.connect()
    except Exception as error:
        raise _said(store, error) from None

    from mlflow.exceptions import MlflowException

    try:
        if refused_too:
            undelivered.take_back(recorder.folder, recorder.store.name)
        recorder.deliver()
        bury_the_dead(project_root, environ, recorder=recorder)
        store.connect()  # again, where it went away meanwhile
        yield store
    except MlflowException as error:
        raise _said(store, error) from None


def _said(store: MlflowStore, error: Exception) -> UserError:
    return UserError(f"The tracking store {without_password(store.uri)} {reason(error)}.")


def _refuse_taken_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"Port {port} on {host} cannot be had ({error.strerror}); try make ui PORT=5001.") from None
