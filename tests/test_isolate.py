"""Objects that sleep, allocate, crash or recurse: their neighbours pass, and each is left out once."""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from pipeline import isolate
from pipeline.errors import Interrupted, StoreUnreachable
from pipeline.isolate import Limits, each

QUICK = Limits(seconds=0.4, megabytes=64)


def sleeps() -> None:
    time.sleep(60)


def spins() -> None:
    while True:
        pass


def allocates() -> None:
    bytearray(1 << 30)


def allocates_bit_by_bit() -> None:
    held = []
    while True:
        held.append(bytes(1 << 16))


def maps() -> None:
    try:
        mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE)
    except OSError:
        raise MemoryError from None


def exits() -> None:
    os._exit(0)


def is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crashes() -> None:
    faulthandler.disable()
    ctypes.string_at(0)


def recurses() -> None:
    recurses()


ENDS_ITS_WORKER = (sleeps, spins, exits, is_killed, crashes)
RAISES = {allocates: "MemoryError", allocates_bit_by_bit: "MemoryError", maps: "MemoryError",
          recurses: "RecursionError"}


def work(group, clock, without):
    """Do the group's objects: a number is its own answer, a function is called."""
    out = []
    for number, one in enumerate(group):
        clock.start(number, 0)
        if number in without:
            out.append("left out")
        elif callable(one):
            try:
                one()
            except Exception as error:
                out.append(type(error).__name__)
        else:
            out.append(one)
    return out


def done(groups, workers=1, limits=QUICK, do=work):
    with closing(each(groups, do, workers=workers, limits=limits)) as answers:
        return list(answers)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("hostile", [*ENDS_ITS_WORKER, *RAISES], ids=lambda f: f.__name__)
def test_neighbours_pass(hostile, workers):
    groups = [[1, 2], [3, hostile, 4], [5], [6, 7]]
    found = done(groups, workers)
    assert sorted(map(groups.index, (group for group, _ in found))) == [0, 1, 2, 3]
    for group, answer in found:
        assert answer == [RAISES.get(one, "left out") if callable(one) else one for one in group]
    if workers == 1:
        assert [group for group, _ in found] == groups


def test_many_in_one_group():
    group = [0, exits, 2, is_killed, exits, 5, recurses]
    assert done([group, [9]]) == [(group, [0, "left out", 2, "left out", "left out", 5, "RecursionError"]), ([9], [9])]


def test_one_worker_does_all_where_nothing_happens():
    found = done([[n] for n in range(50)], do=lambda group, clock, without: (group[0], os.getpid()))
    assert [n for _, (n, _) in found] == list(range(50))
    assert len({pid for _, (_, pid) in found}) == 1
    assert os.getpid() not in {pid for _, (_, pid) in found}


def test_one_kill_from_outside_costs_nobody(tmp_path):
    def once(group, clock, without):
        clock.start(0, 0)
        if not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            is_killed()
        return work(group, clock, without)

    assert done([[1], [2]], do=once) == [([1], [1]), ([2], [2])]


def test_large_objects_have_more_time():
    def slow(group, clock, without):
        clock.start(0, group[0])
        if without:
            return "left out"
        time.sleep(0.8)
        return "done"

    limits = Limits(seconds=0.2, bytes_per_second=1000)
    assert [answer for _, answer in done([[0], [5000]], limits=limits, do=slow)] == ["left out", "done"]


def test_a_fetch_is_not_timed_as_work():
    def fetching(group, clock, without):
        clock.fetch(0, 0)
        time.sleep(0.8)
        return len(without)

    assert [answer for _, answer in done([[0]], limits=Limits(seconds=0.2), do=fetching)] == [0]


def test_what_work_raises_is_raised_here():
    def fails(group, clock, without):
        raise StoreUnreachable("The store does not answer.", hint="Wait.")

    def surprises(group, clock, without):
        raise KeyError("QUILLFEATHER")

    with pytest.raises(StoreUnreachable, match=r"Wait\."):
        done([[1]], do=fails)
    with pytest.raises(Interrupted) as caught:
        done([[1]], do=surprises)
    assert "QUILLFEATHER" not in repr(caught.value) and "KeyError" in str(caught.value)


def test_workers_that_end_with_nothing_in_hand_stop_the_step():
    with pytest.raises(Interrupted):
        done([[1]], do=lambda group, clock, without: os._exit(0))


def test_no_worker_outlives_its_parent(tmp_path):
    """Not even where the parent is killed."""
    def note(group, clock, without):
        (tmp_path / "pid").write_text(f"{os.getpid()}\n")
        time.sleep(60)

    middle = os.fork()
    if not middle:
        try:
            done([[1]], limits=Limits(seconds=60), do=note)
        finally:
            os._exit(1)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().endswith("\n"):
        time.sleep(0.01)
    os.kill(middle, signal.SIGKILL)
    os.waitpid(middle, 0)
    worker = int((tmp_path / "pid").read_text())
    for _ in range(500):
        try:
            state = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state in "ZX":
            return
        time.sleep(0.01)
    pytest.fail("the worker lives on")


def test_a_machine_that_slept_is_no_objects_fault(monkeypatch):
    """The clock jumps while an object is read: at the next look its time is up, though it had none to use."""
    worker = object.__new__(isolate._Worker)
    worker.clock, worker._up = isolate.Clock(Limits()), None
    now = time.monotonic()
    monkeypatch.setattr(isolate.time, "monotonic", lambda: now)
    worker.clock.start(0, 10)
    assert not worker.late()
    now += 3600
    assert not worker.late() and not worker.late()
    worker.clock.start(1, 10)       # it woke up and went on
    assert not worker.late()
    now += 60
    assert not worker.late()
    now += 1
    assert worker.late()
