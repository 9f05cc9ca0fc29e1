"""What only S3 has: checksums that some stores ignore, parts, pages, credentials, answers that break off."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import NotFound, StoreDenied, StoreRefused, StoreUnreachable
from pipeline.storage import open_store
from pipeline.storage import s3 as module
from pipeline.storage.s3 import S3Store
from tests.helpers.s3 import Server, bucket, client, point_zones

KEY = "".join(["Doe", "Jane"])  # not in a source line that a traceback quotes


@pytest.fixture(
    params=["moto", pytest.param("swift", marks=[pytest.mark.integration, pytest.mark.xdist_group("swift")])]
)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Server:
    server: Server = request.getfixturevalue(f"{kind}_server")
    point_zones(monkeypatch, server, "work")
    return server


@pytest.fixture
def name(server: Server) -> str:
    return bucket(server)


@pytest.fixture
def store(name: str) -> S3Store:
    return S3Store(f"s3://{name}/zone", "work")


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///a", "s3://bucket//a", "s3://bucket/a//b", "s3://bucket/../a", "file:///a"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError):
        S3Store(url, "work")


def test_a_zone_may_be_a_whole_bucket(name: str) -> None:
    whole = S3Store(f"s3://{name}/", "work")
    whole.write("a/b", b"x")
    assert whole.url == f"s3://{name}"
    assert [e.key for e in whole.list()] == ["a/b"]
    assert [e.key for e in S3Store(f"s3://{name}/a", "work").list()] == ["b"]


# ---- listing -------------------------------------------------------------------------------------------------------
def test_names_that_are_no_keys_are_listed_and_not_opened(store: S3Store, server: Server, name: str) -> None:
    put = client(server).put_object
    for odd in ("zone/a//b", "zone/a\\b", "zone/b/", "zone/folder/", "zone/"):
        put(Bucket=name, Key=odd, Body=b"" if odd in ("zone/folder/", "zone/") else b"x")
    store.write("c", b"x")
    assert [(e.key, e.regular) for e in store.list()] == [("a//b", False), ("a\\b", False), ("b/", False), ("c", True)]
    with pytest.raises(ValueError, match="not a key"):
        store.read("a//b")


def test_a_store_that_does_not_list_in_key_order_is_refused(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in "abc":
        store.write(key, b"")

    def turn(parsed: dict[str, Any], **_: Any) -> None:
        parsed.get("Contents", []).reverse()

    store._client.meta.events.register("after-call.s3.ListObjectsV2", turn)
    with pytest.raises(StoreRefused, match="key order"):
        list(store.list())


# ---- digests -------------------------------------------------------------------------------------------------------
def test_who_compares_the_digest(store: S3Store, kind: str, server: Server, name: str) -> None:
    assert store.digest_checked() == {"moto": "read-back", "swift": "store"}[kind]
    assert "Contents" not in client(server).list_objects_v2(Bucket=name)  # the trial is taken away
    assert not client(server).list_multipart_uploads(Bucket=name).get("Uploads")


def test_objects_carry_their_digest(store: S3Store, server: Server, name: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    store.write("a", b"x")
    store.create("b", b"x")
    store.put_file("c", tmp_path / "f", sha(b"x"))
    for key in "abc":
        head = client(server).head_object(Bucket=name, Key=f"zone/{key}")
        assert head["Metadata"] == {"sha256": sha(b"x").hex()}


def test_a_store_that_changes_bytes_is_refused_and_the_object_removed(
    store: S3Store, kind: str, tmp_path: Path
) -> None:
    """On the wire the body is changed, and so is the checksum: only reading back can tell."""
    if kind == "swift":
        pytest.skip("what was put is compared by the store there")
    (tmp_path / "f").write_bytes(b"right")
    store.digest_checked()

    def spoil(params: dict[str, Any], **_: Any) -> None:
        params["body"] = b"wrong"

    store._client.meta.events.register("before-call.s3.PutObject", spoil)
    with pytest.raises(StoreRefused, match="other bytes"):
        store.put_file("a", tmp_path / "f", sha(b"right"))
    assert store.stat("a") is None


def test_a_claim_in_the_metadata_is_not_believed_where_the_store_compares_nothing(
    store: S3Store, kind: str, server: Server, name: str, tmp_path: Path
) -> None:
    """Such an object is what a kill between putting and reading back can leave."""
    if kind == "swift":
        pytest.skip("what was put is compared by the store there")
    (tmp_path / "f").write_bytes(b"right")
    metadata = {"sha256": sha(b"right").hex()}
    client(server).put_object(Bucket=name, Key="zone/a", Body=b"wrong", Metadata=metadata)
    store.put_file("a", tmp_path / "f", sha(b"right"))
    assert store.read("a") == b"right"


# ---- parts ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "ONE_PUT", 6 << 20)
    monkeypatch.setattr(module, "PART", 5 << 20)
    path = tmp_path / "large"
    path.write_bytes(os.urandom(11 << 20))
    return path


def test_large_files_go_in_parts(store: S3Store, large: Path) -> None:
    data = large.read_bytes()
    store.put_file("a", large, sha(data))
    entry = store.stat("a")
    assert entry is not None
    assert entry.size == len(data)
    assert entry.version.endswith("-3")
    assert [e.version for e in store.list()] == [entry.version]
    assert store.read("a") == data
    store.put_file("a", large, sha(data))
    assert store.stat("a") == entry


@pytest.mark.parametrize("there", [False, True])
def test_large_files_of_a_wrong_digest_are_refused_and_no_part_stays(
    store: S3Store, large: Path, server: Server, name: str, there: bool
) -> None:
    if there:
        store.write("a", b"what was")
    store._checks = True  # a store that compares parts cannot compare the whole
    with pytest.raises(StoreRefused):
        store.put_file("a", large, sha(b"other"))
    assert (store.read("a") if there else store.stat("a")) == (b"what was" if there else None)
    assert not client(server).list_multipart_uploads(Bucket=name).get("Uploads")


def test_a_part_changed_on_the_way_is_refused(store: S3Store, large: Path) -> None:
    store.digest_checked()

    def spoil(params: dict[str, Any], **_: Any) -> None:
        params["body"] = b"?" * (5 << 20)

    store._client.meta.events.register("before-call.s3.UploadPart", spoil)
    with pytest.raises(StoreRefused):
        store.put_file("a", large, sha(large.read_bytes()))
    assert store.stat("a") is None


# ---- errors --------------------------------------------------------------------------------------------------------
def calls(store: S3Store, path: Path) -> list[Callable[[], object]]:
    return [
        lambda: list(store.list()),
        lambda: store.stat(KEY),
        lambda: store.read(KEY),
        lambda: store.write(KEY, b""),
        lambda: store.create(KEY, b""),
        lambda: store.put_file(KEY, path, sha(b"x")),
        lambda: store.delete(KEY),
    ]


def test_no_answer_is_unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "TRIES", 1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        point_zones(monkeypatch, Server(f"http://127.0.0.1:{closed.getsockname()[1]}", "a", "b", "us-east-1"), "work")
        store = S3Store("s3://bucket", "work")
        (tmp_path / "f").write_bytes(b"x")
        for call in [*calls(store, tmp_path / "f"), store.now]:
            with pytest.raises(StoreUnreachable) as caught:
                call()
            assert KEY not in "".join(traceback.format_exception(caught.value))


def test_wrong_credentials_are_denied(
    server: Server, name: str, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if kind == "moto":
        pytest.skip("moto takes any credentials")
    monkeypatch.setenv("TRE_WORK_SECRET_ACCESS_KEY", "wrong")
    store = S3Store(f"s3://{name}", "work")
    (tmp_path / "f").write_bytes(b"x")
    for call in calls(store, tmp_path / "f"):
        with pytest.raises(StoreDenied) as caught:
            call()
        assert KEY not in "".join(traceback.format_exception(caught.value))


def test_credentials_are_the_zones_own(server: Server, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point_zones(monkeypatch, Server("http://127.0.0.1:1", "a", "b", "us-east-1"), "landing", "candidate", "release")
    open_store(f"s3://{name}", "work").write("a", b"x")


@pytest.mark.parametrize("unset", ["TRE_WORK_ACCESS_KEY_ID", "TRE_WORK_SECRET_ACCESS_KEY"])
def test_half_a_pair_of_credentials_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch, unset: str) -> None:
    monkeypatch.delenv(unset)
    with pytest.raises(StoreDenied, match=unset):
        S3Store("s3://bucket", "work")


def test_no_credentials_are_denied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in [v for v in os.environ if v.startswith(("AWS_", "TRE_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with pytest.raises(StoreDenied, match="TRE_<ZONE>"):
        S3Store("s3://bucket", "work").read(KEY)


def test_a_bucket_that_is_not_there_is_refused(server: Server) -> None:
    store = S3Store("s3://nobody-made-this", "work")
    with pytest.raises(StoreRefused, match="no such bucket"):
        list(store.list())
    with pytest.raises(StoreRefused, match="no such bucket"):
        store.write("a", b"")


# ---- an answer that breaks off ---------------------------------------------------------------------------------------
@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """A server that promises ten bytes and sends what the list says, one answer after another; then ends the answer."""
    answers: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    body = answers.pop(0) if answers else b""
                    head = b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: "x"\r\nConnection: close\r\n\r\n'
                    connection.sendall(head + body)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
        point_zones(monkeypatch, Server(endpoint, "a", "b", "us-east-1"), "work")
        yield answers
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_a_download_that_breaks_off_starts_again(broken: list[bytes]) -> None:
    broken += [b"01234", b"0", b"0123456789"]
    assert S3Store("s3://bucket", "work").read("a") == b"0123456789"


def test_a_download_that_always_breaks_off_is_unreachable(broken: list[bytes]) -> None:
    broken += [b"01234"] * module.TRIES
    with pytest.raises(StoreUnreachable), S3Store("s3://bucket", "work").fetch(KEY):
        pass
    assert broken == []


def test_a_stream_that_breaks_off_is_unreachable(broken: list[bytes]) -> None:
    broken.append(b"01234")
    with S3Store("s3://bucket", "work").open("a") as stream, pytest.raises(StoreUnreachable):
        stream.read()


def test_an_object_that_goes_away_is_not_found(store: S3Store) -> None:
    store.write("a", b"x")
    store.delete("a")
    with pytest.raises(NotFound):
        store.read("a")


# ---- versions ------------------------------------------------------------------------------------------------------
def test_purge_leaves_no_version_no_marker_and_no_upload(store: S3Store, server: Server, name: str) -> None:
    s3 = client(server)
    try:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    except s3.exceptions.ClientError:
        pytest.skip("this server keeps no versions as it is set up here")
    for data in (b"one", b"two"):
        store.write("a/b", data)
        store.write("a/c", data)
    store.delete("a/b")  # its two versions stay, under a marker
    s3.create_multipart_upload(Bucket=name, Key="zone/a/big")
    assert len(s3.list_object_versions(Bucket=name, Prefix="zone/a/b").get("Versions", ())) == 2
    assert store.purge("a/b") == 4  # two versions, the marker, the upload
    left = s3.list_object_versions(Bucket=name)
    assert {v["Key"] for v in left.get("Versions", ())} == {"zone/a/c"}
    assert not left.get("DeleteMarkers")
    assert not s3.list_multipart_uploads(Bucket=name).get("Uploads")
    assert store.read("a/c") == b"two"
    assert store.purge("a/b") == 0
