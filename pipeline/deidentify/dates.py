"""DICOM dates and times as bytes: moved, never guessed. What is malformed raises Refusal(VALUE_MALFORMED).

Every function takes a raw value (DA, TM, DT of PS3.5 6.2) and returns a raw value; padding is taken off, even length is
left to the caller. Several values (`\\`) move one by one, an empty one stays empty. Ranges are for queries: refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta

from pipeline.model import Reason, Refusal

DAY = 86_400
_DA = re.compile(rb"[0-9]{8}")
_TM = re.compile(rb"([01][0-9]|2[0-3])(?:([0-5][0-9])(?:([0-5][0-9]|60)(\.[0-9]{1,6})?)?)?")
_DT = re.compile(rb"([0-9]{8})([0-9]{2,6}(?:\.[0-9]{1,6})?)?([+-](?:0[0-9]|1[0-4])[0-5][0-9])?")
OLDEST = 120        # years; an older person is a placeholder's
# Dates that are no event's but a clock's or a database's first or last day. Moved, they would tell anybody who knows
# them the person's days, and with those every date of the person; they are emptied. DOS, GPS, UNIX, VMS, SQL Server,
# SAS, Mac, and what forms write for unknown or never. A real event on one of them loses its date.
FIRST_YEAR, LAST_YEAR = 1902, 2077
CANARIES = (1841, 1871)     # years of `sentinels`: what is theirs must move like anybody's
NOBODYS = frozenset(date(*one) for one in (
    (1904, 1, 1), (1911, 1, 1), (1911, 11, 11), (1950, 1, 1), (1960, 1, 1), (1969, 12, 31), (1970, 1, 1), (1970, 1, 2),
    (1980, 1, 1), (1980, 1, 6), (1999, 9, 9), (1999, 12, 31), (2000, 1, 1), (2001, 1, 1), (2030, 12, 31), (2036, 2, 7),
    (2038, 1, 19), (2049, 12, 31), (2050, 1, 1), (2050, 12, 31)))


def moved(day: date, days: int) -> date | None:
    """Return a date moved; None where it is nobody's. Raises OverflowError beyond the calendar."""
    if day in NOBODYS or not (FIRST_YEAR <= day.year <= LAST_YEAR or day.year in CANARIES):
        return None
    return day + timedelta(days=days)


def shift_da(value: bytes, days: int) -> bytes:
    """Return DA moved by whole days; what is nobody's date is emptied."""
    return _each(value, lambda one: _moved(one, days))


def shift_tm(value: bytes, seconds: int) -> bytes:
    """Return TM moved by seconds within the day, in its own precision. `day_carry` tells when midnight was crossed.

    Midnight to the second is how an unknown time is written: moved, it would give the seconds away. It is emptied.
    """
    def one(raw: bytes) -> bytes:
        start, digits, fraction = _seconds(raw)
        return b"" if _unknown(start, fraction) else _clock((start + seconds) % DAY, digits) + fraction
    return _each(value, one)


def day_carry(value: bytes, seconds: int) -> int:
    """Return the days by which the DA beside a single TM must also move, so that the two together keep time."""
    raw = value.rstrip(b" \0")
    start, _, fraction = _seconds(raw) if raw else (0, 0, b"")
    return 0 if _unknown(start, fraction) else (start + seconds) // DAY


def shift_dt(value: bytes, days: int, seconds: int | None = None) -> bytes:
    """Return DT moved by days, its time taken off; or moved by days and seconds where `seconds` is given.

    A DT without a day cannot be moved by days: refused. An offset from UTC stays with a time that is kept. What is
    nobody's date is emptied, an unknown time (midnight to the second) taken off.
    """
    def one(raw: bytes) -> bytes:
        match = _DT.fullmatch(raw)
        if not match:
            raise Refusal(Reason.VALUE_MALFORMED)
        clock, zone = match[2], match[3] or b""
        start, digits, fraction = _seconds(clock) if clock else (0, 0, b"")
        if seconds is None or _unknown(start, fraction):
            return _moved(match[1], days)
        carry, left = divmod(start + seconds, DAY)
        day = _moved(match[1], days + carry)
        return day and day + _clock(left, digits) + fraction + zone
    return _each(value, one)


def age_band(birth: bytes | None, study: bytes | None, width: int = 5) -> bytes:
    """Return the lower bound of the age band at the study as AS (`050Y`; 90 and over `090Y`), else `b""`.

    Unknown where a date is absent or malformed, where birth is after the study, and above 120 years.
    """
    try:
        born, then = (_day((raw or b"").strip(b" \0")) for raw in (birth, study))
    except Refusal:
        return b""
    age = then.year - born.year - ((then.month, then.day) < (born.month, born.day))
    return band_of(age, width) if 0 <= age <= OLDEST else b""


def band_of(age: int, width: int) -> bytes:
    """Return the lower bound of a band of `width` years; 90 and over is one band, so 90 is a multiple of the width."""
    return b"%03dY" % min(90, age // width * width)


def moment(stamp: bytes | None, *pairs: tuple[bytes | None, bytes | None]) -> str | None:
    """Return when an image was acquired as text that sorts: of the DT, else of the first (DA, TM) that says a day and a
    time; None where none does. Never leaves the identifiable zone."""
    days_times = [match.group(1, 2) for match in (_DT.fullmatch((stamp or b"").strip(b" \0")),) if match]
    days_times += [((day or b"").strip(b" \0"), (time or b"").strip(b" \0")) for day, time in pairs]
    for day, time in days_times:
        clock = _TM.fullmatch(time or b"")
        if _DA.fullmatch(day) and clock:
            hours, minutes, seconds, fraction = (part or b"" for part in clock.groups())
            return (day + hours + minutes.rjust(2, b"0") + seconds.rjust(2, b"0") + fraction).decode()
    return None


def _each(value: bytes, change: Callable[[bytes], bytes]) -> bytes:
    return b"\\".join(change(one) if one else b"" for one in (v.rstrip(b" \0") for v in value.split(b"\\")))


def _day(raw: bytes) -> date:
    if not _DA.fullmatch(raw):
        raise Refusal(Reason.VALUE_MALFORMED)
    try:
        return date(int(raw[:4]), int(raw[4:6]), int(raw[6:]))
    except ValueError:
        raise Refusal(Reason.VALUE_MALFORMED) from None


def _moved(raw: bytes, days: int) -> bytes:
    try:
        day = moved(_day(raw), days)
    except OverflowError:
        raise Refusal(Reason.VALUE_MALFORMED) from None
    return b"%04d%02d%02d" % day.timetuple()[:3] if day else b""


def _unknown(start: int, fraction: bytes) -> bool:
    return not start and not fraction.strip(b".0")


def _seconds(raw: bytes) -> tuple[int, int, bytes]:
    """Return seconds since midnight, digits of precision (2, 4 or 6), and the fraction with its point."""
    match = _TM.fullmatch(raw)
    if not match:
        raise Refusal(Reason.VALUE_MALFORMED)
    hour, minute, second, fraction = match.groups()
    digits = 2 * sum(part is not None for part in (hour, minute, second))
    return int(hour) * 3600 + int(minute or 0) * 60 + int(second or 0), digits, fraction or b""


def _clock(seconds: int, digits: int) -> bytes:
    return b"%02d%02d%02d"[: digits // 2 * 4] % (seconds // 3600, seconds // 60 % 60, seconds % 60)[: digits // 2]
