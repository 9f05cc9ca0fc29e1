"""A zone on a file system: file:///absolute/path (percent-encoded where need be, as `Path.as_uri` writes it).

Every path is walked from the zone's directory by descriptor, and no link is followed on the way or at its end: a link
in landing cannot lead out of it. Writes go to a temporary name in the same directory, are flushed, renamed, and the
directory flushed; files that are put or adopted by the thousand are flushed together, by `settle`. A directory that a
kill leaves without objects is harmless: only objects are listed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import unquote, urlsplit

from pipeline.errors import NotFound, StoreDenied, StoreRefused, StoreUnreachable, TreError
from pipeline.storage.base import (
    FULL,
    Entry,
    check_prefix,
    disk_full,
    is_temporary,
    no_room,
    temporary,
)
from pipeline.storage.names import names_of, to_key

CHUNK = 1 << 20
DEEPEST, LONGEST = 64, 3800  # directories below each other; bytes of a path, so that a name of 255 still fits PATH_MAX
_LAST_SECOND = 253402300799  # of the year 9999: a file may claim any time
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR)


class LocalStore:
    """The ObjectStore of a directory. `create` makes the directory; without it, a missing one raises NotFound.

    `zone` is what errors call it.
    """

    def __init__(self, url: str, *, create: bool = True, zone: str = "zone's") -> None:
        self._zone = zone
        parts = urlsplit(url)
        path = Path(unquote(parts.path, errors="surrogateescape"))
        odd = parts.netloc not in ("", "localhost") or parts.query or parts.fragment
        if parts.scheme != "file" or odd or not path.is_absolute():
            raise ValueError("a file zone's URL is file:///absolute/path")
        self.url = url.rstrip("/")
        with self._writing():
            if create:
                path.mkdir(parents=True, exist_ok=True)
            self.root = path.resolve()  # the zone's own directory may be a link: the operator named it
            if not self.root.is_dir():
                raise NotFound(f"The {zone} directory is not there.", hint="Create it, or mend the zone's URL.")

    # ---- reading ---------------------------------------------------------------------------------------------
    def list(self, prefix: str = "") -> Iterator[Entry]:
        above, slash, _ = check_prefix(prefix).rpartition("/")
        if is_temporary(above):
            return
        with _errors(zone=self._zone):
            try:
                at = self._directory(names_of(above) if slash else [])
            except OSError as error:
                if slash and error.errno in _ABSENT:
                    return
                raise
            yield from self._walk(at, above + slash, prefix)

    def _walk(self, at: int, base: str, prefix: str) -> Iterator[Entry]:
        """Yield what is below the open directory `at`, which is closed at the end."""
        try:
            with os.scandir(at) as found:  # a directory sorts as its key with the slash, like the keys below it
                ends = ((e.name, "/" if e.is_dir(follow_symlinks=False) else "") for e in found)
                names = sorted((base + to_key(os.fsencode(n)) + end, n) for n, end in ends if not is_temporary(n))
            for key, name in names:
                if not key.startswith(prefix):
                    continue
                try:
                    status = os.stat(name, dir_fd=at, follow_symlinks=False)
                    below = self._below(at, name, key) if stat.S_ISDIR(status.st_mode) else None
                except OSError as error:
                    if error.errno in _ABSENT or (error.errno == errno.EACCES and key == "lost+found/"):
                        continue  # it went away while we looked
                    raise
                if below is not None:
                    yield from self._walk(below, key, prefix)
                else:
                    yield _entry(key.rstrip("/"), status)
        finally:
            os.close(at)

    def _below(self, at: int, name: str, key: str) -> int | None:
        """Open a directory to walk; None where it is too deep for paths or descriptors, as only malice makes it."""
        if key.count("/") > DEEPEST or len(os.fsencode(self.root)) + len(key.encode()) > LONGEST:
            return None
        return os.open(name, _DIRECTORY, dir_fd=at)

    def stat(self, key: str) -> Entry | None:
        with _errors(zone=self._zone):
            try:
                with self._parent(key) as (at, name):
                    status = os.stat(name, dir_fd=at, follow_symlinks=False)
            except OSError as error:
                if error.errno in _ABSENT:
                    return None
                raise
        return None if stat.S_ISDIR(status.st_mode) else _entry(key, status)

    def read(self, key: str) -> bytes:
        with self.open(key) as stream, _errors(zone=self._zone):
            return stream.read()

    @contextmanager
    def fetch(self, key: str) -> Iterator[Path]:
        """Yield the object's own path: no copy is made."""
        with _errors(zone=self._zone):
            os.close(self._open(key))
        yield self.root.joinpath(*map(os.fsdecode, names_of(key)))

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        with _errors(zone=self._zone):
            descriptor = self._open(key)
        with os.fdopen(descriptor, "rb") as stream:
            yield stream

    def _open(self, key: str) -> int:
        with self._parent(key) as (at, name):
            return _open_regular(name, at)

    # ---- writing ---------------------------------------------------------------------------------------------
    def write(self, key: str, data: bytes) -> None:
        self._put(key, lambda out: _write(out, data))

    def create(self, key: str, data: bytes) -> bool:
        """As the protocol says; really atomic: the whole object is linked to its name, which fails where one is."""
        with self._writing(), self._parent(key, make=True) as (at, name), self._temporary(at) as (out, temp):
            _write(out, data)
            os.fsync(out)
            try:
                os.link(temp, name, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
                    raise
                raise StoreRefused("The file system of a zone has no hard links: create is not safe.") from None
            os.fsync(at)
            return True

    def put_file(self, key: str, path: Path, sha256: bytes) -> None:
        """As the protocol says; the digest is computed from the bytes as they are copied, before they have a name."""
        there = self.stat(key)
        with self._writing():
            if there is not None and there.regular and there.size == path.stat().st_size:
                with os.fdopen(self._open(key), "rb") as stream:
                    if hashlib.file_digest(stream, "sha256").digest() == sha256:
                        return

        def copy(out: int) -> None:
            source = _open_regular(path)
            with os.fdopen(source, "rb", buffering=0) as stream:
                digest, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK))
                while count := stream.readinto(buffer):
                    digest.update(buffer[:count])
                    _write(out, buffer[:count])
            if digest.digest() != sha256:
                raise StoreRefused("The bytes of a file are not those its SHA-256 speaks of: it was not stored.")

        self._put(key, copy, flush=False)

    def adopt(self, key: str, path: Path, sha256: bytes) -> None:
        with self._writing(), self._parent(key, make=True, flush=False) as (at, name):
            os.close(_open_regular(path))
            try:
                os.rename(path, name, dst_dir_fd=at)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
            else:
                return
        self.put_file(key, path, sha256)
        path.unlink()

    def settle(self) -> None:
        with self._writing():
            at = self._directory([])
            try:
                _flush_file_system(at)
            finally:
                os.close(at)

    def delete(self, key: str) -> None:
        with self._writing():
            try:
                with self._parent(key) as (at, name):
                    os.unlink(name, dir_fd=at)
                    os.fsync(at)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise

    def purge(self, prefix: str) -> int:
        """As the protocol says; directories that are empty afterwards go too: their names say whose they were."""
        above, _, start = check_prefix(prefix).rpartition("/")
        if not prefix:
            raise ValueError("a whole zone is not purged")
        with self._writing():
            try:
                top = self._directory(names_of(above) if above else [])
            except OSError as error:
                if error.errno in _ABSENT:
                    return 0
                raise
            try:
                removed = self._purge(top, start)
                os.fsync(top)
            finally:
                os.close(top)
            names = names_of(above) if above else []
            while names:  # what is empty now, up to the zone
                *names, last = names
                with suppress(OSError):
                    at = self._directory(names)
                    try:
                        os.rmdir(last, dir_fd=at)
                    finally:
                        os.close(at)
        return removed

    def _purge(self, at: int, start: str) -> int:
        """Remove what begins with `start` in the open directory `at`, and temporary names; count the objects."""
        removed = 0
        with os.scandir(at) as found:
            entries = [(e.name, e.is_dir(follow_symlinks=False)) for e in found]
        for name, is_directory in entries:
            left_behind = is_temporary(name)
            if not (left_behind or to_key(os.fsencode(name)).startswith(start)):
                continue
            with suppress(FileNotFoundError):
                if not is_directory:
                    os.unlink(name, dir_fd=at)
                    removed += not left_behind
                elif not left_behind:  # a temporary directory is somebody's scratch
                    below = os.open(name, _DIRECTORY, dir_fd=at)
                    try:
                        removed += self._purge(below, "")
                        os.fsync(below)
                    finally:
                        os.close(below)
                    with suppress(OSError):
                        os.rmdir(name, dir_fd=at)
        return removed

    def now(self) -> datetime:
        """Return the file system's clock where we may write (it may be another machine's), else this machine's."""
        try:
            at = self._directory([])
            try:
                with self._temporary(at) as (out, _):
                    return _modified(os.fstat(out))
            finally:
                os.close(at)
        except OSError:
            return datetime.now(UTC)

    def digest_checked(self) -> Literal["store", "read-back"]:
        return "store"

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        with self._writing():
            self._sweep()
            path, held = self._claim()
        try:
            with no_room(self._zone):
                yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(held)

    def _claim(self) -> tuple[Path, int]:
        """Make a scratch directory and lock it, so that no sweep takes it while this process lives."""
        while True:
            path = self.root / temporary()
            path.mkdir(mode=0o700)
            with suppress(FileNotFoundError, BlockingIOError):  # another process swept it before we had the lock
                held = os.open(path, _DIRECTORY)
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists():
                    return path, held
                os.close(held)

    def _sweep(self) -> None:
        """Remove scratch directories whose process is gone: nobody holds their lock."""
        for path in (p for p in self.root.iterdir() if is_temporary(p.name)):
            with suppress(OSError):  # a file, a link, or swept by another meanwhile
                held = os.open(path, _DIRECTORY)
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path)
                finally:
                    os.close(held)

    def _writing(self) -> AbstractContextManager[None]:
        return _errors(writing=True, zone=self._zone)

    # ---- the way to a file -----------------------------------------------------------------------------------
    def _put(self, key: str, fill: Callable[[int], None], *, flush: bool = True) -> None:
        """Give `key` the bytes that `fill` writes to a descriptor, whole or not at all."""
        way = self._parent(key, make=True, flush=flush)
        with self._writing(), way as (at, name), self._temporary(at) as (out, temp):
            fill(out)
            if flush:
                os.fsync(out)
            os.rename(temp, name, src_dir_fd=at, dst_dir_fd=at)
            if flush:
                os.fsync(at)

    @contextmanager
    def _parent(self, key: str, *, make: bool = False, flush: bool = True) -> Iterator[tuple[int, bytes]]:
        """Yield a descriptor of the directory of `key` and the last part of its name. Raises OSError."""
        *above, name = names_of(key)
        at = self._directory(above, make=make, flush=flush)
        try:
            yield at, name
        finally:
            os.close(at)

    def _directory(self, names: Iterable[bytes], *, make: bool = False, flush: bool = True) -> int:
        """Open the directory of these names below the zone's, and make what is missing where told to."""
        at = os.open(self.root, _DIRECTORY)
        for name in names:
            try:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=at)
                        if flush:
                            os.fsync(at)
                below = os.open(name, _DIRECTORY, dir_fd=at)
            finally:
                os.close(at)
            at = below
        return at

    @contextmanager
    def _temporary(self, at: int) -> Iterator[tuple[int, str]]:
        """Yield a new file under a temporary name; the name is gone on exit."""
        name = temporary()
        out = os.open(name, _NEW, 0o666, dir_fd=at)
        try:
            yield out, name
        finally:
            os.close(out)
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=at)


