"""A PACS by DIMSE: C-FIND, C-GET and C-MOVE in the study root model (PS3.4 C.6.2), over one association at a time.

What comes in goes to a file as it was sent, undecoded. With C-MOVE this process listens itself while it asks, and takes
from the PACS alone what it asked for; what nobody asked for is answered 0x0124 and kept out.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.config import ProjectConfig
from pipeline.errors import PacsRefused
from pipeline.retrieve import statuses
from pipeline.retrieve.listener_command import file_head
from pipeline.retrieve.peer import Failed, Found, Level, Taker, Wanted, all_asked, returned
from pipeline.sections import Retrieve

FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{n}" for n in (1, 2, 3))
VERIFICATION = "1.2.840.10008.1.1"
SYNTAXES = tuple(f"1.2.840.10008.1.2{end}" for end in (
    ".1", "", ".4.90", ".4.91", ".4.70", ".4.80", ".4.81", ".4.50", ".4.51", ".4.57", ".5", ".1.99", ".4.201", ".4.202",
    ".4.203", ".2"))
UIDS = 50           # of instances in one request: longer lists are cut short by some
DRAINED = 200       # answers that may still come after we asked a PACS to stop


@contextmanager
def opened(config: ProjectConfig, scratch: Path) -> Iterator[Dimse]:
    """Yield the PACS of a project file; files come in below `scratch`. Raises PacsRefused where we cannot listen."""
    from pynetdicom import _config, dimse_messages

    with ExitStack() as stack:
        for module, name, ours in (
            (_config, "STORE_RECV_CHUNKED_DATASET", True),      # to a file below tempdir, not into memory
            (tempfile, "tempdir", str(scratch)),
            (dimse_messages, "write_file_meta_info", _meta),
        ):
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, ours)
        assert config.retrieve
        peer = Dimse(config.retrieve, tls(config, ssl.Purpose.SERVER_AUTH))
        stack.callback(peer.close)
        if config.retrieve.service == "c-move":
            peer.listen(tls(config, ssl.Purpose.CLIENT_AUTH))
        yield peer


def _meta(file: Any, meta: Any) -> None:
    """Write the file meta information that `tre listen` writes: an image is the same file whichever way it came, and
    whatever release of pynetdicom received it. Else staging would call the second a conflict, and take neither."""
    uids = (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID)
    file.write(file_head(*(str(uid).encode("ascii", "replace") for uid in uids))[132:])


def tls(config: ProjectConfig, whom: ssl.Purpose) -> ssl.SSLContext | None:
    """Return how we speak to the PACS, or it to us: over TLS 1.2 or later with certificates that `ca` signed; None
    without `ca`. Raises PacsRefused where a file cannot be used."""
    asked = config.retrieve
    if asked is None or asked.ca is None:
        return None
    try:
        context = ssl.create_default_context(whom, cafile=str(config.beside(asked.ca)))
        if asked.certificate and asked.key:
            context.load_cert_chain(config.beside(asked.certificate), config.beside(asked.key))
    except (OSError, ssl.SSLError):
        raise PacsRefused("A file for TLS cannot be used.", hint="See ca, certificate and key in [retrieve].") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class Dimse:
    """The PACS of `[retrieve]`. `close` ends its associations and what listens."""

    by_study = True

    def __init__(self, config: Retrieve, tls: ssl.SSLContext | None = None) -> None:
        self._config, self._tls = config, tls
        self._finding: Any = None
        self._server: Any = None
        self._takers: list[Taker] = []
        self._heard = 0.0
        self._trouble: Exception | None = None

    # ---- find ------------------------------------------------------------------------------------------------
    def find(self, level: Level, keys: Mapping[str, str]) -> Iterator[Found]:
        """Yield what PACS answers (PS3.4 C.4.1). Closed early, it is asked to stop (C-CANCEL). Raises Failed."""
        from pydicom.dataset import Dataset

        if self._finding is None or not self._finding.is_established:
            self._finding = self._associate([(FIND, SYNTAXES[1::-1])])
        asked = Dataset()
        asked.QueryRetrieveLevel = level
        for name in (*returned(level), *keys):
            setattr(asked, name, keys.get(name, ""))
        self._heard = time.monotonic()
        answers = self._finding.send_c_find(asked, FIND)
        try:
            for status, identifier in answers:
                code = self._status(status, self._finding)
                if code in (0xFF00, 0xFF01):
                    yield _plain(identifier)
                elif code:
                    raise Failed(statuses.words(code, "find"), code, busy=statuses.busy(code))
        except GeneratorExit:
            self._stop(answers)
            raise

    def _stop(self, answers: Iterator[Any]) -> None:
        with suppress(Exception):
            self._finding.send_c_cancel(1, query_model=FIND)
            for n, _ in enumerate(answers):
                if n > DRAINED:
                    break
            else:
                return
        self._finding.abort()

    # ---- retrieve --------------------------------------------------------------------------------------------
    def retrieve(self, wanted: Wanted, classes: Collection[str], taker: Taker) -> str:
        """Have it sent to `taker` (PS3.4 C.4.2, C.4.3); return the last status in words. Raises Failed.

        `classes`: the SOP classes to offer; empty: those in use.
        """
        lists = [()] if wanted.whole else [wanted.instances[n:n + UIDS] for n in range(0, len(wanted.instances), UIDS)]
        return all_asked(lambda uids: self._request(_identifier(wanted, uids), classes, taker), lists)

    def _request(self, asked: Any, classes: Collection[str], taker: Taker) -> str:
        from pynetdicom import evt

        moves = self._config.service == "c-move"
        if moves:
            self._takers.append(taker)
            association = self._associate([(MOVE, SYNTAXES[1::-1])])
        else:
            handlers = [(evt.EVT_C_STORE, self._store, [lambda uid: taker])]
            association = self._associate([(GET, SYNTAXES[1::-1])], offered(classes), handlers)
        try:
            self._heard = time.monotonic()
            answers = (association.send_c_move(asked, self._config.calling_ae, MOVE) if moves
                       else association.send_c_get(asked, GET))
            code = 0
            for status, _ in answers:
                code = self._status(status, association)
                self._heard = time.monotonic()
            service = "move" if moves else "get"
            if moves:
                self._wait(taker)
            if statuses.failed(code):
                raise Failed(statuses.words(code, service), code, busy=statuses.busy(code))
            return statuses.words(code, service)
        finally:
            if association.is_established:
                association.release()
            if self._trouble:       # ours, and not the PACS's: no study ends as one that it did not send
                trouble, self._trouble = self._trouble, None
                raise trouble

    def _wait(self, taker: Taker) -> None:
        """Wait for what is sent after the last answer, as long as something comes."""
        until, came = time.monotonic() + self._config.late_seconds, taker.came()
        while taker.lacking() and time.monotonic() < until:
            time.sleep(0.05)
            if taker.came() != came:
                until, came = time.monotonic() + self._config.late_seconds, taker.came()

    def _store(self, event: Any, taker_of: Callable[[str | None], Taker | None]) -> int:
        """Take one C-STORE; return its status (PS3.4 B.2.3)."""
        self._heard = time.monotonic()
        path = Path(event.dataset_path)
        claimed = event.request.AffectedSOPInstanceUID
        try:
            taker = taker_of(str(claimed) if claimed else None)
            return 0x0000 if taker and taker.take(path, str(claimed) if claimed else None) else 0x0124
        except Exception as trouble:  # noqa: BLE001 - it is raised where it was asked for: see _request
            self._trouble = self._trouble or trouble
            return 0xA700
        finally:
            path.unlink(missing_ok=True)

    # ---- what it can do: for assess.py ------------------------------------------------------------------------
    def echo(self) -> None:
        """Ask whether it is there (C-ECHO, PS3.4 annex A). Raises Failed."""
        association = self._associate([(VERIFICATION, SYNTAXES[1::-1])])
        try:
            if code := self._status(association.send_c_echo(), association):
                raise Failed(statuses.words(code, "echo"), code)
        finally:
            if association.is_established:
                association.release()

    def syntaxes(self, sop_class: str) -> list[str]:
        """Return the transfer syntaxes in which it agrees to send a class by C-GET, in the order offered."""
        association = self._associate([(GET, SYNTAXES[1::-1])], offered([sop_class]))
        agreed = {str(c.transfer_syntax[0]) for c in association.accepted_contexts if c.abstract_syntax == sop_class}
        association.release()
        return [uid for uid in SYNTAXES if uid in agreed]

    def together(self, most: int) -> int:
        """Return how many associations it keeps open at a time, up to `most`; none of them asks anything."""
        kept: list[Any] = []
        try:
            for _ in range(most):
                kept.append(self._associate([(FIND, SYNTAXES[1::-1])]))
        except Failed:
            pass
        finally:
            for association in kept:
                association.release()
        return len(kept)

    # ---- listening -------------------------------------------------------------------------------------------
    def listen(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen for what C-MOVE makes the PACS send. Raises PacsRefused where the port is taken."""
        from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt

        ae = AE(ae_title=self._config.calling_ae)
        ae.require_called_aet = True
        ae.require_calling_aet = list(self._config.senders or (self._config.called_ae,))
        ae.maximum_associations = 4
        ae.network_timeout = self._config.timeout_seconds
        ae.dimse_timeout = self._config.timeout_seconds
        contexts = [build_context(str(one.abstract_syntax), list(SYNTAXES)) for one in AllStoragePresentationContexts]
        try:
            self._server = ae.start_server(
                (self._config.receive_address, self._config.receive_port), block=False, ssl_context=tls,
                contexts=contexts,
                evt_handlers=[(evt.EVT_CONN_OPEN, at_once), (evt.EVT_C_STORE, self._store, [self._taker_of])])
        except OSError:
            hint = "Another retrieval may run; see receive_address, receive_port in [retrieve]."
            raise PacsRefused("The port at which what was asked for should arrive cannot be had.", hint=hint) from None

    def _taker_of(self, claimed: str | None) -> Taker | None:
        """Return who asked for an instance: the present request, or an earlier one whose answer comes late."""
        for taker in reversed(self._takers):
            if claimed is not None and taker.asked_for(claimed):
                return taker
        return self._takers[-1] if self._takers else None

    def rest(self) -> None:
        """Let go of the association that questions go over; the next question opens another."""
        if self._finding is not None and self._finding.is_established:
            self._finding.release()

    def close(self) -> None:
        self.rest()
        if self._server is not None:
            self._server.shutdown()

    # ---- associations ----------------------------------------------------------------------------------------
    def _associate(self, services: list[tuple[str, tuple[str, ...]]], stores: list[Any] | None = None,
                   handlers: list[Any] | None = None) -> Any:
        """Open an association. Raises Failed."""
        from pynetdicom import AE, build_context, build_role, evt

        ae = AE(ae_title=self._config.calling_ae)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = self._config.timeout_seconds
        ae.connection_timeout = min(self._config.timeout_seconds, 30)
        stores = stores or []
        roles: list[Any] = [build_role(uid, scp_role=True) for uid in {str(one.abstract_syntax) for one in stores}]
        contexts = [build_context(uid, list(syntaxes)) for uid, syntaxes in services] + stores
        association = ae.associate(
            self._config.host, self._config.port, contexts, ae_title=self._config.called_ae, ext_neg=roles,
            evt_handlers=[(evt.EVT_CONN_OPEN, at_once), *(handlers or [])],
            tls_args=(self._tls, self._config.host) if self._tls else None)
        if not association.is_established:
            raise Failed(statuses.NOT_OPENED, reached=False)
        if not any(c.abstract_syntax == services[0][0] for c in association.accepted_contexts):
            association.release()
            raise Failed(statuses.NOT_NEGOTIATED)
        return association

    def _status(self, status: Any, association: Any) -> int:
        """Return a status, or raise Failed where there is none."""
        code = status.get("Status")
        if code is not None:
            return int(code)
        silent = time.monotonic() - self._heard >= self._config.timeout_seconds * 0.9
        if association.is_established:
            association.abort()
        raise Failed(statuses.NOT_ANSWERED if silent else statuses.DROPPED, reached=not silent)


