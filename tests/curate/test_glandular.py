"""Mean glandular dose: hand-worked values, every reason why there is none, properties."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.curate.factors import read
from pipeline.curate.glandular import MEANINGS, NotComputed, doses
from pipeline.schemas import EXPOSURES, GLANDULAR_DOSES, OUTPUT, STUDIES, SURVEYS, arrow_schema
from pipeline.storage import tables
from pipeline.synthetic import dosimetry

ANN, SET = "P" + "A" * 20, "D0123456789AB"
EXPOSURE = {
    "exposure_id": "2.25.7", "patient_id": ANN, "study_uid": "2.25.1", "n_images": 1, "basis": "header",
    "modality": "MG", "view": "CC", "is_tomosynthesis": False, "kvp_kv": 28.0, "exposure_mas": 100.0,
    "body_part_thickness_mm": 50.0, "anode": "TUNGSTEN", "filter_material": "RHODIUM", "device_id": SET,
    "model": "Model A",
}  # fmt: skip
# At 28 kV and 30 kV; 50 µGy/mAs at 1 m; the breast support 650 mm from the focus.
MEASURED = [{"device_id": SET, "survey": "V1", "anode": "TUNGSTEN", "filter": "RHODIUM", "kv": kv,
             "output_ugy_per_mas": output, "distance_mm": 1000.0, "hvl_mm": hvl, "focus_table_mm": 650.0}
            for kv, output, hvl in ((28.0, 50.0, 0.30), (30.0, 60.0, 0.34))]  # fmt: skip
FACTORS = """factor,model,anode,filter,age_from,age_to,thickness_mm,hvl_mm,value,source
g,,,,,,40,0.3,0.50,made up
g,,,,,,60,0.3,0.30,made up
g,,,,,,40,0.4,0.60,made up
g,,,,,,60,0.4,0.40,made up
c,,,,50,64,40,,1.00,made up
c,,,,50,64,60,,1.10,made up
s,,W,Rh,,,,,1.25,made up
t,Model A,,,,,40,,0.95,made up
t,Model A,,,,,60,,0.85,made up
"""


ROW_REASONS = ("wrong_number_of_cells", "bad_number", "bad_date", "dates_reversed", "no_serial_number", "no_spectrum",
               "out_of_range", "dates_overlap", "repeated", "valid_too_short")


@pytest.fixture(scope="module")
def factors(tmp_path_factory):
    path = tmp_path_factory.mktemp("f") / "factors.csv"
    path.write_text(FACTORS)
    return read(path)


def tables_of(exposures, age=50, measured=MEASURED, surveys=(("2.25.1", SET, "V1"),)):
    rows = [{"study_uid": "2.25.1", "patient_id": ANN, "n_series": 1, "n_instances": 1, "age_band_years": age}]
    names = ("study_uid", "device_id", "survey")
    return SimpleNamespace(
        exposures=tables.from_rows(EXPOSURES, exposures), studies=tables.from_rows(STUDIES, rows),
        output=tables.from_rows(OUTPUT, measured),
        surveys=tables.from_rows(SURVEYS, [dict(zip(names, row, strict=True)) for row in surveys]))  # fmt: skip


def one(factors, age=50, measured=MEASURED, surveys=(("2.25.1", SET, "V1"),), **changed):
    given_ = tables_of([EXPOSURE | changed], age, measured, surveys)
    (row,) = doses(given_.exposures, given_.studies, given_.output, given_.surveys, factors).to_pylist()
    return row


def test_an_exposure_worked_out_by_hand(factors):
    """K = 50 × 100 × (1000 / (650 − 50))² / 1000 = 13.8889 mGy; g at 50 mm and 0.30 mm is 0.40, c 1.05, s 1.25."""
    kerma = 50 * 100 * (1000 / 600) ** 2 / 1000
    row = one(factors)
    assert row == {
        "exposure_id": "2.25.7", "patient_id": ANN, "study_uid": "2.25.1", "device_id": SET,
        "mean_glandular_dose_mgy": pytest.approx(kerma * 0.40 * 1.05 * 1.25), "t": None,
        "incident_air_kerma_mgy": pytest.approx(13.888889), "hvl_mm": pytest.approx(0.30), "g": pytest.approx(0.40),
        "c": pytest.approx(1.05), "s": 1.25, "factors": "factors.csv", "synthetic": False, "not_computed": None,
    }  # fmt: skip
    assert row["mean_glandular_dose_mgy"] == pytest.approx(7.291667)


def test_between_two_voltages_and_from_another_distance(factors):
    """At 29 kV: 55 µGy/mAs, HVL 0.32 mm, so g is 0.42. Output given at 600 mm is that of the breast's surface here."""
    near = [row | {"distance_mm": 600.0} for row in MEASURED]
    row = one(factors, measured=near, kvp_kv=29.0)
    assert row["incident_air_kerma_mgy"] == pytest.approx(5.5)
    assert (row["hvl_mm"], row["g"]) == (pytest.approx(0.32), pytest.approx(0.42))
    assert row["mean_glandular_dose_mgy"] == pytest.approx(5.5 * 0.42 * 1.05 * 1.25)


