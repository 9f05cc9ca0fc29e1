"""Ask a store, before a release depends on it, whether it does what it answers 200 to.

Stores differ, and say nothing: some ignore a condition, some accept a wrong checksum. What is required and missing is
refused by name; what is good to know is returned.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Literal

from pipeline.errors import NotFound, StoreRefused
from pipeline.storage.base import ObjectStore, check_prefix, temporary

WRITERS = 8


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store was seen to do. The first two are required, so they are always true here.

    `digest_checked`: who compares an object's SHA-256 when it is put. `atomic_create`: one winner in every round that
    eight writers raced; False where a round had another number; None where no round was run.
    """

    read_after_write: bool
    create_refused: bool
    digest_checked: Literal["store", "read-back"]
    atomic_create: bool | None


def probe(store: ObjectStore, prefix: str = "", *, rounds: int = 3) -> Capabilities:
    """Try the store with temporary objects below `prefix` (empty, or a directory with its slash), and remove them.

    Raises StoreRefused naming the missing property, StoreDenied, StoreUnreachable.
    """
    keys = [check_prefix(prefix) + temporary() for _ in range(3 + rounds)]
    try:
        _read_after_write(store, keys[0])
        _create_refused(store, keys[1])
        _digest_checked(store, keys[2])
        atomic = all(_one_winner(store, key) for key in keys[3:]) if rounds else None
        return Capabilities(True, True, store.digest_checked(), atomic)
    finally:
        for key in keys:
            store.delete(key)


def _require(kept: bool, name: str, meaning: str) -> None:
    if not kept:
        hint = "Choose another store, or mend its settings (docs/adr/0003-object-store.md)."
        raise StoreRefused(f"The store lacks a property that a release needs: {name} ({meaning}).", hint=hint)


def _read_after_write(store: ObjectStore, key: str) -> None:
    seen = []
    for data in (b"first", b"the second"):
        store.write(key, data)
        entry = store.stat(key)
        seen.append(_read(store, key) == data and entry is not None and entry.size == len(data))
    store.delete(key)
    seen.append(store.stat(key) is None)
    _require(all(seen), "read_after_write", "what was written, replaced or deleted is what the next request sees")


def _create_refused(store: ObjectStore, key: str) -> None:
    # Refused, and yet ours: the answer to the first request was lost, and it was sent again.
    first = any(store.create(key, b"first") or _read(store, key) == b"first" for _ in range(2))
    kept = first and not store.create(key, b"second") and _read(store, key) == b"first"
    _require(kept, "create_refused", "a create is refused where an object is: If-None-Match, on S3")


def _digest_checked(store: ObjectStore, key: str) -> None:
    data = b"digest"
    with store.scratch() as directory:
        path = directory / "probe"
        path.write_bytes(data)
        try:
            store.put_file(key, path, bytes(32))
            kept = False
        except StoreRefused:
            kept = store.stat(key) is None
        store.put_file(key, path, hashlib.sha256(data).digest())
    _require(
        kept and _read(store, key) == data, "digest_checked", "bytes that are not those of their SHA-256 are refused"
    )


def _one_winner(store: ObjectStore, key: str) -> bool:
    start = Barrier(WRITERS)

    def write(number: int) -> bool:
        start.wait()
        return store.create(key, b"%d" % number)

    with ThreadPoolExecutor(WRITERS) as pool:
        return sum(pool.map(write, range(WRITERS))) == 1


def _read(store: ObjectStore, key: str) -> bytes | None:
    try:
        return store.read(key)
    except NotFound:
        return None
