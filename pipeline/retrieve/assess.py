"""What a PACS really does: tried, one thing after another, with one named test patient, and never with anybody else.

A key is honoured if its right value finds the study and a wrong one does not; a PACS that ignores it answers the wrong
one too. Each question names the test patient, or one of her studies, so that even a PACS that ignores the key under
test can answer no more than that. What is retrieved is looked at and not kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.config import ProjectConfig
from pipeline.dicom.inspect import inspect
from pipeline.errors import NotFound, PacsRefused
from pipeline.retrieve.dimse import Dimse
from pipeline.retrieve.peer import OWN, RETURNED, Failed, Found, Level, Peer, Wanted
from pipeline.retrieve.run import opened, settings
from pipeline.retrieve.web import Web

Verdict = Literal["yes", "no", "ignored", "partly"]
PAUSE = 0.2             # seconds between two questions
MOST_ASSOCIATIONS = 4
SMALL = 20              # instances: a larger study is not retrieved as a whole
NOBODY = {"PatientID": "TRE-NO-SUCH-ID", "IssuerOfPatientID": "TRE-NO-SUCH", "AccessionNumber": "TRENOSUCH",
          "StudyInstanceUID": "2.25.1", "SeriesInstanceUID": "2.25.1", "SOPInstanceUID": "2.25.1",
          "StudyDate": "19000101-19000102", "ModalitiesInStudy": "AU", "Modality": "AU",
          "SeriesDescription": "TRE-NO-SUCH", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.9.4.1"}
KEYS: Mapping[Level, tuple[str, ...]] = {
    "STUDY": ("PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyInstanceUID", "StudyDate",
              "ModalitiesInStudy"),
    "SERIES": ("SeriesInstanceUID", "Modality", "SeriesDescription"),
    "IMAGE": ("SOPInstanceUID", "SOPClassUID"),
}


@dataclass(frozen=True, slots=True)
class Tried:
    """One thing that was tried. `need`: what to ask of a supplier where the answer is not yes."""

    area: str
    what: str
    verdict: Verdict
    detail: str = ""
    seconds: float = 0.0
    need: str = ""


@dataclass
class Sink:
    """Takes what comes, looks at it and lets it go."""

    wanted: frozenset[str]
    uids: set[str] = field(default_factory=set)
    syntaxes: set[str] = field(default_factory=set)
    bytes: int = 0
    others: int = 0

    def take(self, path: Path, claimed: str | None) -> bool:
        found = inspect(path, 1 << 40)
        if found.sop_instance_uid not in self.wanted:
            self.others += 1
            return False
        self.uids.add(str(found.sop_instance_uid))
        self.syntaxes.add(str(found.transfer_syntax_uid))
        self.bytes += found.size
        return True

    def asked_for(self, uid: str) -> bool:
        return uid in self.wanted

    def lacking(self) -> bool:
        return not self.wanted <= self.uids

    def came(self) -> int:
        return len(self.uids) + self.others


def assess(config: ProjectConfig, patient_id: str, tell: Callable[[Tried], None] = lambda one: None) -> list[Tried]:
    """Try everything that the project file gives an address for; return it in order. `patient_id`: of a test patient.

    Raises NotFound where the PACS has no study of that patient by any way.
    """
    asked, found = settings(config), list[Tried]()

    def note(tried: Iterator[Tried]) -> None:
        for one in tried:
            found.append(one)
            tell(one)
            time.sleep(PAUSE)

    seen = False
    if asked.host and asked.called_ae:
        with opened(_by(config, "c-get")) as peer:
            assert isinstance(peer, Dimse)
            note(_association(peer))
            shelf = _Shelf(peer, "C-FIND", patient_id)
            note(shelf.tried())
            seen = bool(shelf.images)
            if shelf.images:
                note(_fetched(peer, "C-GET", shelf))
                note(_syntaxes(peer, shelf))
        if shelf.images:
            try:
                with opened(_by(config, "c-move")) as peer:
                    note(_fetched(peer, "C-MOVE", shelf))
            except PacsRefused as refused:
                note(iter([Tried("C-MOVE", "Not tried", "no", refused.message)]))
    if asked.url:
        with opened(_by(config, "dicomweb")) as peer:
            assert isinstance(peer, Web)
            shelf = _Shelf(peer, "QIDO-RS", patient_id)
            note(shelf.tried())
            seen = seen or bool(shelf.images)
            if shelf.images:
                note(_fetched(peer, "WADO-RS", shelf))
                note(_resources(peer, shelf))
    if not seen:
        raise NotFound("The PACS answers no image of that test patient.",
                       hint="Give the Patient ID of a test patient that has a study there.")
    return found


def _by(config: ProjectConfig, service: str) -> ProjectConfig:
    return config.model_copy(update={"retrieve": settings(config).model_copy(update={"service": service})})


def _association(peer: Dimse) -> Iterator[Tried]:
    need = "The PACS accepts associations from the AE title of this project, and answers C-ECHO."
    begin = time.monotonic()
    try:
        peer.echo()
        yield Tried("Association", "C-ECHO is answered", "yes", "", time.monotonic() - begin, need)
    except Failed as failed:
        yield Tried("Association", "C-ECHO is answered", "no", failed.words, time.monotonic() - begin, need)
        return
    n = peer.together(MOST_ASSOCIATIONS)
    yield Tried("Association", f"{MOST_ASSOCIATIONS} associations at a time", "yes" if n == MOST_ASSOCIATIONS else
                "partly" if n > 1 else "no", f"{n} were kept open", 0.0,
                "The PACS keeps several associations of one AE title open at a time.")


class _Shelf:
    """The test patient's smallest study, by one way of asking. `images`: of its smallest series; all of the study's
    where it is small."""

    def __init__(self, peer: Peer, way: str, patient_id: str) -> None:
        self._peer, self._way, self._patient = peer, way, patient_id
        self.study: Found = {}
        self.series: Found = {}
        self.images: list[Found] = []
        self.every: list[tuple[str, Found]] = []    # series, image: of the whole study, where it is small

    def tried(self) -> Iterator[Tried]:
        """Ask, and yield what is learnt."""
        begin = time.monotonic()
        try:
            studies = self._ask("STUDY", {"PatientID": self._patient})
        except Failed as failed:
            yield self._level("STUDY", "no", failed.words, begin)
            return
        foreign = any(one.get("PatientID") != self._patient for one in studies)
        if foreign or not studies:
            yield self._key("PatientID", "ignored" if foreign else "no",
                            "studies of others were answered; nothing more was asked" if foreign else "nothing found")
            return
        yield self._level("STUDY", "yes", _number(len(studies), "study", "studies"), begin)
        self.study = studies[0]
        yield from self._told("STUDY", self.study)
        yield from self._honoured("STUDY", {"PatientID": self._patient}, self.study)
        of_study = {"StudyInstanceUID": self.study["StudyInstanceUID"]}
        begin = time.monotonic()
        try:
            series = self._ask("SERIES", of_study)
        except Failed as failed:
            yield self._level("SERIES", "no", failed.words, begin)
            return
        yield self._level("SERIES", "yes" if series else "no", f"{len(series)} series", begin)
        if not series:
            return
        counted = []
        for one in series[:SMALL]:
            begin = time.monotonic()
            try:
                images = self._ask("IMAGE", of_study | {"SeriesInstanceUID": one["SeriesInstanceUID"]})
            except Failed as failed:
                yield self._level("IMAGE", "no", failed.words, begin)
                return
            counted.append((one, images))
        self.series, self.images = min(counted, key=lambda pair: (not pair[1], len(pair[1])))
        self.every = [(one["SeriesInstanceUID"], image) for one, images in counted for image in images]
        yield self._level("IMAGE", "yes" if self.images else "no", f"{len(self.every)} instances", begin)
        if not self.images:
            return
        yield from self._told("SERIES", self.series)
        yield from self._honoured("SERIES", of_study, self.series)
        yield from self._told("IMAGE", self.images[0])
        of_series = of_study | {"SeriesInstanceUID": self.series["SeriesInstanceUID"]}
        yield from self._honoured("IMAGE", of_series, self.images[0])

    def _ask(self, level: Level, keys: Mapping[str, str]) -> list[Found]:
        """Return the answers, at most a few more than are looked at: a PACS that answers everything is stopped."""
        time.sleep(PAUSE)
        answers, found = self._peer.find(level, keys), []
        for one in answers:
            found.append(one)
            if len(found) > 500 or (level == "STUDY" and one.get("PatientID") != self._patient):
                break
        answers.close()     # type: ignore[attr-defined]
        return [one for one in found if one.get(OWN[level])]

    def _honoured(self, level: Level, around: Mapping[str, str], known: Found) -> Iterator[Tried]:
        """Yield of each key whether it is honoured, ignored, or finds nothing."""
        for name in KEYS[level]:
            right = known.get(name, "").split("\\")[0]
            keys = dict(around)
            if name == "PatientID":
                keys, right = {"StudyInstanceUID": known["StudyInstanceUID"]}, self._patient
            if not right and name not in ("IssuerOfPatientID",):
                continue                                # the test patient has none
            try:
                hit = {one[OWN[level]] for one in self._ask(level, keys | {name: right or NOBODY[name]})}
                missed = {one[OWN[level]] for one in self._ask(level, keys | {name: NOBODY[name]})}
            except Failed as failed:
                yield self._key(name, "no", failed.words, level)
                continue
            if known[OWN[level]] in missed:
                yield self._key(name, "ignored", "a value that nothing has was answered", level)
            elif right:
                yield self._key(name, "yes" if known[OWN[level]] in hit else "no", "", level)

    def _told(self, level: Level, known: Found) -> Iterator[Tried]:
        lacking = [name for name in RETURNED[level] if name not in known or not known[name]]
        names = [name for name in RETURNED[level] if name not in lacking]
        yield Tried(self._way, f"{level.capitalize()} level tells what we ask for", "partly" if lacking else "yes",
                    f"told: {', '.join(names)}" + (f"; not told: {', '.join(lacking)}" if lacking else ""), 0.0,
                    f"{self._way} returns {', '.join(RETURNED[level])} at {level.lower()} level.")

    def _level(self, level: Level, verdict: Verdict, detail: str, begin: float) -> Tried:
        return Tried(self._way, f"{level.capitalize()} level is answered", verdict, detail, time.monotonic() - begin,
                     f"{self._way} is answered at {level.lower()} level.")

    def _key(self, name: str, verdict: Verdict, detail: str, level: Level = "STUDY") -> Tried:
        return Tried(self._way, f"{name} is a key at {level.lower()} level", verdict, detail, 0.0,
                     f"{self._way} matches {name} at {level.lower()} level, and answers nothing that differs.")


def _fetched(peer: Peer, way: str, shelf: _Shelf) -> Iterator[Tried]:
    """Yield whether an instance, a series and a small study come, whole and alone."""
    study, series = shelf.study["StudyInstanceUID"], shelf.series["SeriesInstanceUID"]
    uids = tuple(one["SOPInstanceUID"] for one in shelf.images)
    every = tuple(image["SOPInstanceUID"] for _, image in shelf.every)
    asked = [("one instance", Wanted(study, series, uids[:1], whole=False))]
    if peer.by_study:
        if len(uids) <= SMALL:
            asked.append(("a series", Wanted(study, series, uids)))
        if len(every) <= SMALL:
            asked.append(("a study", Wanted(study, None, every)))
    for what, wanted in asked:
        sink, begin = Sink(frozenset(wanted.instances)), time.monotonic()
        classes = {image.get("SOPClassUID", "") for _, image in shelf.every}
        try:
            words = peer.retrieve(wanted, classes if all(classes) else (), sink)
        except Failed as failed:
            words = failed.words
        seconds = time.monotonic() - begin
        whole = not sink.lacking()
        rate = f", {sink.bytes / 1e6:.1f} MB at {sink.bytes / 1e6 / max(seconds, 0.001):.1f} MB/s" if sink.bytes else ""
        detail = f"{len(sink.uids)} of {len(wanted.instances)}{rate}; {words}"
        if sink.others:
            detail += f"; {sink.others} that were not asked for"
        verdict: Verdict = "yes" if whole and not sink.others else "partly" if sink.uids else "no"
        yield Tried(way, f"{what.capitalize()} is sent", verdict, detail, seconds,
                    f"{way} sends {what} that is asked for: all of it, and nothing else.")
        if sink.syntaxes and what == "one instance":
            yield Tried(way, "Transfer syntax that arrived", "yes", ", ".join(sorted(map(_name, sink.syntaxes))))


def _syntaxes(peer: Dimse, shelf: _Shelf) -> Iterator[Tried]:
    for uid in sorted({image["SOPClassUID"] for _, image in shelf.every if image.get("SOPClassUID")}):
        try:
            agreed = peer.syntaxes(uid)
        except Failed as failed:
            yield Tried("Transfer syntaxes", _name(uid), "no", failed.words)
            continue
        yield Tried("Transfer syntaxes", _name(uid), "yes" if agreed else "no", ", ".join(map(_name, agreed)), 0.0,
                    f"The PACS sends {_name(uid)} as it is stored, without recompression.")


def _resources(peer: Web, shelf: _Shelf) -> Iterator[Tried]:
    """Yield which further resources of DICOMweb (PS3.18 10.4.1) one instance has."""
    image = (f"/studies/{shelf.study['StudyInstanceUID']}/series/{shelf.series['SeriesInstanceUID']}"
             f"/instances/{shelf.images[0]['SOPInstanceUID']}")
    for what, path, accept in (("Metadata of an instance", f"{image}/metadata", "application/dicom+json"),
                               ("A rendered instance", f"{image}/rendered", "image/jpeg")):
        begin = time.monotonic()
        try:
            size = peer.resource(path, accept)
            yield Tried("WADO-RS", what, "yes" if size else "no", f"{size:,} bytes", time.monotonic() - begin,
                        f"WADO-RS serves: {what.lower()}.")
        except Failed as failed:
            yield Tried("WADO-RS", what, "no", failed.words, time.monotonic() - begin,
                        f"WADO-RS serves: {what.lower()}.")


def _number(n: int, one: str, more: str) -> str:
    return f"{n} {one if n == 1 else more}"


def _name(uid: str) -> str:
    from pydicom.uid import UID

    return UID(uid).name
