"""A proxy before an HTTP server that breaks requests, one by one, as a seed decides."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

STATUS = {"500": "Internal Server Error", "503": "Slow Down", "409": "Conflict", "412": "Precondition Failed"}
CODES = {"500": "InternalError", "503": "SlowDown", "409": "OperationAborted", "412": "PreconditionFailed"}
KINDS = (
    "refuse",           # nobody listens for a moment, and what was connected is cut off
    "reset_before", "reset_in", "reset_after",      # of the request's body; the server has not seen it
    "stall",            # no answer
    *STATUS,            # an answer that the server did not give
    "truncate",         # the answer breaks off
    "cut",              # a document that ends too early, in an answer that is whole
    "lose",             # done, and nobody is told
)  # fmt: skip
STALL_SECONDS, DOWN_SECONDS = 3.0, 0.1


class Proxy:
    """Listens on a port of 127.0.0.1. `break_with` starts the faults, `calm` ends them; `done` counts them."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._kinds: Sequence[str] = ()
        self._rate, self._random = 0.0, random.Random()
        self.done: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def break_with(self, kinds: Sequence[str], rate: float, seed: object) -> None:
        self._kinds, self._rate, self._random = kinds, rate, random.Random(str(seed))
        self.done.clear()

    def calm(self) -> None:
        self._rate = 0.0

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(30)

    def stop(self) -> None:
        async def end() -> None:
            self._server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _down(self) -> None:
        self._server.close()
        await asyncio.sleep(DOWN_SECONDS)
        await self._listen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while await self._one(reader, writer):
                    pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Pass one request on, or break it. Return whether the connection can be used again."""
        head = await reader.readuntil(b"\r\n\r\n")
        kind = self._random.choice(self._kinds) if self._random.random() < self._rate else ""
        lines = head.decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        length = int(fields.get("content-length", 0))
        if kind and kind not in ("truncate", "cut", "lose"):
            self.done[kind] += 1
        if kind == "refuse":
            await self._down()
            return reset(writer)
        if kind == "reset_before":
            return reset(writer)
        if fields.get("expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(length // 2 if kind == "reset_in" else length)
        if kind in ("reset_in", "reset_after"):
            return reset(writer)
        if kind == "stall":
            await asyncio.sleep(STALL_SECONDS)
            return reset(writer)
        if kind in STATUS:
            writer.write(answer(kind, lines[0].startswith("HEAD")))
            await writer.drain()
            return True
        kept = [line for line in lines[:-2] if not line.lower().startswith(("expect:", "connection:"))]
        got = await self._ask("\r\n".join([*kept, "Connection: close", "", ""]).encode("latin-1") + body)
        start, _, payload = got.partition(b"\r\n\r\n")
        if kind == "cut" and (b"/xml" not in start.lower() or len(payload) < 20):
            kind = ""
        if kind:
            self.done[kind] += 1
        if kind == "lose":
            return reset(writer)
        if kind == "truncate":
            writer.write(got[: len(start) // 2] if not payload else got[: len(start) + 4 + len(payload) // 2])
            await writer.drain()
            return False
        if kind == "cut":
            short = payload[: len(payload) // 2]
            kept = [line for line in start.split(b"\r\n") if not line.lower().startswith(b"content-length")]
            got = b"\r\n".join([*kept, b"Content-Length: %d" % len(short), b"", short])
        writer.write(got)
        await writer.drain()
        return False

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            writer.write(request)
            return await reader.read()
        finally:
            writer.close()


def reset(writer: asyncio.StreamWriter) -> bool:
    """Break the connection off, with a reset."""
    found = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


def answer(status: str, head: bool) -> bytes:
    document = f'<?xml version="1.0"?><Error><Code>{CODES[status]}</Code><Message>broken on purpose</Message></Error>'
    body = "" if head else document
    return (f"HTTP/1.1 {status} {STATUS[status]}\r\nContent-Type: application/xml\r\n"
            f"Content-Length: {len(document)}\r\n\r\n{body}").encode()


@contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    made = Proxy(upstream)
    made.start()
    try:
        yield made
    finally:
        made.stop()
