"""Every sentence of pipeline/storage/base.py, asked of every store."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import traceback
from collections.abc import Callable
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import NotFound, StoreRefused
from pipeline.storage import ObjectStore, open_store
from pipeline.storage.base import temporary

# Sorted as UTF-8 bytes sort: `-` and `.` come before the slash, capitals before small letters, é and the rest after.
KEYS = [
    "A",
    "a-b/x",
    "a.b",
    "a/b/c.dcm",
    "a/b/d",
    "a/c",
    "a0",
    "b c/1+1=2 &?#%41",
    "é/ü",
    "日本/語",
    "\U0001f980",
]
PREFIXES = ["a", "a/", "a/b", "a/b/", "a/b/c.dcm", "a-", "é", "nothing", "nothing/here", "b c/1+"]
BAD_KEYS = ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a\\b", "a\0b", "a/\udce9"]


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [entry.key for entry in store.list(prefix)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "made by us"
    file.write_bytes(b"some bytes")
    return file


def test_url_has_no_slash_at_its_end(url: str) -> None:
    assert open_store(url + "/", "work").url == url


def test_list_is_in_key_order(store: ObjectStore) -> None:
    assert sorted(KEYS, key=str.encode) == KEYS
    for key in reversed(KEYS):
        store.write(key, key.encode())
    assert keys(store) == KEYS


def test_prefix_is_a_plain_string_prefix(store: ObjectStore) -> None:
    for key in KEYS:
        store.write(key, b"")
    for prefix in PREFIXES:
        assert keys(store, prefix) == [key for key in KEYS if key.startswith(prefix)]


def test_list_of_an_empty_zone(store: ObjectStore) -> None:
    assert keys(store) == []


def test_list_goes_on_past_one_page(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.storage.s3.PAGE", 3)
    names = [f"{n:02d}" for n in range(10)]
    for name in names:
        store.write(name, b"")
    assert keys(store) == names


def test_names_with_control_characters(store: ObjectStore, kind: str) -> None:
    if kind == "moto":
        pytest.skip("moto has no route for a name with a line feed")
    for key in ("a\nb", "a\x01b", "a\x7f"):
        store.write(key, key.encode())
    assert [(key, store.read(key)) for key in keys(store)] == [(k, k.encode()) for k in ("a\x01b", "a\nb", "a\x7f")]


def test_stat_says_what_list_says(store: ObjectStore) -> None:
    store.write("a/b", b"12345")
    (listed,) = store.list()
    entry = store.stat("a/b")
    assert entry is not None
    assert (entry.key, entry.size, entry.version, entry.regular) == ("a/b", 5, listed.version, True)
    assert (listed.key, listed.size, listed.regular) == ("a/b", 5, True)
    assert entry.modified.tzinfo == listed.modified.tzinfo == UTC
    assert abs(entry.modified - listed.modified) <= timedelta(seconds=1)


def test_modified_is_by_the_clock_of_now(store: ObjectStore) -> None:
    before = store.now()
    store.write("a", b"")
    after = store.now()
    entry = store.stat("a")
    assert before.tzinfo == UTC
    assert entry is not None
    # Swift rounds up to the second, Date headers round down
    assert before - timedelta(seconds=2) <= entry.modified <= after + timedelta(seconds=2)


def test_version_changes_with_the_bytes(store: ObjectStore) -> None:
    versions = set()
    for data in (b"one", b"two", b"three"):
        store.write("a", data)
        entry = store.stat("a")
        assert entry is not None
        versions.add(entry.version)
    assert len(versions) == 3


def test_read_after_write(store: ObjectStore) -> None:
    store.write("a/b", b"first")
    assert store.read("a/b") == b"first"
    store.write("a/b", b"")
    assert store.read("a/b") == b""
    store.write("a/b", b"the third, longer")
    assert store.read("a/b") == b"the third, longer"


def test_fetch_and_open_give_the_bytes(store: ObjectStore) -> None:
    data = bytes(range(256)) * 9000
    store.write("a/b", data)
    with store.fetch("a/b") as path:
        assert path.read_bytes() == data
    with store.open("a/b") as stream:
        assert stream.read(10) == data[:10]
        assert stream.read() == data[10:]


def test_fetched_copy_goes_away_and_the_object_stays(store: ObjectStore, kind: str) -> None:
    store.write("a", b"x")
    with store.fetch("a") as path:
        pass
    assert path.exists() == (kind == "file")
    assert store.read("a") == b"x"


def test_fetched_copy_does_not_carry_the_objects_name(store: ObjectStore, kind: str) -> None:
    if kind == "file":
        pytest.skip("a file store yields the object's own path")
    store.write("Doe^Jane", b"x")
    with store.fetch("Doe^Jane") as path:
        assert "Doe" not in str(path)


def test_errors_in_the_callers_block_are_the_callers(store: ObjectStore) -> None:
    store.write("a", b"x")
    for give in (store.fetch, store.open):
        with pytest.raises(PermissionError), give("a"):
            raise PermissionError
    with pytest.raises(PermissionError), store.scratch():
        raise PermissionError


def test_what_is_not_there(store: ObjectStore) -> None:
    store.write("a/b", b"")
    for key in ("nothing", "some/where", "a", "a/b/c"):
        assert store.stat(key) is None
        with pytest.raises(NotFound):
            store.read(key)
        with pytest.raises(NotFound), store.open(key):
            pass
        with pytest.raises(NotFound), store.fetch(key):
            pass
        store.delete(key)
    assert keys(store) == ["a/b"]


def test_delete_is_idempotent(store: ObjectStore) -> None:
    store.write("a/b", b"x")
    store.write("a/c", b"x")
    store.delete("a/b")
    store.delete("a/b")
    assert keys(store) == ["a/c"]


def test_create_is_refused_in_sequence(store: ObjectStore) -> None:
    assert store.create("a/b", b"first")
    assert not store.create("a/b", b"second")
    assert store.read("a/b") == b"first"
    store.delete("a/b")
    assert store.create("a/b", b"third")
    store.write("c", b"")
    assert not store.create("c", b"x")


def test_put_file(store: ObjectStore, path: Path) -> None:
    store.put_file("a/b", path, sha(b"some bytes"))
    assert store.read("a/b") == b"some bytes"
    assert path.read_bytes() == b"some bytes"
    path.write_bytes(b"other bytes")
    store.put_file("a/b", path, sha(b"other bytes"))
    assert store.read("a/b") == b"other bytes"


def test_put_file_leaves_the_same_bytes_as_they_are(store: ObjectStore, path: Path, kind: str) -> None:
    store.put_file("a/b", path, sha(b"some bytes"))
    before = store.stat("a/b")
    if kind == "file":
        store.put_file("a/b", path, sha(b"some bytes"))
        assert store.stat("a/b") == before
        return
    sent = []
    client = store._client  # type: ignore[attr-defined]
    client.meta.events.register("before-call.s3", lambda model, **_: sent.append(model.name))
    store.put_file("a/b", path, sha(b"some bytes"))
    assert sent == ["HeadObject"]


@pytest.mark.parametrize("there", [False, True])
def test_put_file_refuses_a_wrong_digest(store: ObjectStore, path: Path, there: bool) -> None:
    if there:
        store.write("a", b"what was")
    with pytest.raises(StoreRefused):
        store.put_file("a", path, sha(b"other bytes"))
    assert keys(store) == (["a"] if there else [])
    assert not there or store.read("a") == b"what was"


def test_put_file_refuses_same_size_other_bytes_over_the_object(store: ObjectStore, path: Path) -> None:
    store.put_file("a", path, sha(b"some bytes"))
    path.write_bytes(b"SOME bytes")
    with pytest.raises(StoreRefused):
        store.put_file("a", path, sha(b"other byte"))
    assert store.read("a") == b"some bytes"


def test_put_file_that_is_not_there(store: ObjectStore, tmp_path: Path) -> None:
    for name in ("nothing", "link", "."):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to("/etc/hostname")
        with pytest.raises(NotFound):
            store.put_file("a", tmp_path / name, sha(b""))
    assert keys(store) == []


def test_put_an_empty_file(store: ObjectStore, path: Path) -> None:
    path.write_bytes(b"")
    for _ in range(2):
        store.put_file("a", path, sha(b""))
    assert store.read("a") == b""


@pytest.mark.parametrize("there", [b"", b"some bytes", b"what was before"])
def test_adopt_takes_the_file_away(store: ObjectStore, there: bytes) -> None:
    if there:
        store.write("a/b", there)
    with store.scratch() as directory:
        made = directory / "out"
        made.write_bytes(b"some bytes")
        store.adopt("a/b", made, sha(b"some bytes"))
        assert not made.exists()
        assert keys(store) == ["a/b"]
    assert store.read("a/b") == b"some bytes"


def test_adopt_from_anywhere(store: ObjectStore, path: Path) -> None:
    store.adopt("a/b", path, sha(b"some bytes"))
    assert store.read("a/b") == b"some bytes"
    assert not path.exists()


def test_scratch_goes_away(store: ObjectStore) -> None:
    with store.scratch() as directory, store.scratch() as another:
        assert directory != another
        assert directory.is_dir()
        (directory / "sub").mkdir()
        (directory / "sub" / "left").write_bytes(b"x")
        assert keys(store) == []
    assert not directory.exists()
    assert keys(store) == []


def test_temporary_objects_are_left_out(store: ObjectStore) -> None:
    name = temporary()
    for key in (name, f"a/{name}", f"b/{name}/c", "a/.tre-not", f"a/x{name}", f"a/{name}x"):
        store.write(key, b"x")
    assert keys(store) == sorted(["a/.tre-not", f"a/{name}x", f"a/x{name}"])
    assert keys(store, f"b/{name}/") == []
    assert store.read(name) == b"x"


def test_keys_that_are_none(store: ObjectStore, path: Path) -> None:
    calls: list[Callable[[str], object]] = [
        store.stat,
        store.read,
        lambda key: store.fetch(key).__enter__(),
        lambda key: store.open(key).__enter__(),
        lambda key: store.write(key, b""),
        lambda key: store.create(key, b""),
        lambda key: store.put_file(key, path, sha(b"some bytes")),
        lambda key: store.adopt(key, path, sha(b"some bytes")),
        store.delete,
    ]
    for key, call in itertools.product(BAD_KEYS, calls):
        with pytest.raises(ValueError, match=r"^not a key of this zone$"):
            call(key)
    assert path.exists()


def test_prefixes_that_would_leave_the_zone(store: ObjectStore) -> None:
    for prefix in ("/", "../", "a/../b", "a//b", "a/./"):
        with pytest.raises(ValueError, match=r"^not a key of this zone$"):
            keys(store, prefix)


def test_errors_do_not_tell_the_key(store: ObjectStore) -> None:
    key = "".join(["Doe", "Jane"])  # not in the source line that a traceback quotes
    with pytest.raises(NotFound) as caught:
        store.read(key)
    assert key not in "".join(traceback.format_exception(caught.value))


def test_key_too_long_is_refused(store: ObjectStore, kind: str) -> None:
    if kind == "moto":
        pytest.skip("moto takes keys of any length")
    with pytest.raises(StoreRefused):
        store.write("/".join(["n" * 300] * 5), b"")


def test_zones_do_not_see_their_neighbours(url: str, store: ObjectStore) -> None:
    neighbour = open_store(f"{url}-2", "work")
    neighbour.write("a", b"x")
    store.write("b", b"x")
    assert (keys(store), keys(neighbour)) == (["b"], ["a"])


def test_entries_are_frozen(store: ObjectStore) -> None:
    store.write("a", b"")
    (entry,) = store.list()
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.key = "b"  # type: ignore[misc]


SEGMENT = st.text(st.sampled_from("ab-.0_~ +%é日\uf75c\ue000\U0001f980"), min_size=1, max_size=3).filter(
    lambda s: s not in (".", "..")
)
ZONE = itertools.count()
KEY_SETS = st.sets(st.lists(SEGMENT, min_size=1, max_size=3).map("/".join), max_size=8)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=KEY_SETS, prefix=st.lists(SEGMENT, max_size=2).map("/".join))
def test_list_of_any_keys(url: str, names: set[str], prefix: str) -> None:
    """What was written is listed, in order, below every prefix. (No key may be another's directory.)"""
    store = open_store(f"{url}/{next(ZONE)}", "work")
    written: list[str] = []
    for key in sorted(names):
        if not any(key.startswith(f"{other}/") for other in written):
            store.write(key, key.encode())
            written.append(key)
    assert keys(store) == sorted(written, key=str.encode)
    assert keys(store, prefix) == [key for key in sorted(written) if key.startswith(prefix)]
    assert all(store.read(key) == key.encode() for key in written)


def test_purge_removes_what_begins_with_the_prefix_and_nothing_else(store: ObjectStore) -> None:
    for key in KEYS:
        store.write(key, key.encode())
    assert store.purge("a/b") == 2
    assert keys(store) == [key for key in KEYS if not key.startswith("a/b")]
    assert store.purge("a/b") == 0
    assert store.purge("nothing/here") == 0
    assert store.purge("a") == 4
    assert keys(store) == [key for key in KEYS if not key.startswith("a")]
    with pytest.raises(ValueError):
        store.purge("")
