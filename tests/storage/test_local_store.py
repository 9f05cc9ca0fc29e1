"""What only a directory has: links, pipes, names that are no text, processes that are killed."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import NotFound, StoreDenied, StoreRefused, StoreUnreachable
from pipeline.storage import ObjectStore, open_store
from pipeline.storage import local as module
from pipeline.storage.base import check_key, temporary
from pipeline.storage.local import LocalStore
from pipeline.storage.names import names_of, to_key


def keys(store: ObjectStore) -> list[str]:
    return [entry.key for entry in store.list()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "zone"
    path.mkdir(exist_ok=True)
    return path


# ---- URLs ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "url", ["file:relative", "file://host/path", "file:///a?b", "file:///a#b", "file://./a", "http:///a"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="file:///absolute/path"):
        LocalStore(url)


def test_directory_is_made_only_where_asked(tmp_path: Path) -> None:
    url = (tmp_path / "deep" / "sp ace#é").as_uri()
    with pytest.raises(NotFound):
        open_store(url, "landing", create=False)
    open_store(url, "landing").write("a", b"x")
    assert (tmp_path / "deep" / "sp ace#é" / "a").read_bytes() == b"x"
    assert keys(open_store(url, "landing", create=False)) == ["a"]


def test_a_file_is_no_zone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for create in (False, True):
        with pytest.raises((NotFound, StoreRefused)):
            LocalStore((tmp_path / "file").as_uri(), create=create)


def test_the_zones_own_directory_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    open_store((tmp_path / "link").as_uri(), "work").write("a/b", b"x")
    assert (root / "a" / "b").read_bytes() == b"x"


# ---- what is no regular file ---------------------------------------------------------------------------------------
@pytest.fixture
def odd(root: Path, tmp_path: Path, local: ObjectStore) -> list[str]:
    """Links to a file, to a directory, out of the zone and to nothing; a pipe and a socket. Returns their keys."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    local.write("dir/file", b"x")
    (root / "link-file").symlink_to(root / "dir" / "file")
    (root / "link-dir").symlink_to(outside)
    (root / "link-out").symlink_to(outside / "secret")
    (root / "link-nothing").symlink_to("nothing")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(root / "socket"))
    return ["link-dir", "link-file", "link-nothing", "link-out", "pipe", "socket"]


def test_they_are_listed_as_not_regular(local: ObjectStore, odd: list[str]) -> None:
    assert [(e.key, e.regular) for e in local.list()] == [("dir/file", True), *((key, False) for key in odd)]
    for key in odd:
        entry = local.stat(key)
        assert entry is not None
        assert not entry.regular


def test_they_are_never_opened(local: ObjectStore, odd: list[str]) -> None:
    """Opening a pipe would block until somebody writes: this test would hang."""
    for key in odd:
        with pytest.raises(NotFound):
            local.read(key)
        with pytest.raises(NotFound), local.fetch(key):
            pass


def test_nothing_is_reached_through_a_link(local: ObjectStore, odd: list[str], tmp_path: Path) -> None:
    key = "link-dir/secret"
    assert local.stat(key) is None
    assert list(local.list("link-dir/")) == []
    with pytest.raises(NotFound):
        local.read(key)
    for call in (local.write, local.create):
        with pytest.raises(StoreRefused):
            call("link-dir/new", b"x")
    local.delete(key)
    assert [p.name for p in (tmp_path / "outside").iterdir()] == ["secret"]


def test_a_write_replaces_a_link_and_not_what_it_points_to(local: ObjectStore, odd: list[str], tmp_path: Path) -> None:
    local.write("link-out", b"new")
    assert not local.create("link-nothing", b"x")
    local.delete("link-file")
    assert local.read("link-out") == b"new"
    assert (tmp_path / "outside" / "secret").read_bytes() == b"secret"
    assert local.read("dir/file") == b"x"


