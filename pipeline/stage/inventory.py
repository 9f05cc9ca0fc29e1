"""Reading landed objects, in processes of their own: what one object does to its reader never touches its neighbours.

Each object has its limits of time and memory (`isolate`); one that goes over them, or ends its reader twice, becomes
`reading_limit_exceeded` and is tried again at the next stage, as is all that could not be read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing
from itertools import islice
from pathlib import Path

from pipeline.dicom.inspect import NOTHING, Inspected, inspect
from pipeline.errors import StoreDenied, StoreUnreachable
from pipeline.isolate import LIMITS, Clock, Limits, each
from pipeline.model import Reason, Refusal
from pipeline.storage import Entry, ObjectStore, open_store

CHUNK = 32
SLICE = 8_192  # objects that are Python's at a time
LOOKS = 3      # more, at an object that its store did not give while it answered otherwise
Reader = Callable[[Path, int], Inspected]


def read_all(landing: ObjectStore, entries: Iterable[Entry], max_bytes: int, workers: int | None = None,
             reader: Reader = inspect, limits: Limits = LIMITS) -> Iterator[tuple[Entry, Inspected]]:
    """Yield every entry once with what was read, in any order within a slice of them. Raises StoreUnreachable,
    StoreDenied.

    `workers`: processes, None for one a core, 0 to read in this process (no limits, no isolation from a crash).
    Processes open the store anew from its URL.
    """
    count = (os.cpu_count() or 1) if workers is None else workers
    tried = denied = 0
    again: list[Entry] = []
    left = iter(entries)
    while part := list(islice(left, SLICE)):
        found = _in_processes(landing, part, max_bytes, count, reader, limits) if count else (
            (entry, look(landing, entry, max_bytes, reader)) for entry in part)
        for entry, result in found:
            if isinstance(result, Inspected):
                tried += 1
                yield entry, result
            elif result is StoreUnreachable:
                landing.stat(entry.key)     # raises where it is the store, not this object, that does not answer
                again.append(entry)
            else:
                denied += 1
                yield entry, _refused(entry, Reason.UNREADABLE)
    if denied > 1 and not tried:
        raise StoreDenied("Landing lists its objects, and these credentials may read none of them.")
    for looks in reversed(range(LOOKS)):
        found = _in_processes(landing, again, max_bytes, 1, reader, limits) if count else (
            (entry, look(landing, entry, max_bytes, reader)) for entry in again)
        again = []
        for entry, result in found:
            if result is StoreUnreachable and looks:
                landing.stat(entry.key)
                again.append(entry)
            else:
                yield entry, result if isinstance(result, Inspected) else _refused(entry, Reason.UNREADABLE)


def look(landing: ObjectStore, entry: Entry, max_bytes: int, reader: Reader = inspect, clock: Clock | None = None,
         number: int = 0) -> Inspected | type[Exception]:
    """Return what one object is, or StoreUnreachable or StoreDenied where the store was in the way. Never raises."""
    if not entry.regular:
        return _refused(entry, Reason.NOT_A_REGULAR_FILE)
    if entry.size > max_bytes:          # not fetched: a raised limit lets it in at the next stage
        return _refused(entry, Reason.TOO_LARGE)
    try:
        if clock:
            clock.fetch(number, entry.size)
        with landing.fetch(entry.key) as path:
            if clock:
                clock.start(number, entry.size)
            return reader(path, max_bytes)
    except StoreUnreachable:
        return StoreUnreachable
    except StoreDenied:
        return StoreDenied
    except MemoryError:
        return _refused(entry, Reason.READING_LIMIT_EXCEEDED)
    except Exception:  # noqa: BLE001 - whatever one object does, it keeps its row and its neighbours theirs
        return _refused(entry, Reason.UNREADABLE)


def _refused(entry: Entry, reason: Reason) -> Inspected:
    return Inspected(entry.size, NOTHING, Refusal(reason))


# ---- processes ---------------------------------------------------------------------------------------------------
Looked = list[Inspected | type[Exception]]


def _in_processes(landing: ObjectStore, entries: Sequence[Entry], max_bytes: int, workers: int, reader: Reader,
                  limits: Limits) -> Iterator[tuple[Entry, Inspected | type[Exception]]]:
    size = max(1, min(CHUNK, -(-len(entries) // workers)))
    stores: list[ObjectStore] = []

    def look_at(chunk: Sequence[Entry], clock: Clock, without: AbstractSet[int]) -> Looked:
        if not stores:      # in the child: connections are not shared
            stores.append(open_store(landing.url, "landing", create=False))
        return [_refused(entry, Reason.READING_LIMIT_EXCEEDED) if number in without
                else look(stores[0], entry, max_bytes, reader, clock, number) for number, entry in enumerate(chunk)]

    chunks = [entries[i:i + size] for i in range(0, len(entries), size)]
    with closing(each(chunks, look_at, workers=workers, limits=limits)) as done:
        for chunk, found in done:
            yield from zip(chunk, found, strict=True)
