"""`tre doctor`, of `[retrieve]` and `[listen]`: is the PACS there, may we be sent images? No image is asked for."""

from __future__ import annotations

import os
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pipeline.cli.doctor import GIB, Check, existing
from pipeline.errors import TreError

if TYPE_CHECKING:
    from pipeline.config import ProjectConfig
    from pipeline.sections import Listen, Retrieve

SECONDS = 5.0       # for a PACS to answer
SOON = 30           # days in which a certificate ends
NOBODY = "2.25.1"   # a study that nobody has


# ---- [retrieve] --------------------------------------------------------------------------------------------------
def of_retrieve(config: ProjectConfig, asked: Retrieve) -> Iterator[Check]:
    """Yield what is found of the PACS that a project asks."""
    sound = True
    for name in ("ca", "certificate", "key"):
        if path := getattr(asked, name):
            check = _file(f"retrieve {name}", config.beside(path), secret=name == "key")
            sound &= check.result != "fail"
            yield check
    if asked.service == "c-move":
        yield _port("retrieve port", asked.receive_address, asked.receive_port,
                    "Another retrieval may run; else see receive_address and receive_port.")
    if asked.nhs_numbers == "crosswalk" and not config.project.linked:
        yield Check("retrieve nhs_numbers", "fail", "by the crosswalk, and the project is not linked",
                    'Give local ids in cohort files, or nhs_numbers = "patient_id".')
    if asked.schedule == "" and not config.beside(asked.cohorts).is_dir():
        yield Check("retrieve cohorts", "warn", "the folder is not there",
                    "Make it, for cohort files that Airflow is to be given; see cohorts in [retrieve].")
    if sound:
        yield _pacs(config, asked)


def _pacs(config: ProjectConfig, asked: Retrieve) -> Check:
    """Ask whether it is there: C-ECHO, or QIDO-RS for a study that nobody has."""
    from pipeline.retrieve.dimse import Dimse
    from pipeline.retrieve.kind import quiet
    from pipeline.retrieve.peer import Failed
    from pipeline.retrieve.run import opened

    dicomweb = asked.service == "dicomweb"
    mend = "Look at url, the token and TLS." if dicomweb else "Look at host, port, both AE titles and TLS."
    try:
        if quiet(asked, datetime.now(UTC)):
            return Check("PACS", "warn", "not asked: these are its quiet hours", "Run this again outside them.")
        hasty = asked.model_copy(update={"timeout_seconds": min(SECONDS, asked.timeout_seconds),
                                         "service": "dicomweb" if dicomweb else "c-get"})
        with opened(config.model_copy(update={"retrieve": hasty})) as peer:
            if isinstance(peer, Dimse):
                peer.echo()
            else:
                next(iter(peer.find("STUDY", {"StudyInstanceUID": NOBODY})), None)
    except Failed as failed:
        return Check("PACS", "fail", failed.words, f"{mend} Its administrator can tell what it refuses.")
    except TreError as error:
        return Check("PACS", "fail", error.code, str(error))
    secured = asked.url.startswith("https://") if dicomweb else bool(asked.ca)
    return Check("PACS", "pass", f"answers {'over TLS' if secured else 'without TLS'}")


# ---- [listen] ----------------------------------------------------------------------------------------------------
def of_listen(config: ProjectConfig, asked: Listen) -> Iterator[Check]:
    """Yield what is found of the place where a project is sent images."""
    for name in ("certificate", "key", "client_authority"):
        if path := getattr(asked, name):
            yield _file(f"listen {name}", config.beside(path), secret=name == "key")
    yield _pair(config, asked)
    running = _running(asked)
    if asked.port:
        yield Check("listen port", "pass", f"tre listen answers, and says: {running}") if running else _port(
            "listen port", asked.bind, asked.port, "Stop what listens there, or give another port.")
    if asked.health and not running:
        host, _, port = asked.health.rpartition(":")
        yield _port("listen health", host, int(port), "Stop what listens there, or give another address.")
    if asked.health and not ip_address(asked.health.rpartition(":")[0]).is_loopback:
        yield Check("listen health", "warn", "others than this machine may ask",
                    "It tells counts alone; 127.0.0.1 tells them to this machine alone.")
    yield _disk(config, asked)


def _pair(config: ProjectConfig, asked: Listen) -> Check:
    from pipeline.retrieve.listener import tls_context

    try:
        if tls_context(config, asked):
            return Check("listen TLS", "pass", "every sender needs a certificate")
    except TreError as error:
        return Check("listen TLS", "fail", error.code, str(error))
    return Check("listen TLS", "warn", "none: AE titles and addresses are all that is asked of a sender",
                 "Give certificate, key and client_authority.")


def _disk(config: ProjectConfig, asked: Listen) -> Check:
    place = urlsplit(config.zones.landing)
    if place.scheme != "file":
        return Check("listen disk", "fail", "landing is not a directory",
                     "Images can be received only where landing is file:///…: give another to tre listen.")
    room = shutil.disk_usage(existing(Path(unquote(place.path)))).free - asked.free_bytes
    found = f"{room / GIB:.1f} GB until senders are refused" if room > 0 else "senders are refused now"
    mend = f"free_bytes keeps {asked.free_bytes / GIB:.1f} GB of landing's disk free: make room, or lower it."
    enough = max(GIB, asked.free_bytes // 2)
    return Check("listen disk", "pass" if room >= enough else "warn" if room > 0 else "fail", found,
                 "" if room >= enough else mend)


def _running(asked: Listen) -> str:
    """Return what a listener of ours says of itself where the project's answers; else nothing."""
    if not asked.health:
        return ""
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{asked.health}/healthz", timeout=2) as answer:
            said, server = answer.read(100), answer.headers.get("Server", "")
    except urllib.error.HTTPError as error:
        said, server = error.read(100), error.headers.get("Server", "")
    except (OSError, ValueError):
        return ""
    return str(said.decode("ascii", "replace").strip()) if server.strip() == "tre-listen" else ""


# ---- both --------------------------------------------------------------------------------------------------------
def _port(name: str, host: str, port: int, mend: str) -> Check:
    """Tell whether we could listen there, by doing so for a moment."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        return Check(name, "fail", f"port {port}: {error.strerror or 'no such address'}", mend)
    return Check(name, "pass", f"port {port} is free")


def _file(name: str, path: Path, *, secret: bool) -> Check:
    """Tell of a PEM file whether it can be read, and of certificates until when they hold."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return Check(name, "fail", f"cannot be read: {error.strerror}", "Give its path, readable by this user.")
    if secret:
        open_to = path.stat().st_mode & 0o007
        return Check(name, "fail" if open_to else "pass", "others may read it" if open_to else "this user's",
                     f"chmod 640 {os.fspath(path)}" if open_to else "")
    from cryptography import x509

    try:
        ends = min(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(data))
    except ValueError:
        return Check(name, "fail", "holds no certificate in PEM", "Give a PEM file of certificates.")
    left = (ends - datetime.now(UTC)).days
    if left < 0:
        return Check(name, "fail", f"ended on {ends:%Y-%m-%d}", "Have a new one issued.")
    return Check(name, "warn" if left < SOON else "pass", f"until {ends:%Y-%m-%d}",
                 "Have a new one issued." if left < SOON else "")
