"""The embedded S3 store: says what is missing, keeps its data, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from infra.demo.swift import check, swift
from pipeline.errors import EnvironmentUnfit
from pipeline.storage import open_store
from tests.helpers.s3 import VENV_S3, point_zones, swift_or_skip

RUN = """
import sys, time
from pathlib import Path
from infra.demo.swift import swift
with swift(Path(sys.argv[1]), Path(sys.argv[2])) as server:
    print(server.endpoint, flush=True)
    time.sleep(600)
"""


def servers(directory: Path) -> list[int]:
    """Return the processes whose command line names the directory's configuration."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(directory) in line and b"-server.conf" in line:
            found.append(int(process.name))
    return found


def wait_until_none(directory: Path) -> None:
    until = time.monotonic() + 20
    while servers(directory) and time.monotonic() < until:
        time.sleep(0.05)
    assert servers(directory) == []


def test_without_its_environment(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnfit, match=r"demo-s3\.txt"), swift(tmp_path, tmp_path / "nothing"):
        pass


def test_without_extended_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "swift-proxy-server").touch()

    def fail(*_: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "setxattr", fail)
    with pytest.raises(EnvironmentUnfit, match="DEMO_STORE=file"):
        check(tmp_path, tmp_path)


@pytest.mark.integration
@pytest.mark.xdist_group("swift")
def test_data_survive_and_processes_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "s3 store"  # a space in the path is common
    with pytest.raises(KeyboardInterrupt), swift_or_skip(directory) as server:
        server.create_bucket("kept")
        server.create_bucket("kept")
        point_zones(monkeypatch, server, "work")
        open_store("s3://kept/p", "work").write("a/b", b"x")
        assert len(servers(directory)) == 4
        raise KeyboardInterrupt
    assert servers(directory) == []
    with swift_or_skip(directory) as server:
        point_zones(monkeypatch, server, "work")
        assert open_store("s3://kept/p", "work").read("a/b") == b"x"
    assert servers(directory) == []


def _interruptible() -> None:
    """A job in the background is started with SIGINT ignored, and so would its children be."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.integration
@pytest.mark.xdist_group("swift")
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_who_started_it(tmp_path: Path, by: signal.Signals) -> None:
    if not (VENV_S3 / "bin").exists():
        pytest.skip("the environment of the S3 store (.venv-s3) is not there: run `make test` once")
    command = [sys.executable, "-c", RUN, str(tmp_path / "s3"), str(VENV_S3)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=_interruptible
    ) as process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{endpoint}/healthcheck", timeout=10) as answer:
            assert answer.status == 200
        process.send_signal(by)
    wait_until_none(tmp_path / "s3")
