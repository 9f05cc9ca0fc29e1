"""Admission of one file: read its bytes once, hash them, walk its structure, and say what it is or why not."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from pipeline.dicom.charset import decode, encodings
from pipeline.dicom.file import CHUNK, Scan, chunks, scan
from pipeline.dicom.scan import check_depths
from pipeline.model import Reason, Refusal

NOTHING = hashlib.sha256(b"").digest()
UID = re.compile(r"(?=.{3,64}\Z)(0|[1-9]\d*)(\.(0|[1-9]\d*))+", re.ASCII)

_UIDS = {"sop_class_uid": 0x00080016, "sop_instance_uid": 0x00080018, "study_uid": 0x0020000D, "series_uid": 0x0020000E}
_TEXTS = {"modality": 0x00080060, "study_date": 0x00080020, "patient_id": 0x00100020, "issuer": 0x00100021}


@dataclass(frozen=True, slots=True)
class Inspected:
    """What admission learnt. Fields are None where the file does not say, or was refused before they were read."""

    size: int
    sha256: bytes
    refusal: Refusal | None
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    study_uid: str | None = None
    series_uid: str | None = None
    transfer_syntax_uid: str | None = None
    modality: str | None = None
    study_date: str | None = None
    patient_id: str | None = None
    issuer: str | None = None
    n_elements: int = 0


def inspect(path: Path, max_bytes: int) -> Inspected:
    """Return what the file at `path` is. Never raises on content; links and special files are not opened."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        irregular = path.is_symlink() or (path.exists() and not path.is_file())
        reason = Reason.NOT_A_REGULAR_FILE if irregular else Reason.UNREADABLE
        return Inspected(0, NOTHING, Refusal(reason))
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return Inspected(0, NOTHING, Refusal(Reason.NOT_A_REGULAR_FILE))
        if status.st_size > max_bytes:
            return Inspected(status.st_size, hash_rest(fd, hashlib.sha256(), 0), Refusal(Reason.TOO_LARGE))
        return _inspect(fd, status.st_size)
    except OSError:
        return Inspected(0, NOTHING, Refusal(Reason.UNREADABLE))
    finally:
        os.close(fd)


def hash_rest(fd: int, digest: hashlib._Hash, offset: int) -> bytes:
    """Feed the file from `offset` on to `digest`, in chunks; return the digest."""
    for chunk in chunks(fd, offset):
        digest.update(chunk)
    return digest.digest()


def _inspect(fd: int, size: int) -> Inspected:
    head = os.pread(fd, min(size, CHUNK), 0)
    sha256 = hash_rest(fd, hashlib.sha256(head), len(head))
    try:
        result = scan(fd, size, head)
        count = check_depths(result.head, result.elements, result.encoding)
        count += check_depths(result.tail, result.tail_elements, result.encoding)
        return Inspected(size, sha256, None, n_elements=count + (result.pixel is not None), **_identity(result))
    except Refusal as refusal:
        if refusal.reason is Reason.ELEMENT_REPEATED:       # at admission a broken order is a broken file
            refusal = Refusal(Reason.MALFORMED, refusal.tag)
        return Inspected(size, sha256, refusal)
    except RecursionError:
        return Inspected(size, sha256, Refusal(Reason.NESTING_TOO_DEEP))


def _identity(result: Scan) -> dict[str, str | None]:
    found: dict[str, str | None] = {"transfer_syntax_uid": result.transfer_syntax}
    if not UID.fullmatch(result.transfer_syntax):
        raise Refusal(Reason.INVALID_UID, 0x00020010)
    for name, tag in _UIDS.items():
        raw = (result.value(tag) or b"").rstrip(b"\0 ")
        if not raw:
            raise Refusal(Reason.MISSING_UID, tag)
        uid = raw.decode("ascii", "replace")
        if not UID.fullmatch(uid):
            raise Refusal(Reason.INVALID_UID, tag)
        found[name] = uid
    try:
        codecs = encodings(result.value(0x00080005))
    except Refusal:
        codecs = ()
    for name, tag in _TEXTS.items():
        raw = result.value(tag) or b""
        if codecs or raw.isascii():     # in an unknown character set nobody is told by a guess
            found[name] = decode(raw, codecs).strip(" \0") or None
    return found
