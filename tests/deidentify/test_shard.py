"""One person's objects in a worker: what a part keeps of them, and what of memory they take."""

import hashlib
from itertools import zip_longest

import pytest

from pipeline import layout
from pipeline.deidentify import assemble
from pipeline.deidentify.linter import read
from pipeline.deidentify.plan import RECIPES, PlanSet, compile_rules
from pipeline.deidentify.shard import Decided, Job, run
from pipeline.errors import ProjectFileError, StoreUnreachable
from pipeline.isolate import Limits
from pipeline.storage import open_store, tables
from pipeline.storage.local import LocalStore
from pipeline.synthetic import files

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture
def deidentified(tmp_path, pseudonyms):
    """Return a function that de-identifies one person's objects; it gives counts and the rows of the facts."""
    zones = {zone: open_store((tmp_path / zone).as_uri(), zone) for zone in ("landing", "work", "candidate")}
    plan = compile_rules(read([RECIPES / "base.dicom", RECIPES / "ct.dicom"]), keep_times=False)

    def do(objects, classes=(), **job):
        decided = []
        for number, (data, uid) in enumerate(zip_longest(objects, classes, fillvalue=CT)):
            zones["landing"].write(f"{number}.dcm", data)
            row = {"source_uri": f"{zones['landing'].url}/{number}.dcm", "bytes": len(data), "issuer": "HOSP-A",
                   "source_sha256": hashlib.sha256(data).digest(), "sop_class_uid": uid, "patient_id": "LID4471902"}
            decided.append(Decided(row, ("HOSP-A", "LID4471902"), None))
        job = Job("ct", zones["landing"], zones["candidate"], PlanSet("r", {CT: plan}), pseudonyms, 365, **job)
        counts = run(job, zones["work"], "p-1", decided)
        found = tables.read(zones["candidate"], layout.facts("ct", "p-1")).to_pylist()
        return counts, found
    return do


def test_a_landing_that_moved_stops_the_part_and_quarantines_nothing(tmp_path, pseudonyms):
    """Else every image would be refused as if the engine had failed on it."""
    zones = {zone: open_store((tmp_path / zone).as_uri(), zone) for zone in ("landing", "work", "candidate")}
    row = {"source_uri": f"{(tmp_path / 'before').as_uri()}/0.dcm", "bytes": 8, "issuer": "HOSP-A",
           "source_sha256": bytes(32), "sop_class_uid": CT, "patient_id": "LID4471902"}
    plan = compile_rules(read([RECIPES / "base.dicom", RECIPES / "ct.dicom"]), keep_times=False)
    job = Job("ct", zones["landing"], zones["candidate"], PlanSet("r", {CT: plan}), pseudonyms, 365)
    with pytest.raises(ProjectFileError, match="another landing"):
        run(job, zones["work"], "p-1", [Decided(row, ("HOSP-A", "LID4471902"), None)])
    assert zones["work"].stat(layout.outcomes("ct", "p-1")) is None


def test_a_long_series_takes_the_memory_of_its_headers(deidentified):
    """120 slices of 0.5 MB: nothing of them may stay in memory but what is searched."""
    one = files.ct(rows=512, columns=512)
    uid = b"2.25.1000000000000000000000000000000000"
    first = files.ct(rows=512, columns=512, sop_instance_uid=uid.decode())
    assert first.count(uid) == 2 and len(one) > 500_000
    slices = [first.replace(uid, uid[:-3] + b"%03d" % n) for n in range(120)]
    counts, found = deidentified(slices, limits=Limits(megabytes=24))
    assert counts == {"pending": 120} and len(found) == 120


