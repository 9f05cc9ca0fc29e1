"""The product's own suites over hand-made tables: what stops a candidate, what is withheld, what a result may hold."""

import json
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import layout
from pipeline.schemas import PUBLISHED, Column, Table
from pipeline.storage import tables as parquet
from pipeline.validate.run import validate

SUITES = Path(__file__).parents[2] / "expectations"
ANN, BEA = "P" + "A" * 20, "P" + "B" * 20
EPISODES = Table("episodes", "", (), (
    Column("patient_id", "string", ""), Column("episode_id", "string", ""), Column("episode_type", "string", ""),
    Column("episode_date", "date", ""), Column("appointment_made", "string", ""), Column("date_of_foa", "date", ""),
    Column("date_of_as", "date", ""), Column("end_code", "string", ""), Column("final_action_code", "string", ""),
))  # fmt: skip
SCHEMAS = {t.name: t for t in (*PUBLISHED, EPISODES)}


def good():
    """Ann has a study of four images in two series, Bea one image; Bea's second episode has no image's person."""
    images = [(ANN, 1, 11, 101), (ANN, 1, 11, 102), (ANN, 1, 12, 103), (ANN, 1, 12, 104), (BEA, 2, 21, 201)]
    rows = {name: [] for name in SCHEMAS}
    for person, study, series, n in images:
        ids = {"patient_id": person, "study_uid": f"2.25.{study}", "series_uid": f"2.25.{series}",
               "sop_instance_uid": f"2.25.{n}", "modality": "MG", "laterality": "L", "view": "CC",
               "presentation_intent": "FOR PRESENTATION"}  # fmt: skip
        sha256 = f"{n:064x}"
        path = layout.image_path(person, ids["study_uid"], ids["series_uid"], ids["sop_instance_uid"], sha256)
        rows["instances"].append({
            **ids, "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.2", "sop_class_name": "MG",
            "image_type": "DERIVED\\PRIMARY", "rows": 100, "columns": 90, "frames": 1,
            "transfer_syntax_uid": "1.2.840.10008.1.2.1", "path": path, "sha256": sha256, "bytes": 20000,
        })  # fmt: skip
        rows["exposures"].append({**ids, "exposure_id": ids["sop_instance_uid"], "n_images": 1, "basis": "header",
                                  "is_tomosynthesis": False, "kvp_kv": 29.0, "exposure_mas": 51.8,
                                  "device_id": "D0123456789AB",
                                  "operator_id": "O0123456789AB\\O0123456789AC"})  # fmt: skip
    rows["series"] = [
        {"series_uid": f"2.25.{n}", "study_uid": f"2.25.{study}", "patient_id": person, "modality": "MG",
         "n_instances": many, "device_id": "D0123456789AB"}
        for person, study, n, many in ((ANN, 1, 11, 2), (ANN, 1, 12, 2), (BEA, 2, 21, 1))
    ]  # fmt: skip
    rows["studies"] = [
        {"study_uid": "2.25.1", "patient_id": ANN, "study_date": date(2012, 1, 1), "age_band_years": 55,
         "modalities": "MG", "n_series": 2, "n_instances": 4},
        {"study_uid": "2.25.2", "patient_id": BEA, "study_date": date(2013, 1, 1), "age_band_years": 90,
         "modalities": "MG", "n_series": 1, "n_instances": 1},
    ]  # fmt: skip
    rows["patients"] = [
        {"patient_id": p, "sex": "F", "n_studies": 1, "n_instances": n, "first_study_date": d, "last_study_date": d}
        for p, n, d in ((ANN, 4, date(2012, 1, 1)), (BEA, 1, date(2013, 1, 1)))
    ]  # fmt: skip
    rows["episodes"] = [
        {"patient_id": p, "episode_id": f"I{n:016X}", "episode_type": "C", "episode_date": date(2011, 12, 1),
         "appointment_made": "True", "date_of_foa": date(2011, 12, 24), "end_code": "SC"}
        for n, p in enumerate((ANN, BEA, "P" + "C" * 20))
    ]  # fmt: skip
    return rows


