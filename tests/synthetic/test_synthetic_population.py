"""The population: people who cannot exist, tables that agree with the images, fates that follow from roles."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections import Counter
from datetime import date
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import load
from pipeline.model import REASONS, Reason, Status
from pipeline.synthetic import dosimetry, exposure, people
from pipeline.synthetic.bundled import LINKED, bundled
from pipeline.synthetic.clinical import EPISODES, OUTCOMES
from pipeline.synthetic.demo import LANDED_AT, write_demo
from pipeline.synthetic.population import QUIRKS, THREE_YEARS, Truth, lay_out, population, truth, write
from pipeline.synthetic.unit import SETS

POPULATION = population(15, 7)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    directory = tmp_path_factory.mktemp("population")
    return directory, write(directory, POPULATION)


def tree(directory: Path) -> dict[str, str]:
    return {path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in directory.rglob("*") if path.is_file() and not path.is_symlink()}


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 60), seed=st.integers())
def test_nhs_numbers_are_valid_different_and_of_the_test_range(n: int, seed: int) -> None:
    found = people.women(n, seed)
    numbers = [w.nhs for w in found] + [w.former_nhs for w in found if w.former_nhs]
    assert len(set(numbers)) == len(numbers)
    for number in numbers:
        assert len(number) == 10 and number.startswith("999") and len(set(number)) > 1
        # mod 11, the other way round: the weighted sum with the check digit leaves nothing
        assert sum(int(d) * w for d, w in zip(number, range(10, 0, -1), strict=True)) % 11 == 0


def test_same_seed_same_bytes_and_another_seed_others(written: tuple[Path, Truth], tmp_path: Path) -> None:
    directory, told = written
    again = write(tmp_path / "a", population(15, 7))
    assert again == told
    assert tree(tmp_path / "a") == tree(directory)
    assert population(15, 8) != POPULATION


def test_files_made_in_processes_are_the_same(tmp_path: Path) -> None:
    pop = population(2, 7)
    told: list[int] = []
    lay_out(tmp_path, pop, as_of=date(2024, 1, 31), workers=2, tell=told.append)
    made = {one.key: hashlib.sha256(one.data()).hexdigest() for one in pop.landed}
    assert tree(tmp_path / "landing") == made
    assert told[-1] == len(pop.landed)


def test_what_lands_is_what_the_truth_says(written: tuple[Path, Truth]) -> None:
    directory, told = written
    landed = {path.relative_to(directory / "landing").as_posix() for path in (directory / "landing").rglob("*")
              if path.is_file()}
    assert landed == set(told.fates) == {one.key for one in POPULATION.landed}
    assert sum(told.counts().values()) == len(landed)
    for status, reason in told.fates.values():
        assert (status is Status.PENDING) if reason is None else (REASONS[reason][0] is status)
    expected = {Reason.PERSON_NOT_PERMITTED, Reason.PERSON_NOT_LINKED, Reason.PERSON_AMBIGUOUS, Reason.DATE_UNKNOWN,
                Reason.DATE_NOT_ELIGIBLE, None}
    assert {reason for _, reason in told.fates.values()} == expected


def test_files_hold_their_womans_identity(written: tuple[Path, Truth]) -> None:
    directory, told = written
    women = {w.number: w for w in POPULATION.women}
    uids, instances = set(), []
    for one in POPULATION.landed:
        ds = pydicom.dcmread(directory / "landing" / one.key)
        woman = women[one.woman]
        assert ds.PatientID in woman.locals.values()
        assert str(ds.PatientName) == woman.name
        assert ds.get("IssuerOfPatientID", "HOSP-A") in woman.locals
        instances.append(str(ds.SOPInstanceUID))
        uids |= {str(ds.SOPInstanceUID), str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID)}
        assert ("StudyDate" in ds) == (one.options["study_date"] is not None)
        assert one.fate[1] is not Reason.DATE_UNKNOWN or "StudyDate" not in ds
    assert uids <= told.uids
    assert len(instances) == len(set(instances)) == len(POPULATION.landed)


def test_every_visit_has_four_views_and_a_raw_image_shares_its_exposure(written: tuple[Path, Truth]) -> None:
    views: dict[str, Counter[tuple[str, str]]] = {}
    events: dict[str, set[str]] = {}
    for one in POPULATION.landed:
        if one.kind == "mammogram":
            key = str(one.options["study_uid"])
            if one.options.get("intent") != "FOR PROCESSING":
                views.setdefault(key, Counter())[one.options["laterality"], one.options["view"]] += 1
            events.setdefault(str(one.options["IrradiationEventUID"]), set()).add(one.options["KVP"])
    assert views
    for counted in views.values():
        assert set(counted) == {("R", "CC"), ("R", "MLO"), ("L", "CC"), ("L", "MLO")}
        assert max(counted.values()) <= 2
    assert all(len(kvps) == 1 for kvps in events.values())
    assert any(max(counted.values()) == 2 for counted in views.values()), "a technical repeat somewhere"


def test_a_report_tells_of_the_exposures_of_its_study_alone() -> None:
    """Each names every processed image's event and none else, and is told what the headers say."""
    landed = population(60, 3).landed
    headers = {one.options["IrradiationEventUID"]: one.options for one in landed
               if one.kind == "mammogram" and one.options.get("intent") != "FOR PROCESSING"}
    quirks = Counter(one.options["quirk"] for one in landed if one.kind == "dose_report")
    assert set(quirks) == {"", *QUIRKS.values()} and quirks[""] > 0.75 * sum(quirks.values())
    for one in landed:
        if one.kind in ("dose_report", "cad"):
            shots = {shot.event: shot for shot in one.options["shots"]}
            assert set(shots) == {event for event, o in headers.items() if o["study_uid"] == one.options["study_uid"]}
            for event, shot in shots.items():
                assert {name: headers[event][name] for name in shot.header} == shot.header
                assert (shot.image, shot.laterality, shot.view) == tuple(
                    headers[event][name] for name in ("sop_instance_uid", "laterality", "view"))
    marks = [mark for one in landed if one.kind == "cad" for mark in one.options["marks"]]
    images = {o["sop_instance_uid"] for o in headers.values()}
    assert marks and all(mark.image in images and 0 < mark.probability < 100 for mark in marks)
    assert any(one.kind == "tomosynthesis" for one in landed)
    assert any(one.options.get("intent") == "FOR PROCESSING" for one in landed)


