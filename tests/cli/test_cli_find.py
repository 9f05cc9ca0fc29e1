"""`tre find` over a real release, `tre cohort` back to the source, and the audit log that both leave."""

import csv
import re
import shutil
import stat
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline import errors
from pipeline.cli import main as cli

pytestmark = pytest.mark.xdist_group("cli")
PAGE = Path(__file__).parents[2] / "docs" / "catalogue.md"
EXAMPLES = re.findall(r'^tre find "(.+)" --release URL$', PAGE.read_text(encoding="utf-8"), re.M)


def tre_inside(*words):
    said = CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=True)
    if isinstance(said.exception, Exception) and not isinstance(said.exception, SystemExit):
        raise said.exception
    return said.stdout


def number(said, what):
    return re.search(rf"^{what} +(.+)$", said, re.M)[1]


@pytest.fixture(scope="module")
def released(gone):
    """The release's tables as a researcher opens them."""
    folder = gone.release_url.removeprefix("file://")
    return lambda sql: duckdb.sql(sql.replace("@", f"{folder}/")).fetchall()


@pytest.fixture
def site(gone, tmp_path, monkeypatch):
    """A copy of the project that a test may change."""
    for key, value in gone.env.items():
        monkeypatch.setenv(key, value)
    shutil.copytree(gone.root, tmp_path / "site", symlinks=True, ignore=shutil.ignore_patterns("pipe.dcm"))
    text = gone.project.read_text().replace(str(gone.root), str(tmp_path / "site"))
    (tmp_path / "site/project.toml").write_text(text)
    return tmp_path / "site"


def test_the_catalogue_is_of_exactly_the_released_images(gone, released):
    """And each of its rows says what the file says that is beside it."""
    import pydicom

    assert released("select sop_instance_uid, series_uid, study_uid, patient_id from '@catalogue.parquet' order by 1") \
        == released("select sop_instance_uid, series_uid, study_uid, patient_id from '@tables/instances.parquet' "
                    "order by 1")
    images = gone.root / "release/demo-screening/images"
    rows = pq.read_table(gone.release_url.removeprefix("file://") + "/catalogue.parquet").to_pylist()
    paths = dict(released("select sop_instance_uid, path from '@tables/instances.parquet'"))
    for row in rows[::7]:
        file = pydicom.dcmread(images / paths[row["sop_instance_uid"]], stop_before_pixels=True)
        for keyword in ("Modality", "Manufacturer", "CompressionForce", "ImageType", "StudyDate", "KVP", "PatientAge"):
            value = file.get(keyword)
            texts = [str(v) for v in (value if isinstance(value, pydicom.multival.MultiValue) else [value])]
            assert (row.get(keyword) or []) == ([] if value in (None, "") else texts), keyword


def test_counts_are_rounded_and_the_small_are_not_told(gone, released):
    said = tre_inside("find", "Modality = 'MG'", "--release", gone.release_url)
    assert "fewer than 10 people" in said       # the project has two women
    (people,), = released("select count(distinct patient_id) from '@catalogue.parquet' where Modality = ['MG']")
    assert 0 < people < 10
    exactly = "select count(*), count(distinct study_uid) from '@catalogue.parquet' where Modality = ['MG']"
    for exact in released(exactly)[0]:
        assert str(exact) not in re.sub("10 people|Rounded to 5", "", said)
    assert number(tre_inside("find", "Modality = 'XX'", "--release", gone.release_url), "images") == "none"


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_page_s_examples_run(gone, text):
    assert number(tre_inside("find", text, "--release", gone.release_url), "series")


def test_the_page_has_examples():
    assert len(EXAMPLES) >= 6


