"""What would make a listener say yes to an image that is not there, or keep its places from those who may send."""

from __future__ import annotations

import shutil
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

import listen_kit as kit
import pytest
from listen_kit import Ended, Sender, here
from test_listener_tls import Authority

from pipeline.retrieve import listener as room
from pipeline.retrieve import listener_health


def test_a_yes_for_what_came_before_is_said_of_the_bytes_that_lie_there(tmp_path: Path) -> None:
    with here(tmp_path) as run:
        sender = Sender(run.port)
        assert sender.store(1) == 0
        (path,) = (tmp_path / "landing").rglob("*.dcm")
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)          # damaged, and as long as before
        assert sender.store(1) == 0
        assert list(run.landed().values()) == [kit.file_of(1)]
        before = path.stat()
        assert sender.store(1) == 0
        assert path.stat().st_ino == before.st_ino, "what is whole is left as it is"
        assert kit.counted(run.listener, "stores_total", "seen_again") == 1


def test_what_lies_there_and_cannot_be_read_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with here(tmp_path) as run:
        sender = Sender(run.port)
        assert sender.store(1) == 0

        def broken(*_: object) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr("pipeline.retrieve.spool.hashlib.file_digest", broken)
        assert sender.store(1) == 0
        assert kit.counted(run.listener, "stores_total", "received") == 2 and len(run.landed()) == 1


def test_directories_that_were_moved_away_are_made_again(tmp_path: Path) -> None:
    with here(tmp_path) as run:
        sender = Sender(run.port)
        assert sender.store(1) == 0
        shutil.move(tmp_path / "landing" / "received", tmp_path / "archive")
        assert sender.store(1) == 0
        assert list(run.landed().values()) == [kit.file_of(1)]


def test_a_handshake_byte_by_byte_has_no_more_time_than_another(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    Authority(folder, "hospital").issue("listener")
    files = {"certificate": str(folder / "listener.pem"), "key": str(folder / "listener.key"),
             "client_authority": str(folder / "hospital.pem")}
    hello = _hello()
    with here(tmp_path, silent_seconds=1, **files) as run:
        slow = Sender(run.port, ask=False)
        begin = time.monotonic()
        try:
            for byte in hello:
                slow.socket.sendall(bytes([byte]))
                time.sleep(0.2)
                if time.monotonic() - begin > 6:
                    break
        except OSError:
            pass
        assert time.monotonic() - begin < 4


def _hello() -> bytes:
    context = ssl.create_default_context()
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="listener")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


def test_who_is_not_listed_makes_no_sender_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "REFUSERS", 1)
    with here(tmp_path) as run:
        strangers = [Sender(run.port, ask=False, source="127.0.0.9") for _ in range(8)]
        begin = time.monotonic()
        assert Sender(run.port).store(1) == 0
        assert time.monotonic() - begin < 3
        for one in strangers:
            one.close()


def test_health_is_asked_by_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_health, "AT_ONCE", 3)
    with here(tmp_path, health="127.0.0.1:0") as run:
        silent = [Sender(run.listener.health_port, ask=False) for _ in range(3)]
        time.sleep(0.3)
        with pytest.raises(Ended):
            Sender(run.listener.health_port, ask=False, timeout=3).pdu()
        assert Sender(run.port).store(1) == 0
        for one in silent:
            one.close()
        end = time.monotonic() + 10
        while True:
            try:
                assert urllib.request.urlopen(f"http://127.0.0.1:{run.listener.health_port}/healthz").status == 200
                break
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() < end
                time.sleep(0.05)
