"""A retrieval: resolved once, fetched study by study, reconciled. Each can be killed anywhere and started again.

`expected.parquet` is the commit marker of the first: from then on PACS is not asked again what it has. A study ends
with one document; what of it had landed before a kill is found in landing, not asked for again.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.errors import NotFound, ProjectFileError
from pipeline.model import Reason
from pipeline.observe import event, track
from pipeline.retrieve import cohort as cohorts
from pipeline.retrieve.cohort import Cohort, Row
from pipeline.retrieve.fetch import Study, fetch
from pipeline.retrieve.kind import Kindness, Wait
from pipeline.retrieve.peer import Failed, Peer
from pipeline.retrieve.receive import Receiver
from pipeline.retrieve.resolve import Classes, LocalIds, resolve
from pipeline.schemas import ASKED, EXPECTED, MISSING
from pipeline.sections import Retrieve
from pipeline.storage import ObjectStore, tables

Held = Callable[[Collection[str]], Collection[str]]     # of SOP Instance UIDs: those that have been staged
NOT_OPENED_SECONDS = 30.0


def settings(config: ProjectConfig) -> Retrieve:
    """Return `[retrieve]` of a project file. Raises ProjectFileError where it has none."""
    if config.retrieve is None:
        raise ProjectFileError(f"{config.path}: no [retrieve] section.", hint="Say which PACS is asked, and how much.")
    return config.retrieve


@contextmanager
def opened(config: ProjectConfig, landing: ObjectStore | None = None) -> Iterator[Peer]:
    """Yield the PACS of the project file. What comes in stands below a directory that goes away: of `landing`, where it
    is given, so that images which a kill leaves half received lie in their own zone and the next start clears them."""
    with landing.scratch() if landing else tempfile.TemporaryDirectory(prefix="tre-retrieve-") as folder:
        if settings(config).service == "dicomweb":
            from pipeline.retrieve import web

            with web.opened(config, Path(folder)) as service:
                yield service
        else:
            from pipeline.retrieve import dimse

            with dimse.opened(config, Path(folder)) as peer:
                yield peer


def retrieval_id(config: ProjectConfig, cohort: Cohort, attempt: int = 0) -> str:
    """Return t-<24 hex> over what is asked of whom: the same cohort, filters and PACS are the same retrieval.

    `attempt`: to ask anew what PACS has.
    """
    asked = settings(config)
    filters = json.dumps([asked.only.model_dump(mode="json"), config.eligibility.model_dump(
        mode="json", include={"sop_classes", "study_dates"}), asked.service, asked.host, asked.called_ae, asked.url,
        asked.nhs_numbers, asked.issuer])
    return layout.hashed("t", [config.name, attempt, filters, *cohorts.as_fields(cohort)])


def find(config: ProjectConfig, work: ObjectStore, cohort: Cohort, *, local_ids: LocalIds, classes: Classes,
         held: Held, attempt: int = 0, wait: bool = False) -> dict[str, Any]:
    """Write down what PACS owes of a cohort, once. Return its id and counts. Raises PacsUnreachable, CohortRefused."""
    asked, name = settings(config), config.name
    retrieval = retrieval_id(config, cohort, attempt)
    key = layout.retrieval_expected(name, retrieval)
    if work.stat(key) is None:
        kind = Kindness(asked, work, name)
        while (later := kind.now_not()) and wait:
            time.sleep(min(later.seconds, 60))
        if later:
            return {"retrieval": retrieval, "wait_seconds": round(later.seconds, 1), "why": later.why}

        def sleep_through() -> None:
            while seconds := kind.quiet(work.now()):
                peer.rest()
                event("retrieve.quiet", seconds=round(seconds))
                time.sleep(min(seconds, 60))

        with opened(config) as peer:
            found = resolve(config, peer, cohort, local_ids, classes, sleep_through)
        owed = [row["sop_instance_uid"] for row in found.expected if row["left_out"] is None]
        there = frozenset(held(owed)) if owed and not asked.only.held else frozenset()
        for row in found.expected:
            if row["left_out"] is None and row["sop_instance_uid"] in there:
                row["left_out"] = "held"
        tables.write(work, layout.retrieval_rows(name, retrieval), tables.from_rows(ASKED, found.rows))
        tables.write(work, key, tables.from_rows(EXPECTED, found.expected))
    return {"retrieval": retrieval, "wait_seconds": 0.0, "why": None, **summary(config, work, retrieval)}


def summary(config: ProjectConfig, work: ObjectStore, retrieval: str) -> dict[str, Any]:
    """Return counts of what was asked and what is owed: rows by state, refused lines, studies, instances, filters."""
    rows = tables.read(work, layout.retrieval_rows(config.name, retrieval), ["line", "state", "reason"]).to_pylist()
    expected = _expected(config, work, retrieval)
    left_out = Counter(row["left_out"] for row in expected)
    owed = left_out.pop(None, 0)
    return {"rows": dict(sorted(Counter(row["state"] for row in rows).items())),
            "refused": [[row["line"], row["reason"]] for row in rows if row["state"] in ("refused", "failed")][:50],
            "studies": len({row["study"] for row in expected}), "instances": owed,
            "left_out": dict(sorted(left_out.items()))}


def get(config: ProjectConfig, landing: ObjectStore, work: ObjectStore, retrieval: str, *, group: int = 0,
        groups: int = 1, again: bool = False) -> dict[str, Any]:
    """Fetch the studies of a group, as many as kindness lets; return what is left, and for how long to wait.

    Group n of m has every m-th study. A study that has ended is not asked for again; `again`: unless it is not whole.
    Raises NotFound, PacsUnreachable, StoreUnreachable.
    """
    asked = settings(config)
    kind = Kindness(asked, work, config.name)
    todo = _todo(config, work, retrieval, group, groups, again=again)
    left, wait, done = len(todo), None, Counter[str]()
    late: list[Study] = []
    if todo:
        with opened(config, landing) as peer:
            for digest, rows in track(todo, "retrieving", total=len(todo)):
                wanted = [row["sop_instance_uid"] for row in rows if row["left_out"] is None]
                study = Study(digest, rows, Receiver(landing, retrieval, digest, rows[0]["study_uid"], wanted,
                                                     config.stage.max_object_bytes))
                study.receiver.recover()
                wait = kind.may_ask() if study.receiver.lacking() else None
                if wait:
                    break
                try:
                    fetch(peer, study)
                except Failed as failed:        # not reached, and nothing came: the study is not to blame
                    kind.told(well=False)
                    event("retrieve.not_reached", study=digest)
                    wait = Wait(failed.words, NOT_OPENED_SECONDS)
                    break
                if study.requests:
                    kind.told(well=not study.refused or study.ended == "complete")
                _end(config, landing, work, retrieval, study)
                late.append(study)
                done[study.ended] += 1
                left -= 1
        for study in late:      # what came after its study had ended
            if study.document()["missing"] != _ended(config, work, retrieval, study.digest)["missing"]:
                _end(config, landing, work, retrieval, study)
    return {"retrieval": retrieval, "ended": dict(done), "left": left,
            "wait_seconds": round(wait.seconds, 1) if wait else 0.0, "why": _why(wait)}


def reconcile(config: ProjectConfig, work: ObjectStore, retrieval: str) -> dict[str, Any]:
    """Hold what is owed against what landed, write the result and the cohort of what did not come whole.

    Result: studies by state (`waiting`: not asked for yet), owed, landed, missing, and what was kept out.
    """
    name, states, total = config.name, Counter[str](), Counter[str]()
    again: dict[str, Row] = {}
    first: dict[str, dict[str, Any]] = {}
    for row in _expected(config, work, retrieval):
        first.setdefault(row["study"], row)
    ended = {doc["study"]: doc for doc in documents(config, work, retrieval)}
    for digest, row in first.items():
        doc = ended.get(digest)
        states[doc["state"] if doc else "waiting"] += 1
        for count in ("owed", "missing", "bytes", "not_asked", "repeated", "conflicting"):
            total[count] += doc[count] if doc else 0
        if doc and doc["state"] != "complete":
            again[digest] = Row(len(again) + 2, study_instance_uid=row["study_uid"])
    rows = tables.read(work, layout.retrieval_rows(name, retrieval)).to_pylist()
    for failed in (row for row in rows if row["state"] == "failed"):
        cells = {column: failed[column] for column in cohorts.COLUMNS}
        again[f"line {failed['line']}"] = Row(len(again) + 2, **cells)
    work.write(layout.retrieval_again(name, retrieval), cohorts.write(again.values()))
    result = {"retrieval": retrieval, "studies": dict(sorted(states.items())),
              "landed": total["owed"] - total["missing"],
              **{count: total[count] for count in ("owed", "missing", "bytes", "not_asked", "repeated", "conflicting")},
              "rows": dict(sorted(Counter(row["state"] for row in rows).items())), "again": len(again)}
    work.write(layout.retrieval_result(name, retrieval),
               json.dumps({"schema_version": layout.SCHEMA_VERSION, **result}, indent=1, sort_keys=True).encode())
    event("retrieve.reconciled", retrieval=retrieval, owed=total["owed"], missing=total["missing"])
    return result


def progress(config: ProjectConfig, work: ObjectStore, retrieval: str) -> dict[str, int]:
    """Return counts of one retrieval as it stands: studies, by state, instances owed and missing."""
    digests = Counter(row["study"] for row in _expected(config, work, retrieval) if row["left_out"] is None)
    ended = list(documents(config, work, retrieval))
    states = Counter(doc["state"] for doc in ended if doc["study"] in digests)
    return {"studies": len(digests), **{state: states[state] for state in ("complete", "partial", "failed")},
            "waiting": len(digests) - states.total(), "owed": digests.total(),
            "missing": sum(doc["missing"] for doc in ended)}


def documents(config: ProjectConfig, work: ObjectStore, retrieval: str) -> Iterator[dict[str, Any]]:
    """Yield the document of each study that has ended."""
    for entry in work.list(layout.retrieval_study(config.name, retrieval, "").removesuffix(".json")):
        yield dict(json.loads(work.read(entry.key)))


def known(config: ProjectConfig, work: ObjectStore) -> list[str]:
    """Return the ids of the retrievals whose owed set is written, sorted."""
    prefix, marker = layout.retrievals(config.name), layout.retrieval_expected("", "").rpartition("/")[2]
    names = (entry.key.removeprefix(prefix).split("/") for entry in work.list(prefix))
    return sorted(parts[0] for parts in names if parts[1:] == [marker])


# ---- a study's end -------------------------------------------------------------------------------------------------
def _expected(config: ProjectConfig, work: ObjectStore, retrieval: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tables.read(work, layout.retrieval_expected(config.name, retrieval)).to_pylist()
    return rows


def _todo(config: ProjectConfig, work: ObjectStore, retrieval: str, group: int, groups: int, *, again: bool,
          ) -> list[tuple[str, list[dict[str, Any]]]]:
    studies: dict[str, list[dict[str, Any]]] = {}
    for row in _expected(config, work, retrieval):
        studies.setdefault(row["study"], []).append(row)
    ended = {doc["study"]: doc["state"] for doc in documents(config, work, retrieval)}
    return [(digest, rows) for digest, rows in sorted(studies.items())[group::groups]
            if digest not in ended or (again and ended[digest] != "complete")]


def _end(config: ProjectConfig, landing: ObjectStore, work: ObjectStore, retrieval: str, study: Study) -> None:
    """Write how a study ended: what landed made durable first, what is missing next, its document last."""
    landing.settle()
    name, missing = config.name, study.receiver.missing()
    reason = Reason.PACS_FAILED if study.refused else Reason.NOT_SENT
    lacking = [{**row, "reason": str(reason)} for row in study.owed if row["sop_instance_uid"] in missing]
    key = layout.retrieval_missing(name, retrieval, study.digest)
    if lacking:
        tables.write(work, key, tables.from_rows(MISSING, lacking))
    else:
        work.delete(key)
    document = {"schema_version": layout.SCHEMA_VERSION, **study.document()}
    work.write(layout.retrieval_study(name, retrieval, study.digest), json.dumps(document, sort_keys=True).encode())
    event("retrieve.study", study=study.digest, owed=len(study.receiver.wanted), missing=len(missing))


def _ended(config: ProjectConfig, work: ObjectStore, retrieval: str, digest: str) -> dict[str, Any]:
    try:
        return dict(json.loads(work.read(layout.retrieval_study(config.name, retrieval, digest))))
    except NotFound:
        return {"missing": -1}


def _why(wait: Wait | None) -> str | None:
    """Return a word for a wait: of kind.py, or not_reached."""
    if wait is None:
        return None
    return wait.why if wait.why in ("quiet_hours", "studies_an_hour", "pacs_failing") else "not_reached"
