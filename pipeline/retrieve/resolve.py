"""From a cohort to the set of instances that PACS owes: asked at study, series and image level, filtered, written down.

Every study that is answered is held against what was asked. One that differs means that PACS ignores a key: the answer
is stopped, and nothing of its row is taken.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Any

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.errors import CohortRefused, PacsUnreachable
from pipeline.observe import track
from pipeline.retrieve.cohort import Cohort, Row, as_dict
from pipeline.retrieve.peer import COUNTED, OWN, Failed, Found, Level, Peer
from pipeline.sections import Retrieve

LocalIds = Callable[[str], list[tuple[str, str]]]       # of an NHS number: (issuer, local id)
Classes = Callable[[Iterable[str]], frozenset[str]]     # UIDs of SOP classes that are given by UID or name
SHORT = "The PACS lists less of a study than it says it has"
_UID = re.compile(r"[0-9.]{1,64}", re.ASCII)    # what may be asked for in turn; odd numbers are the PACS's business


@dataclass
class Resolved:
    """`expected`: rows of schemas.EXPECTED; `rows`: of schemas.ASKED."""

    expected: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


class _Refused(Exception):
    """A row's answer is not taken; the code says why (cohort.REFUSALS)."""


def resolve(config: ProjectConfig, peer: Peer, cohort: Cohort, local_ids: LocalIds, classes: Classes,
            before_each: Callable[[], None] = lambda: None) -> Resolved:
    """Ask PACS for every row. A row that PACS fails is noted and the rest goes on. `before_each` may
    wait: it is called before each row.

    Raises PacsUnreachable where it does not answer at all, CohortRefused where they are more than a cohort may have.
    """
    asked = config.retrieve
    assert asked
    one = _Resolver(config, asked, peer, Filters(config, asked, classes))
    for row, why in cohort.refused:
        one.out.rows.append({**as_dict(row), "state": "refused", "reason": why, "studies": 0})
    for row in track(cohort.rows, "asking PACS", total=len(cohort.rows)):
        before_each()
        one.ask(row, local_ids)
        if len(one.studies) > asked.cohort_studies:
            raise CohortRefused(f"The cohort comes to more than {asked.cohort_studies} studies; nothing was retrieved.",
                                hint="Cut it into several, or raise cohort_studies in [retrieve].")
        if len(one.out.expected) > asked.cohort_instances:
            raise _too_many(asked)
    one.out.rows.sort(key=lambda row: row["line"])
    one.out.expected.sort(key=lambda row: (row["study"], row["series_uid"], row["sop_instance_uid"]))
    return one.out


def _too_many(asked: Retrieve) -> CohortRefused:
    return CohortRefused(f"The cohort comes to more than {asked.cohort_instances} instances; none was fetched.",
                         hint="Cut it into several, or raise cohort_instances in [retrieve].")


