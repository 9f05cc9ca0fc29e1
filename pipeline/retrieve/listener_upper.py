"""The upper layer as an acceptor needs it (PS3.8 9.2, 9.3): whole PDUs within limits, and what is agreed at the start.

What an association request says and what is answered is pynetdicom's. Its reactor is not used: ADR 14 says why.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.retrieve.listener_command import IMPLEMENTATION, Malformed

ASSOCIATE_RQ, P_DATA, RELEASE_RQ, ABORT = 0x01, 0x04, 0x05, 0x07
RELEASE_RP = struct.pack(">BBLL", 6, 0, 4, 0)
LARGEST_REQUEST = 1 << 17       # bytes of an A-ASSOCIATE-RQ: 128 contexts of many transfer syntaxes are half of it
POLL = 0.25                     # seconds in which an idle association sees that the listener stops
_HEADER = struct.Struct(">BBL")
VERIFICATION = "1.2.840.10008.1.1"


class Gone(Exception):
    """The peer closed the connection, or nothing came for too long (`silent`)."""

    def __init__(self, silent: bool = False) -> None:
        super().__init__()
        self.silent = silent


class Wire:
    """A peer's connection. Holds one PDU at a time, in a buffer that is used again."""

    def __init__(self, sock: socket.socket, silent_seconds: float) -> None:
        self.socket = sock
        self._silent = silent_seconds
        self._buffer = memoryview(bytearray(4096))
        sock.settimeout(silent_seconds)
        with suppress(OSError):     # it is gone already: the first read will tell
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def secure(self, context: ssl.SSLContext) -> None:
        """Shake hands. Raises OSError (ssl.SSLError among them)."""
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def room_for(self, length: int) -> None:
        """Take PDUs of up to this length from now on."""
        self._buffer = memoryview(bytearray(length))

    def wait(self, seconds: float, until: threading.Event) -> bool:
        """Wait for the first byte of a PDU. False where `until` was set meanwhile. Raises Gone."""
        poll, end = select.poll(), time.monotonic() + seconds
        poll.register(self.socket, select.POLLIN)
        while not until.is_set():
            if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
                return True
            if poll.poll(POLL * 1000):
                return True
            if time.monotonic() > end:
                raise Gone(silent=True)
        return False

    def pdu(self, deadline: float) -> tuple[int, memoryview]:
        """Return a PDU's type and body; the body holds until the next call. Raises Gone, Malformed.

        `deadline`: of time.monotonic, when the whole of it must be there.
        """
        if time.monotonic() > deadline:
            raise Gone(silent=True)
        self._fill(self._buffer[:6], deadline)
        kind, _, length = _HEADER.unpack_from(self._buffer)
        if length > len(self._buffer):
            raise Malformed
        body = self._buffer[:length]
        self._fill(body, deadline)
        return kind, body

    def _fill(self, view: memoryview, deadline: float) -> None:
        while view:
            try:
                count = self.socket.recv_into(view)
            except TimeoutError:
                raise Gone(silent=True) from None
            except OSError:
                raise Gone from None
            if not count:
                raise Gone
            view = view[count:]
            if view and time.monotonic() > deadline:
                raise Gone(silent=True)

    def send(self, data: bytes) -> None:
        """Send all of it. Raises Gone."""
        try:
            self.socket.sendall(data)
        except TimeoutError:
            raise Gone(silent=True) from None
        except OSError:
            raise Gone from None

    def close(self) -> None:
        """Close for good; what was sent still arrives."""
        try:
            self.socket.settimeout(0.5)
            self.socket.shutdown(socket.SHUT_WR)
            for _ in range(8):      # bytes left unread would make a reset of it, and the peer might lose our last PDU
                if not self.socket.recv_into(self._buffer):
                    break
        except (OSError, ValueError):
            pass
        self.socket.close()


def abort(reason: int = 0) -> bytes:
    """Return an A-ABORT by the service provider, or with no reason by the service user."""
    return struct.pack(">BBLBBBB", 7, 0, 4, 0, 0, 2 if reason else 0, reason)


def reject(result: int, source: int, reason: int) -> bytes:
    """Return an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
    return struct.pack(">BBLBBBB", 3, 0, 4, 0, result, source, reason)


def prepare() -> None:
    """Load pynetdicom: half a second that the first peer should not wait for."""
    import pynetdicom.pdu
    import pynetdicom.presentation  # noqa: F401


@dataclass(frozen=True)
class Asked:
    """An association request."""

    calling: str
    called: str
    application: str
    primitive: Any      # pynetdicom's A_ASSOCIATE


def asked(body: memoryview) -> Asked:
    """Read an A-ASSOCIATE-RQ. Raises Malformed."""
    from pynetdicom.pdu import A_ASSOCIATE_RQ

    try:
        pdu = A_ASSOCIATE_RQ()
        pdu.decode(_HEADER.pack(ASSOCIATE_RQ, 0, len(body)) + bytes(body))
        primitive = pdu.to_primitive()
        return Asked(str(primitive.calling_ae_title).strip(), str(primitive.called_ae_title).strip(),
                     str(primitive.application_context_name), primitive)
    except Exception:       # noqa: BLE001 - what a decoder makes of hostile bytes is open-ended, and all of it means this
        raise Malformed from None


def agree(asked: Asked, max_pdu: int) -> tuple[dict[int, tuple[bytes, bytes]], bytes]:
    """Return {context id: (abstract syntax, transfer syntax)} of what is taken, and the A-ASSOCIATE-AC that says so.

    Every storage class is taken, private and unknown ones too, in the transfer syntax that is proposed first: what
    becomes of an object is `stage`'s to say, and stands in the ledger. Other services but C-ECHO are not: storage
    commitment among them. Raises Malformed.
    """
    from pynetdicom.pdu import A_ASSOCIATE_AC
    from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
    from pynetdicom.presentation import build_context, negotiate_unrestricted

    try:
        asking = asked.primitive
        results, _ = negotiate_unrestricted(
            asking.presentation_context_definition_list, [build_context(VERIFICATION)])
        answer = A_ASSOCIATE()
        answer.application_context_name = asking.application_context_name
        answer.calling_ae_title, answer.called_ae_title = asking.calling_ae_title, asking.called_ae_title
        answer.result, answer.result_source = 0, 1
        answer.presentation_context_definition_results_list = results
        length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
        length.maximum_length_received = max_pdu
        implementation.implementation_class_uid = IMPLEMENTATION.decode()
        answer.user_information = [length, implementation]
        pdu: Any = A_ASSOCIATE_AC()
        pdu.from_primitive(answer)
        encoded: bytes = pdu.encode()
        taken = {int(c.context_id or 0): (str(c.abstract_syntax).encode(), str(c.transfer_syntax[0]).encode())
                 for c in results if c.result == 0}
    except Exception:       # noqa: BLE001 - as above
        raise Malformed from None
    return taken, encoded


