"""The verbs that change state. Each takes a project file (or its config) and ids, and returns ids and counts, no value.

DAGs and the command line call the same functions. Every one is idempotent, writes under names derived from its inputs
with its commit marker last, and computes what there is to do as a set difference over the zones. No room is loaded
before its step runs. Whatever stages, de-identifies, builds or publishes begins with `approved`: it refuses a project
of which a recipe, a suite or the file itself has no officer's signature. A recall is never held up by that.
"""

from pipeline.steps.build import assemble, clinical, curate, validate
from pipeline.steps.intake import ask_pacs, close, deidentify, pending_shards, reconcile, retrieve, retry, stage
from pipeline.steps.lists import ledger_summary, propose_terms, resolve_cohort
from pipeline.steps.recalls import finish_recall, order_recall, recall
from pipeline.steps.release import (
    approve,
    approve_files,
    candidate_answer,
    candidate_page,
    candidate_summary,
    newest_candidate,
    publish,
    record_assurance,
    sign_candidate,
)

__all__ = [
    "approve",
    "approve_files",
    "ask_pacs",
    "assemble",
    "candidate_answer",
    "candidate_page",
    "candidate_summary",
    "clinical",
    "close",
    "curate",
    "deidentify",
    "finish_recall",
    "ledger_summary",
    "newest_candidate",
    "order_recall",
    "pending_shards",
    "propose_terms",
    "publish",
    "recall",
    "reconcile",
    "record_assurance",
    "resolve_cohort",
    "retrieve",
    "retry",
    "sign_candidate",
    "stage",
    "validate",
]
