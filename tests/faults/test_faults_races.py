"""Two at once: a zombie and its retry, two publishers, the command line against another publisher."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from faults_kit import NAME, Bench, Ended

from pipeline.errors import LeaseHeld
from pipeline.storage import lease, open_store

pytestmark = pytest.mark.xdist_group("faults")


def stopped(started: tuple[int, object]) -> None:
    """Wait until the child has stopped itself."""
    for _ in range(600):
        if Path(f"/proc/{started[0]}/stat").read_text().rpartition(")")[2].split()[0] == "T":
            return
        time.sleep(0.05)
    pytest.fail("the child has not stopped")


def published_once(bench: Bench) -> None:
    assert bench.digests() == bench.states["publish"]
    assert len(bench.releases()) == 1
    bench.whole()


def test_two_processes_deidentify_the_same_shards(bench: Bench) -> None:
    bench.before("deidentify")
    started = [bench.start(["deidentify"]) for _ in range(2)]
    for one in started:
        ended = bench.zygote.wait(one)
        assert ended.code == 0, ended.log
    assert bench.digests() == bench.states["deidentify"]


@pytest.mark.parametrize("point", [("candidate", "adopt", r".*\.dcm"), ("work", "write", r".*/outcomes\.parquet")])
def test_a_zombie_wakes_up_after_its_retry_has_finished(point: tuple[str, str, str], bench: Bench) -> None:
    bench.before("deidentify")
    zone, method, key = point
    fault = {"kind": "dying", "signal": "SIGSTOP", "zone": zone, "method": method, "key": key, "when": "before"}
    zombie = bench.start(["deidentify"], fault=fault)
    try:
        stopped(zombie)
        bench.do("deidentify")
        assert bench.digests() == bench.states["deidentify"]
    finally:
        os.kill(zombie[0], signal.SIGCONT)
        ended = bench.zygote.wait(zombie)
    assert ended.code == 0, ended.log
    assert bench.digests() == bench.states["deidentify"]


@pytest.mark.parametrize("many", [2, 3])
def test_publishers_at_once(many: int, bench: Bench) -> None:
    """One publishes; the others wait their turn, or are told to. There is one release."""
    bench.before("publish")
    started = [bench.start(*bench.words("publish")) for _ in range(many)]
    ended = [bench.zygote.wait(one) for one in started]
    assert all(one.code == 0 or one.error == "LeaseHeld" for one in ended), [one.log for one in ended]
    if not any(one.code == 0 for one in ended):     # at worst neither has it
        bench.do("publish")
    published_once(bench)


def test_publishers_that_all_believe_they_hold_the_lease(bench: Bench) -> None:
    """The lease keeps them apart; the bytes do not depend on it."""
    bench.before("publish")
    started = [bench.start(*bench.words("publish"), fault={"kind": "no_lease"}) for _ in range(2)]
    for one in started:
        ended = bench.zygote.wait(one)
        assert ended.code == 0, ended.log
    published_once(bench)


@pytest.mark.parametrize("point", [("put_file", r".*/images/.*"), ("write", r".*/current\.json")])
def test_a_publisher_that_slept_through_its_lease(point: tuple[str, str], bench: Bench) -> None:
    bench.before("publish")
    method, key = point
    fault = {"kind": "dying", "signal": "SIGSTOP", "zone": "release", "method": method, "key": key, "when": "before"}
    zombie = bench.start(*bench.words("publish"), fault=fault)
    try:
        stopped(zombie)
        assert bench.run(*bench.words("publish")).error == "LeaseHeld"      # it may still be alive
        (held,) = (bench.folder / "release" / NAME / "leases").rglob("????????????????")
        os.utime(held, (1, 1))      # it has not been renewed for long
        bench.do("publish")
    finally:
        os.kill(zombie[0], signal.SIGCONT)
        ended = bench.zygote.wait(zombie)
    assert ended.error == "LeaseHeld" and "lost" in ended.answer["said"], ended.log
    published_once(bench)


def test_the_command_line_against_another_publisher(bench: Bench) -> None:
    """As a DAG's publisher would hold it: the same lease, in the release zone."""
    bench.before("publish")
    release = open_store((bench.folder / "release").as_uri(), "release")
    words, ended = ["tre", "publish", str(bench.project)], []
    with lease.hold(release, f"{NAME}/leases/publish.json"):
        teller = threading.Thread(target=lambda: ended.append(bench.run(words)))
        teller.start()
        teller.join()
    told: Ended = ended[0]
    assert told.answer["results"] == [LeaseHeld.exit_code]
    assert "lease_held" in told.log
    assert bench.release_url() is None
    assert bench.run(words).answer["results"] == [0]
    published_once(bench)
