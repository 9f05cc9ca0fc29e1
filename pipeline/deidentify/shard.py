"""One shard de-identified under today's plans: a part. Person by person, so that what is found in one image of a person
is searched for in all of theirs; outcomes last, so that a killed run leaves nothing that counts.

Objects are read, rewritten and searched in a worker process, each under limits of time and memory (`isolate`). What is
written to the zones is written by this one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import layout
from pipeline.deidentify import canary, content, facts, looks, second_look
from pipeline.deidentify.dates import moment
from pipeline.deidentify.engine import Subject, header_alone, rewrite
from pipeline.deidentify.pixel_policy import Device
from pipeline.deidentify.plan import PlanSet
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.deidentify.reports import Tally
from pipeline.deidentify.sentinels import ISSUER, Sentinels
from pipeline.deidentify.treatment import device_of
from pipeline.dicom.charset import decode, encodings
from pipeline.dicom.file import Scan, scan_of
from pipeline.errors import NotFound, ProjectFileError, TreError
from pipeline.isolate import LIMITS, Clock, Limits, each
from pipeline.model import REASONS, Reason, Refusal, Status
from pipeline.observe import event, track
from pipeline.schemas import LOOKS, OUTCOMES
from pipeline.storage import ObjectStore, open_store, tables

Person = tuple[str, str]        # (issuer, id)
CANARIES: Person = ("", "")     # a group of work that is nobody's
LONGEST_TOKEN = 0xFFFE          # bytes of a name, id or address: what explicit VR can write


@dataclass(frozen=True, slots=True)
class Decided:
    """A shard's row, and whether it may pass: the person behind it, or the reason why not."""

    row: Mapping[str, Any]      # schemas.INVENTORY
    person: Person | None
    reason: Reason | None
    attempt: int = 0            # how often it was asked to be tried again under the same plan


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
    limits: Limits = LIMITS


class _Passed(NamedTuple):
    """One output in which nothing was found: it waits in scratch to be stored."""

    number: int
    study: str
    series: str
    instance: str
    sha256: bytes
    size: int
    facts: dict[str, list[str]]
    order: int | None       # rank in the study by when it was acquired
    items: Tally | None     # of a structured report
    emptied: dict[int, int]     # free text that was no approved term, by tag


class _Report(NamedTuple):
    """A report that passed, and where its items wait."""

    patient: str
    study: str
    instance: str
    path: Path
    items: Tally


@dataclass(slots=True)
class _Made:
    """One output that waits in scratch for the search of what comes out. Of the input only what the search needs."""

    passed: _Passed
    header: bytes
    dates: dict[int, set[str]]
    moment: str | None      # when it was acquired
    to_read: tuple[Device, tuple[str, ...]] | None = None   # of an image to be read for text: its maker, approved words


@dataclass(slots=True)
class _Answer:
    """What a worker made of one person's objects, by index into the shard's rows."""

    passed: list[_Passed] = field(default_factory=list)
    refused: dict[int, tuple[Reason, int | None]] = field(default_factory=dict)
    residual: dict[int, tuple[str, str, str]] = field(default_factory=dict)     # output's study, series, instance
    surprises: list[str] = field(default_factory=list)                          # names of types
    short: int = 0          # words of names that are too short to be searched for
    canaries: list[canary.Sighting] = field(default_factory=list)
    looks: dict[int, looks.Look] = field(default_factory=dict)      # what came of looking for text in pixels


def part_id(decided: Sequence[Decided], plans: PlanSet, pseudonyms: Pseudonyms) -> str:
    """Return HK(set of (source_sha256, person or reason, attempt if there is one), plan, key id)."""
    members = sorted((bytes(d.row["source_sha256"]), _fate(d)) for d in decided)
    return layout.keyed("p", pseudonyms.key.secret,
                        [plans.id, pseudonyms.key.id, *(field for member in members for field in member)])


def _fate(decided: Decided) -> str:
    who = layout.person(*decided.person) if decided.person and not decided.reason else str(decided.reason)
    return f"{who}\x1fattempt {decided.attempt}" if decided.attempt else who


