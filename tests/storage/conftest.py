"""The stores under test: a directory, a bucket of moto, a bucket of Swift."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.storage import ObjectStore, open_store
from tests.helpers.s3 import Server, bucket, moto, point_zones, swift_or_skip

SWIFT = pytest.param("swift", marks=[pytest.mark.integration, pytest.mark.xdist_group("swift")])


@pytest.fixture(scope="session")
def moto_server() -> Iterator[Server]:
    with moto() as server:
        yield server


@pytest.fixture(scope="session")
def swift_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with swift_or_skip(tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture(params=["file", "moto", SWIFT])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty zone, whose credentials stand in the environment of the zone `work`."""
    if kind == "file":
        return (tmp_path / "zone").as_uri()
    server = request.getfixturevalue(f"{kind}_server")
    point_zones(monkeypatch, server, "work")
    return f"s3://{bucket(server)}/some/prefix"


@pytest.fixture
def store(url: str) -> ObjectStore:
    return open_store(url, "work")


@pytest.fixture
def local(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "zone").as_uri(), "work")
