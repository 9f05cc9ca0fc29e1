"""S3 servers for tests: moto in this process, Swift beside it; buckets and the variables that point zones at them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from infra.demo.swift import SwiftServer as Server
from infra.demo.swift import swift
from pipeline.errors import EnvironmentUnfit

ROOT = Path(__file__).parents[2]
VENV_S3 = ROOT / ".venv-s3"
ZONES = ("landing", "work", "candidate", "release")


@contextmanager
def moto() -> Iterator[Server]:
    """Run moto's S3 server on a free port of 127.0.0.1. It checks no credentials and keeps all in memory."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield Server(f"http://{host}:{port}", "testing", "testing", "us-east-1")
    finally:
        server.stop()


@contextmanager
def swift_or_skip(directory: Path) -> Iterator[Server]:
    """Run Swift with its data in `directory`; skip the test, saying why, where this machine cannot."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(swift(directory, VENV_S3))
        except EnvironmentUnfit as error:
            pytest.skip(str(error))
        yield server


def bucket(server: Server) -> str:
    """Make a bucket with a name of its own and return it."""
    name = f"zone-{uuid.uuid4().hex[:12]}"
    client(server).create_bucket(Bucket=name)
    return name


@cache
def client(server: Server) -> Any:
    """Return boto3's client of the server: for what a test does behind a store's back."""
    import boto3
    from botocore.config import Config

    credentials = {"aws_access_key_id": server.access_key, "aws_secret_access_key": server.secret_key}
    config = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required")
    return boto3.client("s3", endpoint_url=server.endpoint, region_name=server.region, config=config, **credentials)


def point_zones(monkeypatch: pytest.MonkeyPatch, server: Server, *zones: str) -> None:
    """Set the variables by which `open_store` reaches the server for these zones (all of them, where none is named)."""
    for name, value in server.environment(*(zones or ZONES)).items():
        monkeypatch.setenv(name, value)
