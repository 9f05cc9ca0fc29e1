"""Received objects on disk: written under a temporary name, named by the SHA-256 of their bytes once they are durable.

What a killed process was writing lies in a scratch directory that no store lists and that the next start clears. What
has its name is whole. Nothing that has its name is ever removed or written over, but a file that is shorter or longer
than the bytes it is named after (damage) is replaced by them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from pipeline import layout
from pipeline.errors import EnvironmentUnfit
from pipeline.storage.base import temporary
from pipeline.storage.local import LocalStore

EACH = 8 << 20      # bytes of one object between two looks at the room that is left
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Full(Exception):
    """There is less room on the disk than the project file wants free."""


class Incoming:
    """One object on its way to disk."""

    def __init__(self, spool: Spool, descriptor: int, name: str) -> None:
        self._spool, self.descriptor, self.name = spool, descriptor, name
        self.size, self._look = 0, EACH
        self._digest = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        """Append. Raises Full, OSError."""
        self._digest.update(data)
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self.descriptor, rest):]
            except OSError as error:
                if error.errno in _NO_ROOM:
                    raise Full from None
                raise
        self.size += len(data)
        if self.size >= self._look:
            self._look += EACH
            self._spool.check_room()

    def digest(self) -> str:
        return self._digest.hexdigest()


class Spool:
    """Landing's directory, as a listener writes to it. Safe to use from many threads. See `opened`."""

    def __init__(self, root: Path, scratch: int, free_bytes: int) -> None:
        self._root, self._scratch, self._free_bytes = root, scratch, free_bytes
        self._naming, self._making = threading.Lock(), threading.Lock()
        self._made: set[str] = set()

    @classmethod
    @contextmanager
    def opened(cls, landing: str, free_bytes: int) -> Iterator[Spool]:
        """Yield the spool of a landing zone (a file URL); `free_bytes` stay free. Raises EnvironmentUnfit."""
        if urlsplit(landing).scheme != "file":
            raise EnvironmentUnfit(
                "Images can be received only where landing is a directory of this machine.",
                hint="Give --landing file:///…, and copy from there to the object store.")
        store = LocalStore(landing, zone="landing")
        with store.scratch() as scratch:
            at = os.open(scratch, _DIRECTORY)
            try:
                yield cls(store.root, at, free_bytes)
            finally:
                os.close(at)

    def free(self) -> int:
        """Return the bytes that may still be written before the limit; negative below it. Raises OSError."""
        found = os.statvfs(self._scratch)
        return found.f_bavail * found.f_frsize - self._free_bytes

    def check_room(self) -> None:
        """Raise Full below the limit."""
        if self.free() < 0:
            raise Full

    @contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """Yield a new file to write an object to; it goes away on exit unless it was kept. Raises Full, OSError."""
        self.check_room()
        name = temporary()
        try:
            descriptor = os.open(name, _NEW, 0o640, dir_fd=self._scratch)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise Full from None
            raise
        try:
            yield Incoming(self, descriptor, name)
        finally:
            os.close(descriptor)
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._scratch)

    def keep(self, incoming: Incoming) -> bool:
        """Make the bytes, then their name, durable. Return False where they were there already.

        On return both have survived a power cut, as far as the file system keeps its word: the file is flushed before
        it is named and the directory after. Raises Full, OSError: then nothing may be promised.
        """
        try:
            os.fdatasync(incoming.descriptor)
            above, _, name = layout.received(incoming.digest()).rpartition("/")
            at = self._directory(above)
            try:
                new = not self._name(incoming, name, at, lambda: _is_there(name, at))
                if not new and not _holds(name, at, incoming.digest()):
                    new = not self._name(incoming, name, at, lambda: False)
                os.fsync(at)        # also where it was there: whoever named it may not have got this far
            finally:
                os.close(at)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise Full from None
            raise
        return new

    def _name(self, incoming: Incoming, name: str, at: int, there: Callable[[], bool]) -> bool:
        """Give a file its name where nothing is there; return whether something was."""
        with self._naming:
            if there():
                return True
            os.rename(incoming.name, name, src_dir_fd=self._scratch, dst_dir_fd=at)
            return False

    def _directory(self, names: str) -> int:
        """Open a directory below landing, made and durable; made again where somebody moved it away."""
        path = self._root / names
        if names in self._made:
            with suppress(FileNotFoundError):
                return os.open(path, _DIRECTORY)
        with self._making:
            path.parent.mkdir(mode=0o750, exist_ok=True)
            path.mkdir(mode=0o750, exist_ok=True)
            for above in (self._root, path.parent):
                at = os.open(above, _DIRECTORY)
                try:
                    os.fsync(at)
                finally:
                    os.close(at)
            self._made.add(names)
        return os.open(path, _DIRECTORY)


def _is_there(name: str, at: int) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _holds(name: str, at: int, sha256: str) -> bool:
    """Tell whether a file holds the bytes of this digest, durable: then nothing needs to be written again."""
    try:
        with os.fdopen(os.open(name, _OLD, dir_fd=at), "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                return False
            os.fsync(file.fileno())
            return True
    except OSError:     # it cannot be read: it is as good as not there
        return False
