"""A cohort file is read strictly; a row that could mean everybody is refused by its line, in no words of its own."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deidentify.nhs import normalise
from pipeline.errors import CohortRefused
from pipeline.retrieve import cohort
from pipeline.retrieve.cohort import COLUMNS, Cohort, Row

HEADER = ",".join(COLUMNS)
NHS = "943 476 5919"        # the NHS Data Dictionary's own example


def read(text: str | bytes, **limits: int) -> Cohort:
    data = text if isinstance(text, bytes) else text.encode()
    return cohort.read(data, normalise, **{"most_rows": 100, "most_days": 31, **limits})


def why(cells: str) -> str | None:
    found = read(f"{HEADER}\n{cells}\n")
    return found.refused[0][1] if found.refused else None


@pytest.mark.parametrize(("cells", "code"), [
    (f"{NHS},,,,,,,", None),
    ("9434765918,,,,,,,", "nhs_number"),
    (",LID1,HOSP-A,,,,,", None),
    (",LID1,,,,,,", "issuer_needed"),
    (",,HOSP-A,ACC1,,,,", "issuer_needed"),
    (f"{NHS},LID1,HOSP-A,,,,,", "two_people"),
    (",,,ACC1,,,,", None),
    (",,,,1.2.840.1,,,", None),
    (",,,,1.2.0840.1,,,", "not_a_uid"),
    (",,,,../../x,,,", "not_a_uid"),
    (",,,,,2024-01-01,2024-01-31,MG", None),
    (",,,,,2024-01-01,2024-02-01,MG", "range_too_long"),
    (",LID1,HOSP-A,,,2020-01-01,2024-02-01,MG", None),
    (",,,,,2024-01-01,2024-01-31,", "no_key"),
    (",,,,,2024-01-01,,MG", "dates"),
    (",,,,,2024-01-31,2024-01-01,MG", "dates"),
    (",,,,,2024-02-30,2024-03-01,MG", "dates"),
    (",,,,,20240101,20240102,MG", "dates"),
    (",,,,,,,MG", "no_key"),
    (",,,,,,,", "no_key"),
    (",*,HOSP-A,,,,,", "wildcard"),
    (",LID1,*,,,,,", "wildcard"),
    (",,,ACC?,,,,", "wildcard"),
    (",,,ACC1\\ACC2,,,,", "wildcard"),
    (",,,,,2024-01-01,2024-01-31,M*", "wildcard"),
    (",,,12345678901234567,,,,", "too_long"),
    (",LÌD1,HOSP-A,,,,,", "not_ascii"),
    (",LID\x071,HOSP-A,,,,,", "not_ascii"),
])
def test_each_row_by_its_keys(cells: str, code: str | None) -> None:
    assert why(cells) == code
    assert code is None or code in cohort.REFUSALS


def test_a_refused_row_keeps_its_line_and_the_rest_goes_on() -> None:
    found = read(f"{HEADER}\n,,,ACC1,,,,\n\n,,,*,,,,\n,,,ACC2,,,,\n,,,ACC1,,,,\n")
    assert [row.line for row in found.rows] == [2, 5]
    assert [(row.line, code) for row, code in found.refused] == [(4, "wildcard"), (6, "repeated")]


def test_columns_may_be_left_out_or_stand_in_another_order() -> None:
    assert read("accession_number\nACC1\n").rows == (Row(2, accession_number="ACC1"),)
    assert read(f"modality,nhs_number\nMG,{NHS}\n").rows == (Row(2, nhs_number="9434765919", modality="MG"),)


@pytest.mark.parametrize("text", [
    "", "accession\nACC1\n", "accession_number,accession_number\nA,B\n", "accession_number\n", "ACC1\nACC2\n",
    "accession_number,modality\nACC1\n", 'accession_number\n"ACC1\n', b"accession_number\n\xe9\n",
    "accession_number\n" + "\n".join(f"A{n}" for n in range(101)),
])
def test_a_file_that_is_not_a_cohort_is_refused_whole_and_quotes_nothing(text: Any) -> None:
    with pytest.raises(CohortRefused) as refused:
        read(text)
    assert "ACC" not in str(refused.value)


keys = st.text(st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters="*?\\"), min_size=1,
               max_size=16).map(str.strip).filter(bool)


@given(st.lists(st.tuples(keys, keys, keys), min_size=1, max_size=20))
def test_what_is_written_reads_as_itself(cells: list[tuple[str, str, str]]) -> None:
    rows = [Row(2, local_id=local, issuer=issuer, accession_number=number) for local, issuer, number in cells]
    unique = list(dict.fromkeys(row.cells() for row in rows))
    found = read(cohort.write(rows))
    assert [row.cells() for row in found.rows] == unique
    assert {code for _, code in found.refused} <= {"repeated"}


@given(st.text(max_size=40), st.sampled_from("*?\\"), st.text(max_size=40))
def test_no_wildcard_ever_passes(before: str, wild: str, after: str) -> None:
    cell = '"' + (before + wild + after).replace('"', '""') + '"'
    try:
        found = read(f"accession_number\n{cell}\n")
    except CohortRefused:
        return
    assert not found.rows


def test_a_day_is_a_cohort() -> None:
    assert cohort.of_day(date(2024, 1, 2), "MG").rows == (
        Row(2, date_from="2024-01-02", date_to="2024-01-02", modality="MG"),)