def test_what_is_listed_is_pseudonyms_and_nothing_else(gone, released, tmp_path):
    out = tmp_path / "found.csv"
    tre_inside("find", "Modality = 'MG'", "--release", gone.release_url, "--by", "series", "--csv", out)
    rows = list(csv.reader(out.read_text().splitlines()))
    assert rows[0] == ["patient_id", "study_uid", "series_uid"]
    assert [tuple(row) for row in rows[1:]] == released(
        "select distinct patient_id, study_uid, series_uid from '@catalogue.parquet' "
        "where list_contains(Modality, 'MG') order by all")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert tre_inside("find", "Modality = 'MG'", "--release", gone.release_url, "--by", "series", "--list") \
        == out.read_text()
    with pytest.raises(errors.UsageError):
        tre_inside("find", "Modality = 'MG'", "--release", gone.release_url, "--csv", out)


def test_columns_lists_every_element(gone):
    said = tre_inside("find", "--columns", "--release", gone.release_url)
    assert re.search(r"CompressionForce .*\(0018,11A2\) .*DS .*Compression Force", said)
    assert re.search(r"ViewCodeSequence\.CodeValue .*\(0008,0100\) .*SH", said)


def test_a_candidate_is_asked_as_a_release_is(gone):
    words = ("find", "Modality = 'MG'", "--by", "series", "--list")
    assert tre_inside(*words, "--project", gone.project) == tre_inside(*words, "--release", gone.release_url)


def test_a_wrong_filter_is_shown_where_it_is_wrong(tre, gone):
    said = tre("find", "Modality = 'MG' and CompresionForce > 1", "--release", gone.release_url)
    assert said.code == errors.UsageError.exit_code
    assert "  Modality = 'MG' and CompresionForce > 1\n" + " " * 22 + "^\n" in said.err
    assert "Did you mean CompressionForce, " in said.err


@pytest.mark.parametrize("words", [
    ("Modality = 'MG'",), ("--columns",), ("Modality = 'MG'", "--columns", "--release", "file:///x"),
    ("Modality = 'MG'", "--candidate", "c-x", "--release", "file:///x/p"), ("--release", "file:///x/p"),
    ("Modality = 'MG'", "--by", "name", "--release", "file:///x/p"),
])
def test_words_that_do_not_go_together_are_refused(words):
    with pytest.raises(errors.UsageError):
        tre_inside("find", *words)


# ---- back to the source, and the log ------------------------------------------------------------------------------
def resolve(site, result, out, reason="dose audit, paper 12"):
    return tre_inside("cohort", "resolve", result, "--project", site / "project.toml", "--out", out, "--by", "officer",
                      "--reason", reason)


def published(site):
    """(issuer, local id, Study Instance UID as it came) of every published image, from the landed files themselves."""
    import pydicom

    from pipeline import config
    from pipeline.cli.project import reading
    from pipeline.ledger.ledger import build

    made = config.load(site / "project.toml")
    build(made, *reading(made), site / "ledger.parquet")
    uris = duckdb.sql(f"select source_uri from '{site}/ledger.parquet' where status = 'published'").fetchall()
    found = set()
    for (uri,) in uris:
        header = pydicom.dcmread(site / "landing" / uri.split("/landing/")[1], stop_before_pixels=True, force=True)
        found.add((header.get("IssuerOfPatientID") or "HOSP-A", str(header.PatientID).strip(), header.StudyInstanceUID))
    return found


def test_a_result_goes_back_to_the_ids_that_came(site, gone):
    """Every published image's person and study, and no other; nothing of them on the screen; the log tells of it."""
    result, out = site / "found.csv", site / "cohort.csv"
    tre_inside("find", "SOPInstanceUID is not null", "--release", gone.release_url, "--csv", result)
    said = resolve(site, result, out)
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert {(row["issuer"], row["patient_id"], row["study_uid"]) for row in rows} == published(site)
    numbers = {line.split(",")[1]: line.split(",")[2].replace(" ", "")
               for line in (site / "crosswalk.csv").read_text().splitlines()[1:]}
    assert all(row["nhs_number"] == numbers[row["patient_id"]] for row in rows)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    for row in rows:
        assert not [value for value in row.values() if len(value) > 5 and value in said]
    log = tre_inside("audit-log", "show", site / "project.toml")
    assert "cohort" in log and "dose audit, paper 12" in log
    every = "".join(p.read_text() for p in (site / "work/demo-screening/audit").iterdir())
    assert not [value for row in rows for value in row.values() if len(value) > 5 and value in every]
    assert "Every entry follows" in tre_inside("audit-log", "verify", site / "project.toml")


