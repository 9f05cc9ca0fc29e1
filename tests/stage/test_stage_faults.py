"""Kills, races and determinism: the same landing ends as the same bytes, whatever happened on the way."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import threading

import pytest
from stage_kit import PROJECT, image, inventories, open_zones, tree

from pipeline import layout
from pipeline.errors import LeaseHeld
from pipeline.isolate import Limits
from pipeline.stage import batches, inventory, run
from pipeline.stage.inventory import read_all
from pipeline.storage import lease, tables


def fill(zones, day: int) -> None:
    for n in range(6):
        zones.put(f"day{day}/{n}.dcm", image((day, n), study=(day, n // 2)))
    zones.put(f"day{day}/twin.dcm", image((1, 0), study=(1, 0)))
    zones.put(f"day{day}/changed.dcm", image((1, 1), 1, study=(1, 0)))
    zones.put(f"day{day}/bad.dcm", b"not DICOM")


@pytest.fixture
def undisturbed(tmp_path):
    """The files of two batches staged in peace, and a landing of both days; a function empties the work zone."""
    zones = open_zones(tmp_path)
    fill(zones, 1)
    zones.run(shard_instances=2)
    after_one = shutil.copytree(tmp_path / "work", tmp_path / "saved")
    fill(zones, 2)
    zones.run(shard_instances=2)
    zones.expected = tree(zones.work)

    def reset():
        shutil.rmtree(tmp_path / "work")
        shutil.copytree(after_one, tmp_path / "work")

    zones.reset = reset
    return zones


def test_same_landing_same_bytes(undisturbed, tmp_path):
    """In another work zone, read by processes instead of in this one."""
    other = open_zones(tmp_path / "other")
    config = other.config(shard_instances=2)
    day2 = tmp_path / "landing" / "day2"
    moved = day2.rename(tmp_path / "day2")
    run.stage(config, undisturbed.landing, other.work, eligible=lambda r: None, workers=2)
    moved.rename(day2)
    run.stage(config, undisturbed.landing, other.work, eligible=lambda r: None, workers=0)
    expected = {key: digest for key, digest in undisturbed.expected.items() if not key.endswith("/listing.parquet")}
    assert tree(other.work, listings=False) == expected
    assert len(batches.committed(other.work, PROJECT)) == 2


class Dying:
    """A store in which the n-th change of an object is the process's last act, before or after it is done."""

    def __init__(self, store, fatal: int, after: bool) -> None:
        self._store, self._left, self._after = store, fatal, after

    def __getattr__(self, name):
        return getattr(self._store, name)

    def _count(self, key: str, act) -> None:
        if "/leases/" in key:
            return act()
        self._left -= 1
        if self._left == 0:
            if self._after:
                act()
            os.kill(os.getpid(), signal.SIGKILL)
        return act()

    def write(self, key, data):
        return self._count(key, lambda: self._store.write(key, data))

    def delete(self, key):
        return self._count(key, lambda: self._store.delete(key))


def in_child(act) -> int:
    process = multiprocessing.get_context("fork").Process(target=act)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize("after", [False, True])
def test_kill_at_every_write_then_again_gives_the_same_files(undisturbed, after):
    config = undisturbed.config(shard_instances=2)

    def stage(store):
        return run.stage(config, undisturbed.landing, store, eligible=lambda r: None, workers=0)

    fatal = 0
    while True:
        fatal += 1
        undisturbed.reset()
        code = in_child(lambda: stage(Dying(undisturbed.work, fatal, after)))  # noqa: B023
        if code == 0:
            break
        assert code == -signal.SIGKILL
        committed = batches.committed(undisturbed.work, PROJECT)
        if len(committed) == 1:                         # nothing of the batch is believed before its inventory is there
            assert len(inventories(undisturbed.work)) == 9
        result = stage(undisturbed.work)
        assert (result.batch is None) == (len(committed) == 2)
        assert tree(undisturbed.work) == undisturbed.expected
    assert fatal > 15, "shards, seen, listing and inventory are separate writes"
    assert tree(undisturbed.work) == undisturbed.expected


