"""The identifiable side of a project, read on use: what the steps share. Rooms are loaded when they are asked."""

from __future__ import annotations

import getpass
import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pipeline import layout
from pipeline.config import ProjectConfig, load
from pipeline.errors import CohortRefused, FilesNotApproved, NotFound, OfficersRefused, TreError, UsageError
from pipeline.model import Reason
from pipeline.storage import ObjectStore, open_store

if TYPE_CHECKING:
    from pipeline.deidentify.shard import Decided, Person

Project = str | Path | ProjectConfig
Result = dict[str, Any]       # of a step: ids and counts


def config_of(project: Project) -> ProjectConfig:
    """Return the config of a project file, or the config that is given."""
    return project if isinstance(project, ProjectConfig) else load(project)


def zone(config: ProjectConfig, name: Literal["landing", "work", "candidate", "release"]) -> ObjectStore:
    """Return the store of one zone of the project."""
    return open_store(getattr(config.zones, name), name, create=name != "landing")


def suites_of(config: ProjectConfig) -> tuple[Path, ...]:
    """Return the directories of the project's expectation suites: the product's, then its own, which goes before it."""
    return config.suite_folders()


def plan_of(store: ObjectStore, config: ProjectConfig, candidate: str) -> dict[str, Any]:
    """Return plan.json of a candidate. Raises NotFound."""
    plan: dict[str, Any] = json.loads(store.read(layout.plan(config.name, candidate)))
    return plan


def curated_of(store: ObjectStore, config: ProjectConfig, candidate: str) -> list[str]:
    """Return the names of a candidate's curated tables. Raises NotFound where there is none yet."""
    prefix, suffix = layout.curated(config.name, candidate, "\n").split("\n")
    names = [entry.key[len(prefix):-len(suffix)] for entry in store.list(prefix) if entry.key.endswith(suffix)]
    if not names:
        raise NotFound("This candidate has no tables yet.", hint="Curate it first.")
    return names


def current_release(config: ProjectConfig) -> dict[str, Any] | None:
    """Return the manifest of the current release, or None."""
    release = zone(config, "release")
    try:
        current = json.loads(release.read(layout.current(config.name)))
        manifest: dict[str, Any] = json.loads(release.read(layout.release_manifest(config.name, current["release"])))
    except NotFound:
        return None
    return manifest


def approved(project: Project) -> Identifiable:
    """Return the identifiable side of a project whose every recipe, suite and file stands approved (govern/approved).

    What is refused is entered in the audit log, where that can be written. Raises FilesNotApproved, naming the files,
    OfficersRefused.
    """
    from pipeline.govern.approved import require

    config = config_of(project)
    try:
        found = require(config, datetime.now(UTC).date())
    except (FilesNotApproved, OfficersRefused) as error:
        refused(config, error)
        raise
    side = Identifiable(config)
    if found.officers:
        side.approved_as = {"files": found.digest(), "officers": found.officers.sha256}
        side.files = found.named()
    return side


def signed(config: ProjectConfig) -> dict[str, Any]:
    """Return who approved what the project runs, as the officer's page has it. What is not approved is told there."""
    from pipeline.govern.approved import standing
    from pipeline.publish.page import Signed

    try:
        found = standing(config, datetime.now(UTC).date())
    except TreError as error:
        return {"signed": [Signed(error.code, config.path.name, "", (), str(error))], "officers": "none"}
    if found.officers is None:
        return {}
    keys = {name: officer.fingerprint for name, officer in found.officers.by_name.items()}
    return {"officers": found.officers.sha256, "signed": [
        Signed(v.run.kind, v.run.name, v.run.sha256, tuple((e.approver, keys[e.approver], str(e.expires))
               for e in v.by), "" if v.approved else v.reason()) for v in found.verdicts]}


def refused(config: ProjectConfig, error: TreError) -> None:
    """Enter in the audit log that a project was not run. The refusal stands whether or not it can be entered."""
    from pipeline.govern import audit_log
    from pipeline.govern.approved import named

    with suppress(Exception):
        audit_log.append(zone(config, "work"), config.name, "refuse_files", account(), "done",
                         ids={**named(config), "error": error.code})


