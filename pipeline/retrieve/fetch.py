"""One study: asked for as coarsely as what is owed allows, again by series, again by instance, until nothing is missing
or PACS has said all it will say. What became of it is decided by set, never by what PACS calls it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.retrieve.peer import Failed, Peer, Wanted
from pipeline.retrieve.receive import Receiver

Ended = Literal["complete", "partial", "failed"]
MOST_WORDS = 12


@dataclass
class Study:
    """A study and how its retrieval went. `rows`: of schemas.EXPECTED, owed and left out alike."""

    digest: str
    rows: Sequence[Mapping[str, Any]]
    receiver: Receiver
    words: list[str] = field(default_factory=list)      # what PACS said, in order, each once in a row
    refused: bool = False                               # a request failed
    requests: int = 0

    @property
    def owed(self) -> list[Mapping[str, Any]]:
        return [row for row in self.rows if row["left_out"] is None]

    @property
    def ended(self) -> Ended:
        missing = self.receiver.missing()
        return "complete" if not missing else "partial" if len(missing) < len(self.receiver.wanted) else "failed"

    def said(self, words: str) -> None:
        if self.words[-1:] != [words] and len(self.words) < MOST_WORDS:
            self.words.append(words)

    def document(self) -> dict[str, Any]:
        """Return what is written of it: counts and the PACS's words."""
        r = self.receiver
        return {"study": self.digest, "state": self.ended, "owed": len(r.wanted), "missing": len(r.missing()),
                "left_out": len(self.rows) - len(r.wanted), "bytes": r.bytes, "not_asked": r.not_asked,
                "repeated": r.repeated, "conflicting": r.conflicting, "requests": self.requests, "words": self.words,
                "refused": self.refused, "series": len({row["series_uid"] for row in self.owed})}


def fetch(peer: Peer, study: Study) -> None:
    """Retrieve what is missing of a study. Raises Failed only where PACS could not be reached, and nothing came."""
    tried: set[Wanted] = set()
    for attempt in ("study", "series", "instance"):
        before = study.receiver.came()
        for wanted in _requests(study, attempt, by_study=peer.by_study):
            if wanted in tried:
                continue                # the same again, and nothing of it came
            tried.add(wanted)
            classes = {row["sop_class_uid"] for row in study.owed if wanted.series in (None, row["series_uid"])}
            study.requests += 1
            try:
                study.said(peer.retrieve(wanted, classes if None not in classes else (), study.receiver))
            except Failed as failed:
                study.said(failed.words)
                study.refused = True
                if failed.busy:
                    return              # it said that it has no room: the next studies, and a pause, come first
                if not failed.reached:
                    if study.receiver.came() == before and not study.receiver.landed:
                        raise
                    return
        if not study.receiver.lacking():
            return


def _requests(study: Study, attempt: str, *, by_study: bool) -> Iterator[Wanted]:
    """Yield the requests of one round: nothing that has landed, or that a filter leaves out, is named or implied in the
    first; a round after it names what is still missing."""
    missing = study.receiver.missing()
    uid = study.rows[0]["study_uid"]
    if not missing:
        return
    if attempt == "study" and by_study and len(missing) == len(study.rows):
        yield Wanted(uid, None, tuple(sorted(missing)))
        return
    for series in sorted({row["series_uid"] for row in study.rows if row["sop_instance_uid"] in missing}):
        of_series = [row["sop_instance_uid"] for row in study.rows if row["series_uid"] == series]
        wanted = tuple(uid for uid in of_series if uid in missing)
        whole = len(wanted) == len(of_series) and attempt != "instance"
        yield Wanted(uid, series, wanted, whole)
