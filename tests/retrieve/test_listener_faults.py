"""The listener killed, flooded, starved of disk, talked to by peers that fall silent: nothing acknowledged is lost."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import listen_kit as kit
import pytest
from listen_kit import Ended, Running, Sender, apart

from pipeline.stage.run import stage
from pipeline.storage import open_store

pytestmark = pytest.mark.integration
MEMORY = 300 << 20


class Senders:
    """Associations that send numbers until each was acknowledged, as a modality does that tries again."""

    def __init__(self, numbers: range, associations: int = 4) -> None:
        self.acknowledged: dict[int, int] = {}      # number → how often it was said yes to
        self.refused = 0
        self._left = list(numbers)
        self._lock, self._associations = threading.Lock(), associations

    def until(self, port: int, enough: int, faults: random.Random | None = None) -> None:
        """Send until so many are acknowledged or the listener is gone. `faults`: break off, or send twice, now and
        then."""
        threads = [threading.Thread(target=self._send, args=(port, enough, faults)) for _ in range(self._associations)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _numbers(self, enough: int) -> Iterator[int]:
        while True:
            with self._lock:
                if not self._left or len(self.acknowledged) >= enough:
                    return
                number = self._left.pop()
            try:
                yield number
            finally:
                with self._lock:
                    if number not in self.acknowledged:
                        self._left.insert(0, number)

    def _send(self, port: int, enough: int, faults: random.Random | None) -> None:
        sender: Sender | None = None
        numbers = self._numbers(enough)
        for number in numbers:
            fault = faults.random() if faults else 1
            try:
                sender = sender or Sender(port)
                if fault < 0.01:                    # breaks off in mid-object
                    sender.store(number, chunk=1000, upto=2000)
                    sender.close()
                    sender = None
                elif fault < 0.02:                  # a PDU cut short
                    sender.socket.sendall(kit.values(1, 3, b"x" * 500)[:200])
                    sender.close()
                    sender = None
                else:
                    for _ in range(2 if fault < 0.04 else 1):
                        status = sender.store(number)
                        with self._lock:
                            if status == 0:
                                self.acknowledged[number] = self.acknowledged.get(number, 0) + 1
                            else:
                                assert status == 0xA700
                                self.refused += 1
            except ConnectionRefusedError:
                break
            except (Ended, OSError):
                sender = None
        numbers.close()


def _all_there(run: Running, acknowledged: dict[int, int]) -> dict[str, bytes]:
    landed = run.landed()
    assert all(kit.is_whole(key, data) for key, data in landed.items())
    contents = set(landed.values())
    lost = [number for number in acknowledged if kit.file_of(number) not in contents]
    assert lost == []
    return landed


def _staged(run: Running) -> dict[str, int]:
    zones = [open_store(getattr(run.config.zones, zone), zone) for zone in ("landing", "work")]
    return stage(run.config, *zones, eligible=lambda row: None).counts


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.long)])
def test_killed_in_the_middle_all_that_was_acknowledged_is_there_whole_and_once(tmp_path: Path, count: int) -> None:
    senders = Senders(range(count))
    with apart(tmp_path) as run:
        sending = threading.Thread(target=senders.until, args=(run.port, count))
        sending.start()
        while len(senders.acknowledged) < count // 2:
            time.sleep(0.002)
        run.kill()
        sending.join()
        assert count // 2 <= len(senders.acknowledged) < count
        _all_there(run, senders.acknowledged)
    with apart(tmp_path) as run:
        assert not list((tmp_path / "landing").rglob(".tre-*/*"))      # what it was writing is cleared away
        senders.until(run.port, count)
        landed = _all_there(run, senders.acknowledged)
        assert len(landed) == len(senders.acknowledged) == count
        assert _staged(run) == {"pending": count}


def test_500_associations_at_once_are_bounded_and_the_others_are_told(tmp_path: Path) -> None:
    with apart(tmp_path, associations=8) as run:
        asking = [Sender(run.port, ask=False, timeout=60) for _ in range(500)]
        for sender in asking:
            sender.socket.sendall(kit.request())
        for sender in asking:
            try:
                sender.answer = sender.pdu()
            except Ended:
                sender.answer = b""
        taken = [sender for sender in asking if sender.accepted]
        told = [sender for sender in asking if sender.rejected == (2, 3, 2)]
        assert len(taken) == 8 and len(told) == 492
        statuses: list[int] = []
        threads = [threading.Thread(target=lambda s=sender, n=n: statuses.append(
            s.store(n, data=kit.data_set(n, 40_000_000)))) for n, sender in enumerate(taken)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [0] * 8 and len(run.landed()) == 8
        assert run.peak() < MEMORY
        for sender in asking:
            sender.close()
        while not (sender := Sender(run.port, timeout=60)).accepted:    # places are given back
            sender.close()
        assert sender.store(1000) == 0


def test_silent_connections_are_bounded_too(tmp_path: Path) -> None:
    with apart(tmp_path, associations=4, silent_seconds=2) as run:
        silent = [Sender(run.port, ask=False) for _ in range(200)]
        end = time.monotonic() + 60
        while time.monotonic() < end:
            sender = Sender(run.port, timeout=60)
            if sender.accepted:
                break
            time.sleep(0.2)
        assert sender.accepted and sender.store(1) == 0
        assert run.peak() < MEMORY
        for one in silent:
            one.close()


def test_the_disk_fills_and_recovers(tmp_path: Path) -> None:
    with apart(tmp_path) as run:
        sender = Sender(run.port)
        assert sender.store(1) == 0
        (tmp_path / "full").touch()
        assert sender.store(2) == 0xA700
        assert len(run.landed()) == 1                   # nothing is taken away to make room
        (tmp_path / "full").unlink()
        assert sender.store(2) == 0
        assert len(run.landed()) == 2


def test_sigterm_ends_it_within_its_time_and_with_zero(tmp_path: Path) -> None:
    with apart(tmp_path, stop_seconds=2) as run:
        sender = Sender(run.port)
        assert sender.store(1) == 0
        run.process.terminate()
        with pytest.raises(Ended):
            sender.pdu()
        assert run.process.wait(timeout=20) == 0
        assert run.process.stdout.read() == "stopped: 1 received, 0 seen again\n"
    assert not list((tmp_path / "landing").glob(".tre-*"))
    assert "2.25." not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(("count", "kills"), [(300, 2), pytest.param(10_000, 6, marks=pytest.mark.long)])
def test_no_silent_loss_with_faults(tmp_path: Path, count: int, kills: int) -> None:
    """Connections that break, images sent twice, a disk that fills, a listener that is killed: at the end each image
    is in landing once, and `stage` takes each once."""
    faults, senders, full = random.Random(7), Senders(range(count), 6), tmp_path / "full"
    for kill in range(kills + 1):
        with apart(tmp_path) as run:
            sending = threading.Thread(target=senders.until, args=(run.port, count, faults))
            sending.start()
            begin = len(senders.acknowledged)
            while sending.is_alive() and kill < kills and len(senders.acknowledged) - begin < count // (kills + 1):
                time.sleep(0.05)
                full.touch() if faults.random() < 0.1 else full.unlink(missing_ok=True)
            full.unlink(missing_ok=True)
            if kill < kills:
                run.kill()
            sending.join()
            _all_there(run, senders.acknowledged)
    landed = _all_there(run, senders.acknowledged)
    assert len(landed) == len(senders.acknowledged) == count
    assert any(n > 1 for n in senders.acknowledged.values())
    assert _staged(run) == {"pending": count}


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not at hand")
def test_the_unit_is_sound(tmp_path: Path) -> None:
    unit = Path(__file__).parents[2] / "infra" / "systemd" / "tre-listen@.service"
    installed = tmp_path / unit.name        # as it stands, but for where this checkout is
    tre = str(Path(sys.executable).with_name("tre"))
    installed.write_text(unit.read_text().replace("/opt/tre-ingest/.venv/bin/tre", tre))
    checked = subprocess.run(["systemd-analyze", "verify", str(installed)], capture_output=True, text=True,
                             check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
