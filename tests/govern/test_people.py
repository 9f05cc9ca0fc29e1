from datetime import date, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import layout
from pipeline.errors import PeopleListRefused
from pipeline.govern.people import load_permitted

TODAY = date(2024, 6, 10)
GOOD = "# as-of: 2024-06-08\nperson\n9434765919\n943 476 5870\n# end: 2\n"


@pytest.fixture
def load(make_config, tmp_path):
    def go(text, *, today=TODAY, max_age_days=7, **sections):
        (tmp_path / "people.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        people = {"list": tmp_path / "people.csv", "max_age_days": max_age_days}
        return load_permitted(make_config(people=people, **sections), today)
    return go


def test_a_good_list_is_read(load):
    expected = {layout.person(layout.NHS_ISSUER, n) for n in ("9434765919", "9434765870")}
    assert load(GOOD).ids == expected
    assert load(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode() + b"\r\n\r\n").ids == expected


def test_the_digest_is_of_the_people(load):
    first = load(GOOD)
    newer = "# as-of: 2024-06-10\nperson\n943-476-5870\n9434765919\n# end: 2\n"
    assert load(newer) == first
    assert load("# as-of: 2024-06-10\nperson\n9434765919\n# end: 1\n").digest != first.digest


@pytest.mark.parametrize(("text", "says"), [
    ("", "as-of"), ("person\n9434765919\n# end: 1\n", "as-of"), (GOOD.replace("2024-06-08", "08/06/2024"), "as-of"),
    (GOOD.replace("2024-06-08", "2024-06-31"), "as-of"),
    (GOOD.replace("2024-06-08", "2024-06-11"), "future"),
    (GOOD.replace("2024-06-08", "2024-06-02"), "8 days old"),
    (GOOD.replace("# end: 2\n", ""), "truncated"), (GOOD[:-5], "truncated"),
    (GOOD.replace("end: 2", "end: 3"), "2 rows"),
    (GOOD.replace("943 476 5870\n", ""), "1 rows"), ("# as-of: 2024-06-08\nperson\n# end: 0\n", "empty"),
    (GOOD.replace("person", "nhs"), "header"), ("# as-of: 2024-06-08\n# end: 0\n", "header"),
    (GOOD.replace("943 476 5870", "SECRET"), "line 4"), (GOOD.replace("943 476 5870", "9434765870,x"), "line 4"),
    (GOOD.replace("9434765919\n", "\n"), "line 3"), (GOOD.encode("utf-16"), "UTF-8"),
    (GOOD.replace("9434765919", '"9434765919'), "CSV|line"),
])
def test_missing_stale_truncated_malformed_or_empty_lets_nobody_pass(load, text, says):
    with pytest.raises(PeopleListRefused, match=says) as caught:
        load(text)
    assert "SECRET" not in str(caught.value) and "943" not in str(caught.value)


def test_age_is_counted_to_the_day(load):
    assert load(GOOD, today=date(2024, 6, 15)).ids
    with pytest.raises(PeopleListRefused):
        load(GOOD, today=date(2024, 6, 16))
    assert load(GOOD, today=date(2024, 6, 8), max_age_days=0).ids


def test_a_missing_file_lets_nobody_pass(make_config, tmp_path):
    with pytest.raises(PeopleListRefused, match="cannot be read"):
        load_permitted(make_config(people={"list": tmp_path / "none.csv"}), TODAY)


def test_not_required_needs_a_legal_basis_and_has_its_own_digest(make_config):
    basis = {"not_required": "Section 251 support, CAG reference 20/CAG/0009"}
    one, other = load_permitted(make_config(), TODAY), load_permitted(make_config(people=basis), TODAY)
    assert one.ids is None and other.ids is None and one.digest != other.digest


def test_a_project_that_is_not_linked_lists_issuer_and_person(load):
    text = "# as-of: 2024-06-08\nissuer,person\nRXX, 12  34\nRYY,1234\n# end: 2\n"
    assert load(text, project={"linked": False}).ids == {layout.person("RXX", "12 34"), layout.person("RYY", "1234")}
    for bad in ("RXX,", ",1", "RXX", "RXX,1,2"):
        with pytest.raises(PeopleListRefused, match="line 4"):
            load(text.replace("RYY,1234", bad), project={"linked": False})
    with pytest.raises(PeopleListRefused, match="header"):
        load(text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, len(GOOD) - 2))
def test_no_cut_of_a_good_list_is_a_list(load, length):
    with pytest.raises(PeopleListRefused):
        load(GOOD[:length])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(st.integers(-30, 30), st.integers(0, 20))
def test_only_from_its_day_to_its_greatest_age(load, days, oldest):
    try:
        load(GOOD, today=date(2024, 6, 8) + timedelta(days=days), max_age_days=oldest)
        passed = True
    except PeopleListRefused:
        passed = False
    assert passed == (0 <= days <= oldest)
