"""One holder at a time: threads, processes, the dead, the slow."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest

from pipeline.errors import LeaseHeld, StoreUnreachable
from pipeline.storage import ObjectStore, lease
from pipeline.storage.lease import hold

KEY = "p/leases/publish.json"

HOLDER = """
import sys, time
from pipeline.storage import open_store
from pipeline.storage.lease import hold
with hold(open_store(sys.argv[1], "work"), sys.argv[2], seconds=float(sys.argv[3])):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(store: ObjectStore, seconds: float = 600) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease."""
    command = [sys.executable, "-c", HOLDER, store.url, KEY, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def leases(store: ObjectStore) -> list[str]:
    return [entry.key for entry in store.list("p/leases/")]


def test_hold_and_give_back(store: ObjectStore) -> None:
    for _ in range(2):
        with hold(store, KEY):
            assert len(leases(store)) == 1
        assert leases(store) == []


def test_it_is_given_back_after_an_error(local: ObjectStore) -> None:
    with pytest.raises(ZeroDivisionError), hold(local, KEY):
        _ = 1 / 0
    assert leases(local) == []


def test_held_twice_is_refused(store: ObjectStore) -> None:
    with hold(store, KEY):
        with pytest.raises(LeaseHeld), hold(store, KEY):
            pytest.fail("held twice")
        for other in (f"{KEY}x", "p/leases/publish", "p/leases", f"{KEY}/x"):  # other names are other leases
            with hold(store, other):
                pass
        assert len(leases(store)) == 1


def test_a_living_holder_is_refused(store: ObjectStore) -> None:
    with holder(store), pytest.raises(LeaseHeld), hold(store, KEY):
        pytest.fail("taken from a living holder")


@pytest.mark.parametrize("reaped", [True, False])
def test_a_dead_holder_is_taken_over_at_once(store: ObjectStore, reaped: bool) -> None:
    """Killed and reaped, or killed and still in the table of processes."""
    with holder(store) as process:
        process.send_signal(signal.SIGKILL)
        if reaped:
            process.wait()
        else:
            while lease._started(process.pid) is not None:
                time.sleep(0.01)
        with hold(store, KEY):
            assert len(leases(store)) == 1
    assert leases(store) == []


def record(**changes: object) -> bytes:
    return json.dumps({"schema_version": 1, "seconds": 60, **lease._self(), **changes}).encode()


def test_a_process_number_used_again_is_not_the_holder(local: ObjectStore) -> None:
    local.write(f"{KEY}/0", record(started=1))
    with hold(local, KEY):
        pass


@pytest.mark.parametrize("other", [{"machine": "another"}, {"machine": None}])
def test_a_holder_on_another_machine_is_dead_only_when_its_time_is_over(
    local: ObjectStore, other: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    local.write(f"{KEY}/0", record(started=1, **other))
    with pytest.raises(LeaseHeld), hold(local, KEY):
        pass
    now = local.now()
    monkeypatch.setattr(type(local), "now", lambda _: now + timedelta(seconds=59))
    with pytest.raises(LeaseHeld), hold(local, KEY):
        pass
    monkeypatch.setattr(type(local), "now", lambda _: now + timedelta(seconds=61))
    with hold(local, KEY):
        assert f"{KEY}/0" not in leases(local)


def test_on_a_machine_that_does_not_tell_only_time_decides(local: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_machine", lambda: None)
    local.write(f"{KEY}/0", record(pid=2**30, started=1))
    with pytest.raises(LeaseHeld), hold(local, KEY):
        pass


def test_a_record_that_cannot_be_read_is_not_ours_to_judge(local: ObjectStore) -> None:
    for data in (b"", b"[]", b"{}", b"\xff"):
        local.write(f"{KEY}/0", data)
        with pytest.raises(LeaseHeld), hold(local, KEY):
            pass
        assert leases(local) == [f"{KEY}/0"]


def test_it_is_renewed_while_held(local: ObjectStore) -> None:
    with hold(local, KEY, seconds=0.15):
        (first,) = local.list("p/leases/")
        for _ in range(200):
            time.sleep(0.02)
            (entry,) = local.list("p/leases/")
            if entry.modified > first.modified + timedelta(seconds=0.15):
                break
        else:
            pytest.fail("not renewed")


def test_a_store_that_fails_for_a_while_does_not_end_the_lease(
    local: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Event()

    def fail(*_: object) -> None:
        tried.set()
        raise StoreUnreachable("no answer")

    with hold(local, KEY, seconds=0.03), monkeypatch.context() as patch:
        patch.setattr(type(local), "write", fail)
        assert tried.wait(10)


def test_a_lease_lost_meanwhile_is_told_at_the_end(local: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    done = False
    with pytest.raises(LeaseHeld, match="lost"), hold(local, KEY, seconds=60):
        now: datetime = local.now()
        monkeypatch.setattr(type(local), "now", lambda _: now + timedelta(seconds=61))
        with hold(local, KEY):  # another, for whom we are too old
            pass
        done = True
    assert done
    assert leases(local) == []


def test_a_slow_holder_does_not_come_back_to_life(local: ObjectStore) -> None:
    with pytest.raises(LeaseHeld, match="lost"), hold(local, KEY, seconds=0.05):
        (entry,) = local.list("p/leases/")
        local.delete(entry.key)  # as who takes over does
        time.sleep(0.2)
        assert leases(local) == []


def test_never_two_at_once(store: ObjectStore, kind: str) -> None:
    """Whoever asks at the same moment: never two inside, and in the end everybody had it."""
    inside, most, turns = [0], [0], [0]
    guard, start = threading.Lock(), threading.Barrier(4)

    def work() -> None:
        start.wait()
        while True:
            try:
                with hold(store, KEY):
                    with guard:
                        inside[0] += 1
                        most[0] = max(most[0], inside[0])
                        turns[0] += 1
                    time.sleep(0.02)
                    with guard:
                        inside[0] -= 1
                    return
            except LeaseHeld:
                time.sleep(0.01)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (most[0], turns[0], inside[0]) == (1, 4, 0)
    assert leases(store) == []


def test_no_host_or_user_is_written(local: ObjectStore) -> None:
    with hold(local, KEY):
        (key,) = leases(local)
        assert set(json.loads(local.read(key))) == {"schema_version", "seconds", "machine", "pid", "started"}