def _open_regular(path: str | bytes | Path, at: int | None = None) -> int:
    """Open a regular file for reading; a link, a pipe or a device is `FileNotFoundError`, and is not opened."""
    if stat.S_ISREG(os.stat(path, dir_fd=at, follow_symlinks=False).st_mode):
        descriptor = os.open(path, _FILE, dir_fd=at)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)  # it was changed between the two
    raise FileNotFoundError(errno.ENOENT, "not a regular file")


def _flush_file_system(descriptor: int) -> None:
    """Flush all that was written to the file system of an open file: Linux's syncfs, sync(2) elsewhere."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        os.sync()
    elif libc.syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _write(out: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(out, rest) :]


def _modified(status: os.stat_result) -> datetime:
    microseconds = min(max(status.st_mtime_ns, 0) // 1000, _LAST_SECOND * 1_000_000)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def _entry(key: str, status: os.stat_result) -> Entry:
    version = f"{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}-{status.st_ino:x}"
    return Entry(key, status.st_size, _modified(status), version, stat.S_ISREG(status.st_mode))


@contextmanager
def _errors(*, writing: bool = False, zone: str = "zone's") -> Iterator[None]:
    """Turn OSError into the tree's, without the path it names."""
    try:
        yield
    except OSError as error:
        raise _error(error.errno or 0, writing, zone) from None


def _error(number: int, writing: bool, zone: str) -> TreError:
    if number in FULL:
        return disk_full(zone)
    if number in _ABSENT and not writing:
        return NotFound("No object is there.")
    if number in (errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG, errno.EEXIST):
        return StoreRefused("A key cannot be written: a link, a file or a directory is in its way, or it is too long.")
    if number == errno.ENOENT:
        return NotFound("The directory of a zone, or a file to be stored, is not there.")
    if number in (errno.EPERM, errno.EACCES, errno.EROFS):
        return StoreDenied(f"The file system does not allow this in the {zone} directory.",
                           hint="Check its owner and mode.")
    return StoreUnreachable(f"The file system failed ({errno.errorcode.get(number, 'unknown')}).")