def test_exposures_of_a_study_follow_each_other_in_time() -> None:
    studies: dict[str, list[tuple[int, str]]] = {}
    for one in POPULATION.landed:
        if one.kind == "mammogram" and "AcquisitionTime" in one.options:
            taken = (int(one.options["InstanceNumber"]), one.options["AcquisitionTime"])
            studies.setdefault(one.options["study_uid"], []).append(taken)
    for taken in studies.values():
        times = [time for _, time in sorted(set(taken))]
        assert times == sorted(set(times))


def test_software_changes_over_the_years_and_sets_differ() -> None:
    versions: dict[str, set[str]] = {}
    for one in population(120, 5).landed:
        versions.setdefault(one.options["serial"], set()).add(str(one.options["SoftwareVersions"]))
    assert set(versions) == {machine.serial for machine in SETS}
    assert sum(len(v) >= 2 for v in versions.values()) >= 4


def test_the_population_of_three_years_stays_in_them() -> None:
    one = population(200, 1, **THREE_YEARS)
    days = {o.options["study_date"] for o in one.landed} - {None, "19980402"}
    assert (date.fromisoformat(max(days)) - date.fromisoformat(min(days))).days < 3 * 366
    assert population(200, 1, **THREE_YEARS) == one
    cancers = Counter(row["outcome"] for row in one.outcomes)
    assert cancers["screen_detected"] > cancers["interval"] > 1


def test_dose_rises_with_thickness() -> None:
    shots = [one.options for one in population(60, 3).landed if one.kind == "mammogram"]
    thin = [float(o["OrganDose"]) * 100 for o in shots if float(o["BodyPartThickness"]) < 45]
    thick = [float(o["OrganDose"]) * 100 for o in shots if float(o["BodyPartThickness"]) > 65]
    assert 0.2 < sum(thin) / len(thin) < sum(thick) / len(thick) < 5
    for o in shots:
        if "CompressionPressure" in o:
            pressure = float(o["CompressionForce"]) / float(o["CompressionContactArea"]) * 1000
            assert float(o["CompressionPressure"]) == pytest.approx(pressure, rel=0.01)


def test_entrance_dose_follows_from_the_output_that_the_physicist_measured(written: tuple[Path, Truth]) -> None:
    directory, _ = written
    sets = {machine.serial: (machine.manufacturer, machine.model, machine.serial) for machine in SETS}
    short = {name: letters for letters, name in exposure.NAMES.items()}
    shots = [one.options for one in POPULATION.landed if one.kind == "mammogram"]
    for o in shots:
        spectrum = short[o["AnodeTargetMaterial"]], short[o["FilterMaterial"]]
        output, layer = exposure.measured(sets[o["serial"]], *spectrum, int(o["KVP"]))
        distance = exposure.FOCUS_TO_SUPPORT_MM - float(o["BodyPartThickness"])
        mas = float(o["ExposureInuAs"]) / 1000
        assert float(o["EntranceDoseInmGy"]) == pytest.approx(mas * output / 1000 * (1000 / distance) ** 2, rel=0.01)
        assert float(o["HalfValueLayer"]) == pytest.approx(layer, abs=0.001)
    rows = list(csv.DictReader((directory / dosimetry.OUTPUT_NAME).open()))
    assert {row["serial_number"] for row in rows} == set(sets)
    for row in rows:
        if row["from_date"] == "1999-01-01":
            found = float(row["output_ugy_per_mas_at_1m"]), float(row["hvl_mm"])
            assert found == pytest.approx(exposure.measured(
                sets[row["serial_number"]], row["anode"], row["filter"], int(row["kv"])), 1e-3)
    assert (directory / dosimetry.FACTORS_NAME).read_text() == dosimetry.factors_csv()


