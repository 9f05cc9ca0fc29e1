"""What real dates tell of x-ray sets: order of versions over people whose dates are shifted apart, valid surveys."""

import random
from datetime import date, timedelta

import pytest

from pipeline import layout
from pipeline.deidentify.equipment import follow
from pipeline.deidentify.output import Output, Validity, read
from pipeline.schemas import FACTS, INVENTORY, OUTCOMES, OUTPUT, Column
from pipeline.storage import open_store, tables

SET, OTHER = "D0123456789AB", "DBA9876543210"
NOTHING = Output(tables.from_rows(OUTPUT, ()), {}, [], 0)


@pytest.fixture
def stores(tmp_path):
    return tuple(open_store((tmp_path / zone).as_uri(), zone) for zone in ("work", "candidate"))


def put(stores, batch, number, part, objects):
    """`objects`: (instance, study, real date, device, software); of a quarantined one the device is None."""
    work, candidate = stores
    shard, outcomes, facts = [], [], []
    for instance, study, day, device, software in objects:
        uri = f"file:///landing/{instance}.dcm"
        shard.append({"source_uri": uri, "bytes": 1, "source_sha256": bytes(32), "status": "pending",
                      "study_date": day})  # fmt: skip
        fine = device is not None
        outcomes.append({"source_uri": uri, "source_sha256": bytes(32), "status": "pending" if fine else "quarantined",
                         "instance": instance if fine else None})  # fmt: skip
        if fine:
            facts.append({"patient": "P1", "study": study, "series": "2.25.5", "instance": instance, "key": "k",
                          "sha256": bytes(32), "bytes": 1, "SoftwareVersions": software,
                          "DeviceSerialNumber": [device]})  # fmt: skip
    tables.write(work, layout.shard("breast", batch, number), tables.from_rows(INVENTORY, shard))
    tables.write(work, layout.outcomes("breast", part), tables.from_rows(OUTCOMES, outcomes))
    extra = tuple(Column(name, "strings", "") for name in ("DeviceSerialNumber", "SoftwareVersions"))
    tables.write(candidate, layout.facts("breast", part), tables.from_rows(FACTS, facts, extra))
    return batch, number, part


def order(stores, *shards, output=NOTHING):
    rows = follow(*stores, "breast", shards, output).versions.to_pylist()
    return {(row["device_id"], row["software_versions"]): row["version_order"] for row in rows}


def test_versions_are_ranked_by_real_dates_over_people_and_parts(stores):
    one = put(stores, "b-1", 0, "p-1", [("2.25.1", "2.25.11", "20210301", SET, ["2.0"]),
                                        ("2.25.2", "2.25.12", "20200101", SET, ["1.0", "x"]),
                                        ("2.25.3", "2.25.13", "20190101", OTHER, ["9"])])  # fmt: skip
    two = put(stores, "b-2", 3, "p-2", [("2.25.4", "2.25.14", "20200601", SET, ["1.5"]),
                                        ("2.25.5", "2.25.15", "20200301", SET, ["2.0"])])  # fmt: skip
    assert order(stores, one, two) == {(SET, "1.0\\x"): 1, (SET, "2.0"): 2, (SET, "1.5"): 3, (OTHER, "9"): 1}


def test_versions_that_appear_on_one_day_share_a_number(stores):
    shard = put(stores, "b-1", 0, "p-1", [("2.25.1", "2.25.11", "20210301", SET, ["B"]),
                                          ("2.25.2", "2.25.12", "20210301", SET, ["A"]),
                                          ("2.25.3", "2.25.13", "20210302", SET, ["C"])])  # fmt: skip
    assert order(stores, shard) == {(SET, "A"): 1, (SET, "B"): 1, (SET, "C"): 2}


@pytest.mark.parametrize(("day", "device", "software"), [
    (None, SET, ["1"]), ("2021.03.01", SET, ["1"]), ("20210230", SET, ["1"]), ("20210301", SET, None),
    ("20210301", SET, ["", " "]), ("20210301", "SERIAL-77", ["1"]), ("20210301", None, ["1"]),
])  # fmt: skip
def test_what_has_no_date_version_or_pseudonym_has_no_rank(stores, day, device, software):
    shard = put(stores, "b-1", 0, "p-1", [("2.25.1", "2.25.11", day, device, software),
                                          ("2.25.2", "2.25.12", "20200101", SET, ["0"])])  # fmt: skip
    assert order(stores, shard) == {(SET, "0"): 1}


