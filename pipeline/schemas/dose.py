"""Tables of exposures and dose: one row per irradiation, from image headers and dose reports."""

from __future__ import annotations

from pipeline.schemas.base import Column, Table
from pipeline.schemas.base import column as _c

_SOURCE = "_source"


def _stated(name: str, type_: str, meaning: str, unit: str = "", source: str = "") -> tuple[Column, Column]:
    """A harmonised value, and beside it where it was read and how it was converted."""
    return (Column(name, "float64" if type_ == "n" else "string", meaning, unit, source),
            Column(name + _SOURCE, "term", f"Where {name} was read, and its conversion."))


EXPOSURES = Table("exposures", "A row per irradiation by projection x-ray (CR, DX, IO, MG, PX, RF, XA): of every image "
                  "that states a kV or mAs above zero, and of every irradiation event of a mammography dose report. "
                  "Copies of one exposure (for processing, for presentation, reconstructed) share its row.",
                  ("exposure_id",), (
    _c("exposure_id", "string", "Remapped Irradiation Event UID; where there is none, SOP Instance UID of the image.",
       null=False),
    _c("patient_id", "string", "Pseudonym of the person.", null=False),
    _c("study_uid", "string", "", null=False),
    _c("series_uid", "string", "Of the image; null where only a report tells of the exposure."),
    _c("sop_instance_uid", "string", "The image that stands for it: for processing before for presentation."),
    _c("n_images", "int32", "Images of this exposure in this release; `instances.exposure_id` names them.", null=False),
    _c("report_uid", "string", "SOP Instance UID of the dose report that tells of it."),
    _c("report_match", "string", "How report and image were joined: event (Irradiation Event UID), image (Acquired "
       "Image) or view (the only one of its study, side and view on both sides)."),
    _c("basis", "string", "header, report or both.", null=False),
    _c("modality", "string", "", source="Modality (0008,0060); MG where a mammography dose report alone tells of it"),
    _c("acquisition_order", "int32", "Rank in the study by when it was acquired, as header or report said before times "
       "were removed; the same moment shares it.", source="FACTS.acquisition_order, else 111526 DCM of the report"),
    *_stated("laterality", "s", "R, L, B or U.", "", "ImageLaterality (0020,0062), Laterality (0020,0060), "
             "FrameLaterality (0020,9072); G-C171 SRT or 272741003 SCT"),
    *_stated("view", "s", "CC, MLO, ...", "", "ViewCodeSequence (0054,0220), else ViewPosition (0018,5101); 111031 "
             "DCM"),
    _c("view_modifiers", "string", "Keywords of PS3.16 CID 4015, sorted, joined with a backslash: Magnification.",
       source="ViewModifierCodeSequence (0054,0222); 111032 DCM"),
    _c("presentation_intent", "string", "Of the image that stands for it.",
       source="PresentationIntentType (0008,0068)"),
    _c("is_tomosynthesis", "bool", "Breast tomosynthesis, or a projection of one.", source="SOP class, ImageType "
       "(0008,0008); 113721 DCM Rotational or Stepping Acquisition", null=False),
    _c("is_repeat", "bool", "Where the report says; else whether one of the same study, side, view, modifiers and "
       "technique was acquired before. Null where their order is not known, and for partial views.",
       source="128551 DCM; acquisition_order"),
    _c("is_rejected", "bool", "Null where no file says.", source="130503 DCM; key objects 113001 DCM, 113037 DCM"),
    *_stated("kvp_kv", "n", "Peak kilovoltage.", "kV", "KVP (0018,0060); 113733 DCM"),
    *_stated("exposure_mas", "n", "Tube current-time product.", "mAs",
             "ExposureInuAs (0018,1153), Exposure (0018,1152), ExposureInmAs (0018,9332); 113736 DCM"),
    *_stated("exposure_time_ms", "n", "", "ms", "ExposureTime (0018,1150), ExposureTimeInms (0018,9328); 113824 DCM"),
    *_stated("tube_current_ma", "n", "", "mA",
             "XRayTubeCurrent (0018,1151), XRayTubeCurrentInmA (0018,9330); 113734 DCM"),
    *_stated("anode", "s", "MOLYBDENUM, RHODIUM or TUNGSTEN.", "",
             "AnodeTargetMaterial (0018,1191); 111632 or 113632 DCM"),
    *_stated("filter_material", "s", "MOLYBDENUM, RHODIUM, SILVER, ALUMINUM, COPPER, ...; several joined with a "
             "backslash.", "", "FilterMaterial (0018,7050); 113757 DCM"),
    *_stated("filter_thickness_mm", "n", "Mean of least and greatest.", "mm",
             "FilterThicknessMinimum (0018,7052) and -Maximum (0018,7054); 113758 and 113773 DCM"),
    *_stated("body_part_thickness_mm", "n", "Compressed breast thickness in mammography.", "mm",
             "BodyPartThickness (0018,11A0); 111633 DCM"),
    *_stated("compression_force_n", "n", "", "N", "CompressionForce (0018,11A2); 111647 DCM"),
    *_stated("compression_pressure_kpa", "n", "", "kPa", "CompressionPressure (0018,11A3); 111648 DCM"),
    *_stated("compression_contact_area_mm2", "n", "", "mm2", "CompressionContactArea (0018,11A5); 111649 DCM"),
    _c("paddle", "string", "", source="PaddleDescription (0018,11A4)"),
    *_stated("average_glandular_dose_mgy", "n", "As the machine states it.", "mGy",
             "OrganDose (0040,0316); 111631 DCM"),
    *_stated("entrance_dose_mgy", "n", "As the machine states it: for which surface or thickness differs by vendor.",
             "mGy", "EntranceDoseInmGy (0040,8302); 111636 DCM"),
    *_stated("half_value_layer_mm", "n", "As the machine states it.", "mm",
             "HalfValueLayer (0040,0314); 111634 DCM"),
    _c("exposure_control_mode", "string", "", source="ExposureControlMode (0018,7060)"),
    _c("exposure_control_description", "string", "", source="ExposureControlModeDescription (0018,7062)"),
    _c("positioner_primary_angle_deg", "float64", "", "deg", "PositionerPrimaryAngle (0018,1510); 112011 DCM"),
    _c("grid", "string", "", source="Grid (0018,1166); 111635 DCM"),
    _c("manufacturer", "string", "", source="Manufacturer (0008,0070)"),
    _c("model", "string", "", source="ManufacturerModelName (0008,1090)"),
    _c("device_id", "string", "Pseudonym of the x-ray set.", source="DeviceSerialNumber (0018,1000)"),
    _c("operator_id", "string", "Pseudonym of the operator at this site.", source="OperatorsName (0008,1070)"),
), (("sop_instance_uid", "instances"), ("report_uid", "instances"), ("study_uid", "studies"),
    ("patient_id", "patients")))

