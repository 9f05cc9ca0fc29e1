"""Each audit over a made-up release: its numbers against the same counted by hand, and what its page may not do."""

import csv
import hashlib
import html.parser
import io
import re
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import audit_kit
import pytest

from pipeline import schemas
from pipeline.audit import draw
from pipeline.audit.base import Outcome
from pipeline.audit.national_survey import FILE, HEAD
from pipeline.audit.registry import AUDITS, named
from pipeline.audit.run import run
from pipeline.errors import SchemaTooNew, UsageError
from pipeline.storage import tables

SENTINEL = "SENTINELSMITH"


@pytest.fixture(scope="module")
def rows():
    return audit_kit.rows(150)


def made_of(rows, **changed):
    return {name: tables.from_rows(schema, changed.get(name, rows[name])) for name, schema in audit_kit.SCHEMAS.items()}


@pytest.fixture(scope="module")
def release(rows):
    return made_of(rows)


@pytest.fixture(scope="module")
def answers(release):
    return {name: run(audit, release, audit_kit.ABOUT) for name, audit in AUDITS.items()}


def table(data):
    return list(csv.DictReader(io.StringIO(data.decode())))


class Page(html.parser.HTMLParser):
    """Collects what a browser would load or run, and every id."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.ids, self.anchors, self.tags = [], [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data"):
                (self.anchors if value.startswith("#") else self.loads).append(value)
            if name == "id":
                self.ids.append(value)
            assert not name.startswith("on"), name


@pytest.mark.parametrize("name", AUDITS)
def test_a_page_is_one_file_that_loads_and_runs_nothing(answers, name):
    text = answers[name][0]["index.html"].decode()
    page = Page(text)
    assert page.loads == []
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"https?://|url\((?!#)|@import", text)
    assert len(page.ids) == len(set(page.ids))
    assert {a[1:] for a in page.anchors} <= set(page.ids)


@pytest.mark.parametrize("name", AUDITS)
def test_nobodys_pseudonym_or_uid_is_in_what_may_be_shown(answers, rows, name):
    text = "".join(data.decode() for data in answers[name][0].values())
    for row in rows["exposures"]:
        assert row["patient_id"] not in text
        assert row["study_uid"] not in text and row["exposure_id"] not in text


def test_the_bytes_depend_on_the_tables_alone():
    """Here and in a process of another time zone, another order of hashes."""
    code = ("import sys, hashlib; sys.path.insert(0, sys.argv[1])\n"
            "import audit_kit\nfrom pipeline.audit.registry import AUDITS\nfrom pipeline.audit.run import run\n"
            "made = audit_kit.release(40)\n"
            "for audit in AUDITS.values():\n"
            "    files, report = run(audit, made, audit_kit.ABOUT, minimum=5)\n"
            "    for file, data in sorted({**files, **report.internal}.items()):\n"
            "        print(audit.name, file, hashlib.sha256(data).hexdigest())\n")
    out = subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent)], check=True, capture_output=True,
                         text=True, env={"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PATH": "",
                                         "PYTHONPATH": str(Path(__file__).parents[2])})
    made, here = audit_kit.release(40), []
    for audit in AUDITS.values():
        files, report = run(audit, made, audit_kit.ABOUT, minimum=5)
        here += [f"{audit.name} {file} {hashlib.sha256(data).hexdigest()}"
                 for file, data in sorted({**files, **report.internal}.items())]
    assert out.stdout.splitlines() == here


def doses(rows):
    """(exposure, mean glandular dose) of every exposure that has one."""
    by = {row["exposure_id"]: row["mean_glandular_dose_mgy"] for row in rows["glandular_doses"]}
    return [(row, by[row["exposure_id"]]) for row in rows["exposures"] if by[row["exposure_id"]] is not None]


def test_the_dose_survey_tells_the_quartiles_of_each_set_in_the_band(answers, rows):
    files, report = answers["dose-survey"]
    found = {(r["set"], r["thickness"]): r for r in table(files["by-set-and-thickness.csv"])}
    mine = defaultdict(list)
    for row, dose in doses(rows):
        if row["device_id"] == "DBBBB11112222" and 50 <= row["body_part_thickness_mm"] < 60:
            mine["dose"].append(dose)
            mine["people"].append(row["patient_id"])
    cell = found["MAMMOMAT Inspiration DBBBB", "50–60 mm"]
    assert int(cell["exposures"]) == len(mine["dose"]) and int(cell["people"]) == len(set(mine["people"]))
    assert float(cell["median_mgy"]) == pytest.approx(statistics.median(mine["dose"]))
    assert float(cell["mean_mgy"]) == pytest.approx(statistics.fmean(mine["dose"]))
    lower, _, upper = statistics.quantiles(mine["dose"], n=4, method="inclusive")
    assert [float(cell[f"{end}_quartile_mgy"]) for end in ("lower", "upper")] == pytest.approx([lower, upper])
    assert "No dose on this page is a dose" in files["index.html"].decode()
    assert files["index.html"].decode().count("SYNTHETIC FACTORS") >= 4
    lacking = sum(row["mean_glandular_dose_mgy"] is None for row in rows["glandular_doses"])
    assert report.left_out == [("no mean glandular dose: outside table", lacking)]


def test_real_factors_are_not_marked_as_made_up(rows):
    real = [{**row, "synthetic": False} for row in rows["glandular_doses"]]
    files, _ = run(AUDITS["dose-survey"], made_of(rows, glandular_doses=real), audit_kit.ABOUT)
    assert b"SYNTHETIC" not in files["index.html"]


def test_a_set_that_saw_few_women_is_not_named(answers):
    for files, _ in answers.values():
        for data in files.values():
            assert b"AMULET" not in data and b"FDR-3000" not in data


def test_without_mean_glandular_doses_the_machines_own_figure_stands_and_says_so(rows, release):
    less = {name: t for name, t in release.items() if name != "glandular_doses"}
    files, _ = run(AUDITS["dose-survey"], less, audit_kit.ABOUT)
    stated = [row["average_glandular_dose_mgy"] for row in rows["exposures"]
              if row["device_id"] == "DBBBB11112222" and row["average_glandular_dose_mgy"]]
    found = {r["set"]: r for r in table(files["by-set.csv"])}["MAMMOMAT Inspiration DBBBB"]
    assert float(found["median_mgy"]) == pytest.approx(statistics.median(stated))
    assert "Was not computed" in files["index.html"].decode()


def test_safe_plots_show_no_tile_of_few_people_and_internal_ones_say_what_they_are(release):
    safe, _ = run(AUDITS["dose-survey"], release, audit_kit.ABOUT, minimum=40)
    small = re.findall(r"(\d+)–\d+ people", safe["index.html"].decode())
    assert all(int(least) >= 40 for least in small)
    internal, _ = run(AUDITS["dose-survey"], release, audit_kit.ABOUT, disclosure="internal")
    assert b"INTERNAL: INDIVIDUALS" in internal["index.html"] and b"does not leave" in internal["index.html"]
    assert b"INDIVIDUALS" not in safe["index.html"]


# ---- the national survey's file ------------------------------------------------------------------------------------
def survey(rows, exposures, **more):
    _, report = run(AUDITS["dose-survey"], made_of(rows, exposures=exposures, **more), audit_kit.ABOUT)
    text = report.internal[FILE].decode()
    return list(csv.reader(io.StringIO(text))), dict(report.internal_counts)


def test_the_survey_file_has_fifteen_columns_and_a_row_an_exposure(answers, rows):
    _, report = answers["dose-survey"]
    head, *lines = csv.reader(io.StringIO(report.internal[FILE].decode()))
    assert tuple(head) == HEAD and len(head) == 15
    plain = [row for row in rows["exposures"] if not row["is_tomosynthesis"]]
    assert len(lines) == len(plain)
    assert len({line[1] for line in lines}) == len({row["study_uid"] for row in plain})
    assert dict(report.internal_counts) == {
        "rows of the survey file": len(plain),
        "left out of the survey file: tomosynthesis": len(rows["exposures"]) - len(plain)}
    assert "TRE-INTERNAL" in FILE


def test_a_line_of_the_survey_file_says_what_the_exposure_was(rows):
    first = rows["exposures"][0]
    one = {**first, "acquisition_order": 1, "laterality": "L", "view": "MLO", "anode": "MOLYBDENUM",
           "filter_material": "RHODIUM", "kvp_kv": 28.0, "exposure_mas": 60.5, "body_part_thickness_mm": 52.0,
           "exposure_control_mode": "MANUAL", "is_tomosynthesis": False}
    again = {**one, "exposure_id": "2.25.999999", "sop_instance_uid": "2.25.999999", "acquisition_order": 2}
    third = {**one, "exposure_id": "2.25.1", "sop_instance_uid": "2.25.1", "acquisition_order": 3, "kvp_kv": None}
    studies = [{**row, "age_band_years": 90} for row in rows["studies"] if row["study_uid"] == one["study_uid"]]
    lines, _ = survey(rows, [third, again, one], studies=studies)
    assert lines[1:] == [
        ["1", "1", "LOB", "28", "Mo", "Rh", "52", "60.5", "", "MANUAL", "MANUAL", "", "90+", "", ""],
        ["1", "1", "LOB2", "28", "Mo", "Rh", "52", "60.5", "", "MANUAL", "MANUAL", "", "90+", "", ""],
        ["1", "1", "LOB3", "", "Mo", "Rh", "52", "60.5", "", "MANUAL", "MANUAL", "", "90+", "", ""]]


@pytest.mark.parametrize(("changed", "reason"), [
    ({"view": None}, "no view"), ({"view": "SPECIMEN"}, "specimen view"),
    ({"view": "=cmd()"}, "a view the survey has no code for"), ({"laterality": None}, "no laterality"),
    ({"laterality": "B"}, "no laterality"), ({"anode": None}, "no anode"), ({"filter_material": None}, "no filter"),
    ({"filter_material": "ALUMINUM\\COPPER"}, "more than one filter"), ({"is_tomosynthesis": True}, "tomosynthesis")])
def test_what_the_survey_cannot_take_is_left_out_and_counted(rows, changed, reason):
    plain = next(row for row in rows["exposures"] if not row["is_tomosynthesis"])
    lines, counts = survey(rows, [{**plain, **changed}])
    assert lines[1:] == []
    assert counts == {"rows of the survey file": 0, f"left out of the survey file: {reason}": 1}


# ---- the others ----------------------------------------------------------------------------------------------------
def test_compression_by_operator(answers, rows):
    files, _ = answers["compression"]
    operator = audit_kit.OPERATORS[0]
    forces = [row["compression_force_n"] for row in rows["exposures"] if row["operator_id"] == operator]
    found = {r["operator"]: r for r in table(files["force-by-operator.csv"])}[operator]
    assert (int(found["exposures"]), float(found["median_force"])) == (len(forces), statistics.median(forces))
    assert audit_kit.OPERATORS[-1] not in files["force-by-operator.csv"].decode()      # one woman alone


def test_how_many_state_a_force_alone_does_not_follow_from_two_lists(rows):
    some = [{**row, "compression_pressure_kpa": None if row["patient_id"].endswith("9") and
             row["device_id"] == "DBBBB11112222" and n % 9 == 0 else row["compression_pressure_kpa"]}
            for n, row in enumerate(rows["exposures"])]
    lacking = {row["patient_id"] for row in some if row["compression_pressure_kpa"] is None}
    assert 0 < len(lacking) < 10
    files, report = run(AUDITS["compression"], made_of(rows, exposures=some), audit_kit.ABOUT)
    assert all(not r["exposures"] for r in table(files["pressure-by-set.csv"]))
    assert all(r["median_pressure"] for r in table(files["pressure-by-set.csv"]))
    assert any("is not shown" in note for note in report.notes)


def test_repeat_rates(answers, rows):
    files, report = answers["repeats"]
    found = {(r["view"], r["kind"]): int(r["exposures"]) for r in table(files["repeats-by-view.csv"])}
    want = Counter((row["view"], "repeat" if row["is_repeat"] and not row["is_rejected"] else "other")
                   for row in rows["exposures"])
    assert found == dict(want)
    repeats = sum(n for (_, kind), n in want.items() if kind == "repeat")
    assert ("Repeat rate", f"{100 * repeats / len(rows['exposures']):.1f} %") in report.facts


def test_a_release_that_knows_nothing_of_rejects_says_so(rows):
    unknown = [{**row, "is_rejected": None} for row in rows["exposures"]]
    files, report = run(AUDITS["repeats"], made_of(rows, exposures=unknown), audit_kit.ABOUT)
    assert any("no reject rates" in note for note in report.notes)
    assert not any("reject" in name for name in files)


def test_an_outcome_belongs_to_the_nearest_episode(rows):
    """Every study gets a nearer episode of another outcome, and a far one that counts for nothing."""
    import datetime

    nearer = [{"patient_id": row["patient_id"], "date_of_foa": row["study_date"], "final_action_code": "XX"}
              for row in rows["studies"]]
    days = datetime.timedelta(days=100)
    far = [{"patient_id": row["patient_id"], "date_of_foa": row["study_date"] - days, "final_action_code": "YY"}
           for row in rows["studies"]]
    shifted = [{**row, "date_of_foa": row["date_of_foa"] - datetime.timedelta(days=1)} for row in rows["episodes"]]
    files, _ = run(AUDITS["outcomes"], made_of(rows, episodes=[*far, *shifted, *nearer]), audit_kit.ABOUT)
    assert {r["outcome"] for r in table(files["by-technique.csv"])} == {"XX"}
    files, report = run(AUDITS["outcomes"], made_of(rows, episodes=far), audit_kit.ABOUT)
    assert ("no episode near the study", len(rows["studies"])) in report.left_out


def test_two_episodes_equally_near_that_disagree_are_counted_and_left_out(rows):
    twice = [*rows["episodes"], *({**row, "final_action_code": "ZZ"} for row in rows["episodes"])]
    _, report = run(AUDITS["outcomes"], made_of(rows, episodes=twice), audit_kit.ABOUT)
    assert [n for why, n in report.left_out if "equally near" in why] == [len(rows["studies"])]


def test_outcomes_are_counted_by_technique(release, rows):
    files, _ = run(AUDITS["outcomes"], release, audit_kit.ABOUT, minimum=2)
    with_tomo = {row["study_uid"] for row in rows["exposures"] if row["is_tomosynthesis"]}
    ends = {row["study_uid"]: episode["final_action_code"]
            for row, episode in zip(rows["studies"], rows["episodes"], strict=True)}
    want = Counter(("with tomosynthesis" if study in with_tomo else "plain mammograms", end)
                   for study, end in ends.items() if end)
    found = {(r["technique"], r["outcome"]): int(r["attendances"]) for r in table(files["by-technique.csv"])
             if r["kept_back"] == "no"}
    assert found and all(want[key] == n for key, n in found.items())


def test_an_outcome_may_be_declared_elsewhere(release):
    end = Outcome("episodes", "date_of_foa", "end_code", 30, {})
    files, _ = run(AUDITS["outcomes"], release, audit_kit.ABOUT, outcome=end)
    assert {r["outcome"] for r in table(files["by-model.csv"])} == {"SC"}
    with pytest.raises(UsageError, match="no cancers"):
        run(AUDITS["outcomes"], release, audit_kit.ABOUT, outcome=Outcome("cancers", "d", "c", 30, {}))


def test_equipment_tells_versions_in_their_order(answers, rows):
    files, _ = answers["equipment"]
    found = [r for r in table(files["by-model-device-version.csv"]) if r["device"] == "Selenia Dimensions DAAAA"]
    assert [(r["version"], r["order_of_appearance"]) for r in found[1:]] == [("1.8.3", "1"), ("1.9.0", "2")]
    there = [s for s in rows["series"] if s["device_id"] == "DAAAA11112222"]
    assert (int(found[0]["studies"]), int(found[0]["people"])) == (
        len(there), len({s["patient_id"] for s in there}))


# ---- bad input -----------------------------------------------------------------------------------------------------
def test_text_of_images_is_escaped_and_that_of_few_is_not_shown(rows):
    exposures = [{**row, "model": "<script>$x_1$</script>"} if row["device_id"] == "DBBBB11112222" else
                 {**row, "model": SENTINEL} if row["device_id"] == "DEEEE11112222" else row
                 for row in rows["exposures"]]
    series = [{**row, "software_versions": SENTINEL} if n < 5 else {**row, "model": "=1+1"}
              for n, row in enumerate(rows["series"])]
    for audit in AUDITS.values():
        files, _ = run(audit, made_of(rows, exposures=exposures, series=series), audit_kit.ABOUT)
        everything = b"".join(files.values()).decode()
        assert SENTINEL not in everything
        assert "<script" not in files["index.html"].decode()
        sheets = "".join(data.decode() for name, data in files.items() if name.endswith(".csv"))
        assert not re.search(r"^[=+@]|,[=+@]", sheets, re.M)


@pytest.mark.parametrize("name", AUDITS)
def test_an_empty_release_has_a_page(release, name):
    empty = {table: rows.slice(0, 0) for table, rows in release.items()}
    files, report = run(AUDITS[name], empty, audit_kit.ABOUT)
    assert b"What is counted" in files["index.html"]
    assert report.facts or report.notes


@pytest.mark.parametrize("name", AUDITS)
def test_a_release_of_few_people_shows_no_number_of_them(rows, name):
    few = {row["patient_id"] for row in rows["studies"][:7]}
    less = {table: [row for row in found if row.get("patient_id") in few] for table, found in rows.items()}
    files, report = run(AUDITS[name], made_of(rows, **less), audit_kit.ABOUT)
    for file, data in files.items():
        if file.endswith(".csv"):
            assert not re.search(r",\d", data.decode()), file
    assert all(value == "–" or name not in ("People", "Exposures", "Studies") for name, value in report.facts)


def test_impossible_numbers_are_not_counted(rows):
    plain = [row for row in rows["exposures"] if row["device_id"] == "DBBBB11112222"]
    bad = [{**row, "exposure_id": f"2.25.8{n}", "compression_force_n": value} for n, (row, value) in enumerate(
        zip(plain, [float("nan"), float("inf"), 0.0, -3.0, 1e9] * 10, strict=False))]
    files, _ = run(AUDITS["compression"], made_of(rows, exposures=[*rows["exposures"], *bad]), audit_kit.ABOUT)
    found = {r["set"]: r for r in table(files["force-by-set.csv"])}["MAMMOMAT Inspiration DBBBB"]
    assert int(found["exposures"]) == len(plain)


def test_a_table_of_a_newer_version_is_refused(release, tmp_path):
    import pyarrow.parquet as pq

    path = tmp_path / "series.parquet"
    pq.write_table(release["series"].replace_schema_metadata({"schema_version": "99"}), path)
    with pytest.raises(SchemaTooNew):
        run(AUDITS["equipment"], {"series": path}, audit_kit.ABOUT)


def test_parquet_files_answer_as_arrow_tables_do(release, answers, tmp_path):
    paths = {}
    for name, found in release.items():
        paths[name] = tmp_path / f"it's {name}.parquet"
        paths[name].write_bytes(tables.to_bytes(found))
    assert run(AUDITS["equipment"], paths, audit_kit.ABOUT)[0] == answers["equipment"][0]


def test_a_clinical_table_may_have_any_name(release, answers):
    more = {**release, "e": release["episodes"], "people": release["episodes"], "sets": release["episodes"]}
    assert run(AUDITS["compression"], more, audit_kit.ABOUT)[0] == answers["compression"][0]


def test_an_unknown_audit_and_a_release_without_the_tables_are_refused(release):
    with pytest.raises(UsageError, match="no audit"):
        named("nonsense")
    with pytest.raises(UsageError, match=r"exposures\.exposure_id"):
        run(AUDITS["compression"], {"series": release["series"]}, audit_kit.ABOUT)


def test_every_audit_reads_columns_that_the_schemas_have():
    known = {t.name: set(t.names()) for t in audit_kit.SCHEMAS.values()}
    for audit in AUDITS.values():
        for reads in audit.reads:
            assert set(reads.columns) <= known[reads.table], (audit.name, reads.table)
        assert {t.name for t in schemas.PUBLISHED} >= {r.table for r in audit.reads if r.required}


def test_a_study_without_a_row_may_have_an_outcome_too(rows):
    """Cancers: a row for those who have one, after the study; a row before it is of an earlier time."""
    import datetime

    def cancers(days, among):
        return [{"patient_id": row["patient_id"], "date_of_foa": row["study_date"] + datetime.timedelta(days=days),
                 "final_action_code": "interval"} for row in among]

    end = Outcome("episodes", "date_of_foa", "final_action_code", 900, {}, True, "none known")
    last = {row["patient_id"]: row for row in rows["studies"]}
    some = list(last.values())[:40]
    files, report = run(AUDITS["outcomes"], made_of(rows, episodes=cancers(500, some)), audit_kit.ABOUT, outcome=end,
                        minimum=2)
    counted = Counter()
    for r in table(files["by-technique.csv"]):
        counted[r["outcome"]] += int(r["attendances"])
    assert counted == {"interval": 40, "none known": len(rows["studies"]) - 40}
    assert report.left_out == []
    files, _ = run(AUDITS["outcomes"], made_of(rows, episodes=cancers(-1200, some)), audit_kit.ABOUT, outcome=end)
    assert {r["outcome"] for r in table(files["by-technique.csv"])} == {"none known"}


def test_a_line_is_in_view_where_every_tile_is_kept_back():
    svg = draw.density("dose", [], 2.5, 0.1, "mm", "mGy", minimum=10, line=[(52.5, 1.0, 1.2, 1.4), (57.5, 1, 1.3, 1.5)],
                       every=10)
    assert {">50<", ">60<"} <= set(re.findall(">[0-9]+<", svg))