@dataclass
class _Resolver:
    config: ProjectConfig
    asked: Retrieve
    peer: Peer
    filters: Filters
    out: Resolved = field(default_factory=Resolved)
    studies: set[str] = field(default_factory=set)

    def ask(self, row: Row, local_ids: LocalIds) -> None:
        answer: dict[str, Any] = {**as_dict(row), "state": "none", "reason": None, "studies": 0}
        try:
            found = [study for keys in self._keys(row, local_ids) for study in self._studies(row, keys)]
            expected: list[dict[str, Any]] = []
            short = False
            for study in found:
                if study["StudyInstanceUID"] not in self.studies:
                    rows, whole = self._instances(row, study)
                    expected += rows
                    short |= not whole
            self.studies |= {study["StudyInstanceUID"] for study in found}
            self.out.expected += expected
            answer |= {"state": "found" if found else "none", "studies": len(found)}
            if short:       # what it lists is fetched, and the row stands among those to be asked again
                answer |= {"state": "failed", "reason": "pacs_failed", "words": SHORT}
        except _Refused as refused:
            answer |= {"state": "refused", "reason": str(refused)}
        except Failed as failed:
            if not failed.reached:
                raise PacsUnreachable(f"{failed.words}.", hint="Look at network and AE titles, then start it again. "
                                      "`tre pacs assess` tries one thing after another.") from None
            answer |= {"state": "failed", "reason": "pacs_failed", "words": failed.words}
        self.out.rows.append(answer)

    def _keys(self, row: Row, local_ids: LocalIds) -> Iterator[dict[str, str]]:
        """Yield the keys of each question that a row comes to: one, or one for each local id of an NHS number."""
        keys = {"AccessionNumber": row.accession_number, "StudyInstanceUID": row.study_instance_uid,
                "ModalitiesInStudy": row.modality, "PatientID": row.local_id}
        if row.local_id:
            keys["IssuerOfPatientID"] = row.issuer
        if row.date_from and row.date_to:
            keys["StudyDate"] = "-".join(text.replace("-", "") for text in (row.date_from, row.date_to))
        plain = {name: value for name, value in keys.items() if value}
        if not row.nhs_number:
            yield plain
        elif self.asked.nhs_numbers == "patient_id":
            yield plain | {"PatientID": row.nhs_number}
        else:
            known = local_ids(row.nhs_number)
            if not known:
                raise _Refused("not_linked")
            for issuer, local in known:
                if any(c in "*?\\" for c in issuer + local):
                    raise _Refused("wildcard")
                if not (issuer + local).isascii():
                    raise _Refused("not_ascii")
                yield plain | {"PatientID": local, "IssuerOfPatientID": issuer}

    def _studies(self, row: Row, keys: Mapping[str, str]) -> list[Found]:
        found: dict[str, Found] = {}
        for study in self._find("STUDY", keys):
            if self._differs(keys, study, nhs=bool(row.nhs_number)):
                raise _Refused("not_what_was_asked")
            found[study["StudyInstanceUID"]] = study
            if len(found) > self.asked.row_studies:
                raise _Refused("row_studies")
        return list(found.values())

    def _find(self, level: Level, keys: Mapping[str, str]) -> Iterator[Found]:
        time.sleep(self.asked.seconds_between_queries)
        answers = self.peer.find(level, keys)
        try:
            for n, one in enumerate(answers):
                if not _UID.fullmatch(one.get(OWN[level], "")):     # nor could it be asked for: PS3.4 C.2.2.2
                    raise Failed(f"An answer of the PACS names no UID of its {level.lower()}")
                if n >= self.asked.cohort_instances:
                    raise _too_many(self.asked)
                yield one
        finally:
            close = getattr(answers, "close", None)
            if close:
                close()

    def _differs(self, keys: Mapping[str, str], study: Found, *, nhs: bool) -> bool:
        """Tell whether a study that was answered is not what was asked."""
        for name in ("StudyInstanceUID", "AccessionNumber"):
            if name in keys and study.get(name) != keys[name]:
                return True
        got = study.get("PatientID", "")
        if "PatientID" in keys:
            by_number = nhs and self.asked.nhs_numbers == "patient_id"
            if (re.sub(r"[ -]", "", got) if by_number else got) != keys["PatientID"]:
                return True
            issuer = study.get("IssuerOfPatientID") or ("" if by_number else self.asked.issuer or "")
            if by_number:
                if issuer and issuer not in self.asked.nhs_issuers:
                    return True
            elif issuer != keys["IssuerOfPatientID"]:
                return True
        if "StudyDate" in keys:
            first, last = keys["StudyDate"].split("-")
            if not first <= study.get("StudyDate", "") <= last:
                return True
        modalities = study.get("ModalitiesInStudy", "").split("\\")
        return "ModalitiesInStudy" in keys and modalities != [""] and keys["ModalitiesInStudy"] not in modalities

    def _instances(self, row: Row, study: Found) -> tuple[list[dict[str, Any]], bool]:
        """Return the rows of one study: what is owed, and what a filter leaves out; and whether that is all that PACS
        says it has."""
        uid = study["StudyInstanceUID"]
        series = list({one[OWN["SERIES"]]: one for one in self._find("SERIES", {"StudyInstanceUID": uid})}.values())
        whole = 0 < len(series) >= _number(study, "STUDY")
        if any(one.get("StudyInstanceUID", uid) != uid for one in series):
            raise _Refused("not_what_was_asked")
        if row.modality and series and all(one.get("Modality") and one["Modality"] != row.modality for one in series):
            raise _Refused("not_what_was_asked")       # where PACS does not tell ModalitiesInStudy
        rows = []
        for one in series:
            keys, listed = {"StudyInstanceUID": uid, "SeriesInstanceUID": one["SeriesInstanceUID"]}, set[str]()
            for image in self._find("IMAGE", keys):
                if any(image.get(name, value) != value for name, value in keys.items()):
                    raise _Refused("not_what_was_asked")
                listed.add(image["SOPInstanceUID"])
                rows.append({
                    "line": row.line, "study": layout.study_digest(self.config.name, uid), "study_uid": uid,
                    "series_uid": one["SeriesInstanceUID"], "sop_instance_uid": image["SOPInstanceUID"],
                    "sop_class_uid": image.get("SOPClassUID") or None, "modality": one.get("Modality") or None,
                    "study_date": study.get("StudyDate") or None, "manufacturer": one.get("Manufacturer") or None,
                    "series_description": one.get("SeriesDescription") or None,
                    "patient_id": study.get("PatientID") or None,
                    "issuer": study.get("IssuerOfPatientID") or self.asked.issuer,
                })
            whole &= 0 < len(listed) >= _number(one, "SERIES")
        unique = {each["sop_instance_uid"]: each for each in rows}
        return [{**each, "left_out": self.filters.why(each)} for each in unique.values()], whole


def _number(answer: Found, level: Level) -> int:
    """Return how many there are below, where PACS says; else 0."""
    told = answer.get(COUNTED[level], "")
    return int(told) if told.isascii() and told.isdigit() else 0


class Filters:
    """What of the studies found is asked for. What PACS does not tell (null) keeps nothing back: eligibility judges the
    object itself once it has landed."""

    def __init__(self, config: ProjectConfig, asked: Retrieve, uids: Classes) -> None:
        only, eligible = asked.only, config.eligibility
        self._modalities = frozenset(only.modalities)
        self._classes = uids(eligible.sop_classes)
        if only.sop_classes:
            self._classes &= uids(only.sop_classes)
        self._dates = [(d.earliest.strftime("%Y%m%d"), d.latest.strftime("%Y%m%d"))
                       for d in (eligible.study_dates, only.study_dates) if d]
        self._yes, self._no, self._makers = (
            [re.compile(translate(text.casefold())) for text in texts]
            for texts in (only.series_descriptions, only.not_series_descriptions, only.manufacturers))

    def why(self, row: Mapping[str, Any]) -> str | None:
        """Return the filter that leaves this instance out, or None."""
        if row["modality"] and self._modalities and row["modality"] not in self._modalities:
            return "modality"
        if row["sop_class_uid"] and row["sop_class_uid"] not in self._classes:
            return "sop_class"
        if row["study_date"] and any(not first <= row["study_date"] <= last for first, last in self._dates):
            return "date"
        described, maker = ((row[name] or "").casefold() for name in ("series_description", "manufacturer"))
        if described and self._yes and not any(one.match(described) for one in self._yes):
            return "series_description"
        if described and any(one.match(described) for one in self._no):
            return "series_description"
        if maker and self._makers and not any(one.match(maker) for one in self._makers):
            return "manufacturer"
        return None