def test_what_a_killed_run_left_is_not_believed_when_landing_has_changed(zones):
    """A killed run's seen rows must not make duplicates of objects that no batch has."""
    zones.put("a.dcm", image(1))
    killed = zones.run().batch
    zones.work.delete(layout.inventory(PROJECT, killed))        # as if killed just before the commit
    zones.put("late.dcm", image(2))
    result = zones.run()
    assert (result.batch != killed, result.counts) == (True, {"pending": 2})
    zones.put("twin.dcm", image(1))
    assert zones.run().counts == {"duplicate/same_bytes": 1}
    batches_seen = {row["batch"] for key in tree(zones.work) if "/seen/" in key
                    for row in tables.read(zones.work, key).to_pylist()}
    assert batches_seen == {result.batch}


def test_shards_of_a_killed_run_under_another_project_file_go(zones):
    fill(zones, 1)
    batch = zones.run(shard_instances=1).batch
    many = batches.shards(zones.work, PROJECT, batch)
    zones.work.delete(layout.inventory(PROJECT, batch))
    assert zones.run(shard_instances=100).batch == batch
    assert len(many) > 1
    assert batches.shards(zones.work, PROJECT, batch) == [0]


def test_two_stages_at_once(zones):
    fill(zones, 1)
    refused = []
    reading, go_on = threading.Event(), threading.Event()

    def eligible(row):
        reading.set()
        go_on.wait(30)

    first = threading.Thread(target=lambda: refused.append(zones.run(eligible=eligible)))
    first.start()
    assert reading.wait(30)
    with pytest.raises(LeaseHeld):
        zones.run()
    go_on.set()
    first.join(30)
    assert len(batches.committed(zones.work, PROJECT)) == 1
    assert zones.run().batch is None


def test_a_stage_that_slept_through_another_stops_before_it_commits(zones, monkeypatch):
    """As when its lease ran out: what the other has admitted must not be forgotten."""
    fill(zones, 1)
    asleep = []

    def eligible(row):
        if not asleep:
            asleep.append(True)
            zones.run()

    from contextlib import nullcontext
    monkeypatch.setattr(lease, "hold", lambda *a, **k: nullcontext())
    with pytest.raises(LeaseHeld):
        zones.run(eligible=eligible, shard_instances=3)
    assert len(batches.committed(zones.work, PROJECT)) == 1


READER = """
import os, signal, time
from pipeline.dicom.inspect import inspect

def reader(path, max_bytes):
    if path.name.startswith("killer"):
        os.kill(os.getpid(), signal.SIGKILL)
    if path.name.startswith("raiser"):
        raise MemoryError
    if path.name.startswith("sleeper"):
        time.sleep(60)
    if path.name.startswith("hoarder"):
        held = []
        while True:
            held.append(bytes(1 << 20))
    return inspect(path, max_bytes)
"""


def test_an_object_that_kills_its_reader_takes_no_neighbour_along(zones, tmp_path, monkeypatch):
    for n in range(12):
        zones.put(f"{n:02}.dcm", image(n))
    hostile = ["hoarder", "killer1", "killer2", "raiser", "sleeper"]
    for name in hostile:
        zones.put(name, image(name))
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "fatal_reader.py").write_text(READER)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    import fatal_reader

    monkeypatch.setattr(inventory, "CHUNK", 3)
    entries = list(zones.landing.list())
    limits = Limits(seconds=1, megabytes=64)
    found = list(read_all(zones.landing, entries, 10**9, 2, fatal_reader.reader, limits))
    sys.modules.pop("fatal_reader")
    assert sorted(e.key for e, _ in found) == [e.key for e in entries]
    refused = {e.key: i.refusal.reason for e, i in found if i.refusal}
    assert refused == dict.fromkeys(hostile, "reading_limit_exceeded")
