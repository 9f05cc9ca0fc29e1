"""Tables from hand-made facts, with the expected rows spelled out."""

from datetime import date

import pyarrow as pa
import pytest

from pipeline import layout
from pipeline.curate.build import build, images
from pipeline.errors import NotFound, SchemaTooNew
from pipeline.schemas import FACTS, PUBLISHED, Column, Table, arrow_schema
from pipeline.storage import open_store, tables

PROJECT = "breast"
ANN, BEA = "P" + "A" * 20, "P" + "B" * 20
MG_CLASS = "1.2.840.10008.5.1.4.1.1.1.2"
SENOGRAPH = {
    "PatientSex": ["F"], "StudyDate": ["20130412"], "PatientAge": ["055Y"], "Modality": ["MG"],
    "Manufacturer": ["GE MEDICAL SYSTEMS"], "ManufacturerModelName": ["Senograph DS ADS_43.10.1"],
    "DeviceSerialNumber": ["D0123456789AB"], "SoftwareVersions": ["A", "B"], "SOPClassUID": [MG_CLASS],
    "ImageType": ["DERIVED", "PRIMARY", ""], "PresentationIntentType": ["FOR PRESENTATION"], "ImageLaterality": ["L"],
    "Laterality": ["R"], "ViewCodeSequence.CodeValue": ["R-10242"],
    "ViewCodeSequence.CodingSchemeDesignator": ["SNM3"], "ViewPosition": ["MLO"], "Rows": ["2294"],
    "Columns": ["1914"], "TransferSyntaxUID": ["1.2.840.10008.1.2.1"], "KVP": ["29"], "ExposureInuAs": ["51800"],
    "Exposure": ["52"], "ExposureTime": ["834"], "XRayTubeCurrent": ["61"], "AnodeTargetMaterial": ["RHODIUM"],
    "FilterMaterial": ["RHODIUM"], "BodyPartThickness": ["53"], "CompressionForce": ["50"], "OrganDose": ["0.01373"],
    "EntranceDoseInmGy": ["5.071"], "ExposureControlMode": ["AUTOMATIC"], "PositionerPrimaryAngle": ["0"],
    "Grid": ["RECIPROCATING", "FOCUSED"], "OperatorsName": ["O0123456789AB"],
}  # fmt: skip


def uid(n):
    return f"2.25.{n}"


def row(patient, study, series, instance, elements, **changed):
    digest = instance.to_bytes(32, "big")
    elements = {**elements, **changed}
    return {"patient": patient, "study": uid(study), "series": uid(series), "instance": uid(instance),
            "key": f"{PROJECT}/parts/x/dicom/{instance}.dcm", "sha256": digest, "bytes": 1000 + instance,
            **{path: value for path, value in elements.items() if value is not None}}  # fmt: skip


def put(store, part, rows):
    paths = sorted({path for r in rows for path in r} - set(FACTS.names()))
    extra = tuple(Column(path, "strings", "") for path in paths)
    tables.write(store, layout.facts(PROJECT, part), tables.from_rows(FACTS, rows, extra))


def plan(*parts, held=(), clinical=None):
    return {"parts": list(parts), "held": dict.fromkeys(held, "residual_identifier"), "clinical": clinical}


@pytest.fixture
def store(tmp_path):
    return open_store((tmp_path / "candidate").as_uri(), "candidate")


def one(store, **changed):
    """The single exposure, or instance, of one mammogram with some elements changed."""
    put(store, "p-1", [row(ANN, 1, 2, 3, SENOGRAPH, **changed)])
    return build(store, PROJECT, plan("p-1"))


