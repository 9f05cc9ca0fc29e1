"""What things are: statuses, reasons and the transitions between them. Pure: no I/O, no clock, no randomness.

The ledger's state diagram in the docs is drawn from `TRANSITIONS`.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """The fate of a landed object, as the ledger tells it."""

    PENDING = "pending"          # understood so far, not released yet
    REJECTED = "rejected"        # not admitted, or not eligible
    DUPLICATE = "duplicate"      # the same bytes were staged before
    CONFLICT = "conflict"        # the same SOP Instance UID with other bytes
    QUARANTINED = "quarantined"  # admitted, but could not be de-identified safely
    WITHHELD = "withheld"        # de-identified or not, kept back by identity or by a failed expectation
    PUBLISHED = "published"      # in the current release
    SUPERSEDED = "superseded"    # in an earlier release
    RECALLED = "recalled"        # taken back: it stays out for good
    MISSING = "missing"          # expected from PACS, never landed


# from → to. `None` is an object that has just been listed.
TRANSITIONS: dict[Status | None, frozenset[Status]] = {
    None: frozenset({Status.PENDING, Status.REJECTED, Status.DUPLICATE, Status.CONFLICT, Status.MISSING}),
    Status.MISSING: frozenset({Status.PENDING, Status.REJECTED, Status.DUPLICATE, Status.CONFLICT}),
    Status.PENDING: frozenset({Status.REJECTED, Status.QUARANTINED, Status.WITHHELD, Status.PUBLISHED,
                               Status.RECALLED}),
    Status.REJECTED: frozenset({Status.PENDING}),       # the project file or the permitted people changed
    Status.DUPLICATE: frozenset(),
    Status.CONFLICT: frozenset(),
    Status.QUARANTINED: frozenset({Status.PENDING}),    # a changed plan, or a retry
    Status.WITHHELD: frozenset({Status.PENDING}),       # a changed crosswalk, suite or threshold
    Status.PUBLISHED: frozenset({Status.SUPERSEDED, Status.RECALLED}),
    Status.SUPERSEDED: frozenset({Status.RECALLED}),
    Status.RECALLED: frozenset(),
}


class Reason(StrEnum):
    """Why an object has its status. One code each; `REASONS` says which status it goes with and what it means."""

    # stage: admission reads bytes
    NOT_DICOM = "not_dicom"
    EMPTY = "empty"
    TRUNCATED = "truncated"
    LENGTH_BEYOND_END = "length_beyond_end"
    NESTING_TOO_DEEP = "nesting_too_deep"
    MALFORMED = "malformed"
    MISSING_UID = "missing_uid"
    INVALID_UID = "invalid_uid"
    LEFT_OVER_BYTES = "left_over_bytes"
    NOT_A_REGULAR_FILE = "not_a_regular_file"
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    READING_LIMIT_EXCEEDED = "reading_limit_exceeded"
    SAME_BYTES = "same_bytes"
    SAME_UID_OTHER_BYTES = "same_uid_other_bytes"
    # eligibility: policy
    SOP_CLASS_NOT_ELIGIBLE = "sop_class_not_eligible"
    DATE_NOT_ELIGIBLE = "date_not_eligible"
    DATE_UNKNOWN = "date_unknown"
    PERSON_NOT_PERMITTED = "person_not_permitted"
    # identity
    PERSON_NOT_LINKED = "person_not_linked"
    PERSON_AMBIGUOUS = "person_ambiguous"
    PERSON_ID_MISSING = "person_id_missing"
    ISSUER_UNKNOWN = "issuer_unknown"
    # clinical tables: a row is held
    VALUE_NOT_LISTED = "value_not_listed"
    VALUE_MISSING = "value_missing"
    # deidentify
    SOURCE_CHANGED = "source_changed"
    SOURCE_MISSING = "source_missing"
    NO_RECIPE_FOR_SOP_CLASS = "no_recipe_for_sop_class"
    TRANSFER_SYNTAX_UNSUPPORTED = "transfer_syntax_unsupported"
    STRUCTURED_REPORT = "structured_report"
    REPORT_NOT_COVERED = "report_not_covered"
    REPORT_MALFORMED = "report_malformed"
    PIXELS_NEED_CLEANING = "pixels_need_cleaning"
    PIXELS_NOT_READ = "pixels_not_read"
    TEXT_IN_PIXELS = "text_in_pixels"
    CODEC_MISSING = "codec_missing"
    PIXEL_STREAM_UNSAFE = "pixel_stream_unsafe"
    PIXEL_GEOMETRY = "pixel_geometry"
    OVERLAY_IN_PIXELS = "overlay_in_pixels"
    CHARSET_UNSUPPORTED = "charset_unsupported"
    VALUE_MALFORMED = "value_malformed"
    VR_MISMATCH = "vr_mismatch"
    ELEMENT_REPEATED = "element_repeated"
    UNSUPPORTED_STRUCTURE = "unsupported_structure"
    RESIDUAL_IDENTIFIER = "residual_identifier"
    ENGINE_FAILED = "engine_failed"
    LIMIT_EXCEEDED = "limit_exceeded"
    # candidate
    STUDY_QUARANTINED = "study_quarantined"
    EXPECTATION_FAILED = "expectation_failed"
    GROUP_TOO_SMALL = "group_too_small"
    # recall
    RECALLED = "recalled"
    # retrieve
    NOT_SENT = "not_sent"
    PACS_FAILED = "pacs_failed"


R, S = Reason, Status
REASONS: dict[Reason, tuple[Status, str]] = {
    R.NOT_DICOM: (S.REJECTED, "The file is not DICOM: no DICM prefix and no data set that reads as one."),
    R.EMPTY: (S.REJECTED, "The file has no bytes, or no element after its meta information."),
    R.TRUNCATED: (S.REJECTED, "The file ends inside an element."),
    R.LENGTH_BEYOND_END: (S.REJECTED, "An element claims more bytes than its container or file has."),
    R.NESTING_TOO_DEEP: (S.REJECTED, "Sequences are nested deeper than 32."),
    R.MALFORMED: (S.REJECTED, "The structure breaks PS3.5: wrong order, unknown VR, stray delimiter, odd length."),
    R.MISSING_UID: (S.REJECTED, "SOP Class, SOP Instance, Study or Series Instance UID, or transfer syntax is absent."),
    R.INVALID_UID: (S.REJECTED, "One of those UIDs is not a UID (PS3.5 9.1)."),
    R.LEFT_OVER_BYTES: (S.REJECTED, "Bytes are left over after the last element."),
    R.NOT_A_REGULAR_FILE: (S.REJECTED, "A link, pipe, socket or device, not a regular file."),
    R.TOO_LARGE: (S.REJECTED, "Larger than the limit set in the project file."),
    R.UNREADABLE: (S.REJECTED, "The store lists the object and will not give its bytes."),
    R.READING_LIMIT_EXCEEDED: (S.REJECTED, "Reading took more time or memory than an object may, or ended the reader."),
    R.SAME_BYTES: (S.DUPLICATE, "The same bytes were staged before, under another name or in another batch."),
    R.SAME_UID_OTHER_BYTES: (S.CONFLICT, "One SOP Instance UID came with other bytes: which is right is not known."),
    R.SOP_CLASS_NOT_ELIGIBLE: (S.REJECTED, "The project file does not name this SOP class."),
    R.DATE_NOT_ELIGIBLE: (S.REJECTED, "The study date is outside the project's range."),
    R.DATE_UNKNOWN: (S.REJECTED, "The study date is absent or malformed, so the range cannot be checked."),
    R.PERSON_NOT_PERMITTED: (S.REJECTED, "The person is not on the permitted-people list."),
    R.PERSON_NOT_LINKED: (S.WITHHELD, "The crosswalk gives no valid NHS number for this local id."),
    R.PERSON_AMBIGUOUS: (S.WITHHELD, "The crosswalk gives more than one NHS number for this local id."),
    R.PERSON_ID_MISSING: (S.QUARANTINED, "The object has no Patient ID."),
    R.ISSUER_UNKNOWN: (S.QUARANTINED, "Neither header nor landing source names the issuer of the Patient ID."),
    R.VALUE_NOT_LISTED: (S.WITHHELD, "A clinical row holds a category that the project file does not list."),
    R.VALUE_MISSING: (S.WITHHELD, "A clinical row lacks a value that the project file requires."),
    R.SOURCE_CHANGED: (S.QUARANTINED, "The bytes are not those that were staged."),
    R.SOURCE_MISSING: (S.QUARANTINED, "The object was staged and is gone from landing."),
    R.NO_RECIPE_FOR_SOP_CLASS: (S.QUARANTINED, "No recipe of the project covers this SOP class."),
    R.TRANSFER_SYNTAX_UNSUPPORTED: (S.QUARANTINED, "The engine does not read this transfer syntax."),
    R.STRUCTURED_REPORT: (S.QUARANTINED, "Structured reports pass only by concept rules, which this plan has not."),
    R.REPORT_NOT_COVERED: (S.QUARANTINED, "The plan's concept rules do not list what this structured report is."),
    R.REPORT_MALFORMED: (S.QUARANTINED, "A report's value type, relationship or concept is not as in PS3.3 C.17.3."),
    R.PIXELS_NEED_CLEANING: (S.QUARANTINED, "The pixels may hold burned-in text, and no rule of the plan cleans them."),
    R.PIXELS_NOT_READ: (S.QUARANTINED, "The pixels must be read for text first: [deidentify.pixels] ocr, extra `ocr`."),
    R.TEXT_IN_PIXELS: (S.QUARANTINED, "Text was found in the pixels, outside what a rule paints over."),
    R.CODEC_MISSING: (S.QUARANTINED, "Pixels must be decoded; none is installed (python-gdcm: JPEG Lossless)."),
    R.PIXEL_STREAM_UNSAFE: (S.QUARANTINED, "A compressed frame holds comments, application data or bytes after it."),
    R.PIXEL_GEOMETRY: (S.QUARANTINED, "Pixel data is not as long as rows, columns, frames, samples and bits say."),
    R.OVERLAY_IN_PIXELS: (S.QUARANTINED, "Bits above the stored ones are used: an overlay may hide there."),
    R.CHARSET_UNSUPPORTED: (S.QUARANTINED, "The character set is unknown, or a kept text does not decode in it."),
    R.VALUE_MALFORMED: (S.QUARANTINED, "A value that a rule must change is malformed."),
    R.VR_MISMATCH: (S.QUARANTINED, "A kept element stands under a VR that its tag cannot have."),
    R.ELEMENT_REPEATED: (S.QUARANTINED, "A tag or a private creator stands twice where it may stand once."),
    R.UNSUPPORTED_STRUCTURE: (S.QUARANTINED, "A kept element is written in a way the engine does not read."),
    R.RESIDUAL_IDENTIFIER: (S.QUARANTINED, "The search of the output found an identifier of the person."),
    R.ENGINE_FAILED: (S.QUARANTINED, "The engine stopped on this object; nothing of it was written."),
    R.LIMIT_EXCEEDED: (S.QUARANTINED, "It took more time or memory than one object may, or ended its worker."),
    R.STUDY_QUARANTINED: (S.WITHHELD, "Another instance of the study holds an identifier, or text in its pixels."),
    R.EXPECTATION_FAILED: (S.WITHHELD, "A row of this instance failed an expectation of quarantine severity."),
    R.GROUP_TOO_SMALL: (S.WITHHELD, "Too few persons share what others may know of this one."),
    R.RECALLED: (S.RECALLED, "Taken back by a recall of the instance or of its person: it stays out for good."),
    R.NOT_SENT: (S.MISSING, "PACS listed it and was asked for it, called the study sent, and it did not come."),
    R.PACS_FAILED: (S.MISSING, "PACS listed it and failed or refused to send it; the retrieval has its words."),
}
# Reasons under which the same object may pass another time though nothing of its plan has changed.
TRANSIENT = frozenset({R.SOURCE_MISSING, R.ENGINE_FAILED, R.LIMIT_EXCEEDED})
del R, S


class Refusal(Exception):
    """Why one object goes no further. Raised by readers and the engine; carries a code and at most a tag."""

    def __init__(self, reason: Reason, tag: int | None = None) -> None:
        super().__init__(reason, tag)
        self.reason = reason
        self.tag = tag

    def __str__(self) -> str:
        return self.reason if self.tag is None else f"{self.reason} at ({self.tag >> 16:04X},{self.tag & 0xFFFF:04X})"
