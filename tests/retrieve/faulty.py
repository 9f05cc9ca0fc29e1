"""A PACS that does what it is told to do wrong: a query/retrieve SCP of pynetdicom over a list of images."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import retrieve_kit as kit
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt
from pynetdicom.transport import ThreadedAssociationServer

from pipeline.retrieve.dimse import FIND, GET, MOVE, SYNTAXES, VERIFICATION, at_once
from pipeline.retrieve.peer import COUNTED

LEVELS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}


@dataclass
class Faulty:
    """What it holds, and what it does wrong. `asked`: each request as (service, level, number of instances named)."""

    images: list[kit.Image]
    ignores: frozenset[str] = frozenset()       # keys it takes no notice of
    untold: frozenset[str] = frozenset()        # keys it does not return
    most: dict[str, int] = field(default_factory=dict)      # level → answers after which it stops and says success
    counts: bool = False                        # it tells how many series and instances there are
    named: str | None = None                    # what it calls each study, series or instance, in place of its UID
    endless: bool = False                       # it answers the same instances again and again
    withheld: frozenset[str] = frozenset()      # instances it never sends
    drops: int | None = None                    # how many instances it sends before it aborts, once
    at: dict[int, Any] = field(default_factory=dict)    # called before it sends the nth instance
    twice: bool = False
    stranger: kit.Image | None = None           # sent without being asked for
    status: int | None = None                   # what it answers to every retrieve, and sends nothing
    silent: float = 0.0                         # seconds until it answers
    late: float = 0.0                           # c-move: says success, and sends so much later
    rejects: bool = False                       # every association
    tls: Any = None                             # (as a server, as a client), contexts of ssl
    receive: int = 0
    port: int = 0
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    opened: list[Any] = field(default_factory=list)     # an event for each association
    threads: list[threading.Thread] = field(default_factory=list)

    # ---- find ------------------------------------------------------------------------------------------------
    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        level = asked.QueryRetrieveLevel
        self.asked.append(("find", level, 0))
        time.sleep(self.silent)
        answered = set()
        for one in cycle(self.images) if self.endless and level == "IMAGE" else self.images:
            ds = one.head
            own = getattr(ds, LEVELS[level])
            if not self._matches(ds, asked) or (own in answered and not self.endless):
                continue
            if len(answered) >= self.most.get(level, 1000):
                break
            answered.add(own)
            if event.is_cancelled:
                yield 0xFE00, None
                return
            answer = Dataset()
            answer.QueryRetrieveLevel = level
            for element in asked:
                if element.keyword == "ModalitiesInStudy":
                    study = [each.head for each in self.images if each.study == one.study]
                    answer.ModalitiesInStudy = sorted({each.Modality for each in study})
                elif element.keyword in ds:
                    answer[element.keyword] = deepcopy(ds[element.keyword])     # may be changed below
            if self.counts and level != "IMAGE":
                below = {getattr(each.head, LEVELS["SERIES" if level == "STUDY" else "IMAGE"])
                         for each in self.images if getattr(each.head, LEVELS[level]) == own}
                setattr(answer, COUNTED[level], str(len(below)))
            if self.named is not None:
                setattr(answer, LEVELS[level], self.named)
            for name in self.untold & {element.keyword for element in answer}:
                delattr(answer, name)
            yield 0xFF00, answer

    def _matches(self, ds: Dataset, asked: Dataset) -> bool:
        for element in asked:
            name, value = element.keyword, element.value
            if not value or name in self.ignores or name in ("QueryRetrieveLevel", "IssuerOfPatientID"):
                continue
            if name == "ModalitiesInStudy":
                modalities = {each.head.Modality for each in self.images if each.study == ds.StudyInstanceUID}
                if value not in modalities:
                    return False
            elif name == "StudyDate":
                first, _, last = str(value).partition("-")
                if not first <= ds.StudyDate <= (last or first):
                    return False
            elif isinstance(value, str):
                if str(ds.get(name, "")) != value:
                    return False
            elif str(ds.get(name, "")) not in value:
                return False
        return True

    # ---- retrieve --------------------------------------------------------------------------------------------
    def _meant(self, service: str, asked: Dataset) -> list[kit.Image]:
        uids = asked.get("SOPInstanceUID") or []
        number = 1 if isinstance(uids, str) else len(uids)
        self.asked.append((service, asked.QueryRetrieveLevel, number))
        found = [one for one in self.images if self._matches(one.head, asked) and one.sop not in self.withheld]
        if self.twice:
            found = [each for one in found for each in (one, one)]
        return found + ([self.stranger] if self.stranger else [])

    def get(self, event: Any) -> Iterator[Any]:
        found = self._meant("get", event.identifier)
        time.sleep(self.silent)
        yield from self._send(event, found)

    def _send(self, event: Any, found: list[kit.Image]) -> Iterator[Any]:
        yield len(found)
        if self.status is not None:
            yield self.status, None
            return
        for n, one in enumerate(found):
            self.at.get(n, lambda: None)()
            if self.drops == n:
                self.drops = None
                event.assoc.abort()
                return
            yield 0xFF00, one.dataset

    def move(self, event: Any) -> Iterator[Any]:
        found = self._meant("move", event.identifier)
        time.sleep(self.silent)
        if self.late:
            thread = threading.Thread(target=self._later, args=(found,))
            thread.start()
            self.threads.append(thread)
            found = []
        if event.move_destination != "TRE_INGEST":
            yield None, None
            return
        yield "127.0.0.1", self.receive, {"contexts": contexts(), "ae_title": "TRE_INGEST", **self._secured()}
        yield from self._send(event, found)

    def _secured(self) -> dict[str, Any]:
        return {"tls_args": (self.tls[1], "127.0.0.1")} if self.tls else {}

    def _later(self, found: list[kit.Image]) -> None:
        time.sleep(self.late)
        for one in found:
            self.store(one)

    def store(self, one: kit.Image) -> int | None:
        """Send one instance of its own accord; return the status, None where nobody listens."""
        ae = AE(ae_title="PACS")
        association = ae.associate("127.0.0.1", self.receive, contexts(), ae_title="TRE_INGEST", **self._secured())
        if not association.is_established:
            return None
        status = association.send_c_store(one.dataset)
        association.release()
        return int(status.Status)


def contexts() -> list[Any]:
    return [build_context(uid) for uid in ("1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.2",
                                           "1.2.840.10008.5.1.4.1.1.88.67")]


@contextmanager
def serving(images: list[kit.Image], **faults: Any) -> Iterator[Faulty]:
    """Run it on loopback."""
    made = Faulty(images, **faults)
    made.receive = made.receive or kit.free_ports(1)[0]
    ae = AE(ae_title="PACS")
    for uid in (VERIFICATION, FIND, GET, MOVE):
        ae.add_supported_context(uid)
    for one in AllStoragePresentationContexts:
        ae.add_supported_context(one.abstract_syntax, list(SYNTAXES), scu_role=True, scp_role=True)
    if made.rejects:
        ae.require_calling_aet = ["NOBODY"]
    handlers = [(evt.EVT_CONN_OPEN, at_once), (evt.EVT_ACCEPTED, made.opened.append), (evt.EVT_C_FIND, made.find),
                (evt.EVT_C_GET, made.get), (evt.EVT_C_MOVE, made.move)]
    server = ae.make_server(("127.0.0.1", 0), evt_handlers=handlers, ssl_context=made.tls[0] if made.tls else None,
                            server_class=ThreadedAssociationServer)
    ae._servers.append(server)      # as start_server does, which looks twice a second whether it is to stop
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    made.port = server.socket.getsockname()[1]
    try:
        yield made
    finally:
        for thread in made.threads:
            thread.join()
        server.shutdown()


def options(pacs: Faulty, service: str = "c-get", **more: Any) -> dict[str, Any]:
    return {"service": service, "port": pacs.port, "receive_port": pacs.receive, **more}