def account() -> str:
    """Return the name of the account that this process runs under."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "an account without a name"


class Wanted(NamedTuple):
    """A shard, the part it should have today, and the local ids that pass in it."""

    batch: str
    shard: int
    part: str
    ids: set[tuple[str | None, str | None]]


@dataclass
class Identifiable:
    """The identifiable side of a project, read on use: zones, key, people, plans, and who stands behind each object."""

    project: Project
    approved_as: dict[str, str] = field(default_factory=dict)   # digests: of what it runs, of the list of officers
    files: dict[str, str] | None = None     # what was found approved, as `named`; None where nobody was asked

    @cached_property
    def config(self) -> ProjectConfig:
        return config_of(self.project)

    @cached_property
    def landing(self) -> ObjectStore:
        return zone(self.config, "landing")

    @cached_property
    def work(self) -> ObjectStore:
        return zone(self.config, "work")

    @cached_property
    def candidate(self) -> ObjectStore:
        return zone(self.config, "candidate")

    @cached_property
    def pseudonyms(self) -> Any:
        from pipeline.deidentify.keys import load_key
        from pipeline.deidentify.pseudonyms import Pseudonyms

        return Pseudonyms(load_key(self.config.name))

    @cached_property
    def plans(self) -> Any:
        """The compiled recipes. Raises FilesNotApproved where a file changed between its approval's check and here:
        between the two lies all that is read of what landed, and that may take minutes."""
        from pipeline.deidentify.plan import load_plans
        from pipeline.govern.approved import named

        plans = load_plans(self.config)
        if self.files is not None and named(self.config) != self.files:
            raise FilesNotApproved("What the project runs changed while it was read.", hint="Start the step again.")
        return plans

    @cached_property
    def sentinels(self) -> Any:
        """What the project's canaries carry."""
        from pipeline.deidentify.sentinels import Sentinels

        return Sentinels(self.pseudonyms, self.config.deidentify.date_shift_days)

    @cached_property
    def terms(self) -> Any:
        """The approved terms of free text; none where the project names no list."""
        from pipeline.deidentify.terms import read

        given = self.config.deidentify.terms
        return read(self.config.beside(given) if given else None, self.config.deidentify.terms_people)

    @cached_property
    def crosswalk(self) -> Any:
        from pipeline.deidentify import crosswalk

        return crosswalk.load(self.config)

    @cached_property
    def permitted(self) -> Any:
        from pipeline.govern.people import load_permitted

        return load_permitted(self.config, date.today())

    def permitted_pseudonyms(self) -> frozenset[str] | None:
        """Return the pseudonyms of who may be used today; None where the project needs no list."""
        ids = self.permitted.ids
        return None if ids is None else frozenset(self.pseudonyms.person(*one.split("\x1f")) for one in ids)

    @cached_property
    def rules(self) -> Any:
        from pipeline.govern.eligibility import Rules

        return Rules.of(self.config, self.permitted.ids)

    @cached_property
    def clinical_snapshot(self) -> Any:
        from pipeline.deidentify.clinical import pseudonymise

        return pseudonymise(self.config, self.pseudonyms, self.crosswalk, self.permitted.ids, self.is_recalled)

    @cached_property
    def output(self) -> Any:
        from pipeline.deidentify.output import read

        given = self.config.equipment.output
        return read(self.config.beside(given) if given else None, self.pseudonyms)

    @cached_property
    def factors(self) -> Any:
        """The physicist's conversion factors; None where the project names none."""
        from pipeline.curate.factors import read

        given = self.config.curate.glandular_dose
        return read(self.config.beside(given.factors)) if given else None

    @cached_property
    def recalls(self) -> Any:
        from pipeline.govern.recall import standing

        return standing(self.work, self.config.name)

    def is_recalled(self, person: Person) -> bool:
        """Whether a person is recalled, under any number they have had."""
        from pipeline.deidentify.recall import pseudonyms_of

        if not self.recalls.people:     # the common case, in which staging needs no key
            return False
        return bool(pseudonyms_of(person, self.config, self.crosswalk, self.pseudonyms) & self.recalls.people)

    def _recalled(self, row: Any, person: Person | None) -> bool:
        from pipeline.deidentify.recall import local_digest

        if person and self.is_recalled(person):
            return True
        issuer, local = layout.normalise(row["issuer"]), layout.normalise(row["patient_id"])
        return bool(self.recalls.locals and issuer and local
                    and local_digest(self.pseudonyms, issuer, local) in self.recalls.locals)

    @cached_property
    def retries(self) -> dict[str, int]:
        """Return, by source digest (hex), how often an object was asked to be tried again."""
        keys = [entry.key for entry in self.work.list(layout.all_retries(self.config.name))]
        return {key.rpartition("/")[2].removesuffix(".json"): int(json.loads(self.work.read(key))["attempt"])
                for key in keys}

    # ---- what PACS is asked ------------------------------------------------------------------------------------
    @cached_property
    def landing_made(self) -> ObjectStore:
        """Landing, made where it is a directory that is not there yet."""
        return open_store(self.config.zones.landing, "landing")

    def asked(self, cohort: str | None, study_date: str | None) -> Any:
        """Return the cohort of a file, or of one study date. Raises CohortRefused, UsageError."""
        from pipeline.deidentify.nhs import normalise
        from pipeline.retrieve import cohort as room
        from pipeline.retrieve.run import settings

        limits = settings(self.config)
        if study_date and not cohort:
            return room.of_day(date.fromisoformat(study_date), limits.scheduled_modality)
        if not cohort or study_date:
            raise UsageError("A retrieval is of a cohort file, or of a study date.")
        try:
            data = Path(cohort).read_bytes()
        except OSError as error:
            raise CohortRefused(f"The cohort file cannot be read ({error.strerror}).") from None
        return room.read(data, normalise, most_rows=limits.cohort_rows, most_days=limits.range_days)

    def local_ids(self, number: str) -> list[tuple[str, str]]:
        """Return the (issuer, local id) pairs that lead to an NHS number, and to no other."""
        number = self.crosswalk.current(number)
        return sorted(pair for pair, numbers in self.crosswalk.links.items() if numbers == {number})

    def held(self, uids: Collection[str]) -> list[str]:
        """Return those SOP Instance UIDs that a committed batch has admitted."""
        import numpy as np
        import pyarrow as pa

        from pipeline.stage import admission, batches, seen

        digests = admission.uid_digests(pa.chunked_array([pa.array(list(uids), pa.string())]))
        committed = batches.committed(self.work, self.config.name)
        _, found = seen.look_up(self.work, self.config.name, committed, np.zeros_like(digests), digests)
        return [uid for uid, there in zip(uids, found, strict=True) if there]

    def decide(self, row: Any) -> Decided:
        """Say who is behind an inventory row, and why it may not pass where it may not."""
        from pipeline.deidentify.crosswalk import person_of
        from pipeline.deidentify.shard import Decided
        from pipeline.govern.eligibility import decide, decide_object

        who = person_of(row, self.config, self.crosswalk)
        reason: Reason | None = Reason.RECALLED if self.recalls.names(row) else decide_object(row, self.rules)
        if reason is None and self._recalled(row, who.key):
            reason = Reason.RECALLED
        reason = reason or who.reason or decide(row, self.rules, who.id)
        return Decided(row, who.key, reason, self.retries.get(bytes(row["source_sha256"]).hex(), 0))

    def decided(self, batch: str, shard: int) -> list[Decided]:
        from pipeline.stage.batches import read_shard

        return [self.decide(row) for row in read_shard(self.work, self.config.name, batch, shard).to_pylist()]

    def part(self, decided: list[Decided]) -> str:
        from pipeline.deidentify.shard import part_id

        return part_id(decided, self.plans, self.pseudonyms)

    def wanted(self) -> Iterator[Wanted]:
        """Yield every shard with the id of its part under today's plans and people."""
        from pipeline.stage.batches import committed, shards

        name = self.config.name
        for batch in committed(self.work, name):
            for number in shards(self.work, name, batch):
                decided = self.decided(batch, number)
                ids = {(d.row["issuer"], d.row["patient_id"]) for d in decided if d.reason is None}
                yield Wanted(batch, number, self.part(decided), ids)

    def guard(self, wanted: list[Wanted], *, remember: bool) -> None:
        from pipeline.deidentify.crosswalk import guard, pairs

        ids = ({"issuer": issuer, "patient_id": local} for w in wanted for issuer, local in w.ids)
        guard(self.work, self.config, pairs(ids, self.config, self.crosswalk, self.pseudonyms),
              key_id=self.pseudonyms.key.id, remember=remember)

    def parts_done(self) -> set[str]:
        prefix, marker = layout.parts(self.config.name), layout.outcomes("", "").rpartition("/")[2]
        names = (entry.key.removeprefix(prefix).split("/") for entry in self.work.list(prefix))
        return {parts[0] for parts in names if parts[1:] == [marker]}

    def known_identifiers(self, decided: list[Decided]) -> dict[Person, set[str]]:
        """Return what the crosswalk and the clinical tables call these people: what no output may hold."""
        from pipeline.deidentify.clinical import identifiers

        people = {d.person for d in decided if d.person and not d.reason}
        everybody = identifiers(self.config, self.crosswalk)
        found = {person: set(names) for person, names in everybody.items() if person in people}
        if self.config.project.linked:
            for person in people:
                found.setdefault(person, set()).update(self.crosswalk.identifiers(person[1]))
        return found

    def equipment(self, wanted: list[Wanted]) -> dict[str, Any]:
        """Return what is known of the x-ray sets, by table, for the candidate zone."""
        from pipeline.deidentify.equipment import follow

        seen = follow(self.work, self.candidate, self.config.name, ((w.batch, w.shard, w.part) for w in wanted),
                      self.output)
        known = {"versions": seen.versions, "surveys": seen.surveys, "output": self.output.table}
        return known | ({"factors": self.factors.table} if self.factors else {})

    def meaning(self) -> str:
        return layout.hashed("m", [self.config.meaning()])

    def suites(self) -> dict[str, str]:
        from pipeline.validate.suites import suite_digests

        return suite_digests(*suites_of(self.config))

    @staticmethod
    def schemas_digest() -> str:
        from pipeline import schemas
        from pipeline.schemas.catalogue import CATALOGUE

        return layout.hashed("q", [repr(table) for table in (*schemas.PUBLISHED, CATALOGUE)])

    @staticmethod
    def engine_version() -> str:
        from pipeline.deidentify.plan import ENGINE_VERSION

        return ENGINE_VERSION
