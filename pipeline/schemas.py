"""Tables as data: column, type, unit, meaning, source. The data dictionary is printed from these; readers check them.

Pure. Arrow types are named here and built by `arrow_schema` (pyarrow is imported on use). Times never stand in a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
Type = Literal["string", "int32", "int64", "float64", "date", "bool", "sha256", "strings"]


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: Type
    meaning: str
    unit: str = ""
    source: str = ""            # DICOM keyword and tag, or the rule that computes it
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    meaning: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    references: tuple[tuple[str, str], ...] = ()    # (column, table that has it as its key)

    def names(self) -> list[str]:
        return [c.name for c in self.columns]


def _c(name: str, type: Type, meaning: str, unit: str = "", source: str = "", null: bool = True) -> Column:
    return Column(name, type, meaning, unit, source, null)


# ---- identifiable zone -------------------------------------------------------------------------------------------
INVENTORY = Table("inventory", "A row per landed object of one batch.", ("source_uri",), (
    _c("source_uri", "string", "Landing URL and key of the object.", null=False),
    _c("bytes", "int64", "Size.", "byte", null=False),
    _c("source_sha256", "sha256", "Of the bytes; of nothing where they could not be read.", null=False),
    _c("status", "string", "pending, rejected, duplicate or conflict, as staging found it.", null=False),
    _c("reason", "string", "Reason code; null where pending."),
    _c("sop_class_uid", "string", "", source="SOPClassUID (0008,0016)"),
    _c("sop_instance_uid", "string", "", source="SOPInstanceUID (0008,0018)"),
    _c("study_uid", "string", "", source="StudyInstanceUID (0020,000D)"),
    _c("series_uid", "string", "", source="SeriesInstanceUID (0020,000E)"),
    _c("transfer_syntax_uid", "string", "", source="TransferSyntaxUID (0002,0010)"),
    _c("modality", "string", "", source="Modality (0008,0060)"),
    _c("study_date", "string", "As it stands in the file.", source="StudyDate (0008,0020)"),
    _c("patient_id", "string", "Decoded, outer spaces removed.", source="PatientID (0010,0020)"),
    _c("issuer", "string", "From the header, else the landing source's declaration.",
       source="IssuerOfPatientID (0010,0021)"),
    _c("n_elements", "int32", "Elements at every depth."),
    _c("shard", "int32", "Number of the shard it stands in; null where rejected, duplicate or conflict."),
))

LISTING = Table("listing", "What the store said of each object of a batch when it was listed. Outside every digest.",
                ("source_uri", "version"), (
    _c("source_uri", "string", "Landing URL and key of the object.", null=False),
    _c("version", "string", "Changes whenever the bytes may have changed.", null=False),
    _c("modified", "string", "By the store's clock, UTC, ISO 8601.", null=False),
    _c("bytes", "int64", "Size.", "byte", null=False),
    _c("source_sha256", "sha256", "As in the inventory, of this batch or of an earlier one.", null=False),
))

SEEN = Table("seen", "What earlier batches admitted, found by digest.", ("kind", "digest", "batch"), (
    _c("kind", "string", "sha256 (of the bytes) or uid (of the SOP Instance UID).", null=False),
    _c("digest", "sha256", "", null=False),
    _c("batch", "string", "Counts only where this batch is committed.", null=False),
    _c("source_sha256", "sha256", "Of the admitted object.", null=False),
))

OUTCOMES = Table("outcomes", "A row per instance of a part: what became of it. The map from source to output.",
                 ("source_uri",), (
    _c("source_uri", "string", "", null=False),
    _c("source_sha256", "sha256", "", null=False),
    _c("status", "string", "pending (de-identified), rejected, quarantined, withheld or recalled.", null=False),
    _c("reason", "string", "Reason code; null where pending."),
    _c("tag", "string", "Tag at which it was refused, GGGGEEEE."),
    _c("patient", "string", "Pseudonym; null where nobody could be told."),
    _c("study", "string", "Output Study Instance UID."),
    _c("series", "string", "Output Series Instance UID."),
    _c("instance", "string", "Output SOP Instance UID."),
    _c("output_sha256", "sha256", "Null unless pending."),
    _c("output_bytes", "int64", "", "byte"),
    _c("output_key", "string", "Key in the candidate zone; null unless pending."),
))

KNOWN_PEOPLE = Table("known_people", "Whom a local id stood for in earlier builds.", ("local",), (
    _c("local", "string", "Keyed digest of (issuer, local id).", null=False),
    _c("person", "string", "Pseudonym of the person.", null=False),
))

CLINICAL_OUTCOMES = Table("clinical_outcomes", "A row per row of a clinical table: what became of it.",
                          ("table", "row"), (
    _c("table", "string", "", null=False),
    _c("row", "int64", "Number of the row in its file, from 1, the header not counted.", null=False),
    _c("status", "string", "linked or held.", null=False),
    _c("reason", "string", "Reason code; null where linked."),
    _c("column", "string", "Declared name of the column that it was held for; null where linked."),
))

# ---- candidate zone ----------------------------------------------------------------------------------------------
# facts.parquet: the columns below, then one per kept element path found in the part, in tag order, of type `strings`
# (values in the order they occur, decoded, multi-values split). Path: keyword, or GGGGEEEE where PS3.6 has none, or
# (gggg,CREATOR,ee) for a private element; nested ones joined with `.`, items not numbered: ViewCodeSequence.CodeValue.
FACTS = Table("facts", "A row per de-identified instance of a part.", ("instance",), (
    _c("patient", "string", "Pseudonym.", null=False),
    _c("study", "string", "Output Study Instance UID.", null=False),
    _c("series", "string", "Output Series Instance UID.", null=False),
    _c("instance", "string", "Output SOP Instance UID.", null=False),
    _c("key", "string", "Key of the DICOM file in the candidate zone.", null=False),
    _c("sha256", "sha256", "Of the DICOM file.", null=False),
    _c("bytes", "int64", "Size of the DICOM file.", "byte", null=False),
))

# ---- what a researcher opens -------------------------------------------------------------------------------------
PATIENTS = Table("patients", "A row per person with at least one image in the release.", ("patient_id",), (
    _c("patient_id", "string", "Pseudonym of the person in this project; the same in every table.", null=False),
    _c("sex", "string", "F, M or O.", source="PatientSex (0010,0040)"),
    _c("n_studies", "int32", "Studies in this release.", null=False),
    _c("n_instances", "int32", "Images in this release.", null=False),
    _c("first_study_date", "date", "Shifted date of the first study.", source="StudyDate (0008,0020)"),
    _c("last_study_date", "date", "Shifted date of the last study.", source="StudyDate (0008,0020)"),
))

STUDIES = Table("studies", "A row per study.", ("study_uid",), (
    _c("study_uid", "string", "Remapped Study Instance UID.", source="StudyInstanceUID (0020,000D)", null=False),
    _c("patient_id", "string", "Pseudonym of the person.", null=False),
    _c("study_date", "date", "Shifted by the person's own number of days.", source="StudyDate (0008,0020)"),
    _c("age_band_years", "int32", "Lower bound of the five-year age band; 90 is 90 and over.", "year",
       "PatientAge (0010,1010), computed from birth and study dates"),
    _c("modalities", "string", "Modalities of its series, sorted, joined with a backslash.",
       source="Modality (0008,0060)"),
    _c("n_series", "int32", "Series in this release.", null=False),
    _c("n_instances", "int32", "Images in this release.", null=False),
), (("patient_id", "patients"),))

SERIES = Table("series", "A row per series.", ("series_uid",), (
    _c("series_uid", "string", "Remapped Series Instance UID.", source="SeriesInstanceUID (0020,000E)", null=False),
    _c("study_uid", "string", "", null=False),
    _c("patient_id", "string", "Pseudonym of the person.", null=False),
    _c("modality", "string", "", source="Modality (0008,0060)"),
    _c("manufacturer", "string", "", source="Manufacturer (0008,0070)"),
    _c("model", "string", "", source="ManufacturerModelName (0008,1090)"),
    _c("device_id", "string", "Pseudonym of the x-ray set or scanner (manufacturer, model, serial number).",
       source="DeviceSerialNumber (0018,1000)"),
    _c("software_versions", "string", "", source="SoftwareVersions (0018,1020)"),
    _c("n_instances", "int32", "Images in this release.", null=False),
), (("study_uid", "studies"), ("patient_id", "patients")))

INSTANCES = Table("instances", "A row per image.", ("sop_instance_uid",), (
    _c("sop_instance_uid", "string", "Remapped SOP Instance UID.", source="SOPInstanceUID (0008,0018)", null=False),
    _c("series_uid", "string", "", null=False),
    _c("study_uid", "string", "", null=False),
    _c("patient_id", "string", "Pseudonym of the person.", null=False),
    _c("sop_class_uid", "string", "", source="SOPClassUID (0008,0016)", null=False),
    _c("sop_class_name", "string", "Name of the SOP class in PS3.6."),
    _c("modality", "string", "", source="Modality (0008,0060)"),
    _c("image_type", "string", "Values joined with a backslash.", source="ImageType (0008,0008)"),
    _c("presentation_intent", "string", "FOR PRESENTATION or FOR PROCESSING.",
       source="PresentationIntentType (0008,0068)"),
    _c("laterality", "string", "R, L, B (both) or U (unpaired): ImageLaterality, else Laterality.",
       source="ImageLaterality (0020,0062), Laterality (0020,0060)"),
    _c("view", "string", "View as a short code: CC, MLO, ...",
       source="ViewCodeSequence (0054,0220), else ViewPosition (0018,5101)"),
    _c("rows", "int32", "", "pixel", "Rows (0028,0010)"),
    _c("columns", "int32", "", "pixel", "Columns (0028,0011)"),
    _c("frames", "int32", "1 where the file does not say.", source="NumberOfFrames (0028,0008)"),
    _c("transfer_syntax_uid", "string", "", source="TransferSyntaxUID (0002,0010)"),
    _c("path", "string", "Key of the DICOM file below the release's images.", null=False),
    _c("sha256", "string", "Of the DICOM file, in hex.", null=False),
    _c("bytes", "int64", "Size of the DICOM file.", "byte", null=False),
), (("series_uid", "series"), ("study_uid", "studies"), ("patient_id", "patients")))

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

# Clinical tables take their columns from the project file (`clinical_table`); every one starts with the person.
CLINICAL_PERSON = _c("patient_id", "string", "Pseudonym of the person.", source="the identity column", null=False)

IMAGES = Table("images", "A row per image of a candidate, for the publisher. In no release.", ("instance",), (
    _c("instance", "string", "Output SOP Instance UID.", null=False),
    _c("key", "string", "Key of the DICOM file in the candidate zone.", null=False),
    _c("path", "string", "Key of the DICOM file below the release's images.", null=False),
    _c("sha256", "string", "Of the DICOM file, in hex.", null=False),
    _c("bytes", "int64", "Size of the DICOM file.", "byte", null=False),
))

PUBLISHED = (PATIENTS, STUDIES, SERIES, INSTANCES, EXPOSURES)


class Declared(Protocol):
    """A column as the project file declares it."""

    @property
    def role(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def meaning(self) -> str: ...
    @property
    def required(self) -> bool: ...


CLINICAL_TYPES: dict[str, tuple[Type, str]] = {     # role → type, what was done; identity and drop are not released
    "event_date": ("date", "shifted by the person's own number of days"),
    "category": ("string", "one of the values that the project file lists"),
    "number": ("float64", "as it stands in the file"),
    "identifier": ("string", "keyed pseudonym"),
}


def clinical_table(name: str, columns: Mapping[str, Declared]) -> Table:
    """Return the schema of a declared clinical table as it is released: the person, then the kept columns in order."""
    kept = [_c(n, CLINICAL_TYPES[c.role][0], c.meaning, c.unit, f"column {n} of the file, {CLINICAL_TYPES[c.role][1]}",
               null=not c.required) for n, c in columns.items() if c.role in CLINICAL_TYPES]
    return Table(name, "A row per row of the clinical file whose person could be told.", (),
                 (CLINICAL_PERSON, *kept), (("patient_id", "patients"),))


LEDGER = Table("ledger", "One row per landed object and candidate. Stays in the identifiable zone.",
               ("source_uri", "source_sha256", "candidate_id"), (
    _c("source_uri", "string", "", null=False),
    _c("source_sha256", "sha256", "", null=False),
    _c("status", "string", "See the state table.", null=False),
    _c("reason", "string", ""),
    _c("candidate_id", "string", "The candidate that this row speaks of."),
    _c("release_id", "string", "The release that published it."),
    _c("released_key", "string", "Key in the release zone."),
))


def arrow_schema(table: Table, extra: tuple[Column, ...] = ()) -> pa.Schema:
    """Return the pyarrow schema of a table, `schema_version` and table name in its metadata."""
    import pyarrow as pa

    types = {
        "string": pa.string(), "int32": pa.int32(), "int64": pa.int64(), "float64": pa.float64(), "date": pa.date32(),
        "bool": pa.bool_(), "sha256": pa.binary(32), "strings": pa.list_(pa.string()),
    }
    fields = [pa.field(c.name, types[c.type], nullable=c.nullable) for c in (*table.columns, *extra)]
    return pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION), "table": table.name})
