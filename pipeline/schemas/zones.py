"""Tables of the identifiable and the candidate zone. In no release."""

from __future__ import annotations

from pipeline.schemas.base import Table
from pipeline.schemas.base import column as _c

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
    _c("items", "int32", "Content items that a structured report kept; null for what is none."),
    _c("items_dropped", "int32", "Content items that its concept rules let go."),
    _c("names_short", "int32", "Words of the person's names too short to be searched for; null unless pending."),
    _c("emptied", "strings", "Attributes of free text that said something, which was no approved term; null for none."),
))

LOOKS = Table("looks", "A row per image of a part whose pixels were read for text. No text that was read.",
              ("source_sha256",), (
    _c("source_sha256", "sha256", "", null=False),
    _c("manufacturer", "string", "In small letters.", source="Manufacturer (0008,0070)", null=False),
    _c("model", "string", "In small letters.", source="ManufacturerModelName (0008,1090)", null=False),
    _c("software", "string", "In small letters.", source="SoftwareVersions (0018,1020)", null=False),
    _c("pictures", "int32", "Frames looked at, and pictures made of a stack.", null=False),
    _c("boxes", "strings", "Where text stands, x0,y0,x1,y1: as a rule for pixels would paint it over.", null=False),
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

EXPECTED = Table("expected", "A row per instance that PACS says it has of the studies asked for, written before the "
                 "first is retrieved.", ("sop_instance_uid",), (
    _c("line", "int32", "Of the cohort file; the first that asked for it.", null=False),
    _c("study", "string", "Digest by which logs know the study.", null=False),
    _c("study_uid", "string", "", source="StudyInstanceUID (0020,000D)", null=False),
    _c("series_uid", "string", "", source="SeriesInstanceUID (0020,000E)", null=False),
    _c("sop_instance_uid", "string", "", source="SOPInstanceUID (0008,0018)", null=False),
    _c("sop_class_uid", "string", "Null where PACS does not tell.", source="SOPClassUID (0008,0016)"),
    _c("modality", "string", "", source="Modality (0008,0060)"),
    _c("study_date", "string", "", source="StudyDate (0008,0020)"),
    _c("manufacturer", "string", "", source="Manufacturer (0008,0070)"),
    _c("series_description", "string", "", source="SeriesDescription (0008,103E)"),
    _c("patient_id", "string", "", source="PatientID (0010,0020)"),
    _c("issuer", "string", "As PACS says, else the project file.", source="IssuerOfPatientID (0010,0021)"),
    _c("left_out", "string", "Which filter keeps it from being asked for; null where it is owed."),
))

ASKED = Table("rows", "A row per line of a cohort file: what PACS answered.", ("line",), (
    _c("line", "int32", "Of the cohort file; the header is line 1.", null=False),
    _c("state", "string", "found, none, refused or failed.", null=False),
    _c("reason", "string", "Why it was refused or failed."),
    _c("studies", "int32", "Studies that PACS answered and that are what was asked.", null=False),
    _c("words", "string", "The PACS's status in words, where it failed."),
    *(_c(name, "string", "As in the cohort file.") for name in (
        "nhs_number", "local_id", "issuer", "accession_number", "study_instance_uid", "date_from", "date_to",
        "modality")),
))

MISSING = Table("missing", "Instances of a study that PACS owes: asked for, never landed.", ("sop_instance_uid",), (
    _c("study", "string", "Digest by which logs know the study.", null=False),
    _c("study_uid", "string", "", null=False),
    _c("series_uid", "string", "", null=False),
    _c("sop_instance_uid", "string", "", null=False),
    _c("reason", "string", "not_sent or pacs_failed.", null=False),
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
    _c("acquisition_order", "int32", "Rank among the study's images of this part by when they were acquired, as their "
       "headers said before times were removed; images of one moment share it. Null where none was said.",
       source="AcquisitionDateTime (0008,002A), else AcquisitionDate and AcquisitionTime, else ContentDate and "
       "ContentTime"),
))

# content.parquet: written by `deidentify` beside facts.parquet, from the bytes of the structured reports that passed.
CONTENT = Table("content", "A row per content item of the de-identified structured reports of a part (PS3.3 C.17.3), "
                "in document order. Absent where the part has no report.", ("instance", "node"), (
    _c("patient", "string", "Pseudonym.", null=False),
    _c("study", "string", "Output Study Instance UID.", null=False),
    _c("instance", "string", "Output SOP Instance UID of the report.", null=False),
    _c("node", "int32", "Place in document order, depth first; the root is 1.", null=False),
    _c("parent", "int32", "`node` of the item that holds it; 0 for the root.", null=False),
    _c("depth", "int32", "0 for the root.", null=False),
    _c("relationship", "string", "To its parent.", source="RelationshipType (0040,A010)"),
    _c("value_type", "string", "CONTAINER, NUM, CODE, TEXT, UIDREF, ...; REFERENCE: to another item of the report.",
       source="ValueType (0040,A040)", null=False),
    _c("template", "string", "Of a container that names one: 10001.", source="TemplateIdentifier (0040,DB00)"),
    _c("concept", "string", "Code value of the concept name.", source="ConceptNameCodeSequence (0040,A043)"),
    _c("concept_scheme", "string", "Its coding scheme; SRT and SNM3 as they stand."),
    _c("concept_meaning", "string", "Its code meaning."),
    _c("number", "string", "NUM: the value as written (DS).", source="NumericValue (0040,A30A)"),
    _c("unit", "string", "NUM: code value of the unit (UCUM).", source="MeasurementUnitsCodeSequence (0040,08EA)"),
    _c("qualifier", "string", "NUM: code value.", source="NumericValueQualifierCodeSequence (0040,A301)"),
    _c("code", "string", "CODE: code value.", source="ConceptCodeSequence (0040,A168)"),
    _c("code_scheme", "string", "CODE: coding scheme."),
    _c("code_meaning", "string", "CODE: meaning."),
    _c("text", "string", "TEXT, UIDREF, DATE, TIME, DATETIME, PNAME: the value as it stands in the output. SCOORD: "
       "graphic type and coordinates. REFERENCE: the node it refers to."),
    _c("reference", "string", "IMAGE, COMPOSITE, WAVEFORM: output SOP Instance UID that is referenced.",
       source="ReferencedSOPInstanceUID (0008,1155)"),
))

IMAGES = Table("images", "A row per image of a candidate, for the publisher. In no release.", ("instance",), (
    _c("instance", "string", "Output SOP Instance UID.", null=False),
    _c("key", "string", "Key of the DICOM file in the candidate zone.", null=False),
    _c("path", "string", "Key of the DICOM file below the release's images.", null=False),
    _c("sha256", "string", "Of the DICOM file, in hex.", null=False),
    _c("bytes", "int64", "Size of the DICOM file.", "byte", null=False),
))

LEDGER = Table("ledger", "One row per landed object and candidate, and per instance that PACS owes. Stays in the "
               "identifiable zone.",
               ("source_uri", "source_sha256", "candidate_id"), (
    _c("source_uri", "string", "Of what never landed: pacs: and its SOP Instance UID.", null=False),
    _c("source_sha256", "sha256", "Of nothing for what never landed.", null=False),
    _c("status", "string", "See the state table.", null=False),
    _c("reason", "string", ""),
    _c("candidate_id", "string", "The candidate that this row speaks of."),
    _c("release_id", "string", "The release that published it."),
    _c("released_key", "string", "Key in the release zone."),
))
