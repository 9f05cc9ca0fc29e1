"""Tables of people, studies, series and images, as a researcher opens them."""

from __future__ import annotations

from pipeline.schemas.base import Table
from pipeline.schemas.base import column as _c

PATIENTS = Table("patients", "A row per person with at least one image in the release.", ("patient_id",), (
    _c("patient_id", "string", "Pseudonym of the person in this project; the same in every table.", null=False),
    _c("sex", "string", "F, M or O.", source="PatientSex (0010,0040)"),
    _c("n_studies", "int32", "Studies in this release.", null=False),
    _c("n_instances", "int32", "Images and reports in this release.", null=False),
    _c("first_study_date", "date", "Shifted date of the first study.", source="StudyDate (0008,0020)"),
    _c("last_study_date", "date", "Shifted date of the last study.", source="StudyDate (0008,0020)"),
))

STUDIES = Table("studies", "A row per study.", ("study_uid",), (
    _c("study_uid", "string", "Remapped Study Instance UID.", source="StudyInstanceUID (0020,000D)", null=False),
    _c("patient_id", "string", "Pseudonym of the person.", null=False),
    _c("study_date", "date", "Shifted by the person's own number of days.", source="StudyDate (0008,0020)"),
    _c("age_band_years", "int32", "Lower bound of the age band, five years wide unless the report's plot by age says "
       "more; 90 is 90 and over.", "year",
       "PatientAge (0010,1010), computed from birth and study dates"),
    _c("modalities", "string", "Modalities of its series, sorted, joined with a backslash.",
       source="Modality (0008,0060)"),
    _c("n_series", "int32", "Series in this release.", null=False),
    _c("n_instances", "int32", "Images and reports in this release.", null=False),
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
    _c("n_instances", "int32", "Images and reports in this release.", null=False),
), (("study_uid", "studies"), ("patient_id", "patients")))

INSTANCES = Table("instances", "A row per DICOM file: an image, or a structured report, which has no rows and columns.",
                  ("sop_instance_uid",), (
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
    _c("exposure_id", "string", "The exposure that the image shows; null where it states none.",
       source="IrradiationEventUID (0008,3010), SourceImageSequence (0008,2112); see exposures"),
    _c("path", "string", "Key of the DICOM file below the release's images.", null=False),
    _c("sha256", "string", "Of the DICOM file, in hex.", null=False),
    _c("bytes", "int64", "Size of the DICOM file.", "byte", null=False),
), (("series_uid", "series"), ("study_uid", "studies"), ("patient_id", "patients")))