DISCREPANCIES = Table("discrepancies", "A row per thing that is wrong with an exposure, or that its sources do not "
                      "agree on.", ("exposure_id", "quantity", "kind"), (
    _c("exposure_id", "string", "Null where it is about a report or an event that has no exposure of its own."),
    _c("report_uid", "string", "The report it is about, or that it was compared with."),
    _c("study_uid", "string", "", null=False),
    _c("patient_id", "string", "Pseudonym of the person.", null=False),
    _c("quantity", "string", "Column of exposures or irradiation_events that it is about; exposure: its existence.",
       null=False),
    _c("kind", "string", "What is wrong: header_report_differ, images_differ, reports_differ, zero, implausible, "
       "unit_unknown, unit_contradiction, unknown_term, several_values, no_event, no_event_uid, event_uid_reused, "
       "ambiguous_copy, ambiguous_report_event, no_image, no_report_event, one_projection, wrong_template, "
       "accumulated_differs.", null=False),
    _c("header_value", "float64", "As the header states it, in the column's unit."),
    _c("report_value", "float64", "As the report states it, in the column's unit."),
    _c("header_term", "string", "The same for a term."),
    _c("report_term", "string", "The same for a term; the code of an unknown unit."),
    _c("tolerance", "float64", "Greatest difference that would have been agreement."),
), (("report_uid", "instances"), ("study_uid", "studies"), ("patient_id", "patients")))

