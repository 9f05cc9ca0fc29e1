"""One shard de-identified under today's plans: a part. Person by person, so that what is found in one image of a person
is searched for in all of theirs; outcomes last, so that a killed run leaves nothing that counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import layout
from pipeline.deidentify import facts, second_look
from pipeline.deidentify.engine import Rewritten, Subject, rewrite
from pipeline.deidentify.plan import PlanSet
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.dicom.charset import decode, encodings
from pipeline.dicom.scan import Scan
from pipeline.errors import NotFound, TreError
from pipeline.model import REASONS, Reason, Refusal, Status
from pipeline.observe import event, track
from pipeline.schemas import OUTCOMES
from pipeline.storage import ObjectStore, tables

Person = tuple[str, str]        # (issuer, id)


@dataclass(frozen=True, slots=True)
class Decided:
    """A shard's row, and whether it may pass: the person behind it, or the reason why not."""

    row: Mapping[str, Any]      # schemas.INVENTORY
    person: Person | None
    reason: Reason | None


@dataclass(slots=True)
class Job:
    """What a shard is done with. `known` gives, by person, identifiers from the crosswalk and the clinical tables."""

    project: str
    landing: ObjectStore
    candidate: ObjectStore
    plans: PlanSet
    pseudonyms: Pseudonyms
    date_shift_days: int
    known: Mapping[Person, Iterable[str]] = field(default_factory=dict)
    exceptions: tuple[str, ...] = ()


@dataclass(slots=True)
class _Made:
    """One output that waits in scratch for the search of what comes out."""

    index: int
    path: Path
    result: Rewritten
    facts: dict[str, list[str]]
    header: bytes
    dates: dict[int, set[str]]


def part_id(decided: Sequence[Decided], plans: PlanSet, pseudonyms: Pseudonyms) -> str:
    """Return HK(set of (source_sha256, person or reason), plan, key id)."""
    members = sorted(
        (bytes(d.row["source_sha256"]), layout.person(*d.person) if d.person and not d.reason else str(d.reason))
        for d in decided
    )
    return layout.keyed("p", pseudonyms.key.secret,
                        [plans.id, pseudonyms.key.id, *(field for member in members for field in member)])


def run(job: Job, work: ObjectStore, part: str, decided: Sequence[Decided]) -> dict[str, int]:
    """De-identify the shard's rows into part `part`; return counts by `status` or `status/reason`.

    Writes the DICOM files, facts.parquet and, last, outcomes.parquet. Same rows, plan and key: same bytes.
    """
    outcomes: list[dict[str, Any]] = [_outcome(job, d) for d in decided]
    rows: list[dict[str, Any]] = []
    kept: list[dict[str, list[str]]] = []
    people: dict[Person, list[int]] = {}
    for index, one in enumerate(decided):
        if one.reason is None and one.person is not None:
            people.setdefault(one.person, []).append(index)
    for person in track(sorted(people), "de-identifying people"):
        _person(job, part, person, people[person], decided, outcomes, rows, kept)
    outcomes.sort(key=lambda row: str(row["source_uri"]))
    tables.write(job.candidate, layout.facts(job.project, part), facts.table(rows, kept))
    tables.write(work, layout.outcomes(job.project, part), tables.from_rows(OUTCOMES, outcomes))
    counts = Counter(f"{o['status']}/{o['reason']}" if o["reason"] else str(o["status"]) for o in outcomes)
    event("deidentify.done", part=part, instances=len(outcomes), passed=len(rows))
    return dict(sorted(counts.items()))


def _outcome(job: Job, decided: Decided) -> dict[str, Any]:
    row, reason = decided.row, decided.reason
    status = REASONS[reason][0] if reason else Status.PENDING
    patient = job.pseudonyms.person(*decided.person) if decided.person else None
    return {"source_uri": row["source_uri"], "source_sha256": bytes(row["source_sha256"]), "status": status.value,
            "reason": reason.value if reason else None, "patient": patient}