def test_a_mammogram_gives_every_column_its_value(store):
    made = one(store)
    assert made["exposures"].to_pylist() == [{
        "exposure_id": "2.25.3", "patient_id": ANN, "study_uid": "2.25.1", "series_uid": "2.25.2",
        "sop_instance_uid": "2.25.3", "n_images": 1, "report_uid": None, "report_match": None, "basis": "header",
        "modality": "MG", "acquisition_order": None, "laterality": "L",
        "laterality_source": "ImageLaterality (0020,0062)", "view": "CC", "view_source": "ViewCodeSequence (0054,0220)",
        "view_modifiers": None, "presentation_intent": "FOR PRESENTATION", "is_tomosynthesis": False,
        "is_repeat": False, "is_rejected": None, "kvp_kv": 29.0, "kvp_kv_source": "KVP (0018,0060) kV",
        "exposure_mas": 51.8, "exposure_mas_source": "ExposureInuAs (0018,1153) µAs × 0.001",
        "exposure_time_ms": 834.0, "exposure_time_ms_source": "ExposureTime (0018,1150) ms",
        "tube_current_ma": 61.0, "tube_current_ma_source": "XRayTubeCurrent (0018,1151) mA",
        "anode": "RHODIUM", "anode_source": "AnodeTargetMaterial (0018,1191)",
        "filter_material": "RHODIUM", "filter_material_source": "FilterMaterial (0018,7050)",
        "filter_thickness_mm": None, "filter_thickness_mm_source": None, "body_part_thickness_mm": 53.0,
        "body_part_thickness_mm_source": "BodyPartThickness (0018,11A0) mm", "compression_force_n": 50.0,
        "compression_force_n_source": "CompressionForce (0018,11A2) N, not dN: PS3.3 C.8.11.7",
        "compression_pressure_kpa": None, "compression_pressure_kpa_source": None,
        "compression_contact_area_mm2": None, "compression_contact_area_mm2_source": None, "paddle": None,
        "average_glandular_dose_mgy": 1.373, "average_glandular_dose_mgy_source": "OrganDose (0040,0316) dGy × 100",
        "entrance_dose_mgy": 5.071, "entrance_dose_mgy_source": "EntranceDoseInmGy (0040,8302) mGy",
        "half_value_layer_mm": None, "half_value_layer_mm_source": None, "exposure_control_mode": "AUTOMATIC",
        "exposure_control_description": None, "positioner_primary_angle_deg": 0.0, "grid": "RECIPROCATING\\FOCUSED",
        "manufacturer": "GE MEDICAL SYSTEMS", "model": "Senograph DS ADS_43.10.1", "device_id": "D0123456789AB",
        "operator_id": "O0123456789AB",
    }]  # fmt: skip
    digest = (3).to_bytes(32, "big").hex()
    assert made["instances"].to_pylist() == [{
        "sop_instance_uid": "2.25.3", "series_uid": "2.25.2", "study_uid": "2.25.1", "patient_id": ANN,
        "sop_class_uid": MG_CLASS,
        "sop_class_name": "Digital Mammography X-Ray Image Storage - For Presentation", "modality": "MG",
        "image_type": "DERIVED\\PRIMARY\\", "presentation_intent": "FOR PRESENTATION", "laterality": "L", "view": "CC",
        "rows": 2294, "columns": 1914, "frames": 1, "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "exposure_id": "2.25.3",
        "path": f"{ANN}/2.25.1/2.25.2/2.25.3.{digest[:12]}.dcm", "sha256": digest, "bytes": 1003,
    }]  # fmt: skip
    assert made["series"].to_pylist() == [{
        "series_uid": "2.25.2", "study_uid": "2.25.1", "patient_id": ANN, "modality": "MG",
        "manufacturer": "GE MEDICAL SYSTEMS", "model": "Senograph DS ADS_43.10.1", "device_id": "D0123456789AB",
        "software_versions": "A\\B", "n_instances": 1,
    }]  # fmt: skip
    assert made["studies"].to_pylist() == [{
        "study_uid": "2.25.1", "patient_id": ANN, "study_date": date(2013, 4, 12), "age_band_years": 55,
        "modalities": "MG", "n_series": 1, "n_instances": 1,
    }]  # fmt: skip
    assert made["patients"].to_pylist() == [{
        "patient_id": ANN, "sex": "F", "n_studies": 1, "n_instances": 1,
        "first_study_date": date(2013, 4, 12), "last_study_date": date(2013, 4, 12),
    }]  # fmt: skip
    assert (made.malformed, made.contradictions) == ({}, {})


