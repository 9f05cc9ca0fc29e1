"""A C-STORE SCP: takes connections, as many at once as the project file says, and refuses the others in DICOM's words.

One thread an association, blocking, with limits of time on each read: no peer holds up another, and memory is a PDU's
buffer and a thread's stack for each. What cannot be served is told so (A-ASSOCIATE-RJ), by a bounded number of threads
too. Stopping finishes the images that are on their way.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pipeline.config import ProjectConfig
from pipeline.errors import EnvironmentUnfit, ProjectFileError
from pipeline.retrieve import listener_upper as upper
from pipeline.retrieve.listener_association import Association
from pipeline.retrieve.listener_command import Malformed
from pipeline.retrieve.listener_health import Counts, metrics, served
from pipeline.retrieve.listener_upper import Gone, Wire
from pipeline.retrieve.spool import Spool
from pipeline.sections import Listen

REFUSERS = 128          # threads that tell who is too much; beyond them a connection is closed without a word
SLACK = 1024            # some count the header of a PDU into its length
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
Answer = tuple[int, int, int]
NO_REASON, NO_APPLICATION, NO_CALLING, NO_CALLED = (1, 1, 1), (1, 1, 2), (1, 1, 3), (1, 1, 7)
CONGESTED, TOO_MANY = (2, 3, 1), (2, 3, 2)
WORDS: dict[Answer, str] = {
    NO_REASON: "address_not_listed", NO_APPLICATION: "application_context", NO_CALLING: "calling_ae_title",
    NO_CALLED: "called_ae_title", CONGESTED: "stopping", TOO_MANY: "too_many",
}
_log = logging.getLogger("tre.listen")


class Listener:
    """A listener that is bound. `port` is the real one where the project file says 0. See `listening`."""

    def __init__(self, limits: Listen, spool: Spool, tls: ssl.SSLContext | None) -> None:
        self.limits, self.counts = limits, Counts()
        self._spool, self._tls = spool, tls
        self._stopping, self._closed = threading.Event(), threading.Event()
        self._free = threading.BoundedSemaphore(limits.associations)
        self._refusers = threading.BoundedSemaphore(REFUSERS)
        self._threads: dict[threading.Thread, Wire] = {}
        self._changing = threading.Lock()
        family = socket.AF_INET6 if ":" in limits.bind else socket.AF_INET
        self._socket = socket.create_server((limits.bind, limits.port), family=family, backlog=512)
        self._socket.settimeout(0.25)
        self.port: int = self._socket.getsockname()[1]
        self.health_port: int | None = None

    # ---- state -----------------------------------------------------------------------------------------------
    def state(self) -> str:
        """Return `ok`, or why images are not taken."""
        if self._stopping.is_set():
            return "stopping"
        try:
            return "ok" if self._spool.free() >= 0 else "disk nearly full"
        except OSError:
            return "disk does not answer"

    def active(self) -> int:
        """Return how many connections there are, those that are being refused included."""
        with self._changing:
            return len(self._threads)

    def metrics(self) -> str:
        try:
            room = float(self._spool.free())
        except OSError:
            room = -1
        return metrics(self.counts, {"connections": self.active(), "room_bytes": room, "up": self.state() == "ok"})

    # ---- taking connections ----------------------------------------------------------------------------------
    def run(self) -> None:
        """Take connections until `stop`, then finish what is on its way. Returns when nothing is open any more."""
        while not self._stopping.is_set():
            self._accept()
        end = time.monotonic() + self.limits.stop_seconds
        while self._open() and time.monotonic() < end:
            self._accept()      # and refuse: the peer shall hear it, and try again later
        self._socket.close()
        with self._changing:
            left = dict(self._threads)
        for thread, wire in left.items():
            with suppress(OSError):
                wire.socket.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=5)

    def stop(self) -> None:
        """Refuse new associations, answer what is on its way, end the others. Safe in a signal handler."""
        self._stopping.set()

    def _open(self) -> bool:
        with self._changing:
            return any(thread.name == "association" for thread in self._threads)

    def _accept(self) -> None:
        try:
            sock, address = self._socket.accept()
        except TimeoutError:
            return
        except OSError:         # out of descriptors, or the peer went away again
            time.sleep(0.05)
            return
        answer = self._at_the_door(address[0])
        # Senders that are one too many shall hear it; who is not listed never makes them wait.
        if answer and not self._refusers.acquire(timeout=0 if answer == NO_REASON else 1):
            self.counts.add("connections_ended_total", "not_told")
            sock.close()
            return
        wire = Wire(sock, min(5.0, self.limits.silent_seconds) if answer else self.limits.silent_seconds)
        name = "refusal" if answer else "association"
        thread = threading.Thread(target=self._meet, name=name, args=(wire, address[0], answer), daemon=True)
        with self._changing:
            self._threads[thread] = wire
        try:
            thread.start()
        except RuntimeError:    # no more threads for this process: the others go on
            self.counts.add("connections_ended_total", "not_told")
            self._gone(thread, refuser=answer is not None)
            sock.close()

    def _gone(self, thread: threading.Thread, *, refuser: bool) -> None:
        """Give a connection's place back."""
        (self._refusers if refuser else self._free).release()
        with self._changing:
            del self._threads[thread]

    def _at_the_door(self, address: str) -> Answer | None:
        """Return why a connection is refused before it has said anything; None where it holds a place now."""
        if self._stopping.is_set():
            return CONGESTED
        peer = ipaddress.ip_address(address.partition("%")[0])
        peer = getattr(peer, "ipv4_mapped", None) or peer
        if not any(peer in network for network in self.limits.addresses):
            return NO_REASON
        return None if self._free.acquire(blocking=False) else TOO_MANY

    def _meet(self, wire: Wire, address: str, answer: Answer | None) -> None:
        refuser = answer is not None
        calling, ended, association = "?", "malformed", None
        try:
            if self._tls:
                wire.secure(self._tls)
            wire.room_for(upper.LARGEST_REQUEST)
            kind, body = wire.pdu(time.monotonic() + self.limits.silent_seconds)
            if kind != upper.ASSOCIATE_RQ:
                raise Malformed
            request = upper.asked(body)
            calling = request.calling
            answer = answer or self._by_name(request)
            if answer:
                wire.send(upper.reject(*answer))
                ended = f"refused_{WORDS[answer]}"
            else:
                contexts, accepted = upper.agree(request, self.limits.max_pdu_bytes)
                wire.room_for(self.limits.max_pdu_bytes + SLACK)
                wire.send(accepted)
                self.counts.add("associations_accepted_total")
                association = Association(wire, contexts, self.limits, self._spool, self.counts, self._stopping)
                ended = association.serve()
        except Malformed:
            with suppress(Gone):
                wire.send(upper.abort(6))
        except Gone as gone:
            ended = "timed_out" if gone.silent else "dropped"
        except OSError:         # TLS: no certificate, a wrong one, or no TLS at all
            ended = "refused_tls"
        finally:
            wire.close()
            self._gone(threading.current_thread(), refuser=refuser)
            self.counts.add("connections_ended_total", ended)
            _say(address, calling, ended, association)

    def _by_name(self, request: upper.Asked) -> Answer | None:
        if request.application != APPLICATION_CONTEXT:
            return NO_APPLICATION
        if request.called not in self.limits.ae_titles:
            return NO_CALLED
        return None if request.calling in self.limits.callers else NO_CALLING


