"""What a listener counts, and how monitoring asks: /healthz and /metrics (Prometheus' text) on an address of its own.

Counts and statuses only: no name of a peer, no id of an image.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

AT_ONCE = 16
HELP = {
    "associations_accepted_total": "associations that were accepted",
    "connections_ended_total": "connections, by how they ended: of accepted associations and of all others",
    "stores_total": "C-STORE requests, by what was answered",
    "received_bytes_total": "bytes made durable",
    "echoes_total": "C-ECHO requests answered",
}


class Counts:
    """Counters by (metric, label). Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, metric: str, label: str = "", n: int = 1) -> None:
        with self._lock:
            self._counts[metric, label] += n

    def get(self, metric: str, label: str = "") -> int:
        with self._lock:
            return self._counts[metric, label]

    def all(self) -> dict[tuple[str, str], int]:
        with self._lock:
            return dict(self._counts)


def metrics(counts: Counts, gauges: dict[str, float]) -> str:
    """Return everything as Prometheus' text exposition, sorted."""
    lines: list[str] = []
    for name, text in HELP.items():
        lines += [f"# HELP tre_listen_{name} {text}", f"# TYPE tre_listen_{name} counter"]
        found = {label: n for (metric, label), n in counts.all().items() if metric == name}
        for label, n in sorted(found.items()) or [("", 0)]:
            lines.append(f'tre_listen_{name}{{result="{label}"}} {n}' if label else f"tre_listen_{name} {n}")
    for name, value in sorted(gauges.items()):
        lines += [f"# TYPE tre_listen_{name} gauge", f"tre_listen_{name} {value:.0f}"]
    return "\n".join(lines) + "\n"


class _Server(ThreadingHTTPServer):
    """Answers so many at a time and hangs up on the others: threads are for images."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._free = threading.BoundedSemaphore(AT_ONCE)
        super().__init__(address, handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return self._free.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: it hung up while it was answered."""


@contextmanager
def served(address: tuple[str, int], state: Callable[[], str], text: Callable[[], str]) -> Iterator[int]:
    """Answer /healthz (200 where `state` is `ok`, else 503) and /metrics; yield the port. Raises OSError."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10
        server_version, sys_version = "tre-listen", ""

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, text(), "text/plain; version=0.0.4")
            elif self.path == "/healthz":
                said = state()
                self._answer(200 if said == "ok" else 503, said + "\n", "text/plain")
            else:
                self._answer(404, "/healthz or /metrics\n", "text/plain")

        def _answer(self, status: int, body: str, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with _Server(address, Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
