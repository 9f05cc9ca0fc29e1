"""The probe names what a store does not do, and leaves nothing behind."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StoreRefused, StoreUnreachable
from pipeline.storage import ObjectStore, open_store
from pipeline.storage.base import Entry
from pipeline.storage.probe import Capabilities, probe


class Wrapped:
    """A store that does all that another does, but for what a subclass spoils."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


class IgnoresConditions(Wrapped):
    def create(self, key: str, data: bytes) -> bool:
        self.store.write(key, data)
        return True


class SaysNoAndOverwrites(Wrapped):
    def create(self, key: str, data: bytes) -> bool:
        there = self.store.stat(key) is not None
        self.store.write(key, data)
        return not there


class CreatesNothing(Wrapped):
    def create(self, key: str, data: bytes) -> bool:
        return False


class ReadsStale(Wrapped):
    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self.first: dict[str, bytes] = {}

    def read(self, key: str) -> bytes:
        return self.first.setdefault(key, self.store.read(key))


class ForgetsToDelete(Wrapped):
    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self.told = False

    def delete(self, key: str) -> None:
        if self.told:
            self.store.delete(key)
        self.told = True


class StatsNothing(Wrapped):
    def stat(self, key: str) -> Entry | None:
        return None


class TakesAnyDigest(Wrapped):
    def put_file(self, key: str, path: Path, sha256: bytes) -> None:
        self.store.put_file(key, path, hashlib.sha256(path.read_bytes()).digest())


class ChecksThenWrites(Wrapped):
    """Refuses in sequence and not at once, as Swift does."""

    def create(self, key: str, data: bytes) -> bool:
        if self.store.stat(key) is not None:
            return False
        self.barrier()
        self.store.write(key, data)
        return True

    def barrier(self) -> None:
        import time

        time.sleep(0.05)


def left(url: str) -> list[str]:
    root = Path(url.removeprefix("file://"))
    return [str(p) for p in root.rglob("*") if not p.is_dir()]


def test_what_the_stores_do(store: ObjectStore, kind: str) -> None:
    seen = probe(store)
    assert (seen.read_after_write, seen.create_refused) == (True, True)
    assert seen.digest_checked == {"file": "store", "moto": "read-back", "swift": "store"}[kind]
    assert seen.atomic_create is not None
    if kind == "file":
        assert seen.atomic_create
    assert probe(store, "some/prefix/", rounds=0) == Capabilities(True, True, seen.digest_checked, None)


@pytest.mark.parametrize(
    ("spoilt", "missing"),
    [
        (IgnoresConditions, "create_refused"),
        (SaysNoAndOverwrites, "create_refused"),
        (CreatesNothing, "create_refused"),
        (ReadsStale, "read_after_write"),
        (ForgetsToDelete, "read_after_write"),
        (StatsNothing, "read_after_write"),
        (TakesAnyDigest, "digest_checked"),
    ],
)
def test_a_missing_property_is_refused_by_name(local: ObjectStore, spoilt: type[Wrapped], missing: str) -> None:
    with pytest.raises(StoreRefused, match=rf": {missing} \("):
        probe(spoilt(local))  # type: ignore[arg-type]
    assert left(local.url) == []


def test_a_create_that_races_is_told_and_not_refused(local: ObjectStore) -> None:
    assert probe(ChecksThenWrites(local)).atomic_create is False  # type: ignore[arg-type]
    assert left(local.url) == []


def test_s3_that_ignores_if_none_match_is_refused(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header is dropped on its way: the server does what it would do if it did not know it."""
    from tests.helpers.s3 import bucket, point_zones

    server = request.getfixturevalue("moto_server")
    point_zones(monkeypatch, server, "release")
    store = open_store(f"s3://{bucket(server)}", "release")

    def drop(params: dict[str, Any], **_: Any) -> None:
        params["headers"].pop("If-None-Match", None)

    store._client.meta.events.register("before-call.s3.PutObject", drop)  # type: ignore[attr-defined]
    with pytest.raises(StoreRefused, match="create_refused"):
        probe(store)


def test_an_error_of_the_store_is_the_answer(local: ObjectStore) -> None:
    class Gone(Wrapped):
        def write(self, key: str, data: bytes) -> None:
            raise StoreUnreachable("no answer")

    with pytest.raises(StoreUnreachable):
        probe(Gone(local))  # type: ignore[arg-type]


def test_nothing_is_left(store: ObjectStore, url: str, kind: str) -> None:
    store.write("a", b"x")
    probe(store)
    assert [entry.key for entry in store.list()] == ["a"]
    if kind == "file":
        assert [Path(p).name for p in left(url)] == ["a"]