def test_a_tomosynthesis_has_a_factor_more(factors):
    row = one(factors, is_tomosynthesis=True)
    assert row["t"] == pytest.approx(0.90)
    assert row["mean_glandular_dose_mgy"] == pytest.approx(7.291667 * 0.90)


@pytest.mark.parametrize(("why", "changed", "more"), [
    ("not_mammography", {"modality": "DX"}, {}), ("not_mammography", {"modality": None}, {}),
    ("specimen", {"view": "SPECIMEN"}, {}), ("magnification", {"view_modifiers": "Magnification\\SpotCompression"}, {}),
    ("no_device", {"device_id": None}, {}), ("no_spectrum", {"anode": None}, {}),
    ("no_spectrum", {"filter_material": None}, {}), ("no_kv", {"kvp_kv": None}, {}), ("no_kv", {"kvp_kv": 0.0}, {}),
    ("no_mas", {"exposure_mas": None}, {}), ("no_mas", {"exposure_mas": -5.0}, {}),
    ("no_thickness", {"body_part_thickness_mm": None}, {}), ("no_output", {"anode": "RHODIUM"}, {}),
    ("no_output", {}, {"measured": []}), ("no_output", {}, {"surveys": ()}),
    ("no_output", {}, {"surveys": (("2.25.2", SET, "V1"),)}), ("no_output", {}, {"surveys": (("2.25.1", SET, "V2"),)}),
    ("outside_output", {"kvp_kv": 27.9}, {}), ("outside_output", {"kvp_kv": 30.1}, {}),
    ("impossible_thickness", {"body_part_thickness_mm": 0.0}, {}),
    ("impossible_thickness", {"body_part_thickness_mm": -3.0}, {}),
    ("impossible_thickness", {"body_part_thickness_mm": 650.0}, {}),
    ("outside_table", {"body_part_thickness_mm": 39.9}, {}), ("outside_table", {"body_part_thickness_mm": 60.1}, {}),
    ("no_age", {}, {"age": None}), ("no_factor", {}, {"age": 45}),
    ("no_factor", {"is_tomosynthesis": True, "model": "Model B"}, {}),
])  # fmt: skip
def test_why_there_is_no_dose(factors, why, changed, more):
    row = one(factors, **more, **changed)
    assert row["not_computed"] == why
    numbers = ("mean_glandular_dose_mgy", "incident_air_kerma_mgy", "hvl_mm", "g", "c", "s", "t")
    assert {row[name] for name in numbers} == {None}


def test_two_surveys_on_one_day_are_not_chosen_from(factors):
    both = MEASURED + [row | {"survey": "V2"} for row in MEASURED]
    row = one(factors, measured=both, surveys=(("2.25.1", SET, "V1"), ("2.25.1", SET, "V2")))
    assert row["not_computed"] == "ambiguous_output"


def test_measurements_of_another_spectrum_are_beside_the_point(factors):
    other = MEASURED + [row | {"survey": "V2", "filter": "SILVER", "hvl_mm": 0.4} for row in MEASURED]
    row = one(factors, measured=other, surveys=(("2.25.1", SET, "V1"), ("2.25.1", SET, "V2")))
    assert (row["not_computed"], row["hvl_mm"]) == (None, pytest.approx(0.30))


def test_exposures_of_many_kinds_each_have_their_own_factors(factors):
    """Two ages, two models, with and without tomosynthesis, mixed: as one by one."""
    kinds = [{"study_uid": study, "model": model, "is_tomosynthesis": swept}
             for study in ("2.25.1", "2.25.2") for model in ("Model A", "Model B") for swept in (False, True)]
    rows = [EXPOSURE | kind | {"exposure_id": f"2.25.{n:03d}", "body_part_thickness_mm": 40.0 + n}
            for n, kind in enumerate(kinds * 2)]  # fmt: skip
    given_ = tables_of(rows, surveys=(("2.25.1", SET, "V1"), ("2.25.2", SET, "V1")))
    young = {"study_uid": "2.25.2", "patient_id": ANN, "n_series": 1, "n_instances": 1, "age_band_years": 45}
    studies = pa.concat_tables([given_.studies, tables.from_rows(STUDIES, [young])])
    together = doses(given_.exposures, studies, given_.output, given_.surveys, factors).to_pylist()
    alone = [doses(tables.from_rows(EXPOSURES, [row]), studies, given_.output, given_.surveys, factors).to_pylist()[0]
             for row in rows]  # fmt: skip
    assert together == alone
    assert {row["not_computed"] for row in together} == {None, "no_factor"}


