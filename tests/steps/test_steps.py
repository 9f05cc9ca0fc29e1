"""The whole way through the steps: fates, bytes, late series, kills."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pydicom
import pytest
from steps_kit import Site, killed, make

from pipeline import layout, steps
from pipeline.deidentify import keys
from pipeline.errors import (
    ApprovalRefused,
    DosimetryRefused,
    KeyRefused,
    PartsMissing,
    ProjectFileError,
    RecipeRefused,
    StoreUnreachable,
    TreError,
)
from pipeline.model import Status
from pipeline.side import Identifiable
from pipeline.storage import tables
from pipeline.synthetic import files

pytestmark = pytest.mark.xdist_group("steps")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = make(tmp_path_factory.mktemp("whole"))
    site.everything()
    return site


def test_every_object_has_the_fate_it_was_made_for(published: Site) -> None:
    found = published.ledger()
    expected = {key: (status.value if str(status) != "pending" else "published", reason.value if reason else None)
                for key, (status, reason) in published.truth.fates().items()}
    assert {key: found.get(key) for key in expected} == expected
    assert set(found) == set(expected) | set(published.truth.bundled)       # nothing is lost, nothing is doubled


def test_a_candidate_says_how_many_people_have_a_name_too_short_to_be_searched_for(published: Site) -> None:
    parts = str(published.folder / "work/*/parts/*/outcomes.parquet")
    (people,), = duckdb.sql(f"select count(distinct patient) from '{parts}' where names_short > 0").fetchall()
    (manifest,) = (published.folder / "candidate").glob("*/candidates/*/candidate.json")
    assert json.loads(manifest.read_text())["short_names"] == people > 0


def test_the_same_landing_gives_the_same_bytes(published: Site, tmp_path: Path) -> None:
    other = make(tmp_path / "other")
    other.everything()
    ours, theirs = (site.digests("candidate", "release") for site in (published, other))
    assert ours == theirs
    assert len(ours) > 200


def test_again_changes_nothing(published: Site) -> None:
    before = published.digests("work", "candidate", "release")
    assert published.stage()["batch"] is None
    assert published.deidentify() == []
    again = published.release(published.candidate())
    assert again["copied"] == 0
    assert published.digests("work", "candidate", "release") == before


def test_no_original_identity_stands_outside_the_identifiable_zone(published: Site) -> None:
    words = sorted({*published.truth.sentinels, *published.truth.population.uids}, key=len)
    words = [word for word in words if len(word) >= 6]
    assert len(words) > 100
    for zone in ("candidate", "release"):
        for path in (published.folder / zone).rglob("*"):
            name = str(path.relative_to(published.folder))
            data = path.read_bytes().lower() if path.is_file() else b""
            hits = [w for w in words if w.lower() in name.lower() or (not w.isdigit() and w.lower().encode() in data)]
            assert hits == [], name


def test_sets_and_doses_are_what_landed_and_no_serial_leaves(published: Site) -> None:
    """Order of versions by the landed headers; doses by the made-up tables; the candidate zone searched for serials."""
    side = Identifiable(published.project)
    serials: dict[str, str] = {}
    first: dict[tuple[str, str], str] = {}
    passed = {row["source_uri"] for part in side.parts_done() for row in
              tables.read(side.work, layout.outcomes(side.config.name, part)).to_pylist() if row["status"] == "pending"}
    for uri in sorted(passed):
        header = pydicom.dcmread(published.folder / "landing" / uri.removeprefix(side.config.zones.landing + "/"),
                                 stop_before_pixels=True)
        words = [header.get(word) for word in ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber")]
        device, software = side.pseudonyms.device(*words), header.get("SoftwareVersions")
        if device and software:
            serials[str(words[2])] = device
            version = software if isinstance(software, str) else "\\".join(software)
            first[device, version] = min(first.get((device, version), "9"), str(header.StudyDate))
    plan = json.loads(next((published.folder / "candidate").rglob("plan.json")).read_bytes())
    read = {name: tables.read(side.candidate, layout.table(side.config.name, plan["candidate"], name))
            for name in ("equipment", "glandular_doses", "exposures", "measurements", "findings")}
    found = {(r["device_id"], r["software_versions"]): r["version_order"] for r in read["equipment"].to_pylist()
             if r["version_order"] is not None}
    assert found and set(found) <= set(first)
    for (device, version), order in found.items():
        days = sorted({first[key] for key in found if key[0] == device})
        assert order == days.index(first[device, version]) + 1
    doses = read["glandular_doses"].to_pylist()
    assert [row["exposure_id"] for row in doses] == read["exposures"]["exposure_id"].to_pylist()
    assert all((row["mean_glandular_dose_mgy"] is None) != (row["not_computed"] is None) for row in doses)
    assert any(row["mean_glandular_dose_mgy"] for row in doses) and all(row["synthetic"] for row in doses)
    assert read["measurements"].num_rows and read["findings"].num_rows
    assert len(serials) > 1
    kept = [*(published.folder / "candidate").rglob("equipment/*.parquet")]
    assert {path.stem for path in kept} == {"versions", "surveys", "output", "factors"}
    text = b"".join(repr(pq.read_table(path).to_pylist()).encode() for path in kept)
    text += b"".join(path.read_bytes() for path in (published.folder / "candidate").rglob("*") if path.is_file())
    assert not [serial for serial in serials if serial.encode() in text]


def test_another_key_is_refused_before_anything_is_made_with_it(published, tmp_path, monkeypatch):
    """Under it every person would have another pseudonym, and no release could be linked to the one before."""
    keys.create_key(tmp_path, published.config().name)
    monkeypatch.setenv(keys.VARIABLE, str(tmp_path))
    before = published.digests("work", "candidate")
    with pytest.raises(KeyRefused, match="not the key of this project's earlier builds"):
        steps.pending_shards(published.project)
    assert published.digests("work", "candidate") == before


def test_the_dictionary_lists_what_a_category_may_hold(published):
    words = json.loads(next((published.folder / "release").rglob("dictionary.json")).read_bytes())
    columns = {c["name"]: c for table in words["tables"] if table["name"] == "episodes" for c in table["columns"]}
    assert columns["end_code"]["values"] == ["SC", "DNA"]
    assert columns["episode_id"]["values"] == []


def test_another_factor_or_output_is_another_candidate_of_the_same_parts(published: Site, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(published.folder, folder, ignore=shutil.ignore_patterns("landing", "release"))
    text = published.project.read_text().replace(str(published.folder), str(folder))
    (folder / "project.toml").write_text(text)
    site = Site(folder, published.truth)
    before = steps.assemble(site.project)
    made = {before["candidate"]}
    assert before["output_refused"] == []
    for name in ("SYNTHETIC-factors.csv", "SYNTHETIC-output.csv"):
        path = folder / name
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:-1]) + ("not,a,row\n" if name == "SYNTHETIC-output.csv" else ""))
        after = steps.assemble(site.project)
        assert after["parts"] == before["parts"] and after["candidate"] not in made
        made.add(after["candidate"])
    assert after["output_refused"] == [[len(lines), "wrong_number_of_cells"]]
    (folder / "SYNTHETIC-factors.csv").write_text("factor,value\ng,1\n")
    with pytest.raises(DosimetryRefused):
        steps.assemble(site.project)


def test_a_late_series_makes_a_new_candidate_of_old_parts(tmp_path: Path) -> None:
    site = make(tmp_path / "late", women=15)
    first = site.everything()
    key = next(key for key, (status, _) in site.truth.population.fates.items() if status is Status.PENDING)
    landed = site.folder / "landing" / key
    header = pydicom.dcmread(landed, stop_before_pixels=True)
    published = {key for key, (status, _) in site.ledger().items() if status == "published"}
    late = files.mammogram(
        seed="late", patient_id=header.PatientID, issuer=header.get("IssuerOfPatientID"),
        patient_name=str(header.PatientName), study_uid=header.StudyInstanceUID,
        study_date=header.StudyDate, birth_date=header.PatientBirthDate, view="CC")
    target = site.folder / "landing" / "late.dcm"
    target.write_bytes(late)
    shutil.copystat(landed, target)
    assert site.stage()["batch"]
    made = site.deidentify()
    assert len(made) == 1
    second = site.release(site.candidate())
    assert second["sequence"] == first["sequence"] + 1
    after = site.ledger()
    assert after["late.dcm"] == ("published", None)
    assert {key for key, (status, _) in after.items() if status == "published"} == published | {"late.dcm"}
    # the late image stands in the study of the early ones
    images = duckdb.sql(f"select study_uid, count(*) n from '{site.folder}/release/*/releases/{second['release']}"
                        "/tables/instances.parquet' group by 1").fetchall()
    before = duckdb.sql(f"select study_uid, count(*) n from '{site.folder}/release/*/releases/{first['release']}"
                        "/tables/instances.parquet' group by 1").fetchall()
    assert sorted(n - dict(before)[study] for study, n in images) == [0] * (len(before) - 1) + [1]


def test_a_candidate_needs_all_its_parts(tmp_path: Path) -> None:
    site = make(tmp_path / "parts", women=2)
    site.stage()
    with pytest.raises(PartsMissing):
        steps.assemble(site.project)


@pytest.mark.parametrize("after", [0, 1, 7, 40])
def test_killed_while_deidentifying(after: int, published: Site, tmp_path: Path) -> None:
    site = make(tmp_path / "killed")
    site.stage()
    (one,) = steps.pending_shards(site.project)
    method = "adopt" if after != 1 else "write"     # write: facts are there, outcomes are not
    assert killed("deidentify", method, after, site.project, one["batch"], one["shard"])
    assert steps.pending_shards(site.project) == [one]
    site.deidentify()
    site.release(site.candidate())
    assert site.digests("candidate", "release") == published.digests("candidate", "release")


@pytest.mark.parametrize(("method", "after"), [("put_file", 0), ("put_file", 60), ("write", 0), ("write", 5)])
def test_killed_while_publishing(method: str, after: int, published: Site, tmp_path: Path) -> None:
    site = make(tmp_path / "killed")
    for zone in ("work", "candidate"):
        shutil.copytree(published.folder / zone, site.folder / zone)
    candidate = steps.newest_candidate(site.project)["candidate"]
    assert killed("publish", method, after, site.project, candidate)
    assert not list((site.folder / "release").rglob("current.json"))        # no half release is visible
    steps.publish(site.project, candidate)
    assert site.digests("release") == published.digests("release")


def _edited(site: Site, old: str, new: str) -> None:
    text = site.project.read_text()
    assert old in text
    site.project.write_text(text.replace(old, new))


@pytest.mark.parametrize(("old", "new", "error"), [
    ('"base.dicom", "ct.dicom"', '"ct.dicom"', RecipeRefused),
    ('"base.dicom", "ct.dicom"', '"base.dicom", "nowhere.dicom"', RecipeRefused),
    ("date_shift_days", "date_shift_weeks", ProjectFileError),
    ("linked = true", "linked = maybe", ProjectFileError),
    ('landing = "file://', 'landing = "ftp://', ProjectFileError),
])
def test_refused_before_any_object_moves(old: str, new: str, error: type[TreError], tmp_path: Path) -> None:
    site = make(tmp_path / "refused", women=1)
    _edited(site, old, new)
    with pytest.raises(error):
        site.stage()
        site.deidentify()
    assert not list((site.folder / "candidate").rglob("*.dcm"))


def test_a_missing_key_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make(tmp_path / "nokey", women=1)
    site.stage()
    (site.folder / "keys" / "demo-screening.key").unlink()
    with pytest.raises(KeyRefused):
        site.deidentify()
    assert not list((site.folder / "keys").iterdir())       # and none is made up


def test_an_unreachable_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make(tmp_path / "nostore", women=1)
    monkeypatch.setenv("TRE_WORK_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TRE_WORK_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("TRE_WORK_SECRET_ACCESS_KEY", "x")
    _edited(site, f'work = "file://{site.folder.resolve()}/work"', 'work = "s3://nowhere/work"')
    with pytest.raises(StoreUnreachable):
        site.stage()


def test_an_object_that_came_back_is_tried_again(tmp_path: Path) -> None:
    """Its shard gets a new part, and the candidate with it another id: what was sealed before stays as it was."""
    site = make(tmp_path / "gone", women=2)
    site.stage()
    key = next(key for key, (status, _) in site.truth.population.fates.items() if status is Status.PENDING)
    landed, away = site.folder / "landing" / key, tmp_path / "away.dcm"
    shutil.move(landed, away)
    site.deidentify()
    before = site.candidate()["candidate"]
    assert site.ledger()[key] == ("quarantined", "source_missing")
    shutil.move(away, landed)
    assert site.deidentify() == []
    assert steps.retry(site.project, hashlib.sha256(landed.read_bytes()).hexdigest()) == {"attempt": 1}
    assert len(site.deidentify()) == 1
    assert site.candidate()["candidate"] != before
    assert site.ledger()[key] == ("pending", None)


def test_nobody_has_approved(tmp_path: Path) -> None:
    site = make(tmp_path / "silent", women=2)
    site.stage()
    site.deidentify()
    sealed = site.candidate()
    with pytest.raises(ApprovalRefused):
        steps.publish(site.project, sealed["candidate"])
    assert not list((site.folder / "release").rglob("*.dcm"))


def test_a_closed_door_for_who_is_no_longer_permitted(tmp_path: Path) -> None:
    """The list of people is applied whenever a part is built, not when an object is staged."""
    site = make(tmp_path / "withdrawn")
    site.everything()
    before = {key for key, (status, _) in site.ledger().items() if status == "published"}
    people = site.folder / "permitted.csv"
    lines = people.read_text().splitlines()
    rows = [n for n, line in enumerate(lines) if not line.startswith("#") and line.strip().isdigit()]
    for n in reversed(rows[:3]):
        del lines[n]
    lines[-1] = f"# end: {len(rows) - 3}"
    people.write_text("\n".join(lines) + "\n")
    site.deidentify()
    site.release(site.candidate())
    after = site.ledger()
    gone = {key for key in before if after[key][0] != "published"}
    assert gone
    assert {after[key] for key in gone} == {("rejected", "person_not_permitted")}


def test_the_limits_of_an_object_are_the_project_file_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For staging and for de-identifying; they change no dataset, so a candidate does not depend on them."""
    from pipeline.deidentify import shard
    from pipeline.isolate import LIMITS, Limits
    from pipeline.stage import inventory

    site = make(tmp_path / "site", women=1)
    before, text = Identifiable(site.project).meaning(), site.project.read_text()
    default = site.config().deidentify
    assert Limits.of(default.limit_seconds, default.limit_bytes) == LIMITS
    more = "date_shift_days = 365\nlimit_seconds = 12.5\nlimit_bytes = 536870912\n"
    site.project.write_text(text.replace("date_shift_days = 365\n", more))
    assert Identifiable(site.project).meaning() == before
    given, each = [], shard.each
    for room in (inventory, shard):
        monkeypatch.setattr(room, "each", lambda *args, **more: (given.append(more["limits"]), each(*args, **more))[1])
    site.stage()
    site.deidentify()
    assert len(given) > 1
    assert set(given) == {Limits(12.5, 512)}
    for wrong in ("limit_seconds = 0", "limit_bytes = 1024"):
        site.project.write_text(text.replace("date_shift_days = 365\n", f"date_shift_days = 365\n{wrong}\n"))
        with pytest.raises(ProjectFileError, match=wrong.split()[0]):
            site.config()
