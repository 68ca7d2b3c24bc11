"""A real http server on 127.0.0.1 with every fault that a download meets, each on demand."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOGIN_PAGE = b"<!DOCTYPE html><html><title>Log in</title>"


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is nothing to report."""


class FaultyServer:
    """`files` by path; `faults` by path, one a request, or for good where it ends in `...`; requests in `seen`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[str]] = {}
        self.seen: list[tuple[str, str | None]] = []
        self.lock = threading.Lock()
        self.httpd = _QuietServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.httpd.server_address[1]}"

    def ranges(self, path: str) -> list[str | None]:
        """The Range header of every request for `path`."""
        return [asked for seen, asked in self.seen if seen == path]

    def _next_fault(self, path: str) -> str:
        faults = self.faults.get(path, [])
        if not faults:
            return ""
        return faults[0].removesuffix("...") if faults[0].endswith("...") else faults.pop(0)

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                asked = self.headers["Range"]
                with server.lock:
                    server.seen.append((self.path, asked))
                    fault = server._next_fault(self.path)
                with suppress(ConnectionError):
                    self.answer(fault, asked)

            do_HEAD = do_GET  # noqa: N815

            def answer(self, fault: str, asked: str | None) -> None:
                content = server.files.get(self.path)
                if fault.isdigit():
                    return self.send(int(fault), b"", {"Retry-After": "0"})
                if content is None:
                    return self.send(404, b"nothing here")
                if fault == "login":
                    return self.send(200, LOGIN_PAGE, {"Content-Type": "text/html; charset=utf-8"})
                if fault == "login as zip":
                    return self.send(200, LOGIN_PAGE, {"Content-Type": "application/zip"})
                etag = f'"{hashlib.md5(content).hexdigest()}"'
                headers = {} if fault == "no validator" else {"ETag": etag}
                start = self.start_of(asked, etag) if fault not in ("ignores range", "ignores range, breaks") else 0
                if start >= len(content) > 0:
                    return self.send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                status, stop = 200, len(content)
                if start:
                    status = 206
                    start -= 7 if fault == "wrong range" else 0
                    stop -= 1000 if fault == "part of the range" else 0
                    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
                body = content[start:stop]
                if fault == "too short":
                    body = body[: len(body) // 2]
                length = len(body) + (1000 if fault == "too long" else 0)
                cut = len(body) // 2 if fault.endswith("breaks") else len(body)
                self.send(status, body[:cut], headers, length)
                if fault:
                    self.close_connection = True
                return None

            def start_of(self, asked: str | None, etag: str) -> int:
                found = re.fullmatch(r"bytes=(\d+)-", asked or "")
                if_range = self.headers["If-Range"]
                return int(found[1]) if found and if_range in (None, etag) else 0

            def send(
                self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None
            ) -> None:
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body) if length is None else length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)
                self.wfile.flush()

        return Handler


@contextmanager
def serving() -> Iterator[FaultyServer]:
    """A running server, stopped at the end."""
    server = FaultyServer()
    thread = threading.Thread(target=server.httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.httpd.shutdown()
        server.httpd.server_close()