def at_once(event: Any) -> None:
    """Have what is written sent at once (EVT_CONN_OPEN): a command and its data set are two writes, and the second
    would wait for the other side to acknowledge the first, 40 ms on most systems."""
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def offered(classes: Collection[str]) -> list[Any]:
    """Return the presentation contexts in which we take instances: one for each class and transfer syntax, so that an
    instance can be sent as it is stored; of many classes, one for each (an association has room for 128)."""
    from pynetdicom import StoragePresentationContexts, build_context

    known = sorted(set(classes)) or [str(context.abstract_syntax) for context in StoragePresentationContexts]
    if len(known) * len(SYNTAXES) <= 126:
        return [build_context(uid, syntax) for uid in known for syntax in SYNTAXES]
    return [build_context(uid, list(SYNTAXES)) for uid in known[:126]]


def _identifier(wanted: Wanted, instances: Collection[str]) -> Any:
    from pydicom.dataset import Dataset

    asked = Dataset()
    asked.QueryRetrieveLevel = "STUDY" if wanted.series is None else "SERIES" if wanted.whole else "IMAGE"
    asked.StudyInstanceUID = wanted.study
    if wanted.series is not None:
        asked.SeriesInstanceUID = wanted.series
    if instances:
        asked.SOPInstanceUID = list(instances)
    return asked


def _plain(identifier: Any) -> Found:
    """Return an answer as plain texts. Raises Failed where it cannot be read."""
    if identifier is None:
        raise Failed("An answer of the PACS could not be read")
    found = {}
    try:
        for element in identifier:
            if element.VR != "SQ" and element.keyword:
                values = element.value if element.VM > 1 else [element.value]
                found[element.keyword] = "\\".join("" if v is None else str(v) for v in values).strip(" \0")
    except Exception:  # noqa: BLE001 - its text may quote a value
        raise Failed("An answer of the PACS could not be read") from None
    return found