def test_a_file_that_becomes_a_pipe_between_look_and_open_does_not_block(
    local: ObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.write("a", b"x")
    look = os.stat

    def swap(path: object, **how: object) -> os.stat_result:
        seen = look(path, **how)  # type: ignore[arg-type, call-overload]
        if path == b"a":
            (root / "a").unlink()
            os.mkfifo(root / "a")
        return seen  # type: ignore[no-any-return]

    monkeypatch.setattr(module.os, "stat", swap)
    with pytest.raises(NotFound):
        local.read("a")


def test_a_key_is_not_also_a_directory(local: ObjectStore) -> None:
    local.write("a/b", b"x")
    for key in ("a", "a/b/c"):
        with pytest.raises(StoreRefused):
            local.write(key, b"y")
    assert [(e.key, e.size) for e in local.list()] == [("a/b", 1)]


def test_directories_too_deep_are_one_entry(local: ObjectStore, root: Path) -> None:
    at = os.open(root, os.O_RDONLY)
    for _ in range(1500):  # far beyond PATH_MAX and the number of descriptors
        os.mkdir("deep", dir_fd=at)
        below = os.open("deep", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("image", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    local.write("z", b"x")
    entries = list(local.list())
    assert [e.regular for e in entries] == [False, True]
    assert set(entries[0].key.split("/")) == {"deep"}
    assert local.stat("z") == entries[1]
    subprocess.run(["rm", "-rf", root / "deep"], check=True)  # pytest's own cleaning cannot


def test_an_unreadable_directory_stops_the_listing(
    local: ObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing that left it out would make studies look complete. Only a volume's own lost+found is left out."""
    for name in ("a/x", "lost+found/x", "m/lost+found/x", "z"):
        local.write(name, b"")
    closed: set[str] = {"lost+found"}
    opened = os.open

    def deny(path: object, flags: int, *rest: object, **how: object) -> int:
        if path in closed:
            raise PermissionError(errno.EACCES, "no", path)
        return opened(path, flags, *rest, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(module.os, "open", deny)
    with pytest.raises(StoreDenied):
        keys(local)
    (root / "m" / "lost+found").rename(root / "m" / "other")
    assert keys(local) == ["a/x", "m/other/x", "z"]
    closed.add("a")
    with pytest.raises(StoreDenied):
        keys(local)


@pytest.mark.parametrize("seconds", [-1e10, 0, 2**33, 9e9])
def test_any_time_of_modification(local: ObjectStore, root: Path, seconds: float) -> None:
    local.write("a", b"")
    try:
        os.utime(root / "a", (seconds, seconds))
    except OSError:
        pytest.skip("the file system does not take this time")
    (entry,) = local.list()
    assert datetime(1970, 1, 1, tzinfo=UTC) <= entry.modified


def test_a_time_after_the_year_9999() -> None:
    status = os.stat_result((0o100644, 1, 1, 1, 0, 0, 0, 0, 0, 0), {"st_mtime_ns": 10**21, "st_ctime_ns": 0})
    assert module._entry("a", status).modified.year == 9999


def test_version_changes_when_bytes_change_in_place_and_the_time_is_put_back(local: ObjectStore, root: Path) -> None:
    local.write("a", b"one")
    before = local.stat("a")
    time.sleep(0.02)  # the kernel's clock ticks every few milliseconds
    status = (root / "a").stat()
    (root / "a").write_bytes(b"two")
    os.utime(root / "a", ns=(status.st_atime_ns, status.st_mtime_ns))
    after = local.stat("a")
    assert before is not None
    assert after is not None
    assert before.modified == after.modified
    assert before.version != after.version


# ---- names that are no text ----------------------------------------------------------------------------------------
NAMES = [
    b"\xe9.dcm",
    b"a\\b",
    b"\xff\xfe",
    "é".encode(),
    "\uf7e9".encode(),
    b"\xed\xa0\x80",
    b"line\nfeed",
    b"-rf",
    b"~",
]


def test_each_name_is_listed_read_and_removed(local: ObjectStore, root: Path) -> None:
    for name in NAMES:
        (Path(os.fsdecode(os.fsencode(root) + b"/" + name))).write_bytes(name)
    found = keys(local)
    assert found == sorted(found, key=str.encode)
    assert {local.read(key) for key in found} == set(NAMES)
    for key in found:
        with local.fetch(key) as path:
            assert path.read_bytes() in NAMES
        local.delete(key)
    assert list(root.iterdir()) == []


@given(st.binary(min_size=1, max_size=12).filter(lambda b: b"/" not in b and b"\0" not in b and b not in (b".", b"..")))
def test_each_name_has_one_key_and_back(name: bytes) -> None:
    key = to_key(name)
    assert check_key(key) == key
    assert key.encode().decode() == key
    assert names_of(key) == [name]


@given(
    st.text(st.sampled_from("a.é\uf700\uf72e\uf72f\uf741\uf75c\uf780\uf7c3\uf7a9\uf7ff\uf800"), min_size=1, max_size=6)
)
def test_each_key_has_one_name_or_none(key: str) -> None:
    try:
        (name,) = names_of(key)
    except ValueError:
        return
    assert to_key(name) == key
    assert b"/" not in name
    assert b"\0" not in name
    assert name not in (b".", b"..")


# ---- at once, and killed -------------------------------------------------------------------------------------------
def test_create_has_one_winner(local: ObjectStore) -> None:
    for number in range(30):
        start = threading.Barrier(8)

        def race(mine: int, key: str = f"{number}/x", start: threading.Barrier = start) -> int | None:
            start.wait()
            return mine if local.create(key, b"%d" % mine * 1000) else None

        with ThreadPoolExecutor(8) as pool:
            winners = [w for w in pool.map(race, range(8)) if w is not None]
        assert len(winners) == 1
        assert local.read(f"{number}/x") == b"%d" % winners[0] * 1000


def test_readers_see_the_old_bytes_or_the_new(local: ObjectStore) -> None:
    one, two = b"1" * 300_000, b"2" * 300_000
    local.write("a", one)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            local.write("a", two)
            local.write("a", one)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert {local.read("a") for _ in range(100)} <= {one, two}
        assert all(len(list(local.list())) == 1 for _ in range(100))
    finally:
        stop.set()
        writer.join()


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.storage.local import LocalStore

url, call, at = sys.argv[1:]
store = LocalStore(url)
real = getattr(os, at)
def die(*args, **kwargs):
    if at == "write":
        real(args[0], args[1][: len(args[1]) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
data = b"new" * 1_000_000
if call == "scratch":
    held = store.scratch()
    (held.__enter__() / "out").write_bytes(data)
    os.kill(os.getpid(), signal.SIGKILL)
path = Path(sys.argv[1].removeprefix("file://") + ".in")
path.write_bytes(data)
setattr(os, at, die)
import hashlib
if call == "put_file":
    store.put_file("a/b", path, hashlib.sha256(data).digest())
else:
    getattr(store, call)("a/b", data)
"""


@pytest.mark.parametrize(
    ("call", "at"),
    [
        *(("write", at) for at in ("write", "fsync", "rename")),
        *(("put_file", at) for at in ("write", "rename")),
        *(("create", at) for at in ("write", "fsync", "link")),
    ],
)
@pytest.mark.parametrize("there", [False, True])
def test_kill_in_the_middle_leaves_nothing_visible(local: ObjectStore, call: str, at: str, there: bool) -> None:
    if there:
        local.write("a/b", b"old")
    killed = subprocess.run([sys.executable, "-c", KILLED, local.url, call, at], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert keys(local) == (["a/b"] if there else [])
    assert not there or local.read("a/b") == b"old"
    local.write("a/b", b"again")
    assert [(e.key, e.size) for e in local.list()] == [("a/b", 5)]


def test_scratch_of_a_killed_process_is_cleared_and_a_living_ones_stays(local: ObjectStore, root: Path) -> None:
    with local.scratch() as mine:
        killed = subprocess.run([sys.executable, "-c", KILLED, local.url, "scratch", "write"], check=False)
        assert killed.returncode == -signal.SIGKILL
        assert len(list(root.iterdir())) == 2
        with local.scratch() as another:
            assert sorted(root.iterdir()) == sorted([mine, another])
    assert list(root.iterdir()) == []


def test_nothing_is_left_behind_by_a_refusal(local: ObjectStore, root: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x")
    with pytest.raises(StoreRefused):
        local.put_file("a", tmp_path / "in", bytes(32))
    local.create("b", b"x")
    local.create("b", b"y")
    local.now()
    assert [p.name for p in root.iterdir()] == ["b"]


def test_adopt_renames_and_does_not_copy(local: ObjectStore) -> None:
    with local.scratch() as directory:
        (directory / "out").write_bytes(b"x")
        inode = (directory / "out").stat().st_ino
        local.adopt("a/b", directory / "out", hashlib.sha256(b"x").digest())
    with local.fetch("a/b") as path:
        assert path.stat().st_ino == inode


def test_settle_says_when_the_disk_did_not_take_it(local: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    local.settle()

    def fails(_descriptor: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(module, "_flush_file_system", fails)
    with pytest.raises(StoreUnreachable):
        local.settle()


def test_adopt_copies_from_another_file_system(
    local: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.rename

    def rename(source: object, target: object, **how: object) -> None:
        if "src_dir_fd" not in how:
            raise OSError(errno.EXDEV, "another device")
        real(source, target, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(module.os, "rename", rename)
    (tmp_path / "made").write_bytes(b"x")
    with pytest.raises(StoreRefused):
        local.adopt("a", tmp_path / "made", bytes(32))
    local.adopt("a", tmp_path / "made", hashlib.sha256(b"x").digest())
    assert local.read("a") == b"x"
    assert not (tmp_path / "made").exists()


# ---- errors --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, StoreUnreachable),
        (errno.EIO, StoreUnreachable),
        (errno.ESTALE, StoreUnreachable),
        (errno.EROFS, StoreDenied),
        (errno.EACCES, StoreDenied),
    ],
)
def test_what_the_file_system_says(
    local: ObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "no", "Doe^Jane")

    monkeypatch.setattr(module.os, "fsync", fail)
    with pytest.raises(error) as caught:
        local.write("Doe^Jane", b"x")
    assert "Doe" not in str(caught.value)
    assert list(root.iterdir()) == []


def test_a_file_system_without_hard_links_is_refused_by_name(
    local: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no")

    monkeypatch.setattr(module.os, "link", fail)
    with pytest.raises(StoreRefused, match="hard links"):
        local.create("a", b"x")
    assert keys(local) == []


def test_purge_takes_what_a_killed_writer_left_and_empty_directories(root: Path, local: ObjectStore) -> None:
    local.write("images/p/s/one.dcm", b"1")
    local.write("images/q/s/two.dcm", b"2")
    (root / "images/p/s" / temporary()).write_bytes(b"half of an image")
    assert local.purge("images/p/s/one.") == 1
    assert not (root / "images/p").exists()
    assert keys(local) == ["images/q/s/two.dcm"]


def test_purge_follows_no_link(root: Path, local: ObjectStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"x")
    local.write("a/b", b"x")
    (root / "a" / "link").symlink_to(outside)
    assert local.purge("a/") == 2
    assert (outside / "kept").read_bytes() == b"x"
