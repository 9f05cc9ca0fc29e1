"""Listeners to send to, in this process or in one of their own, and a sender that can also do it wrongly."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context

from pipeline import config
from pipeline.config import ProjectConfig
from pipeline.retrieve.listener import Listener, listening
from pipeline.storage import open_store
from pipeline.synthetic import encode, files
from pipeline.synthetic.project import project_text

MG = "1.2.840.10008.5.1.4.1.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
ECHO = "1.2.840.10008.1.1"


# ---- what is sent ------------------------------------------------------------------------------------------------
def uid(number: int) -> str:
    return f"2.25.{10**20 + number}"


_TEMPLATE: list[bytes] = []


def data_set(number: int = 0, padding: int = 0) -> bytes:
    """The data set of a small mammogram whose SOP Instance UID is `uid(number)`; `padding` bytes longer."""
    if not _TEMPLATE:
        whole = files.mammogram(rows=8, columns=8, planted=False, sop_instance_uid=uid(0),
                                study_uid=encode.uid("s"), series_uid=encode.uid("t"))
        _TEMPLATE.append(whole[144 + struct.unpack_from("<L", whole, 140)[0]:])
    made = _TEMPLATE[0].replace(uid(0).encode(), uid(number).encode())
    return made + struct.pack("<HH2sHL", 0xFFFC, 0xFFFC, b"OB", 0, padding) + bytes(padding) if padding else made


def file_of(number: int = 0, padding: int = 0) -> bytes:
    """The file that must lie in landing once `data_set(number, padding)` has been sent."""
    from pipeline.retrieve.listener_command import file_head

    return file_head(MG.encode(), uid(number).encode(), EXPLICIT.encode()) + data_set(number, padding)


# ---- a listener --------------------------------------------------------------------------------------------------
def project(folder: Path, **options: Any) -> Path:
    """Write a project file with [listen]; return its path. Its landing is folder/landing."""
    folder.mkdir(parents=True, exist_ok=True)
    zones = (f"file://{(folder / zone).resolve()}" for zone in ("landing", "work", "candidate", "release"))
    listen = {"ae_titles": ["TRE"], "callers": ["CT1"], "addresses": ["127.0.0.0/30"], "port": 0, "health": "",
              "free_bytes": 0, "stop_seconds": 5, **options}
    lines = (f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
             for key, value in listen.items())
    text = project_text(*zones).replace("quiet_seconds = 60", "quiet_seconds = 0")
    path = folder / "project.toml"
    path.write_text(text + "\n[listen]\n" + "\n".join(lines) + "\n")
    return path


@dataclass
class Running:
    """A listener: in this process (`listener`) or in one of its own (`process`)."""

    port: int
    folder: Path
    listener: Any = None
    process: Any = None

    @property
    def config(self) -> ProjectConfig:
        return config.load(self.folder / "project.toml")

    def landed(self) -> dict[str, bytes]:
        """Name → bytes of everything that is visible in landing."""
        store = open_store(self.config.zones.landing, "landing")
        return {entry.key: store.read(entry.key) for entry in store.list()}

    def peak(self) -> int:
        """The most memory that the process has held, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def here(folder: Path, **options: Any) -> Iterator[Running]:
    """A listener in this process."""
    with listening(config.load(project(folder, **options))) as listener:
        thread = threading.Thread(target=listener.run)
        thread.start()
        try:
            yield Running(listener.port, folder, listener=listener)
        finally:
            listener.stop()
            thread.join(timeout=30)
            assert not thread.is_alive()


# A disk without room, for as long as the file named in FULL is there.
_PROCESS = """
import os
real = os.statvfs
def statvfs(path):
    found = list(real(path))
    found[4] = 0 if os.path.exists(os.environ["FULL"]) else found[4]
    return os.statvfs_result(found)
os.statvfs = statvfs
from pipeline.cli.main import main
main()
"""


@contextmanager
def apart(folder: Path, **options: Any) -> Iterator[Running]:
    """`tre listen` in a process of its own. While the file folder/full is there, its disk has no room."""
    path = project(folder, **{"free_bytes": 1, **options})
    command = [sys.executable, "-c", _PROCESS, "listen", str(path)]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True,
                                   env={**os.environ, "FULL": str(folder / "full")})
    try:
        said = process.stdout.readline()        # type: ignore[union-attr]
        found = re.match(r"listening on port (\d+)", said)
        assert found, (said, (folder / "log").read_text())
        yield Running(int(found[1]), folder, process=process)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=30)
        process.stdout.close()                  # type: ignore[union-attr]


def is_whole(key: str, data: bytes) -> bool:
    """Tell whether a landed object is named after its bytes."""
    digest = hashlib.sha256(data).hexdigest()
    return key == f"received/{digest[:2]}/{digest}.dcm"


