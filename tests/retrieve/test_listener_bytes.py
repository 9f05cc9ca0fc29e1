"""The bytes of commands, values and files: against pynetdicom and pydicom, and against noise."""

from __future__ import annotations

import io
import struct
from contextlib import suppress

import listen_kit as kit
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode, encode

from pipeline.retrieve.listener_command import (
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
from pipeline.retrieve.listener_upper import agree, asked

UID = st.from_regex(r"[12](\.(0|[1-9][0-9]{0,8})){1,6}", fullmatch=True)


@given(UID, UID, st.integers(0, 65_535))
def test_a_command_of_pynetdicoms_is_read(sop_class: str, instance: str, message: int) -> None:
    asking = C_STORE()
    asking.MessageID, asking.Priority, asking.DataSet = message, 0, io.BytesIO(b"x")
    asking.AffectedSOPClassUID, asking.AffectedSOPInstanceUID = sop_class, instance
    made = C_STORE_RQ()
    made.primitive_to_message(asking)
    raw = encode(made.command_set, True, True)
    assert raw is not None
    assert parse(raw) == Command(1, message, True, sop_class.encode(), instance.encode())


@given(UID, UID, st.integers(0, 65_535), st.sampled_from(Status), st.text("abc ", max_size=90))
def test_a_response_is_read_by_pynetdicom(sop_class: str, instance: str, message: int, status: Status,
                                          why: str) -> None:
    command = Command(1, message, True, sop_class.encode(), instance.encode())
    pdu = respond(command, 5, status, why)
    assert struct.unpack_from(">BBLLBB", pdu) == (4, 0, len(pdu) - 6, len(pdu) - 10, 5, 3)
    said = decode(io.BytesIO(pdu[12:]), True, True)
    assert said.CommandGroupLength == len(pdu) - 12 - 12
    assert (said.CommandField, said.MessageIDBeingRespondedTo, said.Status) == (0x8001, message, status)
    assert (said.AffectedSOPClassUID, said.AffectedSOPInstanceUID) == (sop_class, instance)
    assert said.get("ErrorComment", "").strip() == why[:64].strip()


@given(st.binary(max_size=200))
def test_noise_is_a_command_or_malformed(data: bytes) -> None:
    with suppress(Malformed):
        parse(data)


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 3), st.binary(max_size=50)), max_size=5), st.data())
def test_values_come_back_or_are_malformed_when_cut(parts: list[tuple[int, int, bytes]], data: st.DataObject) -> None:
    body = b"".join(kit.values(*part)[6:] for part in parts)
    assert [(c, h, bytes(f)) for c, h, f in values(memoryview(body))] == parts
    ends = [0]
    for _, _, fragment in parts:
        ends.append(ends[-1] + 6 + len(fragment))
    cut = data.draw(st.integers(0, len(body)))
    if cut in ends:
        assert len(list(values(memoryview(body[:cut])))) == ends.index(cut)
    else:
        with pytest.raises(Malformed):
            list(values(memoryview(body[:cut])))


@given(st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_a_damaged_request_is_a_request_or_malformed(at: int, noise: bytes) -> None:
    body = bytearray(kit.request()[6:])
    body[at:at + len(noise)] = noise
    with suppress(Malformed):
        agree(asked(memoryview(body)), 16_384)


@given(UID, UID, UID)
def test_a_files_head_is_read_by_pydicom(sop_class: str, instance: str, syntax: str) -> None:
    head = file_head(sop_class.encode(), instance.encode(), syntax.encode())
    meta = dcmread(io.BytesIO(head), force=False).file_meta
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID) == (
        sop_class, instance, syntax)
    assert meta.FileMetaInformationGroupLength == len(head) - 144


@given(st.binary(max_size=80))
def test_only_what_could_be_a_uid_is_an_instance(instance: bytes) -> None:
    command = Command(1, 1, True, b"1.2", instance)
    if 0 < len(instance) <= 64 and set(instance) <= set(b"0123456789."):
        check_store(command, b"1.2")
    else:
        with pytest.raises(Refused):
            check_store(command, b"1.2")
        said = decode(io.BytesIO(respond(command, 1, Status.NOT_UNDERSTOOD)[12:]), True, True)
        assert "AffectedSOPInstanceUID" not in said     # what could not be a UID is not repeated
