"""The tracking server of `make tracking-server`, on ports of its own."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped, unused-ignore]
from tools.tracking_server import postgres

from fakeface.system.errors import UserError
from tests.support.project import PROJECT

PYTHON, RCLONE = PROJECT / ".venv-server/bin/python", PROJECT / ".venv-server/bin/rclone"


def missing_part() -> str:
    """Why the server cannot run here; empty where it can."""
    if not PYTHON.exists():
        return "the server's parts are not installed: run `make .venv-server/.installed`"
    try:
        postgres.find_programs(Path("no data yet"))
        if os.geteuid() == 0:
            pwd.getpwnam(postgres.SYSTEM_USER)
    except UserError as error:
        return str(error)
    except KeyError:
        return f"PostgreSQL does not run as root, and there is no user {postgres.SYSTEM_USER}"
    return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class TrackingServer:
    """The command on its folder, which outlives it; `screen` is what it said when it was ready."""

    folder: Path
    port: int = field(default_factory=free_port)
    store_port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None
    screen: str = ""

    def command(self) -> list[str]:
        ports = ["--port", str(self.port), "--store-port", str(self.store_port)]
        return [str(PYTHON), "-m", "tools.tracking_server", "--folder", str(self.folder), *ports]

    def run(self) -> subprocess.CompletedProcess[str]:
        """Run the command where it does not become a server."""
        return subprocess.run(
            self.command(), cwd=PROJECT, env=self.environ(), capture_output=True, text=True, check=False, timeout=60
        )

    def environ(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": "src"}

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command(), cwd=PROJECT, env=self.environ(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if "Ctrl-C ends the server" in line:
                break
        self.screen = "".join(lines)
        assert "Ctrl-C ends the server" in self.screen, self.screen

    def parts(self) -> list[psutil.Process]:
        """Every process that it started."""
        assert self.process is not None
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def kill_mlflow(self) -> tuple[int, str]:
        """Kill MLflow's server, without a word; returns how the command ends, and what it says."""
        assert self.process is not None
        for part in self.parts():
            if {"mlflow", "uvicorn"} & set(part.cmdline()):
                part.kill()
        said = self.process.communicate(timeout=60)[0]
        return self.process.returncode, said

    def stop(self) -> tuple[int, str]:
        """Ctrl-C; returns how the command ends, and what it says."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        said = self.process.communicate(timeout=60)[0]
        return self.process.returncode, said

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def uri(self, password: str = "") -> str:
        """The address with its login, or with a wrong password."""
        return f"http://fakeface:{password or self._password()}@127.0.0.1:{self.port}"

    def _password(self) -> str:
        return (self.folder / "password").read_text().strip()

    def client(self) -> Mapping[str, str]:
        """The environment of a client, as the first screen tells it."""
        login = {"MLFLOW_TRACKING_USERNAME": "fakeface", "MLFLOW_TRACKING_PASSWORD": self._password()}
        return {"MLFLOW_TRACKING_URI": self.url, **login}

    def keys(self) -> dict[str, str]:
        """Of the object store: `access` and `secret`."""
        content = json.loads((self.folder / "object_store_keys.json").read_text())
        assert isinstance(content, dict)
        return content
