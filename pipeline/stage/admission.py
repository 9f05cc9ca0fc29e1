"""Duplicates, conflicts and studies still arriving. Pure: rows in, decisions out.

Only what is admitted (pending) counts as seen before. An object that is rejected or in conflict is judged anew each
time it lands: landing one side of a conflict again, alone, in a later batch, is how an engineer says which is right.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime

from pipeline.model import Reason, Status
from pipeline.stage.inventory import Landed


def uid_digest(uid: str) -> bytes:
    return hashlib.sha256(uid.encode()).digest()


def settled(rows: Iterable[Landed], newest: datetime) -> tuple[list[Landed], int]:
    """Return the rows that may go into a batch, and how many are held back: objects changed after `newest`, and every
    object of a study with one of them."""
    rows = list(rows)
    moving = {row.study_uid for row in rows if row.study_uid and row.modified > newest}
    still = [row for row in rows if row.modified <= newest and row.study_uid not in moving]
    return still, len(rows) - len(still)


def admit(rows: Iterable[Landed], seen_bytes: Collection[bytes], seen_uids: Collection[bytes]) -> None:
    """Set status and reason of the sound rows of one batch.

    `seen_bytes`, `seen_uids`: digests of bytes and of SOP Instance UIDs that earlier batches admitted.
    """
    by_uid: dict[str, list[Landed]] = defaultdict(list)
    for row in sorted(rows, key=lambda r: r.source_uri):
        if row.status != Status.PENDING or row.sop_instance_uid is None:
            continue
        if row.source_sha256 in seen_bytes:
            _set(row, Status.DUPLICATE, Reason.SAME_BYTES)
        elif uid_digest(row.sop_instance_uid) in seen_uids:
            _set(row, Status.CONFLICT, Reason.SAME_UID_OTHER_BYTES)
        else:
            by_uid[row.sop_instance_uid].append(row)
    for same_uid in by_uid.values():
        if len({row.source_sha256 for row in same_uid}) > 1:
            for row in same_uid:
                _set(row, Status.CONFLICT, Reason.SAME_UID_OTHER_BYTES)
        else:
            for row in same_uid[1:]:
                _set(row, Status.DUPLICATE, Reason.SAME_BYTES)


def _set(row: Landed, status: Status, reason: Reason) -> None:
    row.status, row.reason = status.value, reason.value