def test_without_a_factor_table_every_exposure_still_has_its_row():
    row = one(None)
    assert (row["not_computed"], row["factors"], row["synthetic"]) == ("no_factors", None, False)
    assert one(None, modality="CR")["not_computed"] == "not_mammography"


def test_every_reason_has_a_meaning_and_stands_in_the_page():
    page = (Path(__file__).parents[2] / "docs" / "glandular-dose.md").read_text()
    assert set(MEANINGS) == set(NotComputed)
    assert not [why for why in (*NotComputed, *ROW_REASONS) if f"`{why}`" not in page]


def test_made_up_factors_mark_every_row(tmp_path):
    path = tmp_path / dosimetry.FACTORS_NAME
    path.write_text(dosimetry.factors_csv())
    made_up = read(path)
    assert one(made_up)["synthetic"] and one(made_up, kvp_kv=None)["synthetic"]
    assert one(made_up)["mean_glandular_dose_mgy"] > 0


def test_rows_are_by_exposure_and_the_same_whatever_their_order(factors):
    rows = [EXPOSURE | {"exposure_id": f"2.25.{n}", "kvp_kv": 28 + n / 10, "exposure_mas": None if n == 4 else 50.0 + n}
            for n in range(8)]  # fmt: skip
    made = []
    for order in (rows, rows[::-1]):
        some = tables_of(order)
        made.append(doses(some.exposures, some.studies, some.output, some.surveys, factors))
    assert made[0]["exposure_id"].to_pylist() == [f"2.25.{n}" for n in range(8)]
    assert tables.to_bytes(made[0]) == tables.to_bytes(made[1])
    assert made[0].schema.equals(arrow_schema(GLANDULAR_DOSES), check_metadata=True)
    empty = tables_of([])
    assert doses(empty.exposures, empty.studies, empty.output, empty.surveys, factors).num_rows == 0


@settings(max_examples=40, deadline=None)
@given(st.floats(28, 30), st.floats(40, 60), st.floats(0.1, 1000))
def test_dose_follows_mas_and_lies_between_what_its_corners_give(factors, kv, thickness, mas):
    """Twice the mAs, twice the dose; factors and kerma lie between those of the nodes around."""
    some = [EXPOSURE | {"exposure_id": f"2.25.{n}", "kvp_kv": kv, "body_part_thickness_mm": thickness,
                        "exposure_mas": mas * n} for n in (1, 2)]  # fmt: skip
    got = tables_of(some)
    made = doses(got.exposures, got.studies, got.output, got.surveys, factors)
    first, second = made["mean_glandular_dose_mgy"].to_pylist()
    assert second == pytest.approx(2 * first)
    near, far = (1000 / (650 - at) for at in (60, 40))
    assert 50 * mas * far**2 / 1000 <= made["incident_air_kerma_mgy"][0].as_py() * (1 + 1e-12)
    assert made["incident_air_kerma_mgy"][0].as_py() <= 60 * mas * near**2 / 1000 * (1 + 1e-12)
    assert 0.30 - 1e-12 <= made["g"][0].as_py() <= 0.60


def test_many_exposures_are_worked_out_together(factors):
    """One query and one interpolation for all of them: 50,000 in a few seconds."""
    size = 50_000
    thickness = 40 + np.arange(size) % 20
    some = tables_of([EXPOSURE])
    columns = {f.name: some.exposures[f.name].take(pa.array(np.zeros(size, np.int64))) for f in some.exposures.schema}
    columns["exposure_id"] = pa.array([f"2.25.{n:06d}" for n in range(size)])
    columns["body_part_thickness_mm"] = pa.array(thickness, pa.float64())
    many = pa.table(columns, schema=arrow_schema(EXPOSURES))
    made = doses(many, some.studies, some.output, some.surveys, factors)
    g = np.array(made["g"].to_pylist())
    assert np.allclose(g, 0.5 - 0.01 * (thickness - 40))
    assert made["not_computed"].null_count == size
