"""One association: images in, answers out, until the peer releases it or something ends it.

The answer 0x0000 is sent after bytes and name are durable, and only then. A refusal reads the data set to its end and
keeps nothing of it, so that the sender hears why.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

from pipeline.retrieve.listener_command import (
    COMMAND_LIMIT,
    Command,
    Malformed,
    Refused,
    Status,
    check_store,
    file_head,
    parse,
    respond,
    values,
)
from pipeline.retrieve.listener_health import Counts
from pipeline.retrieve.listener_upper import ABORT, P_DATA, RELEASE_RP, RELEASE_RQ, Gone, Wire, abort
from pipeline.retrieve.spool import Full, Spool
from pipeline.sections import Listen

_LAST, _COMMAND = 2, 1      # bits of the message control header (PS3.8 E.2)
Fragments = Iterator[tuple[int, int, memoryview]]


class _Released(Exception):
    pass


class _Aborted(Exception):
    pass


class Association:
    """What goes on after the association was accepted. `contexts`: {id: (abstract syntax, transfer syntax)}."""

    def __init__(self, wire: Wire, contexts: dict[int, tuple[bytes, bytes]], limits: Listen, spool: Spool,
                 counts: Counts, stopping: threading.Event) -> None:
        self._wire, self._contexts, self._limits = wire, contexts, limits
        self._spool, self._counts, self._stopping = spool, counts, stopping
        self._deadline = 0.0
        self.answered: Counter[str] = Counter()

    def serve(self) -> str:
        """Answer until it ends; return how it ended: `released`, `aborted`, `dropped`, `timed_out`, `stopped`,
        `malformed`."""
        parts = self._fragments()
        try:
            while self._wire.wait(self._limits.idle_seconds, self._stopping):
                self._deadline = time.monotonic() + self._limits.object_seconds
                self._message(parts)
            self._wire.send(abort())
            return "stopped"
        except _Released:
            self._wire.send(RELEASE_RP)
            return "released"
        except _Aborted:
            return "aborted"
        except Gone as gone:
            return "timed_out" if gone.silent else "dropped"

    def _fragments(self) -> Fragments:
        while True:
            kind, body = self._wire.pdu(self._deadline)
            if kind == P_DATA:
                yield from values(body)
            elif kind == RELEASE_RQ:
                raise _Released
            elif kind == ABORT:
                raise _Aborted
            else:
                raise Malformed

    def _message(self, parts: Fragments) -> None:
        context, command = self._command(parts)
        why = ""
        if command.is_store:
            status, why = self._store(context, command, parts)
        else:
            status = Status.SUCCESS if command.is_echo else Status.UNRECOGNISED
            self._counts.add("echoes_total", n=int(command.is_echo))
            if command.has_data_set:
                for _ in self._data_set(context, parts):
                    pass
        self._wire.send(respond(command, context, status, why))

    def _command(self, parts: Fragments) -> tuple[int, Command]:
        data = bytearray()
        for context, control, fragment in parts:
            if not control & _COMMAND or context not in self._contexts or len(data) + len(fragment) > COMMAND_LIMIT:
                break
            data += fragment
            if control & _LAST:
                return context, parse(data)
        raise Malformed

    def _data_set(self, expected: int, parts: Fragments) -> Iterator[memoryview]:
        """Yield the fragments of a data set, to its last."""
        for context, control, fragment in parts:
            if control & _COMMAND or context != expected:
                raise Malformed
            yield fragment
            if control & _LAST:
                return

    def _store(self, context: int, command: Command, parts: Fragments) -> tuple[Status, str]:
        fragments = self._data_set(context, parts)
        try:
            result, size = self._take(context, command, fragments)
            self._counts.add("received_bytes_total", n=size)
            status, why = Status.SUCCESS, ""
        except Refused as refused:
            status, why = refused.status, refused.why
            result = f"0x{status:04X}"
        except Full:
            status, why, result = Status.NO_ROOM, "the disk is nearly full", "0xA700"
        except OSError:
            status, why, result = Status.NO_ROOM, "the object could not be written", "unwritable"
        if status is not Status.SUCCESS and command.has_data_set:
            for _ in fragments:
                pass
        self._counts.add("stores_total", result)
        self.answered[result] += 1
        return status, why

    def _take(self, context: int, command: Command, fragments: Iterator[memoryview]) -> tuple[str, int]:
        """Make one object durable; return `received` or `seen_again`, and the bytes that are new. Raises Refused, Full,
        OSError."""
        abstract_syntax, transfer_syntax = self._contexts[context]
        check_store(command, abstract_syntax)
        with self._spool.incoming() as incoming:
            incoming.write(head := file_head(command.sop_class, command.instance, transfer_syntax))
            for fragment in fragments:
                if incoming.size + len(fragment) > self._limits.max_object_bytes:
                    raise Refused(Status.NOT_UNDERSTOOD, "larger than this listener takes")
                incoming.write(fragment)
            if incoming.size == len(head):
                raise Refused(Status.NOT_UNDERSTOOD, "the data set is empty")
            new = self._spool.keep(incoming)
        return ("received", incoming.size) if new else ("seen_again", 0)
