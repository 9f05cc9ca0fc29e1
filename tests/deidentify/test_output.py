"""The physicist's output table: what is used, what is left out by line and reason, and what of it may leave."""

from datetime import date

import pytest

from pipeline.deidentify.output import AT_1M, REQUIRED, read
from pipeline.errors import DosimetryRefused
from pipeline.storage import tables

HEAD = (*REQUIRED, "to_date", AT_1M)
SERIAL = "MG-778-SECRET"
ROW = {"manufacturer": "Maker", "model": "Model A", "serial_number": SERIAL, "from_date": "2020-01-01", "anode": "W",
       "filter": "Rh", "kv": "28", "hvl_mm": "0.52", "focus_table_mm": "660", "to_date": "", AT_1M: "45.5"}  # fmt: skip


@pytest.fixture
def used(tmp_path, pseudonyms):
    def read_rows(*rows, head=HEAD):
        path = tmp_path / "output.csv"
        lines = [row if isinstance(row, str) else ",".join((ROW | row).get(name, "") for name in head) for row in rows]
        path.write_text("\n".join([",".join(head), *lines]) + "\n", encoding="utf-8")
        return read(path, pseudonyms)
    return read_rows


def test_a_row_becomes_its_device_without_serial_or_date(used, pseudonyms):
    got = used({})
    survey = got.valid[pseudonyms.device("Maker", "Model A", SERIAL)]
    assert [(one.first, one.last) for one in survey] == [(date(2020, 1, 1), date.max)]
    assert got.table.to_pylist() == [{
        "device_id": pseudonyms.device(" maker", "MODEL A", SERIAL.lower()), "survey": survey[0].survey,
        "anode": "TUNGSTEN", "filter": "RHODIUM", "kv": 28.0, "output_ugy_per_mas": 45.5, "distance_mm": 1000.0,
        "hvl_mm": 0.52, "focus_table_mm": 660.0,
    }]  # fmt: skip
    data = tables.to_bytes(got.table) + repr(got.table.to_pylist()).encode()
    assert not any(word.encode() in data for word in (SERIAL, "2020", "Maker", "Model"))
    assert (got.refused, got.counts) == ([], {"used": 1})


def test_output_may_be_stated_at_another_distance(used):
    head = (*REQUIRED, "output_ugy_per_mas", "distance_mm")
    got = used({"output_ugy_per_mas": "120", "distance_mm": "600"}, head=head).table.to_pylist()
    assert [(row["output_ugy_per_mas"], row["distance_mm"]) for row in got] == [(120.0, 600.0)]


def test_a_survey_ends_the_day_before_the_next_of_its_spectrum(used):
    got = used({}, {"kv": "30"}, {"from_date": "2020-07-01"}, {"filter": "Ag", "from_date": "2020-03-01"},
               {"filter": "Al", "from_date": "2020-03-01"})  # fmt: skip
    spans = {(one.first, one.last) for some in got.valid.values() for one in some}
    assert spans == {(date(2020, 1, 1), date(2020, 6, 30)), (date(2020, 7, 1), date.max),
                     (date(2020, 3, 1), date.max)}  # fmt: skip
    assert len(set(got.table["survey"].to_pylist())) == 3


@pytest.mark.parametrize(("changed", "reason"), [
    ({"serial_number": " "}, "no_serial_number"), ({"anode": ""}, "no_spectrum"), ({"filter": " "}, "no_spectrum"),
    ({"from_date": "01/02/2020"}, "bad_date"), ({"from_date": ""}, "bad_date"), ({"to_date": "2021-02-30"}, "bad_date"),
    ({"to_date": "2019-12-31"}, "dates_reversed"), ({"kv": "28kV"}, "bad_number"), ({"kv": ""}, "bad_number"),
    ({"hvl_mm": "-0.5"}, "bad_number"), ({"hvl_mm": "nan"}, "bad_number"), ({AT_1M: "1e5"}, "bad_number"),
    ({AT_1M: "0.0455"}, "out_of_range"),            # in mGy/mAs
    ({"focus_table_mm": "66"}, "out_of_range"),     # in cm
    ({"hvl_mm": "520"}, "out_of_range"),            # in µm
    ({"to_date": "2020-01-27"}, "valid_too_short"), ("a,b", "wrong_number_of_cells"),
])  # fmt: skip
def test_a_bad_row_is_named_by_its_line_and_the_rest_goes_on(used, changed, reason):
    got = used({"filter": "Ag"}, changed, {"filter": "Al"})
    assert got.refused == [(3, reason)]
    assert got.counts == {"used": 2, reason: 1} and got.rows == 3


@pytest.mark.parametrize(("first", "second", "reason"), [
    ({"to_date": "2020-08-01"}, {"from_date": "2020-07-01"}, "dates_overlap"),
    ({"to_date": "2020-08-01"}, {"kv": "30"}, "dates_overlap"),
    ({}, {"hvl_mm": "0.53"}, "repeated"),           # which of the two is right nobody knows
])  # fmt: skip
def test_rows_that_contradict_each_other_are_both_left_out(used, first, second, reason):
    got = used(first, second, {"filter": "Ag"})
    assert got.refused == [(2, reason), (3, reason)]
    assert got.table.num_rows == 1


def test_a_day_that_is_valid_for_28_is_long_enough(used):
    assert used({"to_date": "2020-01-28"}).refused == []


@pytest.mark.parametrize("head", [
    REQUIRED, (*REQUIRED, "output_ugy_per_mas"), (*REQUIRED, "distance_mm", AT_1M), (*HEAD, "patient"),
    (*HEAD, "kv"), HEAD[1:],
])  # fmt: skip
def test_a_wrong_header_refuses_the_file(used, head):
    with pytest.raises(DosimetryRefused) as caught:
        used({}, head=head)
    assert SERIAL not in str(caught.value) and "patient" not in str(caught.value)


def test_what_is_no_such_file_is_refused(tmp_path, pseudonyms):
    path = tmp_path / "output.csv"
    for data in (b"", b"\xff\xfe", b'"'):
        path.write_bytes(data)
        with pytest.raises(DosimetryRefused):
            read(path, pseudonyms)
    with pytest.raises(DosimetryRefused, match="cannot be read"):
        read(tmp_path / "none.csv", pseudonyms)


def test_no_file_is_an_empty_table(pseudonyms):
    got = read(None, pseudonyms)
    assert (got.table.num_rows, got.valid, got.refused) == (0, {}, [])


def test_the_digest_moves_with_dates_and_numbers_and_not_with_their_order(used):
    rows = ({}, {"filter": "Ag"})
    first = used(*rows).digest
    assert used(*reversed(rows)).digest == first
    assert used(rows[0], {"filter": "Ag", "from_date": "2020-01-02"}).digest != first
    assert used(rows[0], {"filter": "Ag", AT_1M: "45.6"}).digest != first