def _refuse(outcome: dict[str, Any], reason: Reason, tag: int | None = None) -> None:
    outcome.update(status=Status.QUARANTINED.value, reason=reason.value, tag=f"{tag:08X}" if tag is not None else None,
                   output_sha256=None, output_bytes=None, output_key=None)


def _person(
    job: Job, part: str, person: Person, indexes: list[int], decided: Sequence[Decided], outcomes: list[dict[str, Any]],
    rows: list[dict[str, Any]], kept: list[dict[str, list[str]]],
) -> None:
    """Rewrite all that is this person's, search it, and store what holds nothing."""
    patient = job.pseudonyms.person(*person)
    collected = second_look.Collected(job.exceptions)
    collected.add_ids([person[1], *job.known.get(person, ())])
    with job.candidate.scratch() as scratch:
        made: list[_Made] = []
        for index in indexes:
            row = decided[index].row
            subject = Subject(patient, job.pseudonyms, job.pseudonyms.shift_days(patient, job.date_shift_days),
                              job.pseudonyms.shift_seconds(patient), row["issuer"] or person[0])
            try:
                made.append(_rewrite(job, row, index, subject, scratch / f"{index}.dcm", collected))
            except Refusal as refusal:
                _refuse(outcomes[index], refusal.reason, refusal.tag)
            except NotFound:
                _refuse(outcomes[index], Reason.SOURCE_MISSING)
            except (TreError, OSError, MemoryError):
                raise   # the store or this machine failed, not the object: the part stays undone and is tried again
            except Exception as error:  # noqa: BLE001 - one object's surprise must not stop its neighbours
                event("deidentify.surprise", part=part, error=type(error).__name__)
                _refuse(outcomes[index], Reason.ENGINE_FAILED)
        tokens = collected.tokens()
        unsafe = {one.result.study for one in made if second_look.search(one.header, tokens, one.dates)}
        for one in made:
            outcome, result = outcomes[one.index], one.result
            outcome.update(study=result.study, series=result.series, instance=result.instance)
            if result.study in unsafe:
                _refuse(outcome, Reason.RESIDUAL_IDENTIFIER)
                continue
            digest = result.sha256.hex()
            key = layout.dicom(job.project, part,
                               layout.image_path(patient, result.study, result.series, result.instance, digest))
            job.candidate.adopt(key, one.path, result.sha256)
            outcome.update(output_sha256=result.sha256, output_bytes=result.size, output_key=key)
            rows.append({"patient": patient, "study": result.study, "series": result.series,
                         "instance": result.instance, "key": key, "sha256": result.sha256, "bytes": result.size})
            kept.append(one.facts)


def _rewrite(job: Job, row: Mapping[str, Any], index: int, subject: Subject, target: Path,
             collected: second_look.Collected) -> _Made:
    plan = job.plans.plans.get(row["sop_class_uid"])
    if plan is None:
        raise Refusal(Reason.NO_RECIPE_FOR_SOP_CLASS)
    key = row["source_uri"].removeprefix(job.landing.url + "/")
    with ExitStack() as stack:
        source = stack.enter_context(job.landing.fetch(key))
        result = rewrite(source, target, plan, subject, expect=bytes(row["source_sha256"]))
    collected.take_dates()      # those of an object that was refused are nobody's
    collect(result.source, collected)
    with target.open("rb") as file:
        header = file.read(result.header_size)
    return _Made(index, target, result, facts.extract(header, result.explicit), header, collected.take_dates())


def collect(source: Scan, collected: second_look.Collected) -> None:
    """Add what the input says of the person: names, ids, dates, UIDs at the top level, the meta information's too."""
    codecs = encodings(source.value(0x00080005))
    for tag, vr, _, value, end in source.elements:
        kind = second_look.TOKEN_TAGS.get(tag)
        if kind and end > value:
            collected.add(tag, kind, decode(source.head[value:end], codecs, person_name=vr == b"PN"))
    instance = source.meta.get(0x00020003)
    if instance:
        collected.add(0x00020003, "uid", instance.decode("ascii", "replace"))