ACCUMULATED_DOSES = Table("accumulated_doses", "A row per total that a dose report states, as it states it.",
                          ("report_uid", "quantity", "laterality", "plane"), (
    _c("report_uid", "string", "SOP Instance UID of the dose report.", null=False),
    _c("study_uid", "string", "", null=False),
    _c("patient_id", "string", "Pseudonym of the person.", null=False),
    _c("laterality", "string", "R, L or B: the breast of an accumulated average glandular dose.",
       source="G-C171 SRT or 272741003 SCT below 111637 DCM"),
    _c("plane", "string", "Of a two-plane system.", source="113764 DCM"),
    _c("quantity", "string", "average_glandular_dose, dap, reference_point_dose, dlp, events, ...", null=False),
    _c("value", "float64", "In `unit`; null where the report has none, it is malformed or its unit is not known."),
    _c("unit", "string", "Of the value: mGy, Gy.m2, Gy, mGy.cm, s, 1.", null=False),
), (("report_uid", "instances"), ("study_uid", "studies"), ("patient_id", "patients")))

IRRADIATION_EVENTS = Table("irradiation_events", "A row per irradiation event of a dose report that is not a "
                           "mammogram's: CT, fluoroscopy, projection x-ray.", ("event_uid",), (
    _c("event_uid", "string", "Remapped Irradiation Event UID, as image headers of the event have it too; null where "
       "the report gives none."),
    _c("report_uid", "string", "SOP Instance UID of the dose report.", null=False),
    _c("node", "int32", "Place of the event in the report, in document order.", null=False),
    _c("study_uid", "string", "", null=False),
    _c("patient_id", "string", "Pseudonym of the person.", null=False),
    _c("device_id", "string", "Pseudonym of the x-ray set.", source="DeviceSerialNumber (0018,1000) of the report"),
    _c("manufacturer", "string", "", source="Manufacturer (0008,0070) of the report"),
    _c("model", "string", "", source="ManufacturerModelName (0008,1090) of the report"),
    _c("kind", "string", "CT, fluoroscopy or projection x-ray.", null=False),
    _c("acquisition_type", "string", "Spiral Acquisition, Stationary Acquisition, Fluoroscopy, ...: code meaning.",
       source="113820 DCM, 113721 DCM"),
    _c("target_region", "string", "Code meaning.", source="123014 DCM, Target Region"),
    _c("plane", "string", "Code meaning, of a two-plane system.", source="113764 DCM"),
    _c("ctdi_vol_mgy", "float64", "Mean CTDIvol.", "mGy", "113830 DCM"),
    _c("dlp_mgy_cm", "float64", "Dose length product.", "mGy.cm", "113838 DCM"),
    _c("phantom", "string", "Phantom of the CTDI: code meaning.", source="113835 DCM"),
    _c("kvp_kv", "float64", "Null where sources or pulses differ.", "kV", "113733 DCM"),
    _c("tube_current_ma", "float64", "Likewise.", "mA", "113734 DCM"),
    _c("exposure_mas", "float64", "Sum over pulses.", "mAs", "113736 DCM"),
    _c("exposure_time_ms", "float64", "", "ms", "113824 DCM"),
    _c("scanning_length_mm", "float64", "", "mm", "113825 DCM"),
    _c("pitch", "float64", "", "1", "113828 DCM"),
    _c("dap_gy_m2", "float64", "Dose area product.", "Gy.m2", "122130 DCM"),
    _c("reference_point_dose_gy", "float64", "At the reference point.", "Gy", "113738 DCM"),
    _c("n_pulses", "float64", "", "1", "113768 DCM"),
), (("report_uid", "instances"), ("study_uid", "studies"), ("patient_id", "patients")))
