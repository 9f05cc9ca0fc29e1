"""Tables of exposures and dose."""

from __future__ import annotations

from pipeline.schemas.base import Table
from pipeline.schemas.base import column as _c

EXPOSURES = Table("exposures", "A row per projection x-ray image (CR, DX, IO, MG, PX, RF, XA) that states a kV or mAs "
                  "above zero. Where one exposure gave two images (for processing, for presentation) it has two rows.",
                  ("sop_instance_uid",), (
    _c("sop_instance_uid", "string", "The image.", null=False),
    _c("series_uid", "string", "", null=False),
    _c("study_uid", "string", "", null=False),
    _c("patient_id", "string", "Pseudonym of the person.", null=False),
    _c("modality", "string", "", source="Modality (0008,0060)"),
    _c("laterality", "string", "R, L, B or U.", source="ImageLaterality (0020,0062), Laterality (0020,0060)"),
    _c("view", "string", "CC, MLO, ...", source="ViewCodeSequence (0054,0220), else ViewPosition (0018,5101)"),
    _c("presentation_intent", "string", "", source="PresentationIntentType (0008,0068)"),
    _c("kvp_kv", "float64", "Peak kilovoltage.", "kV", "KVP (0018,0060)"),
    _c("exposure_mas", "float64", "Tube current-time product: ExposureInuAs / 1000, else Exposure.", "mAs",
       "ExposureInuAs (0018,1153), Exposure (0018,1152)"),
    _c("exposure_time_ms", "float64", "", "ms", "ExposureTime (0018,1150)"),
    _c("tube_current_ma", "float64", "", "mA", "XRayTubeCurrent (0018,1151)"),
    _c("anode", "string", "", source="AnodeTargetMaterial (0018,1191)"),
    _c("filter_material", "string", "", source="FilterMaterial (0018,7050)"),
    _c("body_part_thickness_mm", "float64", "Compressed breast thickness in mammography.", "mm",
       "BodyPartThickness (0018,11A0)"),
    _c("compression_force_n", "float64", "As the file states it, for every system.", "N",
       "CompressionForce (0018,11A2)"),
    _c("compression_pressure_kpa", "float64", "", "kPa", "CompressionPressure (0018,11A3)"),
    _c("compression_contact_area_mm2", "float64", "", "mm2", "CompressionContactArea (0018,11A5)"),
    _c("paddle", "string", "", source="PaddleDescription (0018,11A4)"),
    _c("organ_dose_mgy", "float64", "OrganDose is in dGy: × 100.", "mGy", "OrganDose (0040,0316)"),
    _c("entrance_dose_mgy", "float64", "", "mGy", "EntranceDoseInmGy (0040,8302)"),
    _c("half_value_layer_mm", "float64", "", "mm", "HalfValueLayer (0040,0314)"),
    _c("exposure_control_mode", "string", "", source="ExposureControlMode (0018,7060)"),
    _c("positioner_primary_angle_deg", "float64", "", "deg", "PositionerPrimaryAngle (0018,1510)"),
    _c("grid", "string", "", source="Grid (0018,1166)"),
    _c("device_id", "string", "Pseudonym of the x-ray set.", source="DeviceSerialNumber (0018,1000)"),
    _c("operator_id", "string", "Pseudonym of the operator at this site.", source="OperatorsName (0008,1070)"),
), (("sop_instance_uid", "instances"), ("patient_id", "patients")))
