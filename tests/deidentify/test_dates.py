from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deidentify import dates
from pipeline.model import Reason, Refusal

days = st.integers(-3650, -1)
seconds = st.integers(-21_600, -1)
calendar = st.dates(date(1902, 1, 1), date(2077, 12, 31)).filter(lambda day: day not in dates.NOBODYS)
moments = st.builds(datetime.combine, calendar, st.times().filter(lambda time: time != time.min)).filter(
    lambda when: (when - timedelta(hours=6)).date() not in dates.NOBODYS and when.year > 1902)


def da(day: date) -> bytes:
    return day.strftime("%Y%m%d").encode()


@given(calendar, calendar, days)
def test_moved_dates_keep_their_interval_and_lie_in_the_past(one, two, shift):
    a, b = (datetime.strptime(dates.shift_da(da(d), shift).decode(), "%Y%m%d").date() for d in (one, two))
    assert b - a == two - one and a < one and one - a == timedelta(days=-shift)


@given(moments, moments, days, seconds)
def test_moved_times_keep_their_interval_in_dt_and_in_da_with_tm(one, two, shift, back):
    def as_dt(moment: datetime) -> datetime:
        return datetime.strptime(dates.shift_dt(moment.strftime("%Y%m%d%H%M%S.%f").encode(), shift, back).decode(),
                                 "%Y%m%d%H%M%S.%f")

    def as_pair(moment: datetime) -> datetime:
        tm = moment.strftime("%H%M%S.%f").encode()
        day = dates.shift_da(da(moment.date()), shift + dates.day_carry(tm, back))
        return datetime.strptime((day + dates.shift_tm(tm, back)).decode(), "%Y%m%d%H%M%S.%f")

    assert as_dt(two) - as_dt(one) == two - one
    assert as_pair(one) == as_dt(one) and as_pair(two) == as_dt(two)


@pytest.mark.parametrize(("value", "expected"), [
    (b"", b""), (b"  ", b""), (b"20240301", b"20240229"), (b"20230301\\20240101 ", b"20230228\\20231231"),
    (b"20230301\\", b"20230228\\"), (b"20230301\0", b"20230228"),
])
def test_da(value, expected):
    assert dates.shift_da(value, -1) == expected


@pytest.mark.parametrize("value", [
    b"2023.03.01", b"202303", b"2023", b"20230230", b"20231301", b"00000101", b"20230101-20240101", b"-20230101",
    b"today", b"2023O101", b" 20230101", b"20230101\\x", b"202301011", "２０２３".encode(), b"+2023101",
])
def test_da_that_is_malformed_is_refused(value):
    with pytest.raises(Refusal) as caught:
        dates.shift_da(value, -1)
    assert caught.value.reason is Reason.VALUE_MALFORMED and value.decode() not in str(caught.value)


@pytest.mark.parametrize("nobodys", [
    b"00010101", b"18581117", b"19000101", b"19010101", b"19700101", b"19800101", b"20000101", b"20501231", b"20991231",
    b"99991231"])
def test_a_date_that_is_nobodys_is_emptied_for_moved_it_would_tell_the_days(nobodys):
    assert dates.shift_da(nobodys, -77) == b""
    assert dates.shift_da(b"20200615\\" + nobodys, -1) == b"20200614\\"
    for clock in (b"", b"101500", b"101500.25+0100"):
        assert dates.shift_dt(nobodys + clock, -77) == b"" == dates.shift_dt(nobodys + clock, -77, -10)


@pytest.mark.parametrize("unknown", [b"000000", b"000000.000000", b"0000", b"00"])
def test_a_time_that_is_nobodys_is_emptied_for_moved_it_would_tell_the_seconds(unknown):
    assert dates.shift_tm(unknown, -77) == b"" and dates.day_carry(unknown, -77) == 0
    assert dates.shift_dt(b"20200615" + unknown, -1, -77) == b"20200614"


@pytest.mark.parametrize(("value", "expected"), [
    (b"", b""), (b"101500", b"101450"), (b"1015", b"1014"), (b"10", b"09"), (b"000005.25", b"235955.25"),
    (b"235960", b"235950"), (b"101500 ", b"101450"), (b"101500\\111500", b"101450\\111450"),
])
def test_tm(value, expected):
    assert dates.shift_tm(value, -10) == expected


@pytest.mark.parametrize("value", [
    b"10:15:00", b"240000", b"106000", b"1015001", b"101500.1234567", b"101500-111500", b"1",
])
def test_tm_that_is_malformed_is_refused(value):
    with pytest.raises(Refusal):
        dates.shift_tm(value, -10)


@pytest.mark.parametrize(("value", "kept", "without"), [
    (b"", b"", b""), (b"20240301", b"20240229", b"20240229"),
    (b"20240301101500.123+0100", b"20240229101450.123+0100", b"20240229"),
    (b"20240301000005", b"20240228235955", b"20240229"), (b"2024030110-0500", b"2024022909-0500", b"20240229"),
])
def test_dt(value, kept, without):
    assert dates.shift_dt(value, -1, -10) == kept
    assert dates.shift_dt(value, -1) == without


@pytest.mark.parametrize("value", [
    b"2024", b"202403", b"2024030125", b"20240301-20240302", b"20240301101500+9900", b"2024-03-01",
])
def test_dt_that_is_malformed_or_too_coarse_is_refused(value):
    for back in (None, -10):
        with pytest.raises(Refusal):
            dates.shift_dt(value, -1, back)


@given(calendar, st.integers(0, 32_000))
def test_age_bands_hold_the_age(birth, lived):
    band = int(dates.age_band(da(birth), da(birth + timedelta(days=lived)))[:3])
    years = lived / 365.2425
    assert band % 5 == 0 and band - 0.01 < years < band + 5.01


@pytest.mark.parametrize(("birth", "study", "band"), [
    (b"19700615", b"20200614", b"045Y"), (b"19700615", b"20200615", b"050Y"), (b"19300101", b"20200101", b"090Y"),
    (b"19200101", b"20200101", b"090Y"), (b"20200101", b"20200101", b"000Y"), (b"19640229", b"20240229", b"060Y"),
    (b"", b"20200101", b""), (None, b"20200101", b""), (b"19700615", None, b""), (b"1970", b"20200101", b""),
    (b"20210101", b"20200101", b""), (b"18000101", b"20200101", b""), (b"19700615 ", b"20200615\0", b"050Y"),
])
def test_age_band(birth, study, band):
    assert dates.age_band(birth, study) == band


@pytest.mark.parametrize(("width", "bands"), [(5, "055 090 090"), (10, "050 090 090"), (15, "045 090 090"),
                                              (30, "030 090 090")])  # fmt: skip
def test_wider_age_bands(width, bands):
    ages = [dates.age_band(b"%d0101" % born, b"20120601", width).decode() for born in (1955, 1922, 1905)]
    assert ages == [f"{band}Y" for band in bands.split()]