def test_schemas_are_those_of_the_dictionary(store):
    made = one(store)
    for table in PUBLISHED:
        assert made[table.name].schema.equals(arrow_schema(table), check_metadata=True)


def test_images_name_the_file_here_and_in_the_release(store):
    put(store, "p-1", [row(ANN, 1, 2, 4, SENOGRAPH), row(ANN, 1, 2, 3, SENOGRAPH)])
    digest = [n.to_bytes(32, "big").hex() for n in (3, 4)]
    assert images(store, PROJECT, plan("p-1"))["images"].to_pylist() == [
        {"instance": f"2.25.{n}", "key": f"{PROJECT}/parts/x/dicom/{n}.dcm",
         "path": f"{ANN}/2.25.1/2.25.2/2.25.{n}.{d[:12]}.dcm", "sha256": d, "bytes": 1000 + n}
        for n, d in zip((3, 4), digest, strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize(("element", "value", "column", "expected"), [
    ("ExposureInuAs", None, "exposure_mas", 52.0),
    ("ExposureInuAs", ["0"], "exposure_mas", 52.0),
    ("ExposureInuAs", [""], "exposure_mas", 52.0),
    ("ExposureInuAs", ["+4.441e4"], "exposure_mas", 44.41),
    ("OrganDose", ["0.00547"], "average_glandular_dose_mgy", 0.547),
    ("KVP", [" 26.5 "], "kvp_kv", 26.5),
    ("ImageLaterality", None, "laterality", "R"),
    ("ImageLaterality", [""], "laterality", "R"),
    ("ManufacturerModelName", ["Mammomat Inspiration"], "compression_force_n", 50.0),
])  # fmt: skip
def test_conversions(store, element, value, column, expected):
    made = one(store, **{element: value})
    assert made["exposures"][column].to_pylist() == [expected]
    assert made.malformed == {}


@pytest.mark.parametrize(("element", "value", "table", "column"), [
    ("KVP", ["0"], "exposures", "kvp_kv"),
    ("KVP", ["twenty"], "exposures", "kvp_kv"),
    ("KVP", ["28", "29"], "exposures", "kvp_kv"),
    ("KVP", ["NaN"], "exposures", "kvp_kv"),
    ("KVP", ["1e999"], "exposures", "kvp_kv"),
    ("KVP", ["28 kV"], "exposures", "kvp_kv"),
    ("KVP", ["2,8"], "exposures", "kvp_kv"),
    ("ExposureInuAs", ["many"], "exposures", "exposure_mas"),       # and not the Exposure beside it
    ("Rows", ["2147483648"], "instances", "rows"),
    ("Rows", ["12.0"], "instances", "rows"),
    ("StudyDate", ["2013.04.12"], "studies", "study_date"),
    ("StudyDate", ["20130230"], "studies", "study_date"),
    ("PatientAge", ["006M"], "studies", "age_band_years"),
    ("NumberOfFrames", ["1A"], "instances", "frames"),
])  # fmt: skip
def test_a_malformed_value_is_null_and_counted(store, element, value, table, column):
    made = one(store, **{element: value})
    assert made[table][column].to_pylist() == [None]
    assert made.malformed == {column: 1}


@pytest.mark.parametrize(("code", "scheme", "position", "expected"), [
    ("399162004", "SCT", "MLO", "CC"), ("R-10226", "SRT", None, "MLO"), ("R-40AAA", "SNM3", None, "ISO"),
    ("Y-X1770", "SNM3", None, "XCCL"), ("G-8310", "SRT", None, "SPECIMEN"), ("R-10206", "SRT", "AP", "AP"),
    ("399162004", "99LOCAL", "MLO", "MLO"), (None, None, "CC", "CC"), (None, None, None, None),
])  # fmt: skip
def test_view(store, code, scheme, position, expected):
    made = one(store, **{
        "ViewCodeSequence.CodeValue": code and [code], "ViewCodeSequence.CodingSchemeDesignator": scheme and [scheme],
        "ViewPosition": position and [position],
    })  # fmt: skip
    assert made["instances"]["view"].to_pylist() == [expected]


def test_two_view_codes_are_no_view_code(store):
    made = one(store, **{"ViewCodeSequence.CodeValue": ["R-10242", "R-10226"],
                         "ViewCodeSequence.CodingSchemeDesignator": ["SRT", "SRT"]})  # fmt: skip
    assert made["instances"]["view"].to_pylist() == ["MLO"]


@pytest.mark.parametrize(("changed", "rows"), [
    ({}, 1),
    ({"KVP": None, "ExposureInuAs": None}, 1),
    ({"KVP": None, "ExposureInuAs": None, "Exposure": None}, 0),
    ({"KVP": ["0"], "ExposureInuAs": ["0"], "Exposure": ["0"]}, 0),
    ({"Modality": ["DX"]}, 1),
    ({"Modality": ["CT"]}, 0),
    ({"Modality": None}, 0),
])  # fmt: skip
def test_which_images_have_an_exposure(store, changed, rows):
    assert one(store, **changed)["exposures"].num_rows == rows


def test_parents_count_their_children_over_parts(store):
    put(store, "p-1", [row(ANN, 1, 2, 3, SENOGRAPH), row(ANN, 1, 2, 4, SENOGRAPH),
                       row(BEA, 9, 10, 11, {"Modality": ["CT"], "SOPClassUID": [MG_CLASS]})])
    put(store, "p-2", [row(ANN, 5, 6, 7, SENOGRAPH, StudyDate=["20140412"], Modality=["DX"]),
                       row(ANN, 5, 8, 12, SENOGRAPH, StudyDate=["20140412"])])
    made = build(store, PROJECT, plan("p-2", "p-1"))
    assert made["patients"].select(["patient_id", "n_studies", "n_instances", "last_study_date"]).to_pylist() == [
        {"patient_id": ANN, "n_studies": 2, "n_instances": 4, "last_study_date": date(2014, 4, 12)},
        {"patient_id": BEA, "n_studies": 1, "n_instances": 1, "last_study_date": None},
    ]
    assert made["studies"].select(["study_uid", "modalities", "n_series", "n_instances"]).to_pylist() == [
        {"study_uid": "2.25.1", "modalities": "MG", "n_series": 1, "n_instances": 2},
        {"study_uid": "2.25.5", "modalities": "DX\\MG", "n_series": 2, "n_instances": 2},
        {"study_uid": "2.25.9", "modalities": "CT", "n_series": 1, "n_instances": 1},
    ]
    assert made["instances"]["sop_instance_uid"].to_pylist() == sorted(f"2.25.{n}" for n in (3, 4, 7, 11, 12))


def test_what_images_contradict_is_null_and_counted(store):
    put(store, "p-1", [row(ANN, 1, 2, 3, SENOGRAPH), row(ANN, 1, 2, 4, SENOGRAPH, PatientSex=["M"], StudyDate=None,
                                                         Manufacturer=["HOLOGIC, Inc."])])  # fmt: skip
    made = build(store, PROJECT, plan("p-1"))
    assert made["patients"]["sex"].to_pylist() == [None]
    assert made["series"]["manufacturer"].to_pylist() == [None]
    assert made["studies"]["study_date"].to_pylist() == [date(2013, 4, 12)]     # absent contradicts nothing
    assert made.contradictions == {"sex": 1, "manufacturer": 1}


def test_the_same_key_under_two_parents_stays_two_rows(store):
    """Nothing is merged in silence: the key is not unique, and validation stops the candidate."""
    put(store, "p-1", [row(ANN, 1, 2, 3, SENOGRAPH), row(BEA, 1, 2, 4, SENOGRAPH)])
    put(store, "p-2", [row(ANN, 1, 2, 3, SENOGRAPH)])
    made = build(store, PROJECT, plan("p-1", "p-2"))
    assert made["studies"]["study_uid"].to_pylist() == ["2.25.1", "2.25.1"]
    assert made["instances"]["sop_instance_uid"].to_pylist() == ["2.25.3", "2.25.3", "2.25.4"]


def test_held_and_withheld_instances_are_gone_before_anything_is_counted(store):
    put(store, "p-1", [row(ANN, 1, 2, n, SENOGRAPH) for n in (3, 4, 5)] + [row(BEA, 6, 7, 8, SENOGRAPH)])
    chosen = plan("p-1", held=["2.25.3"])
    made = build(store, PROJECT, chosen, without={"2.25.8": "expectation_failed"})
    assert made["patients"].select(["patient_id", "n_instances"]).to_pylist() == [{"patient_id": ANN, "n_instances": 2}]
    assert made["studies"]["study_uid"].to_pylist() == ["2.25.1"]
    assert made["exposures"]["sop_instance_uid"].to_pylist() == ["2.25.4", "2.25.5"]
    kept = images(store, PROJECT, chosen, without={"2.25.8": "expectation_failed"})["images"]
    assert kept["instance"].to_pylist() == made["instances"]["sop_instance_uid"].to_pylist()


EPISODES = Table("episodes", "", (), (Column("patient_id", "string", ""), Column("episode_date", "date", "")))


def test_clinical_rows_of_people_without_images_stay(store):
    put(store, "p-1", [row(ANN, 1, 2, 3, SENOGRAPH)])
    rows = [{"patient_id": p, "episode_date": date(2013, 1, d)} for p, d in ((BEA, 2), (ANN, 3), (BEA, 1))]
    tables.write(store, layout.clinical(PROJECT, "q-1", "episodes"), tables.from_rows(EPISODES, rows))
    chosen = plan("p-1", clinical={"id": "q-1", "tables": ["episodes"]})

    def episodes(**options):
        made = build(store, PROJECT, chosen, **options)["episodes"]
        return [(r["patient_id"], r["episode_date"].day) for r in made.to_pylist()]

    assert episodes() == [(BEA, 2), (ANN, 3), (BEA, 1)]
    assert episodes(dropped={"episodes": [1]}) == [(BEA, 2), (BEA, 1)]


def test_same_rows_same_bytes_whatever_their_order(store):
    rows = [row(ANN, 1, 2, n, SENOGRAPH, KVP=[str(20 + n)]) for n in range(3, 40)]
    put(store, "p-1", rows)
    put(store, "p-2", rows[20:] + rows[:20])
    first, second = build(store, PROJECT, plan("p-1")), build(store, PROJECT, plan("p-2"))
    assert {n: tables.to_bytes(t) for n, t in first.items()} == {n: tables.to_bytes(t) for n, t in second.items()}


def test_a_plan_without_a_kept_instance_gives_empty_tables(store):
    put(store, "p-1", [row(ANN, 1, 2, 3, SENOGRAPH)])
    made = build(store, PROJECT, plan("p-1", held=["2.25.3"]))
    assert {name: table.num_rows for name, table in made.items()} == dict.fromkeys(made, 0)
    assert build(store, PROJECT, plan())["instances"].schema == made["instances"].schema


def test_missing_and_newer_facts_are_refused(store):
    with pytest.raises(NotFound):
        build(store, PROJECT, plan("p-1"))
    put(store, "p-1", [row(ANN, 1, 2, 3, SENOGRAPH)])
    table = tables.read(store, layout.facts(PROJECT, "p-1"))
    tables.write(store, layout.facts(PROJECT, "p-1"), table.replace_schema_metadata({"schema_version": "99"}))
    with pytest.raises(SchemaTooNew):
        build(store, PROJECT, plan("p-1"))
    assert isinstance(table, pa.Table)