def test_who_may_not_be_used_today_is_left_out_and_counted(site, gone):
    result = site / "found.csv"
    tre_inside("find", "SOPInstanceUID is not null", "--release", gone.release_url, "--csv", result)
    permitted = (site / "permitted.csv").read_text().splitlines()
    first = resolve(site, result, site / "a.csv")
    numbers = {row["nhs_number"] for row in csv.DictReader((site / "a.csv").read_text().splitlines())}
    gone_now = sorted(numbers)[0]
    left = [line for line in permitted[1:-1] if line.replace(" ", "").replace("-", "") != gone_now]
    (site / "permitted.csv").write_text("\n".join([permitted[0], *left, f"# end: {len(left) - 1}"]) + "\n")
    said = resolve(site, result, site / "b.csv")
    assert "left out: not_permitted" in said or "left out" in said
    assert "left out" not in first
    after = {row["nhs_number"] for row in csv.DictReader((site / "b.csv").read_text().splitlines())}
    assert after == numbers - {gone_now}


def test_a_cohort_is_never_written_where_it_may_not_be(site, gone):
    result = site / "found.csv"
    tre_inside("find", "Modality = 'MG'", "--release", gone.release_url, "--csv", result)
    link = site / "link"
    link.symlink_to(site / "release")
    there = site / "there.csv"
    there.write_text("kept")
    (site / "dangling.csv").symlink_to(site / "release" / "x.csv")
    for out in (site / "release/x.csv", site / "candidate/demo-screening/x.csv", link / "x.csv", there,
                site / "dangling.csv", site / "work/../release/x.csv", site / "no-folder/x.csv"):
        with pytest.raises(errors.UsageError):
            resolve(site, result, out)
    assert there.read_text() == "kept"
    assert not list((site / "release").rglob("x.csv")) and not list((site / "candidate").rglob("x.csv"))
    with pytest.raises(errors.UsageError):
        resolve(site, result, site / "c.csv", reason="for 999 000 0018")
    assert not (site / "c.csv").exists()


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "study_uid\n", "study_uid\n../../x\n", "study_uid\n1.2,\"\n",
                                  "patient_id,study_uid\nP1\n"])
def test_what_is_no_result_is_refused_by_its_line(site, text):
    (site / "found.csv").write_text(text)
    with pytest.raises(errors.UsageError) as refused:
        resolve(site, site / "found.csv", site / "c.csv")
    assert "../../x" not in str(refused.value)
    assert not (site / "c.csv").exists()


def test_the_log_has_the_whole_way_and_names_what_was_touched(site):
    log = tre_inside("audit-log", "show", site / "project.toml")
    for what in ("build", "approve", "publish"):
        assert len(re.findall(rf"\b{what}\b", log)) >= 2, log
    assert "officer" in log
    (site / "work/demo-screening/audit/00000003.json").unlink()
    with pytest.raises(errors.AuditLogBroken, match="entry 3 is missing"):
        tre_inside("audit-log", "verify", site / "project.toml")
    with pytest.raises(errors.AuditLogBroken, match="cut off"):
        tre_inside("audit-log", "verify", site / "project.toml", "--head", "0" * 64)


def test_quarantine_decisions_are_in_the_log(site):
    listed = tre_inside("quarantine", "list", site / "project.toml")
    digest = re.search(r"[0-9a-f]{12}", listed)[0]
    tre_inside("quarantine", "close", site / "project.toml", digest, "--reason", "scanned paper", "--who", "engineer")
    log = tre_inside("audit-log", "show", site / "project.toml", "--last", "2")
    assert log.count("quarantine_close") == 2 and "scanned paper" in log
