"""MLflow's page on this project's runs."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fakeface.system.errors import UserError
from fakeface.tracking import chart_view, local_store, outbox
from fakeface.tracking.error_messages import describe_store_error
from fakeface.tracking.event_writer import QUIET, MlflowStore
from fakeface.tracking.recorder import Recorder
from fakeface.tracking.run_context import fail_stale_runs
from fakeface.tracking.run_identity import identify_run
from fakeface.tracking.store_uri import hide_password

_NO_WORKERS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # six processes of 250 MB for jobs that nobody submits


def serve_page(project_root: Path, host: str, port: int) -> None:
    """Send what waits or was refused, close the runs of killed runs, and become MLflow's server until Ctrl-C.

    Raises:
        UserError: the port is taken, the store cannot be opened, or it is a server that has a page of its own.
    """
    elsewhere = os.environ.get("MLFLOW_TRACKING_URI", "")
    if elsewhere.startswith(("http://", "https://")):
        raise UserError("MLFLOW_TRACKING_URI names a server, which has its own page; open that address in a browser.")
    _refuse_taken_port(host, port)
    place = f"http://{host}:{port}"
    with open_store(project_root, refused_too=True) as store:
        experiment = store.client.get_experiment_by_name(identify_run(project_root).experiment_name)
    print(f"MLflow's page: {place} (Ctrl-C ends it)", flush=True)
    if experiment:
        address = chart_view.build_address(place, experiment.experiment_id)
        print(f"The experiments compared: {address}", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    command += ["--backend-store-uri", store.uri, "--default-artifact-root", local_store.build_artifact_uri(store.main)]
    command += ["--workers", "1"]
    os.execve(sys.executable, command, {**os.environ, **QUIET, **_NO_WORKERS})


@contextmanager
def open_store(
    project_root: Path, environ: Mapping[str, str] = os.environ, *, refused_too: bool = False
) -> Iterator[MlflowStore]:
    """The project's tracking store while the block runs; what waits for it is sent, and runs of the killed are closed.

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
            outbox.requeue(recorder.folder, recorder.store.name)
        recorder.deliver()
        fail_stale_runs(project_root, environ, recorder=recorder)
        store.connect()  # again, where it went away meanwhile
        yield store
    except MlflowException as error:
        raise _said(store, error) from None


def _said(store: MlflowStore, error: Exception) -> UserError:
    return UserError(f"The tracking store {hide_password(store.uri)} {describe_store_error(error)}.")


def _refuse_taken_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"Port {port} on {host} cannot be had ({error.strerror}); try make ui PORT=5001.") from None
