"""The contract of an object store: the one way to reach a zone, on disk or on S3.

Keys are relative to the zone's URL, `/`-separated, never empty, never with `.` or `..` segments (`ValueError`), and one
key is never the directory of another. They are Unicode that UTF-8 can write, so they fit tables and ids; listing order
is that of their UTF-8 bytes. A segment `.tre-` and 16 hex digits is a temporary object: never listed.
Errors are the tree's: `NotFound`, `StoreUnreachable` (try again), `StoreDenied`, `StoreRefused`. No message holds the
name of a landed object. Implementations: `local.py` (file://) and `s3.py` (s3://); `memory` stubs are for tests only.
"""

from __future__ import annotations

import errno
import re
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from pipeline.errors import StoreUnreachable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, what the user may have of it, or what a file may
_TEMPORARY = re.compile(r"(?:.*/)?\.tre-[0-9a-f]{16}(?:/.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Entry:
    """One object as the store lists it.

    `version` changes whenever the bytes may have changed (etag, or size, mtime and inode); `modified` is by the store's
    clock, UTC. `regular` is False for links and special files (file:// only): they are listed so that nothing is lost
    in silence, and cannot be opened.
    """

    key: str
    size: int
    modified: datetime
    version: str
    regular: bool = True


class ObjectStore(Protocol):
    """What every zone is reached through. All methods are safe to repeat. `url` has no slash at its end."""

    url: str

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every object below `prefix` (a plain string prefix), in key order, temporary objects left out."""

    def stat(self, key: str) -> Entry | None:
        """Return the object's entry, or None."""

    def read(self, key: str) -> bytes:
        """Return a small object's bytes. Raises NotFound."""

    def fetch(self, key: str) -> AbstractContextManager[Path]:
        """Yield a local path that holds the object's bytes, for reading only; a temporary copy is removed on exit."""

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Yield a stream of the object's bytes. Raises NotFound."""

    def write(self, key: str, data: bytes) -> None:
        """Put `data`, replacing what is there, visible at once and whole or not at all, durable on return."""

    def create(self, key: str, data: bytes) -> bool:
        """Put `data` only if nothing is there. False where something is. As atomic as the store is (see probe)."""

    def put_file(self, key: str, path: Path, sha256: bytes) -> None:
        """Put a local file whose SHA-256 is `sha256`; the store's copy is checked (by the store, or by reading back).

        Whole or not at all; durable once `settle` returns. An object that is there with these bytes is left as it is.
        Raises StoreRefused where what the store holds afterwards is not these bytes.
        """

    def adopt(self, key: str, path: Path, sha256: bytes) -> None:
        """Put a local file that we made, and take it away: renamed where it is on the store's file system (see
        `scratch`), else put as by `put_file`.

        The SHA-256 is trusted where the file is renamed; the file keeps its mode. Afterwards `path` is gone. Durable
        once `settle` returns.
        """

    def settle(self) -> None:
        """Make all that was put or adopted durable: to be called before what says that it is there is written.

        On a file store one flush for all of it, where one a file would cost more than the file.
        """

    def scratch(self) -> AbstractContextManager[Path]:
        """Yield an empty directory for files to `adopt`: on a file store's own file system, else the machine's.

        It goes away on exit; what a killed process left is cleared by the next call on the same file store.
        """

    def digest_checked(self) -> Literal["store", "read-back"]:
        """Return who compares an object's SHA-256 when it is put: the store itself, or we, by reading it back."""

    def delete(self, key: str) -> None:
        """Remove the object; no error where it is not."""

    def purge(self, prefix: str) -> int:
        """Remove for good every object below `prefix` (a plain string prefix, not empty); return how many went.

        On a store with versions every version and delete marker goes, also of objects that are deleted already, and
        uploads that were never completed; each counts. Beside a file store's objects, what killed writers left goes.
        Raises StoreRefused where the store does not tell its versions.
        """

    def now(self) -> datetime:
        """Return the time by the store's clock, UTC."""


def check_key(key: str) -> str:
    """Return `key`, or raise ValueError where it could leave the zone."""
    if any(s in ("", ".", "..") for s in key.split("/")) or any(c in "\\\0" or "\ud800" <= c <= "\udfff" for c in key):
        raise ValueError("not a key of this zone")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix`, or raise ValueError where its directory could leave the zone."""
    above, slash, _ = prefix.rpartition("/")
    if slash:
        check_key(above)
    return prefix


def temporary() -> str:
    """Return a new name (one segment of a key) that no store lists."""
    return f".tre-{secrets.token_hex(8)}"


def is_temporary(key: str) -> bool:
    """Tell whether a segment of the key is a temporary name."""
    return ".tre-" in key and _TEMPORARY.fullmatch(key) is not None


def disk_full(where: str) -> StoreUnreachable:
    """Return the error of a disk without room: of the zone, or of this machine's temporary files."""
    hint = "Make room there, then run it again: what was begun is finished, and nothing is done twice."
    return StoreUnreachable(f"There is no room left on the disk of the {where} files.", hint=hint)


@contextmanager
def no_room(where: str) -> Iterator[None]:
    """Turn what is raised where a disk is full while the block writes files of its own into the tree's error."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise disk_full(where) from None
