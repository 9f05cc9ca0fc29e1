"""Tables of x-ray sets: their software, their output as the physicist measured it, and the dose worked out from it."""

from __future__ import annotations

from pipeline.schemas.base import Table
from pipeline.schemas.base import column as _c

# Anode and filter have one word each, whatever a file calls them: the words of mammography headers. Physicists write
# the elements' symbols.
MATERIALS = {"MO": "MOLYBDENUM", "RH": "RHODIUM", "W": "TUNGSTEN", "AL": "ALUMINUM", "AG": "SILVER", "CU": "COPPER",
             "NB": "NIOBIUM", "ALUMINIUM": "ALUMINUM"}


def material(text: str) -> str:
    """Return a material as the exposures name it: the symbol of an element becomes its name, in capitals."""
    word = text.strip().upper()
    return MATERIALS.get(word, word)


EQUIPMENT = Table("equipment", "A row per x-ray set, or other device with a serial number, and software version.",
                  ("device_id", "software_versions"), (
    _c("device_id", "string", "Pseudonym of the device (manufacturer, model, serial number).",
       source="DeviceSerialNumber (0018,1000)", null=False),
    _c("software_versions", "string", "Values joined with a backslash.", source="SoftwareVersions (0018,1020)"),
    _c("version_order", "int32", "Order in which the versions of this device appeared, from 1, by the real study "
       "dates, which stay behind; versions that appeared on one day share a number. Null where no date tells.",
       source="StudyDate (0008,0020)"),
    _c("manufacturer", "string", "Null where its images contradict each other.", source="Manufacturer (0008,0070)"),
    _c("model", "string", "Likewise.", source="ManufacturerModelName (0008,1090)"),
    _c("modalities", "string", "Modalities of its objects, sorted, joined with a backslash.",
       source="Modality (0008,0060)"),
    _c("n_studies", "int32", "Studies in this release.", null=False),
    _c("n_instances", "int32", "Objects in this release, reports too.", null=False),
))

GLANDULAR_DOSES = Table("glandular_doses", "A row per exposure: mean glandular dose from the local output of its x-ray "
                        "set and the physicist's factor table, or why there is none. D = K g c s (t).",
                        ("exposure_id",), (
    _c("exposure_id", "string", "The exposure.", null=False),
    _c("patient_id", "string", "Pseudonym of the person.", null=False),
    _c("study_uid", "string", "", null=False),
    _c("device_id", "string", "Pseudonym of the x-ray set.", source="DeviceSerialNumber (0018,1000)"),
    _c("mean_glandular_dose_mgy", "float64", "Null where it was not computed.", "mGy",
       "Dance et al., Phys Med Biol 45:3225 (2000)"),
    _c("incident_air_kerma_mgy", "float64", "K: at the upper surface of the breast, without backscatter.", "mGy",
       "Local output × exposure_mas, corrected by the inverse square"),
    _c("hvl_mm", "float64", "Half-value layer in aluminium, as measured on this set for this spectrum.", "mm",
       "Local output table"),
    _c("g", "float64", "Factor g: incident air kerma to mean glandular dose, breast of 50 % glandularity.",
       source="Factor table"),
    _c("c", "float64", "Factor c: for the glandularity typical of the age.", source="Factor table"),
    _c("s", "float64", "Factor s: for the spectrum.", source="Factor table"),
    _c("t", "float64", "Factor t of a tomosynthesis; null of any other exposure.", source="Factor table"),
    _c("factors", "string", "Name of the factor table; null where the project has none."),
    _c("synthetic", "bool", "The factors were made up for a demonstration: no dose at all.", null=False),
    _c("not_computed", "string", "Why there is no dose; null where there is one."),
), (("exposure_id", "exposures"), ("patient_id", "patients")))

# ---- candidate zone, beside a candidate's plan; in no release ------------------------------------------------------
VERSIONS = Table("versions", "Software versions of each device in order of appearance.", ("device_id",
                 "software_versions"), (
    _c("device_id", "string", "", null=False),
    _c("software_versions", "string", "", null=False),
    _c("version_order", "int32", "From 1; the same where they appeared on one day.", null=False),
))

OUTPUT = Table("output", "Local output of x-ray sets, a row per measured spectrum; without serial number or date.",
               ("device_id", "survey", "anode", "filter", "kv"), (
    _c("device_id", "string", "", null=False),
    _c("survey", "string", "Keyed, opaque: the measurements that were valid together.", null=False),
    _c("anode", "string", "", null=False),
    _c("filter", "string", "", null=False),
    _c("kv", "float64", "", "kV", null=False),
    _c("output_ugy_per_mas", "float64", "At `distance_mm` from the focus, under the paddle, without backscatter.",
       "uGy/mAs", null=False),
    _c("distance_mm", "float64", "", "mm", null=False),
    _c("hvl_mm", "float64", "In aluminium.", "mm", null=False),
    _c("focus_table_mm", "float64", "From the focus to the breast support.", "mm", null=False),
))

SURVEYS = Table("surveys", "Which measurements were valid at the time of a study on a device.",
                ("study_uid", "device_id", "survey"), (
    _c("study_uid", "string", "Remapped.", null=False),
    _c("device_id", "string", "", null=False),
    _c("survey", "string", "", null=False),
))

FACTORS = Table("factors", "The physicist's factor table, a row per node.", ("factor", "model", "anode", "filter",
                "age_from", "age_to", "thickness_mm", "hvl_mm"), (
    _c("factor", "string", "g, c, s or t.", null=False),
    _c("model", "string", "Model it is for, folded; null for any."),
    _c("anode", "string", "Null for any."),
    _c("filter", "string", "Null for any."),
    _c("age_from", "int32", "Years, this one included; null for no lower end.", "year"),
    _c("age_to", "int32", "Years, this one included; null for no upper end.", "year"),
    _c("thickness_mm", "float64", "Null where the factor does not depend on it.", "mm"),
    _c("hvl_mm", "float64", "Likewise.", "mm"),
    _c("value", "float64", "", null=False),
    _c("source", "string", "Where the number is from.", null=False),
))