def test_images_are_ranked_by_when_they_were_acquired(deidentified):
    study, other = "1.2.3.4", "1.2.3.5"
    said = [({"AcquisitionDate": "20180614", "AcquisitionTime": "1015"}, study, 2),
            ({"AcquisitionDate": "20180614", "AcquisitionTime": "101500.000"}, study, 3),
            ({"AcquisitionDateTime": "20180614101459.5+0100", "AcquisitionTime": "235959"}, study, 1),
            ({"ContentDate": "20180615", "ContentTime": "000001", "AcquisitionTime": ""}, study, 4),
            ({"ContentDate": "20180615", "ContentTime": "000001", "AcquisitionTime": ""}, study, 4),
            ({"AcquisitionTime": "", "ContentTime": "in the morning", "ContentDate": "20180614"}, study, None),
            ({"AcquisitionDate": "20180614", "AcquisitionTime": "1015"}, other, 1)]
    objects = [files.ct(study_uid=uid, sop_instance_uid=f"1.2.3.9.{n}", series_uid=uid + ".1", **attributes)
               for n, (attributes, uid, _) in enumerate(said)]
    _, found = deidentified(objects)
    ranks = {}
    for row in found:
        ranks.setdefault(row["study"], []).append(row["acquisition_order"])
    expected = {}
    for _, uid, rank in said:
        expected.setdefault(uid, []).append(rank)
    assert sorted((sorted(r, key=str) for r in ranks.values()), key=len) == sorted(
        (sorted(r, key=str) for r in expected.values()), key=len)


def test_what_the_disk_did_not_take_is_not_said_to_be_there(deidentified, tmp_path, monkeypatch):
    def settle(_store):
        raise StoreUnreachable("The file system failed (EIO).")

    monkeypatch.setattr(LocalStore, "settle", settle)
    with pytest.raises(StoreUnreachable):
        deidentified([files.ct()])
    assert not list((tmp_path / "work").rglob("outcomes.parquet"))


def test_names_too_short_to_be_searched_for_are_counted(deidentified, tmp_path):
    """Of the person: of all that is said in any of their objects, and once for several parts."""
    objects = [files.ct(sop_instance_uid="1.2.3.1", patient_name="LI^BO^ROSALINDE"),
               files.ct(sop_instance_uid="1.2.3.2", patient_name="LI^ROSALINDE")]
    work = open_store((tmp_path / "work").as_uri(), "work")
    for part, expected in ((objects, 2), ([files.ct(sop_instance_uid="1.2.3.3", patient_name="OSMOTHERLEY")], 0)):
        counts, _ = deidentified(part)
        rows = tables.read(work, layout.outcomes("ct", "p-1")).to_pylist()
        assert counts == {"pending": len(part)}
        assert [row["names_short"] for row in rows][:len(part)] == [expected] * len(part)
        assert assemble.short_names(work, "ct", ["p-1", "p-1"]) == bool(expected)


def test_what_no_recipe_covers_is_quarantined_and_its_neighbour_passes(deidentified, tmp_path):
    """Positron emission under a project that has a recipe for CT: refused by reason, and nothing of it is written."""
    pet = "1.2.840.10008.5.1.4.1.1.128"
    objects = [files.ct(sop_instance_uid="1.2.3.1", SOPClassUID=pet), files.ct(sop_instance_uid="1.2.3.2")]
    counts, found = deidentified(objects, classes=[pet])
    assert counts == {"pending": 1, "quarantined/no_recipe_for_sop_class": 1}
    assert len(found) == len(list((tmp_path / "candidate").rglob("*.dcm"))) == 1


def test_where_the_person_was_found_is_told_by_its_tag(deidentified, tmp_path):
    """So that the rule can be mended; the neighbour in the same study, where nothing stands, has no tag."""
    objects = [files.ct(sop_instance_uid="1.2.3.1", patient_name="OSMOTHERLEY^ADA", Manufacturer="Osmotherley & Sons"),
               files.ct(sop_instance_uid="1.2.3.2", patient_name="OSMOTHERLEY^ADA")]
    counts, _ = deidentified(objects)
    assert counts == {"quarantined/residual_identifier": 2}
    rows = tables.read(open_store((tmp_path / "work").as_uri(), "work"), layout.outcomes("ct", "p-1")).to_pylist()
    assert sorted(str(row["tag"]) for row in rows) == ["00080070", "None"]