def test_a_part_without_devices_or_objects_is_passed_over(stores):
    _, candidate = stores
    shard = put(stores, "b-1", 0, "p-1", [("2.25.1", "2.25.11", "20210301", None, None)])
    assert order(stores, shard) == {}
    tables.write(candidate, layout.facts("breast", "p-1"), tables.from_rows(FACTS, ()))
    assert order(stores, shard) == {}


def surveys(stores, *shards, valid):
    output = Output(NOTHING.table, {SET: [Validity(*one) for one in valid]}, [], 0)
    return [(row["study_uid"], row["survey"])
            for row in follow(*stores, "breast", shards, output).surveys.to_pylist()]  # fmt: skip


def test_a_study_has_the_surveys_that_were_valid_on_its_real_date(stores):
    shard = put(stores, "b-1", 0, "p-1", [
        (f"2.25.{n}", f"2.25.1{n}", day, SET, ["1"])
        for n, day in enumerate(("20191231", "20200101", "20200630", "20200701"))] + [
        ("2.25.9", "2.25.19", "20200201", OTHER, ["1"])])  # fmt: skip
    valid = ((date(2020, 1, 1), date(2020, 6, 30), "VA"), (date(2020, 7, 1), date.max, "VB"))
    assert surveys(stores, shard, valid=valid) == [("2.25.11", "VA"), ("2.25.12", "VA"), ("2.25.13", "VB")]


def test_a_study_with_two_dates_has_only_what_was_valid_on_both(stores):
    shard = put(stores, "b-1", 0, "p-1", [("2.25.1", "2.25.11", "20200630", SET, ["1"]),
                                          ("2.25.2", "2.25.11", "20200701", SET, ["1"])])  # fmt: skip
    valid = ((date(2020, 1, 1), date(2020, 6, 30), "VA"), (date(2020, 1, 1), date(2020, 12, 31), "VB"))
    assert surveys(stores, shard, valid=valid) == [("2.25.11", "VB")]


def test_the_same_objects_in_other_shards_give_the_same_bytes(stores):
    start, random_ = date(2018, 1, 1), random.Random(1)
    objects = [(f"2.25.{n}", f"2.25.1{n // 2}", f"{start + timedelta(n // 2 * 9):%Y%m%d}", random_.choice((SET, OTHER)),
                [f"{n // 40}.0"]) for n in range(200)]  # fmt: skip
    output = Output(NOTHING.table, {SET: [Validity(start, date(2019, 6, 1), "VA"), Validity(start, date.max, "VB")]},
                    [], 0)  # fmt: skip
    one = follow(*stores, "breast", [put(stores, "b-1", 0, "p-1", objects)], output)
    halves = [put(stores, "b-2", n, f"p-{n + 2}", objects[::-1][n * 100:n * 100 + 100]) for n in (0, 1)]
    two = follow(*stores, "breast", halves[::-1], output)
    for name in ("versions", "surveys"):
        assert tables.to_bytes(getattr(one, name)) == tables.to_bytes(getattr(two, name))
    assert one.surveys.num_rows > 50


def test_no_serial_and_no_date_is_in_what_leaves(stores, tmp_path, pseudonyms):
    """One set, two versions and a survey, each told of by a date and a serial number that stay."""
    path = tmp_path / "output.csv"
    path.write_text("manufacturer,model,serial_number,from_date,anode,filter,kv,output_ugy_per_mas_at_1m,hvl_mm,"
                    "focus_table_mm\nMaker,Model,SER-4711,2020-05-17,W,Rh,28,45,0.5,660\n")  # fmt: skip
    output = read(path, pseudonyms)
    device = pseudonyms.device("Maker", "Model", "SER-4711")
    shard = put(stores, "b-1", 0, "p-1", [("2.25.1", "2.25.11", "20200601", device, ["1"]),
                                          ("2.25.2", "2.25.12", "20210719", device, ["2"])])  # fmt: skip
    made = follow(*stores, "breast", [shard], output)
    assert made.surveys.num_rows == 2 and made.versions["version_order"].to_pylist() == [1, 2]
    data = repr([table.to_pylist() for table in (made.versions, made.surveys, output.table)]).encode()
    data += b"".join(tables.to_bytes(table) for table in (made.versions, made.surveys, output.table))
    for word in ("SER-4711", "ser-4711", "2020-05-17", "20200517", "date(", "20200601", "20210719", "landing"):
        assert word.encode() not in data
    assert not any(str(field.type).startswith(("date", "time")) for table in (made.versions, made.surveys, output.table)
                   for field in table.schema)  # fmt: skip
