"""A folder served over HTTP on this machine, with faults on request."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Served:
    """address: of the folder. asked: requests by file. fail, cut: how many answers of a file are 503, or end halfway."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked: Counter[str] = Counter()
        self.fail: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *args: object, served: Served, **options: object) -> None:
        self.served = served
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.served.asked[name] += 1
        if self.served.fail[name] > 0:
            self.served.fail[name] -= 1
            return self.send_error(503)
        if self.served.cut[name] > 0:
            self.served.cut[name] -= 1
            body = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            return None
        return super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[Served]:
    served = Served("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, served=served, directory=str(folder)))
    served.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