def counted(listener: Listener, metric: str, label: str = "") -> int:
    return listener.counts.get(metric, label)


# ---- a sender ----------------------------------------------------------------------------------------------------
class Ended(Exception):
    """The peer closed the connection or aborted: `pdu` is what it said."""

    def __init__(self, pdu: bytes = b"") -> None:
        super().__init__(pdu.hex())
        self.pdu = pdu


class Sender:
    """An association as its requestor, byte by byte. `answer` is the first PDU that came back."""

    def __init__(self, port: int, *, calling: str = "CT1", called: str = "TRE", sop_class: str = MG,
                 syntaxes: tuple[str, ...] = (EXPLICIT,), source: str = "127.0.0.1", ask: bool = True,
                 tls: ssl.SSLContext | None = None, timeout: float = 20) -> None:
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", port), timeout, (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = tls.wrap_socket(self.socket)
        self.answer = b""
        if ask:
            self.socket.sendall(request(calling, called, sop_class, syntaxes))
            self.answer = self.pdu()

    @property
    def accepted(self) -> bool:
        return self.answer[:1] == b"\2"

    @property
    def rejected(self) -> tuple[int, int, int] | None:
        return (self.answer[7], self.answer[8], self.answer[9]) if self.answer[:1] == b"\3" else None

    def pdu(self) -> bytes:
        """Return the next PDU. Raises Ended."""
        head = self._read(6)
        whole = head + self._read(struct.unpack(">L", head[2:])[0])
        if whole[0] == 7:
            raise Ended(whole)
        return whole

    def _read(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            try:
                more = self.socket.recv(count - len(got))
            except ConnectionError:
                more = b""
            if not more:
                raise Ended
            got += more
        return got

    def store(self, number: int = 0, *, data: bytes | None = None, instance: str | None = None, sop_class: str = MG,
              context: int = 1, chunk: int = 100_000, upto: int | None = None, no_data_set: bool = False) -> int:
        """Send one image and return the status. `upto`: stop after so many bytes of its data set and return -1."""
        elements = b"".join(_element(n, v) for n, v in (
            (0x0002, sop_class.encode()), (0x0100, b"\1\0"), (0x0110, struct.pack("<H", number % 65_536)),
            (0x0700, b"\0\0"), (0x0800, b"\1\1" if no_data_set else b"\0\0"),
            (0x1000, (instance if instance is not None else uid(number)).encode())))
        self.socket.sendall(values(context, 3, _element(0, struct.pack("<L", len(elements))) + elements))
        if not no_data_set:
            data = data_set(number) if data is None else data
            for at in range(0, len(data), chunk):
                if upto is not None and at >= upto:
                    return -1
                self.socket.sendall(values(context, 2 if at + chunk >= len(data) else 0, data[at:at + chunk]))
        return self.status()

    def status(self) -> int:
        """Read a response; return its status."""
        said = self.pdu()
        assert said[0] == 4
        found, at = {}, 12
        while at < len(said):
            _, element, length = struct.unpack_from("<HHL", said, at)
            found[element] = said[at + 8:at + 8 + length]
            at += 8 + length
        self.comment = found.get(0x0902, b"")
        return int.from_bytes(found[0x0900], "little")

    def release(self) -> None:
        self.socket.sendall(bytes((5, 0, 0, 0, 0, 4, 0, 0, 0, 0)))
        assert self.pdu()[0] == 6
        self.close()

    def close(self) -> None:
        self.socket.close()


def _element(number: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHL", 0, number, len(value)) + value


def values(context: int, control: int, data: bytes) -> bytes:
    return struct.pack(">BBLLBB", 4, 0, len(data) + 6, len(data) + 2, context, control) + data


def request(calling: str = "CT1", called: str = "TRE", sop_class: str = MG,
            syntaxes: tuple[str, ...] = (EXPLICIT,)) -> bytes:
    """An A-ASSOCIATE-RQ for one storage class (context 1) and C-ECHO (context 3)."""
    asking = A_ASSOCIATE()
    asking.application_context_name = "1.2.840.10008.3.1.1.1"
    asking.calling_ae_title, asking.called_ae_title = calling, called
    contexts = [build_context(sop_class, list(syntaxes)), build_context(ECHO)]
    contexts[0].context_id, contexts[1].context_id = 1, 3
    asking.presentation_context_definition_list = contexts
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = 16_384, "2.25.1"
    asking.user_information = [length, implementation]
    pdu: Any = A_ASSOCIATE_RQ()
    pdu.from_primitive(asking)
    encoded: bytes = pdu.encode()
    return encoded
