"""Reading landed objects, in processes of their own: what one object does to its reader never touches its neighbours.

A process that dies (killed for memory, a crash in a library) takes its chunk with it: each object of that chunk is read
again alone, and the one that kills its reader twice becomes `unreadable`.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.dicom.inspect import NOTHING, Inspected, inspect
from pipeline.errors import EnvironmentUnfit, StoreDenied, StoreUnreachable
from pipeline.model import Reason, Refusal
from pipeline.observe import quiet
from pipeline.storage import Entry, ObjectStore, open_store

CHUNK = 32
Reader = Callable[[Path, int], Inspected]
_SHARED = ("sop_class_uid", "study_uid", "series_uid", "transfer_syntax_uid", "modality", "study_date", "patient_id",
           "issuer")


@dataclass(slots=True)
class Landed:
    """One landed object: what the store said, what admission read, what staging decided."""

    source_uri: str
    version: str
    modified: datetime
    size: int
    source_sha256: bytes
    status: str
    reason: str | None
    sop_class_uid: str | None
    sop_instance_uid: str | None
    study_uid: str | None
    series_uid: str | None
    transfer_syntax_uid: str | None
    modality: str | None
    study_date: str | None
    patient_id: str | None
    issuer: str | None
    n_elements: int | None
    shard: int | None = None

    @classmethod
    def of(cls, uri: str, entry: Entry, found: Inspected, issuer: str | None) -> Landed:
        """`issuer` is what the landing source declares where the header names none."""
        refusal = found.refusal
        status, reason = ("pending", None) if refusal is None else ("rejected", refusal.reason.value)
        row = cls(uri, entry.version, entry.modified, found.size or entry.size, found.sha256, status, reason,
                  found.sop_class_uid, found.sop_instance_uid, found.study_uid, found.series_uid,
                  found.transfer_syntax_uid, found.modality, found.study_date, found.patient_id,
                  found.issuer or (issuer if found.patient_id else None), found.n_elements or None)
        for name in _SHARED:        # thousands of rows say the same: hold each text once
            if value := getattr(row, name):
                setattr(row, name, sys.intern(value))
        return row

    def row(self) -> dict[str, Any]:
        """Return the columns of the inventory and of the listing."""
        row = {name: getattr(self, name) for name in self.__slots__}
        return {**row, "bytes": self.size, "modified": self.modified.isoformat()}


def read_all(landing: ObjectStore, entries: Sequence[Entry], max_bytes: int, workers: int | None = None,
             reader: Reader = inspect) -> Iterator[tuple[Entry, Inspected]]:
    """Yield every entry once with what was read, in any order. Raises StoreUnreachable, StoreDenied.

    `workers`: processes, None for one a core, 0 to read in this process (no isolation from a crash). Processes open the
    store anew from its URL. `reader` must be importable in them.
    """
    count = (os.cpu_count() or 1) if workers is None else workers
    found = _in_processes(landing, entries, max_bytes, count, reader) if count else (
        (entry, look(landing, entry, max_bytes, reader)) for entry in entries)
    tried = denied = 0
    again: list[Entry] = []
    for entry, result in found:
        if isinstance(result, Inspected):
            tried += 1
            yield entry, result
        elif result is StoreUnreachable:
            landing.stat(entry.key)     # raises where it is the store, and not this object, that does not answer
            again.append(entry)
        else:
            denied += 1
            yield entry, _refused(entry, Reason.UNREADABLE)
    if denied > 1 and not tried:
        raise StoreDenied("Landing lists its objects, and these credentials may read none of them.")
    for entry in again:
        result = look(landing, entry, max_bytes, reader)
        yield entry, result if isinstance(result, Inspected) else _refused(entry, Reason.UNREADABLE)


def look(landing: ObjectStore, entry: Entry, max_bytes: int, reader: Reader = inspect) -> Inspected | type[Exception]:
    """Return what one object is, or StoreUnreachable or StoreDenied where the store was in the way. Never raises."""
    if not entry.regular:
        return _refused(entry, Reason.NOT_A_REGULAR_FILE)
    if entry.size > max_bytes:          # not fetched: a raised limit lets it in at the next stage
        return _refused(entry, Reason.TOO_LARGE)
    try:
        with landing.fetch(entry.key) as path:
            return reader(path, max_bytes)
    except StoreUnreachable:
        return StoreUnreachable
    except StoreDenied:
        return StoreDenied
    except Exception:  # noqa: BLE001 - whatever one object does, it keeps its row and its neighbours theirs
        return _refused(entry, Reason.UNREADABLE)


def _refused(entry: Entry, reason: Reason) -> Inspected:
    return Inspected(entry.size, NOTHING, Refusal(reason))


# ---- processes ---------------------------------------------------------------------------------------------------
_stores: dict[str, ObjectStore] = {}
Looked = list[Inspected | type[Exception]]


def _look_at(url: str, chunk: list[Entry], max_bytes: int, reader: Reader) -> Looked:
    """In a child: what each object of the chunk is."""
    if url not in _stores:
        quiet()
        _stores[url] = open_store(url, "landing", create=False)
    return [look(_stores[url], entry, max_bytes, reader) for entry in chunk]


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _in_processes(landing: ObjectStore, entries: Sequence[Entry], max_bytes: int, workers: int,
                  reader: Reader) -> Iterator[tuple[Entry, Inspected | type[Exception]]]:
    size = max(1, min(CHUNK, -(-len(entries) // workers)))
    waiting = deque(list(entries[i:i + size]) for i in range(0, len(entries), size))
    while waiting:
        pool = _pool(min(workers, len(waiting)))
        flying: dict[Future[Looked], list[Entry]] = {}
        try:
            while waiting or flying:
                while waiting and len(flying) < 2 * workers:
                    future = pool.submit(_look_at, landing.url, waiting[0], max_bytes, reader)
                    flying[future] = waiting.popleft()
                done, _ = wait(flying, return_when=FIRST_COMPLETED)
                if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
                    break
                for future in done:
                    yield from zip(flying.pop(future), future.result(), strict=True)
        except BrokenProcessPool:       # submit found it broken first
            pass
        finally:
            pool.shutdown(cancel_futures=True)
        suspects: list[Entry] = []
        for future, chunk in flying.items():
            if future.cancelled() or future.exception() is not None:
                suspects += chunk
            else:
                yield from zip(chunk, future.result(), strict=True)
        yield from _one_by_one(landing, suspects, max_bytes, reader)


def _one_by_one(landing: ObjectStore, entries: list[Entry], max_bytes: int,
                reader: Reader) -> Iterator[tuple[Entry, Inspected | type[Exception]]]:
    pool: ProcessPoolExecutor | None = None
    try:
        for entry in entries:
            if pool is None:
                pool = _pool(1)
                try:
                    pool.submit(os.getpid).result()
                except BrokenProcessPool:
                    raise EnvironmentUnfit("Processes for reading landed objects cannot be started.") from None
            try:
                yield entry, pool.submit(_look_at, landing.url, [entry], max_bytes, reader).result()[0]
            except BrokenProcessPool:
                pool.shutdown()
                pool = None
                yield entry, _refused(entry, Reason.UNREADABLE)
    finally:
        if pool:
            pool.shutdown()
