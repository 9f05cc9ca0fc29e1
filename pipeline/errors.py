"""One tree of errors. Each has a reason code, a disposition and an exit code, and no value of any patient.

A message says what is wrong and what to do about it. It may name a file the *operator* wrote (a project file, a recipe
and its line), a zone, an opaque id, a tag or a count; never an element's value or the name of a landed object.
"""

from __future__ import annotations

from enum import StrEnum


class Disposition(StrEnum):
    """What happens next: the step is tried again, or the run stops. One object's fate is a `Refusal`, not an error."""

    RETRY = "retry"
    ABORT = "abort"


class TreError(Exception):
    """Base of every error the product raises on purpose."""

    code = "error"
    disposition = Disposition.ABORT
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(TreError):
    """The command's words are off."""

    code, exit_code = "usage", 2


class ProjectFileError(TreError):
    """The project file cannot be used; the message names the file and the line."""

    code, exit_code = "project_file_invalid", 10


class RecipeRefused(TreError):
    """The linter refused a recipe; the message lists file, line, what deid would have done and the mend."""

    code, exit_code = "recipe_refused", 11


class KeyRefused(TreError):
    """The project's key is missing, malformed or readable by others. No key is ever made up."""

    code, exit_code = "key_refused", 12


class PeopleListRefused(TreError):
    """The permitted-people list is missing, stale, truncated or empty: nobody passes."""

    code, exit_code = "people_list_refused", 13


class CrosswalkRefused(TreError):
    """The crosswalk is malformed, or would change a known person's identity."""

    code, exit_code = "crosswalk_refused", 14


class ClinicalRefused(TreError):
    """A clinical table has an undeclared column or cannot be read."""

    code, exit_code = "clinical_refused", 15


class DosimetryRefused(TreError):
    """The physicist's output table or factor table cannot be used; the message names the line."""

    code, exit_code = "dosimetry_refused", 16


class RecipeFailed(TreError):
    """A recipe set left an identifier on the answer key, lost what it claims, or a weakened one went unnoticed."""

    code, exit_code = "recipe_failed", 19


class AuditNotServed(TreError):
    """A recipe, or the project file, does not leave what an audit needs."""

    code, exit_code = "audit_not_served", 17


class TermsRefused(TreError):
    """The list of approved terms is malformed, not approved, or holds what looks like an identifier; names the line."""

    code, exit_code = "terms_refused", 18


class CohortRefused(TreError):
    """A cohort file is malformed, or asks for more than the project file allows."""

    code, exit_code = "cohort_refused", 29


class StoreUnreachable(TreError):
    """A store did not answer, or not in time."""

    code, exit_code, disposition = "store_unreachable", 20, Disposition.RETRY


class StoreRefused(TreError):
    """A store lacks a property that a release depends on; the message names the property."""

    code, exit_code = "store_refused", 21


class StoreDenied(TreError):
    """The store answered that these credentials may not do this."""

    code, exit_code = "store_denied", 22


class NotFound(TreError):
    """An object that must be there is not."""

    code, exit_code = "not_found", 23


class LeaseHeld(TreError):
    """Another process holds the lease for this step of this project."""

    code, exit_code, disposition = "lease_held", 24, Disposition.RETRY


class PartsMissing(TreError):
    """A candidate cannot be put together: shards wait to be de-identified."""

    code, exit_code = "parts_missing", 25


class PacsUnreachable(TreError):
    """The PACS opened no association, or did not answer in time."""

    code, exit_code, disposition = "pacs_unreachable", 26, Disposition.RETRY


class PacsRefused(TreError):
    """The PACS does not take what it was asked, or not from us."""

    code, exit_code = "pacs_refused", 27


class RetrievalIncomplete(TreError):
    """Some studies did not come whole; what is missing stands in the ledger and in a cohort file for another run."""

    code, exit_code = "retrieval_incomplete", 28


class CanarySurfaced(TreError):
    """A canary came through de-identification with what was planted in it, or could not be sent through."""

    code, exit_code = "canary_surfaced", 34


class SuiteRefused(TreError):
    """An expectation suite is malformed or not all of it loaded."""

    code, exit_code = "suite_refused", 40


class CandidateFailed(TreError):
    """A critical expectation failed: this candidate goes no further."""

    code, exit_code = "candidate_failed", 41


class ApprovalRefused(TreError):
    """No approval stands for exactly this candidate, or it is not valid."""

    code, exit_code = "approval_refused", 50


class PublishRefused(TreError):
    """Something that was approved is not what would be published, or the predecessor has moved."""

    code, exit_code = "publish_refused", 51


class RecallRefused(TreError):
    """A recall cannot be carried out as it was asked, or something that it should have removed is still there."""

    code, exit_code = "recall_refused", 52


class FilesNotApproved(TreError):
    """A recipe, a suite or the project file runs only with an officer's signature, and has none that holds."""

    code, exit_code = "files_not_approved", 53


class OfficersRefused(TreError):
    """The list of officers is missing, malformed, or stands where those whom it judges may change it."""

    code, exit_code = "officers_refused", 54


class OfficerKeyRefused(TreError):
    """An officer's private key is missing, readable by others, or cannot be opened."""

    code, exit_code = "officer_key_refused", 55


class VerifyFailed(TreError):
    """A published release is not what its manifest says."""

    code, exit_code = "verify_failed", 60


class SchemaTooNew(TreError):
    """A file was written by a newer version of the product."""

    code, exit_code = "schema_too_new", 61


class LedgerBroken(TreError):
    """The ledger does not hold: an object without exactly one fate, or a release that it does not explain."""

    code, exit_code = "ledger_broken", 62


class AuditLogBroken(TreError):
    """An entry of the audit log was changed, taken out or moved."""

    code, exit_code = "audit_log_broken", 63


class EnvironmentUnfit(TreError):
    """This machine lacks something the command needs; the message names it."""

    code, exit_code = "environment_unfit", 70


class Interrupted(TreError):
    """A process of the product ended without an answer (killed, out of memory)."""

    code, exit_code, disposition = "interrupted", 71, Disposition.RETRY
