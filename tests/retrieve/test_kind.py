"""Quiet hours, the token bucket and the circuit breaker, by a clock of the test's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import retrieve_kit as kit
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import PacsUnreachable
from pipeline.retrieve import kind
from pipeline.retrieve.kind import Kindness
from pipeline.storage.local import LocalStore

MONDAY = datetime(2024, 1, 8, 12, tzinfo=UTC)


class Clocked(LocalStore):
    at = MONDAY

    def now(self) -> datetime:
        return self.at


@pytest.fixture
def work(tmp_path: Path) -> Clocked:
    return Clocked((tmp_path / "work").as_uri())


def kindness(work: Any, **retrieve: Any) -> Kindness:
    made = kit.config(Path("/nowhere"), **retrieve)
    assert made.retrieve
    return Kindness(made.retrieve, work, made.name)


@pytest.mark.parametrize(("hours", "at", "seconds"), [
    ("mon-fri 07:30-19:00", MONDAY, 7 * 3600),
    ("mon-fri 07:30-19:00", MONDAY + timedelta(days=5), 0),
    ("mon-fri 07:30-19:00", MONDAY.replace(hour=19), 0),
    ("mon-fri 07:30-19:00", MONDAY.replace(hour=7, minute=30), 11.5 * 3600),
    ("sun 22:00-13:00", MONDAY, 3600),
    ("sat-mon 00:00-24:00", MONDAY, 12 * 3600),
    ("tue 00:00-24:00", MONDAY, 0),
])
def test_quiet_hours(work: Clocked, hours: str, at: datetime, seconds: float) -> None:
    assert kindness(work, quiet_hours=[hours], timezone="UTC").quiet(at) == seconds


def test_quiet_hours_follow_each_other_and_are_of_the_hospital_s_place(work: Clocked) -> None:
    both = kindness(work, quiet_hours=["mon 09:00-13:00", "mon 13:00-15:00"], timezone="UTC")
    assert both.quiet(MONDAY) == 3 * 3600
    summer = kindness(work, quiet_hours=["mon-fri 08:00-09:00"], timezone="Europe/London")
    assert summer.quiet(datetime(2024, 7, 8, 7, 30, tzinfo=UTC)) == 1800
    assert summer.quiet(datetime(2024, 7, 8, 8, 30, tzinfo=UTC)) == 0


@pytest.mark.parametrize("text", ["mon-fri", "mo 07:00-08:00", "mon 7:00-8:00", "mon 07:00-25:00", "07:00-08:00"])
def test_quiet_hours_written_otherwise_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        kit.config(Path("/nowhere"), quiet_hours=[text])


def test_in_quiet_hours_nothing_is_asked(work: Clocked) -> None:
    wait = kindness(work, quiet_hours=["mon 12:00-13:00"], timezone="UTC").may_ask()
    assert wait and (wait.why, wait.seconds) == ("quiet_hours", 3600)


@settings(deadline=None, max_examples=15)
@given(rate=st.integers(1, 4000), gaps=st.lists(st.floats(0, 600), max_size=30))
def test_in_no_hour_are_there_more_than_the_rate_and_one_burst(rate: int, gaps: list[float]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        work = Clocked(Path(folder).as_uri())
        bucket, asked = kindness(work, studies_an_hour=rate), []
        for gap in gaps:
            work.at += timedelta(seconds=gap)
            if bucket.may_ask() is None:
                asked.append(work.at)
    for begin in asked:
        within = sum(begin <= moment < begin + timedelta(hours=1) for moment in asked)
        assert within <= rate + kind.BURST


def test_the_bucket_outlives_the_process_and_fills_again(work: Clocked) -> None:
    for _ in range(kind.BURST):
        assert kindness(work, studies_an_hour=60).may_ask() is None
    wait = kindness(work, studies_an_hour=60).may_ask()
    assert wait and wait.why == "studies_an_hour" and 59 <= wait.seconds <= 60
    work.at += timedelta(seconds=61)
    assert kindness(work, studies_an_hour=60).may_ask() is None
    assert kindness(work, studies_an_hour=60).may_ask() is not None


def test_pauses_grow_end_with_the_first_success_and_are_not_for_ever(work: Clocked) -> None:
    one = kindness(work, failures_before_pause=2, pause_minutes=10)
    one.told(well=False)
    assert one.may_ask() is None, "one failure is no pause"
    one.told(well=False)
    wait = one.may_ask()
    assert wait and (wait.why, wait.seconds) == ("pacs_failing", 600)
    work.at += timedelta(seconds=601)
    assert one.may_ask() is None, "one more try"
    one.told(well=False)
    wait = one.may_ask()
    assert wait and wait.seconds == 1200
    work.at += timedelta(seconds=1201)
    one.told(well=True)
    one.told(well=False)
    assert one.may_ask() is None
    for _ in range(kind.PAUSES + 1):
        one.told(well=False)
    work.at += timedelta(days=1)
    with pytest.raises(PacsUnreachable):
        one.may_ask()
