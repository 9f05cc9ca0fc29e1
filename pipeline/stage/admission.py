"""Duplicates, conflicts and studies still arriving. Pure: rows in, decisions out.

Only what is admitted (pending) counts as seen before. An object that is rejected or in conflict is judged anew each
time it lands: landing one side of a conflict again, alone, in a later batch, is how an engineer says which is right.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.model import Reason, Status
from pipeline.stage import rows as held

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Digests = np.ndarray[Any, np.dtype[np.uint8]]     # a row of 32 bytes each


def uid_digests(uids: pa.ChunkedArray) -> Digests:
    """Return the SHA-256 of each UID; of a null, of nothing."""
    out = np.empty((len(uids), 32), np.uint8)
    at = 0
    for chunk in uids.chunks:
        raw = b"".join(hashlib.sha256((uid or "").encode()).digest() for uid in chunk.to_pylist())
        out[at:at + len(chunk)] = np.frombuffer(raw, np.uint8).reshape(-1, 32)
        at += len(chunk)
    return out


def settled(rows: pa.Table) -> tuple[pa.Table, int]:
    """Return the rows that may go into a batch, and how many are held back: objects that are `late`, and every object
    of a study with one of them."""
    moving = held.text(rows.filter(rows["late"]).select(["study_uid"]), "study_uid").drop_null().unique()
    arriving = pc.or_(rows["late"], pc.is_in(held.text(rows, "study_uid"), value_set=moving))
    still = held.where(rows, pc.invert(arriving))
    return still, rows.num_rows - still.num_rows


def admit(rows: pa.Table, uids: Digests, seen_bytes: Mask, seen_uids: Mask) -> pa.Table:
    """Return the rows of one batch, which are in order of their source_uri, with status and reason of the sound ones.

    `uids` as `uid_digests` gives them; the masks say of which rows earlier batches admitted the bytes, or the SOP
    Instance UID.
    """
    sound = held.equal(rows["status"], Status.PENDING) & np.asarray(pc.is_valid(rows["sop_instance_uid"]), bool)
    duplicate, conflict = sound & seen_bytes, sound & ~seen_bytes & seen_uids
    for first, others in _same(uids, np.flatnonzero(sound & ~seen_bytes & ~seen_uids)):
        every = np.append(first, others)
        contents = held.digests(rows["source_sha256"].take(pa.array(every)))
        if (contents != contents[0]).any():
            conflict[every] = True
        else:
            duplicate[others] = True
    status, reason = rows["status"], rows["reason"]
    for mask, new, why in ((duplicate, Status.DUPLICATE, Reason.SAME_BYTES),
                           (conflict, Status.CONFLICT, Reason.SAME_UID_OTHER_BYTES)):
        if mask.any():
            status = pc.if_else(pa.array(mask), new.value, status)
            reason = pc.if_else(pa.array(mask), why.value, reason)
    return held.with_column(held.with_column(rows, "status", status), "reason", reason)


def _same(digests: Digests, among: np.ndarray[Any, Any]) -> list[tuple[Any, np.ndarray[Any, Any]]]:
    """Return, for each digest that several of these rows have, the first of them and the others, in order."""
    if not len(among):
        return []
    words = np.ascontiguousarray(digests[among]).view(">u8")
    order = np.lexsort(words.T[::-1])      # stable: rows of one digest stay in order
    words = words[order]
    starts = np.flatnonzero(np.append(True, (words[1:] != words[:-1]).any(axis=1)))
    sizes = np.diff(np.append(starts, len(order)))
    groups = ((among[order[at:at + size]]) for at, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True))
    return [(group[0], group[1:]) for group in groups]
