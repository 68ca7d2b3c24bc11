"""`python -m tools.tracking_server`: start the three servers, say how to use them, end them on Ctrl-C."""

from __future__ import annotations

import shlex
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import click
import filelock

from fakeface.system.errors import UserError, exit_on_user_error

from . import mlflow_server, object_store, postgres, subprocess_server

HOST = "127.0.0.1"
ARTIFACTS, REMOTE = "mlflow", "dvc"  # buckets: files of MLflow's runs; a remote for DVC
SCREEN = """
MLflow's page and tracking server: {page}
  user      {user}
  password  in {password}
To send experiments there, in the terminal that runs them:
  export MLFLOW_TRACKING_URI={page} MLFLOW_TRACKING_USERNAME={user}
  export MLFLOW_TRACKING_PASSWORD="$(cat {password})"
Object store for `dvc push` and `dvc pull` (docs/tracking-server.md): {store}, bucket {remote}
  keys      in {keys}
Runs, artifacts and logs are in {folder}. Ctrl-C ends the server; the same command starts it again with all it has.
"""


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path(".tracking-server"), show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@click.option("--store-port", type=click.IntRange(1, 65535), default=9000, show_default=True)
def main(folder: Path, port: int, store_port: int) -> None:
    """Run MLflow's server on 127.0.0.1 with PostgreSQL and an object store, until Ctrl-C."""
    with exit_on_user_error():
        _run(folder.resolve(), port, store_port)


def _run(folder: Path, port: int, store_port: int) -> None:
    data = folder / "postgres"
    programs = postgres.find_programs(data)
    rclone = object_store.program()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone_in(folder), _ended_by_signals(), ExitStack() as running:
        for each in (port, store_port):
            _refuse_taken_port(each)
        logs = folder / "logs"
        logs.mkdir(exist_ok=True)
        # A socket's path may have 107 bytes, so it cannot lie in the folder.
        sockets = Path(tempfile.mkdtemp(prefix="fakeface-"))
        running.callback(shutil.rmtree, sockets, ignore_errors=True)
        children: list[subprocess_server.Child] = []

        def keep(server: subprocess_server.Child) -> None:
            running.callback(server.stop)
            children.append(server)

        keys = object_store.keys(folder / "object_store_keys.json")
        password = mlflow_server.password(folder / "password", is_known=(data / "PG_VERSION").exists())
        print("Starting PostgreSQL, the object store and MLflow's server …", flush=True)
        keep(postgres.start(programs, data, sockets, logs / "postgres.log"))
        keep(
            object_store.start(
                rclone, folder / "objects", (ARTIFACTS, REMOTE), store_port, keys, logs / "object_store.log"
            )
        )
        stores = mlflow_server.Stores(
            rows=postgres.make_database(sockets, "mlflow"),
            users=postgres.make_database(sockets, "users"),
            bucket=ARTIFACTS,
            endpoint=f"http://{HOST}:{store_port}",
            keys=keys,
        )
        keep(mlflow_server.start(folder, stores, port, password, logs / "mlflow.log"))
        print(_screen(folder, port, store_port), flush=True)
        _wait_for_the_first_to_end(children)


def _screen(folder: Path, port: int, store_port: int) -> str:
    return SCREEN.format(
        page=f"http://{HOST}:{port}",
        store=f"http://{HOST}:{store_port}",
        user=mlflow_server.USER,
        password=shlex.quote(str(folder / "password")),
        keys=shlex.quote(str(folder / "object_store_keys.json")),
        remote=REMOTE,
        folder=folder,
    ).strip()


def _wait_for_the_first_to_end(children: list[subprocess_server.Child]) -> None:
    while True:
        for each in children:
            if each.has_ended():
                raise UserError(f"{each.name} has ended ({each.last_words()}), and so all have; see {each.log}.")
        time.sleep(0.5)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    try:
        with filelock.FileLock(folder / "lock", timeout=0):
            yield
    except filelock.Timeout:
        raise UserError(f"A server runs on {folder} already; end that one first (Ctrl-C in its terminal).") from None


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the servers in order, and then this command, well: that is how it ends."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        for each in asked:
            signal.signal(each, signal.SIG_IGN)
        print("Ending MLflow's server, the object store and PostgreSQL …", flush=True)
        raise SystemExit(0)

    asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in asked:
        signal.signal(number, leave)
    yield


def _refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"Port {port} on {HOST} cannot be had ({error.strerror}); choose others, "
                "for example make tracking-server PORT=5001 STORE_PORT=9001."
            ) from None


if __name__ == "__main__":
    main()
