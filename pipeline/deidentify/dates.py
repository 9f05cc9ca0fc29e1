"""DICOM dates and times as bytes: moved, never guessed. What is malformed raises Refusal(VALUE_MALFORMED).

Every function takes a raw value (DA, TM, DT of PS3.5 6.2) and returns a raw value; padding is taken off, even length is
left to the caller. Several values (`\\`) move one by one, an empty one stays empty. Ranges are for queries: refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date

from pipeline.model import Reason, Refusal

DAY = 86_400
_DA = re.compile(rb"[0-9]{8}")
_TM = re.compile(rb"([01][0-9]|2[0-3])(?:([0-5][0-9])(?:([0-5][0-9]|60)(\.[0-9]{1,6})?)?)?")
_DT = re.compile(rb"([0-9]{8})([0-9]{2,6}(?:\.[0-9]{1,6})?)?([+-](?:0[0-9]|1[0-4])[0-5][0-9])?")
OLDEST = 120        # years; an older person is a placeholder's


def shift_da(value: bytes, days: int) -> bytes:
    """Return DA moved by whole days."""
    return _each(value, lambda one: _text(_ordinal(one) + days))


def shift_tm(value: bytes, seconds: int) -> bytes:
    """Return TM moved by seconds within the day, in its own precision. `day_carry` tells when midnight was crossed."""
    def one(raw: bytes) -> bytes:
        start, digits, fraction = _seconds(raw)
        return _clock((start + seconds) % DAY, digits) + fraction
    return _each(value, one)


def day_carry(value: bytes, seconds: int) -> int:
    """Return the days by which the DA beside a single TM must also move, so that the two together keep time."""
    raw = value.rstrip(b" \0")
    return (_seconds(raw)[0] + seconds) // DAY if raw else 0


def shift_dt(value: bytes, days: int, seconds: int | None = None) -> bytes:
    """Return DT moved by days, its time taken off; or moved by days and seconds where `seconds` is given.

    A DT without a day cannot be moved by days: refused. An offset from UTC stays with a time that is kept.
    """
    def one(raw: bytes) -> bytes:
        match = _DT.fullmatch(raw)
        if not match:
            raise Refusal(Reason.VALUE_MALFORMED)
        day, clock, zone = _ordinal(match[1]), match[2], match[3] or b""
        start, digits, fraction = _seconds(clock) if clock else (0, 0, b"")
        if seconds is None or not clock:
            return _text(day + days)
        carry, left = divmod(start + seconds, DAY)
        return _text(day + days + carry) + _clock(left, digits) + fraction + zone
    return _each(value, one)


def age_band(birth: bytes | None, study: bytes | None, width: int = 5) -> bytes:
    """Return the lower bound of the age band at the study as AS (`050Y`; 90 and over `090Y`), else `b""`.

    Unknown where a date is absent or malformed, where birth is after the study, and above 120 years.
    """
    try:
        born = date.fromordinal(_ordinal((birth or b"").strip(b" \0")))
        then = date.fromordinal(_ordinal((study or b"").strip(b" \0")))
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


def _ordinal(raw: bytes) -> int:
    if not _DA.fullmatch(raw):
        raise Refusal(Reason.VALUE_MALFORMED)
    try:
        return date(int(raw[:4]), int(raw[4:6]), int(raw[6:])).toordinal()
    except ValueError:
        raise Refusal(Reason.VALUE_MALFORMED) from None


def _text(ordinal: int) -> bytes:
    try:
        return b"%04d%02d%02d" % date.fromordinal(ordinal).timetuple()[:3]
    except (ValueError, OverflowError):
        raise Refusal(Reason.VALUE_MALFORMED) from None


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
