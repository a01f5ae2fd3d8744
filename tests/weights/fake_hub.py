"""A hub on 127.0.0.1: HEAD and GET of /{owner}/{repo}/resolve/main/{path}, with ranges, cuts and a record of requests."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FakeHub:
    """``cut_after``: bytes after which a GET's connection is closed, one entry a GET; ``ranges``: whether Range is honoured."""

    files: dict[str, bytes]
    cut_after: list[int] = field(default_factory=list)
    ranges: bool = True
    etag: str | None = None
    requests: list[tuple[str, str | None, int]] = field(default_factory=list)
    endpoint: str = ""

    @property
    def gets(self) -> list[tuple[str | None, int]]:
        """(Range header, bytes sent) of every GET."""
        return [(asked, sent) for method, asked, sent in self.requests if method == "GET"]


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        name = self.path.split("?")[0].lstrip("/").replace("/resolve/main/", "/")
        content = self.hub.files.get(name)
        if content is None:
            self.hub.requests.append((self.command, None, 0))
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Error-Message", "Entry not found")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        asked = self.headers.get("Range")
        match = re.fullmatch(r"bytes=(\d+)-", asked or "") if self.hub.ranges else None
        start = int(match.group(1)) if match else 0
        rest = content[start:]
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{self.hub.etag or hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if not body:
            self.hub.requests.append((self.command, asked, 0))
            return
        limit = self.hub.cut_after.pop(0) if self.hub.cut_after else len(rest)
        sent = rest[:limit]
        self.hub.requests.append((self.command, asked, len(sent)))
        try:
            self.wfile.write(sent)
            self.wfile.flush()
        except OSError:
            pass
        if len(sent) < len(rest):
            self.close_connection = True
            self.connection.shutdown(2)


@contextmanager
def fake_hub(files: dict[str, bytes]) -> Iterator[FakeHub]:
    hub = FakeHub(files)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
