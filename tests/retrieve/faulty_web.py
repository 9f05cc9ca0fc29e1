"""A DICOMweb service that does what it is told to do wrong, over HTTP or HTTPS, on loopback."""

from __future__ import annotations

import gzip
import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import retrieve_kit as kit

LEVELS = {"studies": "StudyInstanceUID", "series": "SeriesInstanceUID", "instances": "SOPInstanceUID"}


@dataclass
class FaultyWeb:
    """What it holds, and what it does wrong. `asked`: (path, query) of each request."""

    images: list[kit.Image]
    page: int = 1000                # answers at a time, whatever was asked for
    ignores_offset: bool = False
    overlaps: int = 0               # answers of the page before that each page repeats
    nameless: bool = False          # answers without a UID of their own
    gone: frozenset[str] = frozenset()      # instances that are 404
    other: kit.Image | None = None  # what it sends in place of each instance
    wado: str = ""                  # cut, short, long, empty, html, bare, gzip, bomb: how it sends them
    status: int = 0                 # of every answer
    redirect: str = ""
    content: bytes | None = None    # of every search
    port: int = 0
    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)

    def search(self, path: list[str], query: dict[str, list[str]]) -> list[dict[str, Any]]:
        inside = dict(zip(path[::2], path[1::2], strict=False))
        level = LEVELS[path[-1]]
        found, seen = [], set()
        for one in self.images:
            ds = one.head
            if any(str(ds[LEVELS[name]].value) != uid for name, uid in inside.items() if uid not in LEVELS):
                continue
            if any(str(ds.get(key, "")) not in wanted for key, wanted in query.items() if key in (
                    "AccessionNumber", "PatientID", "StudyInstanceUID")):
                continue
            if ds[level].value in seen:
                continue
            seen.add(ds[level].value)
            keep = ["StudyInstanceUID", "PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyDate", "Modality",
                    "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]
            answer = {key: ds[key] for key in keep if key in ds and not (self.nameless and key == level)}
            found.append({f"{e.tag:08X}": {"vr": e.VR, "Value": [str(e.value)]} for e in answer.values()})
        first = 0 if self.ignores_offset else max(0, int(query.get("offset", ["0"])[0]) - self.overlaps)
        return found[first:first + min(self.page, int(query.get("limit", ["1000"])[0]))]


@contextmanager
def serving(images: list[kit.Image], tls: ssl.SSLContext | None = None, **faults: Any) -> Iterator[FaultyWeb]:
    made = FaultyWeb(images, **faults)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            made.asked.append((parts.path, parts.query))
            made.tokens.append(self.headers.get("Authorization"))
            path = parts.path.removeprefix("/dicom-web/").split("/")
            if made.redirect:
                self.answer(302, b"", Location=made.redirect)
            elif made.status:
                self.answer(made.status, b"")
            elif len(path) == 6:
                self.instance(path[-1])
            else:
                body = made.content or json.dumps(made.search(path, parse_qs(parts.query))).encode()
                if made.wado == "bomb":
                    self.answer(200, gzip.compress(b"[" + b" " * (80 << 20) + b"]"), **{"Content-Encoding": "gzip"})
                elif body == b"[]":
                    self.answer(204, b"")
                else:
                    self.answer(200, body, **{"Content-Type": "application/dicom+json"})

        def instance(self, uid: str) -> None:
            if uid in made.gone:
                self.answer(404, b"no such instance")
                return
            data = (made.other or next(one for one in made.images if one.sop == uid)).data
            body = b"--b;1\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--b;1--\r\n"
            kind = 'multipart/related; type="application/dicom"; boundary="b;1"'
            if made.wado == "cut":          # the closing boundary never comes, and the length says so
                body = body[:-40]
            if made.wado in ("short", "long"):
                self.answer(200, body, len(body) + (-60 if made.wado == "short" else 60), **{"Content-Type": kind})
                self.close_connection = True
            elif made.wado == "empty":
                self.answer(200, b"", **{"Content-Type": kind})
            elif made.wado == "html":
                self.answer(200, b"<p>Sign in", **{"Content-Type": "text/html"})
            elif made.wado == "bare":
                self.answer(200, data, **{"Content-Type": "application/dicom"})
            elif made.wado == "gzip":
                self.answer(200, gzip.compress(body), **{"Content-Type": kind, "Content-Encoding": "gzip"})
            else:
                self.answer(200, body, **{"Content-Type": kind})

        def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        made.port = server.server_address[1]
        made.url = f"{'https' if tls else 'http'}://127.0.0.1:{made.port}/dicom-web"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield made
        finally:
            server.shutdown()


def options(pacs: FaultyWeb, **more: Any) -> dict[str, Any]:
    assert re.match(r"https?://127", pacs.url)
    return {"service": "dicomweb", "url": pacs.url, **more}
