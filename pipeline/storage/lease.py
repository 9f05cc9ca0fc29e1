"""One process at a time, on any store: a lease is an object that its holder keeps young.

A conditional write is not a lock everywhere, so none is used. Who wants the lease writes an object of its own below the
lease's name, then lists: is another one alive, it takes its own away and is refused. Of two that come at once, each
writes before it lists, so at least one sees the other: never both hold it, at worst neither, and they try again. The
store must list an object as soon as it is written (S3, Ceph, one-node Swift and file systems do); its clock decides.

A lease whose process is gone (same machine since the same start, same process space) is taken over at once; any other
when it has not been renewed for its time. No host or user name is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipeline.errors import LeaseHeld, NotFound, TreError
from pipeline.storage.base import ObjectStore, check_key

ATTEMPTS = 4  # where others come at the same moment


@contextmanager
def hold(store: ObjectStore, key: str, *, seconds: float = 120) -> Iterator[None]:
    """Hold the lease `key` while the block runs; renewed by a thread three times in `seconds`.

    Raises LeaseHeld where another process holds it, and at the end of the block where it was lost meanwhile (this
    process or the store stood still for longer than `seconds`, and another took it).
    """
    mine = f"{check_key(key)}/{secrets.token_hex(8)}"
    record = json.dumps({"schema_version": 1, "seconds": seconds, **_self()}, sort_keys=True).encode()
    _acquire(store, key, mine, record)
    done, lost = threading.Event(), threading.Event()
    renewal = threading.Thread(target=_renew, args=(store, mine, record, seconds, done, lost), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        done.set()
        renewal.join()
        with suppress(TreError):  # a lease that cannot be taken away grows old
            if store.stat(mine) is None:
                lost.set()
            store.delete(mine)
    if lost.is_set():
        raise LeaseHeld(
            "The lease was lost while the step ran: another process may have run it too.", hint="Run it again."
        )


def _acquire(store: ObjectStore, key: str, mine: str, record: bytes) -> None:
    for attempt in range(ATTEMPTS):
        if not _alive(store, key, mine):
            store.write(mine, record)
            try:
                if not _alive(store, key, mine):
                    return
            except BaseException:
                store.delete(mine)
                raise
            store.delete(mine)
        elif attempt == 0:
            break  # it was held before we came
        time.sleep(random.uniform(0.05, 0.3) * (attempt + 1))  # noqa: S311
    raise LeaseHeld("Another process holds the lease of this step.", hint="Wait for it to end, then run it again.")


def _alive(store: ObjectStore, key: str, mine: str) -> bool:
    """Tell whether somebody else holds the lease; remove what the dead left."""
    found = False
    for entry in store.list(f"{key}/"):
        if entry.key == mine or "/" in entry.key[len(key) + 1 :]:
            continue
        try:
            record = json.loads(store.read(entry.key))
            age = store.now() - entry.modified
            dead = _gone(record) or age > timedelta(seconds=float(record["seconds"]))
        except NotFound:
            continue
        except (ValueError, KeyError, TypeError):
            dead = False  # not ours to judge
        if dead:
            store.delete(entry.key)
        found = found or not dead
    return found


def _renew(
    store: ObjectStore, mine: str, record: bytes, seconds: float, done: threading.Event, lost: threading.Event
) -> None:
    while not done.wait(seconds / 3):
        with suppress(TreError):  # the next turn tries again; who waits too long is taken for dead, and sees it below
            if store.stat(mine) is None:
                lost.set()
                return
            store.write(mine, record)


def _self() -> dict[str, Any]:
    return {"machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid())}


def _gone(record: dict[str, Any]) -> bool:
    """Tell whether the holder was a process of this machine, as it runs now, and is no more."""
    machine = _machine()
    return machine is not None and record["machine"] == machine and _started(int(record["pid"])) != record["started"]


def _machine() -> str | None:
    """Return a digest of this start of this machine and this process space; None where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None
    return hashlib.sha256(boot + space.encode()).hexdigest()[:24]


def _started(pid: int) -> int | None:
    """Return when the process started, in clock ticks since the machine did; None where it is dead or never was."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