def run(job: Job, work: ObjectStore, part: str, decided: Sequence[Decided]) -> dict[str, int]:
    """De-identify the shard's rows into part `part`; return counts by `status` or `status/reason`.

    Canaries go first, through the same worker and the same plans, and leave nothing. Raises CanarySurfaced, and
    ProjectFileError where landing is not where the rows were staged from.
    Writes the DICOM files, content.parquet where it has reports, facts.parquet, looks.parquet where pixels were read
    and, last, outcomes.parquet. Same rows, plan and key: same bytes.
    """
    if not all(one.row["source_uri"].startswith(job.landing.url + "/") for one in decided if one.reason is None):
        raise ProjectFileError("This batch was staged from another landing than the project file names.",
                               hint="Put [zones] landing back to where it was staged from.")
    outcomes: list[dict[str, Any]] = [_outcome(job, d) for d in decided]
    rows: list[dict[str, Any]] = []
    kept: list[dict[str, list[str]]] = []
    reports: list[_Report] = []
    people: dict[Person, list[int]] = {}
    for index, one in enumerate(decided):
        if one.reason is None and one.person is not None:
            people.setdefault(one.person, []).append(index)
    stores: list[ObjectStore] = []
    emptied: Counter[int] = Counter()
    looked: dict[int, looks.Look] = {}

    def work_on(person: Person, clock: Clock, without: AbstractSet[int]) -> _Answer:
        if not stores:      # in the worker: a store's connections are not shared
            stores.append(open_store(job.landing.url, "landing", create=False))
        if person == CANARIES:
            return _Answer(canaries=list(_canaries(job, canaries, marks, scratch, clock, len(decided), without)))
        return _person(job, stores[0], scratch, person, people[person], decided, clock, without)

    marks = Sentinels(job.pseudonyms, job.date_shift_days)
    classes = {row.row["sop_class_uid"] for row in decided if row.reason is None and row.person is not None}
    canaries = canary.flock(job.plans.plans, classes, marks, sum(part.encode()))
    seen: list[canary.Sighting] = []
    order = [*([CANARIES] if canaries else []), *sorted(people)]
    # In the identifiable zone: until it is searched, an output may hold an identifier, and a kill may leave it there.
    with work.scratch() as scratch, closing(each(order, work_on, limits=job.limits)) as done:
        for person, answer in track(done, "de-identifying people", total=len(order)):
            if person == CANARIES:
                canary.judge(canaries, seen := answer.canaries)
                continue
            for kind in answer.surprises:
                event("deidentify.surprise", part=part, error=kind)
            _store(job, part, scratch, job.pseudonyms.person(*person), answer, outcomes, rows, kept, reports)
            looked |= answer.looks
            for passed in answer.passed:
                emptied.update(passed.emptied)
        canary.silent(canaries, seen, {job.plans.plans[decided[n].row["sop_class_uid"]].id
                                       for n, row in enumerate(outcomes) if row.get("output_key")})
        if reports:
            whole = scratch / "content.parquet"
            content.join(whole, [report[:4] for report in reports])
            job.candidate.write(layout.content(job.project, part), whole.read_bytes())
    outcomes.sort(key=lambda row: str(row["source_uri"]))
    tables.write(job.candidate, layout.facts(job.project, part), facts.table(rows, kept))
    job.candidate.settle()
    if looked:
        found = sorted(looks.rows(looked, lambda n: bytes(decided[n].row["source_sha256"])),
                       key=lambda row: bytes(row["source_sha256"]))
        tables.write(work, layout.looks(job.project, part), tables.from_rows(LOOKS, found))
        event("deidentify.looks", part=part, images=len(found), with_text=sum(bool(row["boxes"]) for row in found))
    tables.write(work, layout.outcomes(job.project, part), tables.from_rows(OUTCOMES, outcomes))
    counts = Counter(f"{o['status']}/{o['reason']}" if o["reason"] else str(o["status"]) for o in outcomes)
    event("deidentify.done", part=part, instances=len(outcomes), passed=len(rows), canaries=len(canaries))
    if emptied:
        event("deidentify.terms", part=part, **{f"emptied_{tag:08X}": n for tag, n in sorted(emptied.items())})
    if reports:
        dropped: Counter[str] = Counter()
        for report in reports:
            dropped.update({**report.items.dropped, "below": report.items.below})
        event("deidentify.reports", part=part, reports=len(reports), kept=sum(report.items.kept for report in reports),
              **dropped)
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


