"""Kill -9 at every place where a step changes a zone, and anywhere else; what was begun is then finished."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faults_kit import Bench
from points import POINTS, STEPS, Point, named

pytestmark = pytest.mark.xdist_group("faults")
SEED = 20261122


def test_every_change_of_a_zone_has_a_name(bench: Bench) -> None:
    unnamed = {change for change in bench.changes if len(named(POINTS, *change)) != 1}
    assert not unnamed
    unused = {(p.step, p.name) for p in POINTS if not any(p.fits(*change) for change in bench.changes)}
    assert not unused


def killed_at(point: Point, when: str, bench: Bench) -> None:
    """The step is killed, and run again as it is: its zones are then those of a run that nobody disturbed, so that
    whatever follows is too."""
    bench.before(point.step)
    many = sum(point.fits(*change) for change in bench.changes)
    fault = {"kind": "dying", "zone": point.zone, "method": point.method, "key": point.pattern.pattern, "when": when,
             "nth": many // 2 + 1}
    assert bench.run(*bench.words(point.step), fault=fault).code == -signal.SIGKILL
    bench.whole()
    done = bench.do("ledger_summary", point.step)
    assert done.answer["results"][0]["holds"]
    assert bench.digests() == bench.states[point.step]
    bench.whole()


def named_cases(turn: int) -> list[object]:
    """One of before and after for each point; the other at the other turn."""
    whens = ("before", "after") * len(POINTS)
    cases = zip(POINTS, whens[turn:], strict=False)
    return [pytest.param(p, when, id=f"{p.step}-{when}-{p.name.replace(' ', '-')}") for p, when in cases]


@pytest.mark.parametrize(("point", "when"), named_cases(0))
def test_killed_at(point: Point, when: str, bench: Bench) -> None:
    killed_at(point, when, bench)


@pytest.mark.long
@pytest.mark.parametrize(("point", "when"), named_cases(1))
def test_killed_at_the_other_side(point: Point, when: str, bench: Bench) -> None:
    killed_at(point, when, bench)


def finished(bench: Bench) -> None:
    """`tre run`, once more: all is there, once, and as if nothing had happened."""
    done = bench.run(line(bench), ["ledger_summary"])
    assert done.answer["results"][0] == 0, done.log
    assert done.answer["results"][1]["holds"]
    assert bench.digests() == bench.states[STEPS[-1]]
    assert len(bench.releases()) == 1
    bench.whole()


def line(bench: Bench) -> list[str]:
    return ["tre", "run", str(bench.project), "--approve-as", "officer"]


@pytest.fixture(scope="session")
def calls(bench: Bench) -> int:
    """How many calls of one `tre run` change the disk. It ends as the steps do, one by one."""
    bench.restore(None)
    ended = bench.run(line(bench), fault={"kind": "dying_anywhere", "nth": 10**9, "count": True})
    assert ended.answer["results"] == [0], ended.log
    assert bench.digests() == bench.states[STEPS[-1]]
    return int(ended.answer["count"])


def anywhere(bench: Bench, calls: int, number: int, **more: Any) -> None:
    """Kill `tre run` at a call that the seed picks, up to three times in a row, and run it once more."""
    chosen = random.Random(f"{SEED} {number}")
    bench.restore(None)
    for _ in range(chosen.randrange(1, 4)):
        ended = bench.run(line(bench), fault={"kind": "dying_anywhere", "nth": chosen.randrange(1, calls)}, **more)
        assert ended.code in (-signal.SIGKILL, 0), ended.log  # 0: less was left to do than that
        bench.whole()
    finished(bench)


@pytest.mark.parametrize("number", range(4))
def test_killed_anywhere(number: int, bench: Bench, calls: int) -> None:
    anywhere(bench, calls, number)


@pytest.mark.long
@pytest.mark.parametrize("number", range(4, 40))
def test_killed_anywhere_else(number: int, bench: Bench, calls: int) -> None:
    anywhere(bench, calls, number, known=None)


@pytest.mark.long
@pytest.mark.parametrize("number", range(10))
def test_killed_at_any_moment(number: int, bench: Bench) -> None:
    """The command itself with all its processes, by the clock: whatever it is doing then."""
    bench.restore(None)
    tre, env = Path(sys.executable).with_name("tre"), {k: v for k, v in os.environ.items() if not k.startswith("TRE_")}
    chosen = random.Random(f"{SEED} clock {number}")
    with subprocess.Popen([tre, *line(bench)[1:]], env=env | bench.env, start_new_session=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chosen.uniform(0.5, 14))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    bench.whole()
    finished(bench)