def test_tables_agree(written: tuple[Path, Truth]) -> None:
    directory, told = written
    links = list(csv.DictReader((directory / "crosswalk.csv").open(encoding="utf-8")))
    permitted = (directory / "permitted.csv").read_text().splitlines()
    assert permitted[0] == "# as-of: 2024-01-31" and permitted[1] == "person"
    assert permitted[-1] == f"# end: {len(permitted) - 3}"
    rows = list(csv.DictReader((directory / "episodes.csv").open(encoding="utf-8")))
    assert tuple(rows[0]) == EPISODES
    assert sum(told.episodes.values()) == len(rows)
    assert len({row["episode_id"] for row in rows}) == len(rows)
    cancers = list(csv.DictReader((directory / "outcomes.csv").open(encoding="utf-8")))
    assert tuple(cancers[0]) == OUTCOMES and sum(told.outcomes.values()) == len(cancers)
    attended = {row["episode_id"] for row in rows if row["end_code"] == "SC"}
    assert all(row["episode_id"] in attended for row in cancers if row["episode_id"] not in ("", "999100"))
    by_role = {w.role: w for w in POPULATION.women if w.role}
    numbers = {(r["issuer"], r["local_id"]): r["nhs_number"].replace(" ", "") for r in links}
    assert by_role["not_permitted"].nhs not in permitted
    assert not any(("HOSP-A", i) in numbers or ("HOSP-B", i) in numbers for i in by_role["unlinked"].locals.values())
    assert len([r for r in links if r["local_id"] in by_role["ambiguous"].locals.values()]) == 2
    old = by_role["superseded"]
    assert {"issuer": "", "local_id": "", "nhs_number": old.nhs, "superseded_nhs_number": old.former_nhs} in links
    assert any(row["nhs_number"] == old.former_nhs for row in rows)
    both = by_role["two_hospitals"]
    assert len(both.locals) == 2 and {numbers[item] for item in both.locals.items()} == {both.nhs}
    # one local id, two hospitals, two people
    (twin,) = by_role["same_local_id"].locals.values()
    assert numbers["HOSP-A", twin] != numbers["HOSP-B", twin]
    # an image on the day of an attended appointment, but for the two women whose dates are off
    days = {(w.nhs, row["date_of_foa"]) for row in rows for w in POPULATION.women
            if row["nhs_number"] in (w.nhs, w.former_nhs) and row["end_code"] == "SC"}
    women = {w.number: w for w in POPULATION.women}
    for one in POPULATION.landed:
        if one.fate[1] not in (Reason.DATE_UNKNOWN, Reason.DATE_NOT_ELIGIBLE) and women[one.woman].role not in (
                "old_study", "undated"):
            assert (women[one.woman].nhs, date.fromisoformat(one.options["study_date"]).isoformat()) in days


def test_sentinels_tell_of_everybody() -> None:
    told = truth(POPULATION)
    for woman in POPULATION.women:
        assert woman.nhs in told.sentinels
        assert set(woman.locals.values()) <= told.sentinels
        for word in woman.name.replace("=", "^").split("^"):
            assert len(word) < 4 or word in told.sentinels


def test_bundled_files_are_those_on_disk() -> None:
    found = dict(bundled())
    assert "CT_small.dcm" in found and all(path.is_file() for path in found.values())
    assert pydicom.dcmread(io.BytesIO(found["CT_small.dcm"].read_bytes())).PatientID in LINKED


def test_the_demo_lays_out_everything_and_its_project_file_loads(tmp_path: Path) -> None:
    told = write_demo(tmp_path / "one", women=3, seed=2, as_of=date(2024, 1, 31))
    landing = tmp_path / "one" / "landing"
    keys = {p.relative_to(landing).as_posix() for p in landing.rglob("*") if not p.is_dir() or p.is_symlink()}
    assert keys == set(told.fates()) | set(told.bundled)
    assert {os.lstat(p).st_mtime for p in landing.rglob("*")} == {LANDED_AT}
    config = load(tmp_path / "one" / "project.toml")
    assert config.project.demo and config.stage.issuer == "HOSP-A"
    assert [set(table.columns) for table in config.clinical] == [set(EPISODES), set(OUTCOMES)]
    crosswalk = (tmp_path / "one" / "crosswalk.csv").read_text(encoding="utf-8")
    assert all(f"HOSP-A,{local}," in crosswalk for local in LINKED)
    write_demo(tmp_path / "two", women=3, seed=2, as_of=date(2024, 1, 31))
    one, two = tree(tmp_path / "one"), tree(tmp_path / "two")
    del one["project.toml"], two["project.toml"]        # zones are absolute
    assert one == two