def made(rows):
    return {name: parquet.from_rows(SCHEMAS[name], some) for name, some in rows.items()}


def failing(validation, severity):
    return {(suite, line["type"].removeprefix("expect_"), line["column"])
            for suite, doc in validation.results.items()
            for line in doc["expectations"] if not line["success"] and line["severity"] == severity}  # fmt: skip


@pytest.fixture(scope="module")
def passed():
    return validate(made(good()), SUITES)


def test_good_tables_pass_and_every_expectation_of_the_files_was_answered(passed):
    in_files = {path.stem: len(json.loads(path.read_text())["expectations"]) for path in SUITES.glob("*.json")
                if path.stem in SCHEMAS}
    assert {suite: len(doc["expectations"]) for suite, doc in passed.results.items()} == in_files
    assert passed.expectations == sum(in_files.values())
    assert all(line["answered"] for doc in passed.results.values() for line in doc["expectations"])
    assert (passed.critical, passed.withheld, passed.dropped) == ([], {}, {})
    assert failing(passed, "critical") == failing(passed, "warning") == set()
    # one of three episodes is of a person without an image: reported, never dropped
    assert ("episodes", "column_values_to_be_in_set", "patient_id_is_in_patients") in failing(passed, "info")
    assert passed.failed == len(failing(passed, "info"))


def test_the_suites_name_every_column_of_every_table(passed):
    for name, schema in SCHEMAS.items():
        named = {c for line in passed.results[name]["expectations"] for c in line["column"].split(", ")}
        assert set(schema.names()) <= named


def test_identities_stop_a_candidate():
    rows = good()
    rows["patients"][1]["patient_id"] = rows["studies"][1]["patient_id"] = "9434765919"
    rows["studies"][0]["study_uid"] = "1.2.826.0.1.3680043.8.498.1"
    rows["studies"][1]["age_band_years"] = 57
    rows["series"][0]["device_id"] = "SN-660417"
    rows["exposures"][0]["operator_id"] = "O0123456789AB\\CLUTTERBUCK"
    rows["instances"][0]["sop_instance_uid"] += "\n"
    rows["instances"][1]["path"] = rows["instances"][1]["path"].replace(ANN, BEA)
    rows["episodes"][0]["episode_id"] = "500010"
    critical = failing(validate(made(rows), SUITES), "critical")
    expected = {
        ("patients", "column_values_to_match_regex", "patient_id"),
        ("studies", "column_values_to_match_regex", "patient_id"),
        ("studies", "column_values_to_match_regex", "study_uid"),
        ("studies", "column_values_to_be_in_set", "age_band_years"),
        ("series", "column_values_to_match_regex", "device_id"),
        ("exposures", "column_values_to_match_regex", "operator_id"),
        ("instances", "column_values_to_match_regex", "sop_instance_uid"),
        ("instances", "column_pair_values_to_be_equal", "path, path_expected"),
        ("episodes", "column_values_to_match_regex", "episode_id"),
    }
    assert expected <= critical
    assert ("episodes", "column_values_to_match_regex", "patient_id") not in critical


def test_tables_that_disagree_stop_a_candidate():
    rows = good()
    rows["patients"][0]["n_studies"] = 2
    rows["studies"][0]["n_instances"] = 9
    rows["studies"].append(dict(rows["studies"][1]))
    rows["series"][2]["patient_id"] = ANN
    rows["exposures"][4]["sop_instance_uid"] = "2.25.999"
    rows["exposures"][3]["study_uid"] = "2.25.2"
    rows["instances"].append({**rows["instances"][0], "series_uid": "2.25.77"})
    validation = validate(made(rows), SUITES)
    expected = {
        ("patients", "column_pair_values_to_be_equal", "n_studies, n_studies_counted"),
        ("studies", "column_pair_values_to_be_equal", "n_instances, n_instances_counted"),
        ("studies", "column_values_to_be_unique", "study_uid"),
        ("series", "column_pair_values_to_be_equal", "patient_id, patient_id_of_studies"),
        ("exposures", "column_values_to_be_in_set", "sop_instance_uid_is_in_instances"),
        ("exposures", "column_pair_values_to_be_equal", "study_uid, study_uid_of_instances"),
        ("instances", "column_values_to_be_in_set", "series_uid_is_in_series"),
        ("instances", "column_values_to_be_unique", "sop_instance_uid"),
        ("instances", "column_values_to_be_unique", "path"),
    }
    assert expected <= failing(validation, "critical")
    assert len(validation.critical) == len(failing(validation, "critical"))
    assert "studies: expect_column_values_to_be_unique(study_uid)" in validation.critical