def _canaries(
    job: Job, canaries: Sequence[canary.Canary], marks: Sentinels, scratch: Path, clock: Clock, first: int,
    without: AbstractSet[int],
) -> Iterator[canary.Sighting]:
    """In the worker: send the canaries through the engine, search what comes out, and throw it away."""
    subject = Subject(marks.patient, job.pseudonyms, marks.days, job.pseudonyms.shift_seconds(marks.patient), ISSUER)
    source, target = scratch / "canary", scratch / "canary.dcm"
    for number, one in enumerate(canaries):
        clock.start(first + number, len(one.data))
        try:
            if first + number in without:
                raise Refusal(Reason.LIMIT_EXCEEDED)
            source.write_bytes(one.data)
            target.unlink(missing_ok=True)
            try:
                rewrite(source, target, one.plan, subject, expect=hashlib.sha256(one.data).digest())
                out = target.read_bytes()
            except Refusal:     # pixels that want a look of their own: the header is what a canary is for
                out = header_alone(scan_of(source), one.plan, subject)
            yield canary.Sighting(number, None, canary.told(one, marks.search(out)))
        except Refusal as refusal:
            yield canary.Sighting(number, refusal.reason)
        except (TreError, OSError):
            raise
        except Exception:  # noqa: BLE001 - as an object's surprise: it went nowhere
            yield canary.Sighting(number, Reason.ENGINE_FAILED)
        finally:
            target.unlink(missing_ok=True)
    clock.stop()


def _person(
    job: Job, landing: ObjectStore, scratch: Path, person: Person, indexes: list[int], decided: Sequence[Decided],
    clock: Clock, without: AbstractSet[int],
) -> _Answer:
    """In the worker: rewrite all that is this person's into scratch, and search it."""
    answer = _Answer()
    refused = answer.refused
    patient = job.pseudonyms.person(*person)
    collected = second_look.Collected(job.exceptions, job.plans.vocabulary)
    collected.add_ids([person[1], *job.known.get(person, ())])
    made: list[_Made] = []
    said: dict[tuple[str, ...], list[str]] = {}     # images of a person say much the same: held, and sent, once
    for index in indexes:
        row = decided[index].row
        subject = Subject(patient, job.pseudonyms, job.pseudonyms.shift_days(patient, job.date_shift_days),
                          job.pseudonyms.shift_seconds(patient), row["issuer"] or person[0])
        target = scratch / f"{index}.dcm"
        target.unlink(missing_ok=True)      # of a worker that is gone
        try:
            if index in without:
                raise Refusal(Reason.LIMIT_EXCEEDED)
            one = _rewrite(job, landing, row, index, subject, target, collected, clock)
            one.passed.facts.update({path: said.setdefault((path, *values), values)
                                     for path, values in one.passed.facts.items()})
            made.append(one)
        except Refusal as refusal:
            refused[index] = refusal.reason, refusal.tag
        except NotFound:
            refused[index] = Reason.SOURCE_MISSING, None
        except MemoryError:
            refused[index] = Reason.LIMIT_EXCEEDED, None
        except (TreError, OSError):
            raise   # the store or this machine failed, not the object: the part stays undone and is tried again
        except Exception as error:  # noqa: BLE001 - one object's surprise must not stop its neighbours
            answer.surprises.append(type(error).__name__)
            refused[index] = Reason.ENGINE_FAILED, None
    clock.stop()
    tokens = collected.tokens()
    answer.short = tokens.short
    unsafe, stands = set(), {}
    for one in made:
        index = one.passed.number
        clock.start(index, len(one.header))
        try:
            if hits := second_look.search(one.header, tokens, one.dates):
                unsafe.add(one.passed.study)
                stands[index] = hits[-1].tag     # those without a tag come first
        except MemoryError:
            refused[index] = Reason.LIMIT_EXCEEDED, None
        except Exception as error:  # noqa: BLE001 - not being able to look is not a clean bill
            answer.surprises.append(type(error).__name__)
            refused[index] = Reason.ENGINE_FAILED, None
    _look(scratch, [one for one in made if one.passed.number not in refused], answer, clock)
    clock.stop()
    shown = {one.passed.study for one in made if one.passed.number in answer.looks
             and answer.looks[one.passed.number].boxes}
    for one in made:
        index = one.passed.number
        if one.passed.study in unsafe | shown:
            answer.residual[index] = one.passed.study, one.passed.series, one.passed.instance
            reason = Reason.RESIDUAL_IDENTIFIER if one.passed.study in unsafe else Reason.TEXT_IN_PIXELS
            refused[index] = reason, stands.get(index)
    sound = [one for one in made if one.passed.number not in refused]
    order = _order(sound)
    answer.passed = [one.passed._replace(order=order.get(one.passed.number)) for one in sound]
    for index in {one.passed.number for one in made} & refused.keys():
        (scratch / f"{index}.dcm").unlink()
    return answer


def _look(scratch: Path, made: Iterable[_Made], answer: _Answer, clock: Clock) -> None:
    """Look for text in the pixels of those outputs that pass only where there is none."""
    for one in made:
        if one.to_read:
            index, size = one.passed.number, one.passed.size

            def tick(index: int = index, size: int = size) -> None:
                clock.start(index, size)

            try:
                answer.looks[index] = looks.look(scratch / f"{index}.dcm", *one.to_read, tick)
            except Refusal as refusal:
                answer.refused[index] = refusal.reason, None


