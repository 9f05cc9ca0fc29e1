"""Bytes of a C-STORE: command sets (PS3.7 6.3.1, 9.3), P-DATA-TF (PS3.8 9.3.5), file meta information (PS3.10 7.1).

A command set is a handful of elements of group 0000 in implicit little endian. They are read and written here, and not
through a data set's classes, because each image needs it twice: 15 microseconds instead of 400.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

COMMAND_LIMIT = 4096        # bytes of a whole command set; a C-STORE-RQ has about 200
IMPLEMENTATION = b"2.25.146238693559182831764061766935415732630"    # a constant: the same object makes the same file
_UID = re.compile(rb"[0-9.]{1,64}")
_C_STORE, _C_ECHO, _RESPONSE, _NO_DATA_SET = 0x0001, 0x0030, 0x8000, 0x0101


class Status(IntEnum):
    """What a C-STORE is answered with (PS3.4 B.2.3, PS3.7 C.4, C.5)."""

    SUCCESS = 0x0000
    UNRECOGNISED = 0x0211
    NO_ROOM = 0xA700
    SOP_CLASS_DIFFERS = 0xA900
    NOT_UNDERSTOOD = 0xC000


class Malformed(Exception):
    """What came is not what the standard lets come here: the association is aborted."""


class Refused(Exception):
    """A C-STORE that is answered with a failure: the status, and words for its Error Comment (0000,0902)."""

    def __init__(self, status: Status, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


@dataclass(frozen=True, slots=True)
class Command:
    """A request. UIDs are as sent, without padding."""

    field: int
    message: int
    has_data_set: bool
    sop_class: bytes
    instance: bytes

    @property
    def is_store(self) -> bool:
        return self.field == _C_STORE

    @property
    def is_echo(self) -> bool:
        return self.field == _C_ECHO


def parse(data: bytes | bytearray) -> Command:
    """Read a command set. Raises Malformed."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise Malformed
        group, element, length = struct.unpack_from("<HHL", data, at)
        at += 8
        if group or length > len(data) - at:
            raise Malformed
        found[element] = bytes(data[at:at + length])
        at += length
    try:
        field, message, data_set = (struct.unpack("<H", found[e])[0] for e in (0x0100, 0x0110, 0x0800))
    except (KeyError, struct.error):
        raise Malformed from None
    uids = (found.get(element, b"").rstrip(b" \0") for element in (0x0002, 0x1000))
    return Command(field, message, data_set != _NO_DATA_SET, *uids)


def check_store(command: Command, abstract_syntax: bytes) -> None:
    """Refuse a C-STORE-RQ that is not what it should be, before its data set is looked at.

    A SOP Instance UID that could not be one is refused and not taken for `stage` to judge: a yes lets the sender
    delete its copy, and of such an object it is known already that nothing will be made of it. UIDs of odd numbers
    (1.02.3) are the sender's business and `stage`'s. Raises Refused.
    """
    if not command.has_data_set:
        raise Refused(Status.NOT_UNDERSTOOD, "no data set")
    if not _UID.fullmatch(command.instance):
        raise Refused(Status.NOT_UNDERSTOOD, "Affected SOP Instance UID is not a UID")
    if command.sop_class != abstract_syntax:
        raise Refused(Status.SOP_CLASS_DIFFERS, "SOP class is not the presentation context's")


def respond(command: Command, context: int, status: Status, why: str = "") -> bytes:
    """Return the response to a request as a whole P-DATA-TF. UIDs are repeated only where they could be UIDs."""
    elements = bytearray()
    if _UID.fullmatch(command.sop_class):
        elements += _element(0x0002, command.sop_class)
    elements += _element(0x0100, struct.pack("<H", command.field | _RESPONSE))
    elements += _element(0x0120, struct.pack("<H", command.message))
    elements += _element(0x0800, struct.pack("<H", _NO_DATA_SET))
    elements += _element(0x0900, struct.pack("<H", status))
    if why:
        elements += _element(0x0902, why.encode("ascii")[:64], b" ")
    if command.is_store and _UID.fullmatch(command.instance):
        elements += _element(0x1000, command.instance)
    data = _element(0x0000, struct.pack("<L", len(elements))) + elements
    return struct.pack(">BBLLBB", 4, 0, len(data) + 6, len(data) + 2, context, 3) + data


def _element(number: int, value: bytes, padding: bytes = b"\0") -> bytes:
    value += padding * (len(value) % 2)
    return struct.pack("<HHL", 0, number, len(value)) + value


def values(body: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield context id, control header and fragment of each value of a P-DATA-TF. Raises Malformed."""
    at = 0
    while at < len(body):
        if at + 6 > len(body):
            raise Malformed
        length, context, control = struct.unpack_from(">LBB", body, at)
        if length < 2 or length > len(body) - at - 4:
            raise Malformed
        yield context, control, body[at + 6:at + 4 + length]
        at += 4 + length


def file_head(sop_class: bytes, instance: bytes, transfer_syntax: bytes) -> bytes:
    """Return preamble, prefix and file meta information. The same arguments make the same bytes, on every machine."""
    meta = struct.pack("<HH2sHL", 2, 1, b"OB", 0, 2) + b"\x00\x01"
    for element, value in ((0x02, sop_class), (0x03, instance), (0x10, transfer_syntax), (0x12, IMPLEMENTATION)):
        value += b"\0" * (len(value) % 2)
        meta += struct.pack("<HH2sH", 2, element, b"UI", len(value)) + value
    return bytes(128) + b"DICM" + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(meta)) + meta