def test_an_undeclared_column_another_type_and_an_empty_release_stop_a_candidate():
    tables = made({**good(), "patients": []})
    tables["series"] = tables["series"].append_column("note", pa.array(["x"] * 3))
    place = tables["exposures"].schema.get_field_index("kvp_kv")
    tables["exposures"] = tables["exposures"].set_column(place, "kvp_kv", pa.array(["29"] * 5))
    critical = failing(validate(tables, SUITES), "critical")
    assert ("series", "table_columns_to_match_ordered_list", "") in critical
    assert ("exposures", "column_values_to_be_of_type", "kvp_kv") in critical
    assert ("patients", "table_row_count_to_be_between", "") in critical


def test_rows_that_fail_at_warning_are_withheld_with_their_images():
    rows = good()
    rows["exposures"][0]["kvp_kv"] = 290.0              # image 101
    rows["instances"][1]["view"] = "see note"           # image 102
    rows["series"][2]["modality"] = "mammo"             # Bea's only series: image 201
    rows["episodes"][1]["end_code"] = "see note"
    validation = validate(made(rows), SUITES)
    assert validation.withheld == dict.fromkeys(["2.25.101", "2.25.102", "2.25.201"], "expectation_failed")
    assert validation.dropped == {"episodes": [1]}
    assert validation.critical == []
    got = {name: (doc["failing_rows"], doc["withheld_instances"], doc["dropped_rows"])
           for name, doc in validation.results.items()}  # fmt: skip
    assert {name: counts for name, counts in got.items() if any(counts)} == {
        "series": (1, 1, 0), "instances": (1, 1, 0), "exposures": (1, 1, 0), "episodes": (1, 0, 1)}  # fmt: skip


def test_a_failing_patient_or_study_takes_all_its_images_along():
    rows = good()
    rows["patients"][0]["sex"] = "woman"
    rows["studies"][1]["study_date"] = date(1066, 10, 14)
    validation = validate(made(rows), SUITES)
    assert list(validation.withheld) == ["2.25.101", "2.25.102", "2.25.103", "2.25.104", "2.25.201"]


WORD, NUMBER = "ZEBEDEE-SENTINEL", 987654.25


def test_no_cell_stands_in_a_result_or_is_printed(capfd, caplog):
    rows = good()
    for name, row in ((name, row) for name, some in rows.items() for row in some):
        for column, value in row.items():
            if isinstance(value, str):
                row[column] = f"{WORD}-{name}-{column}"
            elif isinstance(value, float):
                row[column] = NUMBER
            elif isinstance(value, int) and not isinstance(value, bool):
                row[column] = int(NUMBER)
            elif isinstance(value, date):
                row[column] = date(1815, 6, 18)
    validation = validate(made(rows), SUITES)
    assert validation.failed > 60
    said = json.dumps(validation.results) + " ".join(validation.critical) + "".join(capfd.readouterr()) + caplog.text
    assert "ZEBEDEE" not in said
    assert "987654" not in said
    assert "1815" not in said


def test_the_same_tables_give_the_same_bytes(passed):
    again = validate(made(good()), SUITES)
    assert json.dumps(again.results) == json.dumps(passed.results)
    names = Counter(key for doc in again.results.values() for line in doc["expectations"] for key in line)
    assert set(names) == {"type", "column", "expected", "severity", "success", "answered", "element_count",
                          "unexpected_count", "unexpected_percent", "why", "source"}  # fmt: skip


def test_importing_the_room_imports_neither_gx_nor_pandas():
    code = "import sys, pipeline.validate.run; print([m for m in ('great_expectations', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=SUITES.parent)
    assert done.stdout.strip() == "[]"