def _say(address: str, calling: str, ended: str, association: Association | None) -> None:
    """Log an association's end: who, how many, how. No id of anything that was sent."""
    title = re.sub(r"[^A-Za-z0-9_.-]", "?", calling)[:16]
    counts = " ".join(f"{result}={n}" for result, n in sorted(association.answered.items())) if association else ""
    _log.info("%s", f"association {address} {title} {ended} {counts}".rstrip())


def tls_context(config: ProjectConfig, limits: Listen) -> ssl.SSLContext | None:
    """Return TLS 1.2 or later with certificates asked of every sender, or None where the project file has none. Raises
    EnvironmentUnfit."""
    if not (limits.certificate and limits.key and limits.client_authority):
        return None
    files: list[Path] = [config.beside(p) for p in (limits.certificate, limits.key, limits.client_authority)]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(files[0], files[1])
        context.load_verify_locations(files[2])
    except OSError:
        raise EnvironmentUnfit("A file of [listen] for TLS cannot be used: certificate, key or client_authority.",
                               hint="Each is PEM, readable by this user; the key is the certificate's.") from None
    return context


@contextmanager
def listening(config: ProjectConfig) -> Iterator[Listener]:
    """Yield a listener of the project, bound, and its health endpoint answering; call its `run`. Raises
    ProjectFileError, EnvironmentUnfit, StoreDenied."""
    limits = config.listen
    if limits is None:
        raise ProjectFileError(f"{config.path}: there is no section [listen].",
                               hint="It names ae_titles, callers and addresses: docs/runbook.md, Being sent images.")
    with ExitStack() as held:
        spool = held.enter_context(Spool.opened(config.zones.landing, limits.free_bytes))
        try:
            listener = Listener(limits, spool, tls_context(config, limits))
            held.callback(listener._socket.close)
            if limits.health:
                host, _, port = limits.health.rpartition(":")
                listener.health_port = held.enter_context(served((host, int(port)), listener.state, listener.metrics))
        except OSError as error:
            raise EnvironmentUnfit(f"An address of [listen] cannot be used: {error.strerror}.",
                                   hint="Look at bind, port and health; another listener may be running.") from None
        upper.prepare()
        yield listener
