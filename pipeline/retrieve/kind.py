"""Kind to a clinical service: quiet hours, a token bucket, a circuit breaker. Its state is one object of the work zone.

Tasks that run at a time share it under a lease, so the bucket bounds them together. Nothing here waits: who asks is
told for how long, and why.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from pipeline import layout
from pipeline.errors import LeaseHeld, NotFound, PacsUnreachable, ProjectFileError
from pipeline.sections import Retrieve
from pipeline.storage import ObjectStore, lease

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
BURST = 10              # studies that may be asked for at once after a pause
LONGEST = 6 * 3600.0    # of a pause, in seconds
PAUSES = 8              # in a row without any success: then somebody has to look


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now. `why`: quiet_hours, studies_an_hour or pacs_failing."""

    why: str
    seconds: float


class Kindness:
    """Says whether the next study may be asked for. Times are those of the store's clock."""

    def __init__(self, config: Retrieve, work: ObjectStore, project: str) -> None:
        self._config, self._work, self._project = config, work, project

    def may_ask(self) -> Wait | None:
        """Take a token and return None, or say how long to wait. Raises PacsUnreachable after too many pauses."""
        now = self._work.now()
        if seconds := self.quiet(now):
            return Wait("quiet_hours", seconds)
        with self._state() as state:
            if state["pauses"] >= PAUSES:
                state["pauses"] = 0
                raise PacsUnreachable(f"{PAUSES} pauses in a row, and nothing from the PACS between them.",
                                      hint="Ask its administrator, then start the retrieval again.")
            if (left := state["open_until"] - now.timestamp()) > 0:
                return Wait("pacs_failing", left)
            rate = self._config.studies_an_hour / 3600
            if not rate:
                return None
            tokens = min(BURST, state["tokens"] + max(0.0, now.timestamp() - state["at"]) * rate)
            state["at"] = now.timestamp()
            if tokens < 1:
                state["tokens"] = tokens
                return Wait("studies_an_hour", (1 - tokens) / rate)
            state["tokens"] = tokens - 1
        return None

    def now_not(self) -> Wait | None:
        """Say whether nothing at all may be asked now; no token is taken."""
        now = self.shown()
        for why in ("quiet_hours", "pacs_failing"):
            if now[why]:
                return Wait(why, now[why])
        return None

    def told(self, *, well: bool) -> None:
        """Tell how the last request went; failures in a row open the breaker for a while, longer each time."""
        with self._state() as state:
            if well:
                state["failures"] = state["pauses"] = 0
                return
            state["failures"] += 1
            if state["failures"] >= self._config.failures_before_pause or state["pauses"]:
                pause = min(LONGEST, self._config.pause_minutes * 60 * 2 ** state["pauses"])
                state |= {"open_until": self._work.now().timestamp() + pause, "pauses": state["pauses"] + 1,
                          "failures": 0}

    def quiet(self, now: datetime) -> float:
        """Return for how many seconds from now the quiet hours last; 0 outside them."""
        return quiet(self._config, now)

    def shown(self) -> dict[str, Any]:
        """Return the state for people to see, waits in seconds; nothing is changed."""
        state, now = self._read(), self._work.now()
        return {"quiet_hours": self.quiet(now), "pacs_failing": max(0.0, state["open_until"] - now.timestamp()),
                "failures": state["failures"], "pauses": state["pauses"]}

    @contextmanager
    def _state(self) -> Iterator[dict[str, Any]]:
        with ExitStack() as stack:
            for attempt in reversed(range(20)):
                try:
                    stack.enter_context(lease.hold(self._work, layout.lease(self._project, "pacs"), seconds=30))
                    break
                except LeaseHeld:
                    if not attempt:
                        raise
                    time.sleep(random.uniform(0.1, 0.5))  # noqa: S311
            state = self._read()
            before = dict(state)
            try:
                yield state
            finally:
                if state != before:
                    self._work.write(layout.pacs_state(self._project), json.dumps(state).encode())

    def _read(self) -> dict[str, Any]:
        fresh = {"schema_version": layout.SCHEMA_VERSION, "tokens": float(BURST), "at": self._work.now().timestamp(),
                 "failures": 0, "pauses": 0, "open_until": 0.0}
        try:
            return {**fresh, **json.loads(self._work.read(layout.pacs_state(self._project)))}
        except NotFound:
            return fresh


def quiet(config: Retrieve, now: datetime) -> float:
    """Return for how many seconds from now the quiet hours of a project last, else 0. Raises ProjectFileError."""
    spans = [_hours(text) for text in config.quiet_hours]
    try:
        local = now.astimezone(ZoneInfo(config.timezone))
    except (OSError, ValueError, KeyError):
        raise ProjectFileError("The timezone in [retrieve] is not known here.",
                               hint="Write it as Europe/London is written.") from None
    end = local
    for _ in range(2 * len(spans) + 1):     # one may begin where another ends
        until = max((_until(end, *hours) for hours in spans), default=end)
        if until <= end:
            break
        end = until
    return max(0.0, (end - local).total_seconds())


def _hours(text: str) -> tuple[frozenset[int], timedelta, timedelta]:
    """Return weekdays, and begin and end since midnight, of `mon-fri 07:30-19:00`; an end before its begin is of the
    next day."""
    days, _, hours = text.partition(" ")
    first, _, last = days.partition("-")
    begin, end = DAYS.index(first), DAYS.index(last or first)
    span = [day % 7 for day in range(begin, end + 1 if end >= begin else end + 8)]
    times = [timedelta(hours=int(one[:2]), minutes=int(one[3:])) for one in hours.split("-")]
    return frozenset(span), times[0], times[1] if times[1] > times[0] else times[1] + timedelta(days=1)


def _until(moment: datetime, days: frozenset[int], begin: timedelta, end: timedelta) -> datetime:
    """Return when the quiet hours around a moment end, or the moment itself."""
    for back in (0, 1):
        midnight = (moment - timedelta(days=back)).replace(hour=0, minute=0, second=0, microsecond=0)
        if midnight.weekday() in days and midnight + begin <= moment < midnight + end:
            return midnight + end
    return moment
