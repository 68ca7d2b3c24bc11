"""A real browser for tests: headless Chromium driven by its own driver, over W3C WebDriver. Nothing is downloaded."""

from __future__ import annotations

import base64
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

FLAGS = (
    "--headless",
    "--no-sandbox",  # which Chromium asks of root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1800,1400",
)
LOOKS = 240  # at a page that is being drawn, each a quarter of a second or more


class Browser:
    """One window."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, address: str) -> None:
        _answer(requests.post(f"{self._session}/url", json={"url": address}, timeout=60))

    def evaluate(self, script: str) -> Any:
        """What a JavaScript function of this body returns."""
        return _answer(requests.post(f"{self._session}/execute/sync", json={"script": script, "args": []}, timeout=60))

    def narrow_to(self, width: int) -> None:
        """Show pages as a telephone of this many pixels does."""
        metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
        command: dict[str, Any] = {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics}
        _answer(requests.post(f"{self._session}/goog/cdp/execute", json=command, timeout=60))

    def wait_for(self, script: str, picture: Path) -> Any:
        """What the script returns as soon as that is true to JavaScript; `picture` gets what is on the page then."""
        for _ in range(LOOKS):
            if found := self.evaluate(script):
                break
            time.sleep(0.25)
        picture.write_bytes(base64.b64decode(_answer(requests.get(f"{self._session}/screenshot", timeout=60))))
        assert found, f"the page never came to that; see {picture}"
        return found


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A window whose profile lies in `folder`; skips the test where there is no Chromium with its driver."""
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    command = [driver, "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            started = next(line for line in process.stdout if "successfully on port" in line)
            port = started.rstrip().rstrip(".").rsplit(maxsplit=1)[-1]
            arguments = [*FLAGS, f"--user-data-dir={folder / 'profile'}"]
            wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}}
            sessions = f"http://127.0.0.1:{port}/session"
            session = f"{sessions}/{_answer(requests.post(sessions, json=wanted, timeout=120))['sessionId']}"
            try:
                yield Browser(session)
            finally:
                requests.delete(session, timeout=60)  # ends Chromium, which outlives its driver
        finally:
            process.terminate()


def _answer(response: requests.Response) -> Any:
    value = response.json()["value"]
    assert response.ok, value
    return value