def _order(made: Iterable[_Made]) -> dict[int, int]:
    """Return by number the rank of each image within its study by when it was acquired, where it says so."""
    moments: dict[str, dict[int, str]] = {}
    for one in made:
        if one.moment:
            moments.setdefault(one.passed.study, {})[one.passed.number] = one.moment
    ranks: dict[int, int] = {}
    for study in moments.values():
        places = {when: n for n, when in enumerate(sorted(set(study.values())), 1)}
        ranks |= {index: places[when] for index, when in study.items()}
    return ranks


def _rewrite(job: Job, landing: ObjectStore, row: Mapping[str, Any], index: int, subject: Subject, target: Path,
             collected: second_look.Collected, clock: Clock) -> _Made:
    plan = job.plans.plans.get(row["sop_class_uid"])
    if plan is None:
        raise Refusal(Reason.NO_RECIPE_FOR_SOP_CLASS)
    key, size = row["source_uri"].removeprefix(job.landing.url + "/"), row["bytes"]
    clock.fetch(index, size)
    with landing.fetch(key) as source:
        clock.start(index, size)
        result = rewrite(source, target, plan, subject, expect=bytes(row["source_sha256"]))
    try:
        collected.take_dates()      # those of an object that was refused are nobody's
        collect(result.source, collected)
        if result.items:
            clock.start(index, size)        # reading a report back takes as long again
            content.collect(result.source, collected)
        with target.open("rb") as file:
            header = file.read(result.header_size)
        value = result.source.value
        when = moment(value(0x0008002A), (value(0x00080022), value(0x00080032)), (value(0x00080023), value(0x00080033)))
        passed = _Passed(index, result.study, result.series, result.instance, result.sha256, result.size,
                         facts.extract(header, result.encoding), None, result.items,
                         dict(result.emptied))
        if result.items:
            content.spool(target.with_suffix(".content"), content.extract(header, result.encoding))
            when = None     # a report is none of the images that are ranked
        to_read = (device_of(result.source), plan.pixel_policy.words) if result.to_read else None
        return _Made(passed, header, collected.take_dates(), when, to_read)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _store(job: Job, part: str, scratch: Path, patient: str, answer: _Answer, outcomes: list[dict[str, Any]],
           rows: list[dict[str, Any]], kept: list[dict[str, list[str]]], reports: list[_Report]) -> None:
    """Store what passed, and note every object's outcome."""
    for index, (reason, tag) in answer.refused.items():
        _refuse(outcomes[index], reason, tag)
    for index, (study, series, instance) in answer.residual.items():
        outcomes[index].update(study=study, series=series, instance=instance)
    for one in answer.passed:
        key = layout.dicom(job.project, part,
                           layout.image_path(patient, one.study, one.series, one.instance, one.sha256.hex()))
        job.candidate.adopt(key, scratch / f"{one.number}.dcm", one.sha256)
        outcomes[one.number].update(study=one.study, series=one.series, instance=one.instance,
                                   output_sha256=one.sha256, output_bytes=one.size, output_key=key,
                                   names_short=answer.short,
                                   emptied=[facts.named(tag)[0] for tag in sorted(one.emptied)] or None)
        rows.append({"patient": patient, "study": one.study, "series": one.series, "instance": one.instance,
                     "key": key, "sha256": one.sha256, "bytes": one.size, "acquisition_order": one.order})
        kept.append(one.facts)
        if one.items:
            outcomes[one.number].update(items=one.items.kept, items_dropped=one.items.items - one.items.kept)
            reports.append(_Report(patient, one.study, one.instance, scratch / f"{one.number}.content", one.items))


def collect(source: Scan, collected: second_look.Collected) -> None:
    """Add what the input says of the person: names, ids, dates, UIDs at the top level, the meta information's too."""
    codecs = encodings(source.value(0x00080005))
    for tag, vr, _, value, end in source.elements:
        kind = second_look.TOKEN_TAGS.get(tag)
        if kind and end > value:
            if end - value > LONGEST_TOKEN:
                raise Refusal(Reason.VALUE_MALFORMED, tag)
            collected.add(tag, kind, decode(source.head[value:end], codecs, person_name=vr == b"PN"))
    instance = source.meta.get(0x00020003)
    if instance:
        collected.add(0x00020003, "uid", instance.decode("ascii", "replace"))
