"""Other people's PACSs: DCMTK's dcmqrscp and pynetdicom's qrscp are found in, fetched from and reconciled."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import retrieve_kit as kit
from faulty import contexts

from pipeline import steps

pytestmark = pytest.mark.integration

DCMQRSCP = """
NetworkTCPPort  = {port}
MaxPDUSize      = 16384
MaxAssociations = 8
HostTable BEGIN
tre = (TRE_INGEST, 127.0.0.1, {receive})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
PACS  {folder}  RW (50, 64mb)  ANY
AETable END
"""
QRSCP = """
[DEFAULT]
ae_title: PACS
port: {port}
max_pdu: 16382
acse_timeout: 30
dimse_timeout: 30
network_timeout: 30
bind_address: 127.0.0.1
instance_location: {folder}
database_location: {folder}/index.sqlite
[TRE_INGEST]
address: 127.0.0.1
port: {receive}
"""


@contextmanager
def running(which: str, root: Path, shelf: kit.Shelf) -> Iterator[dict[str, Any]]:
    """Run one on loopback with the shelf in it; yield the options of a project that asks it."""
    port, receive = kit.free_ports(2)
    folder = root / "pacs"
    folder.mkdir()
    file = root / "pacs.cfg"
    file.write_text((DCMQRSCP if which == "dcmqrscp" else QRSCP).format(port=port, receive=receive, folder=folder))
    command = [which, "-c", str(file)] if which == "dcmqrscp" else [sys.executable, "-m", "pynetdicom", which, "-c",
                                                                   str(file)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    try:
        _wait(port, process)
        _store(port, shelf)
        yield {"port": port, "receive_port": receive, "called_ae": "PACS"}
    finally:
        process.terminate()
        process.wait(20)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.1)


def _store(port: int, shelf: kit.Shelf) -> None:
    from pynetdicom import AE

    association = AE(ae_title="TRE_INGEST").associate("127.0.0.1", port, contexts(), ae_title="PACS")
    assert association.is_established
    for one in shelf.images:
        assert association.send_c_store(one.dataset).Status == 0
    association.release()


@pytest.mark.parametrize("service", ["c-get", "c-move"])
@pytest.mark.parametrize("which", ["dcmqrscp", "qrscp"])
def test_a_cohort_from_another_s_pacs(which: str, service: str, shelf: kit.Shelf, tmp_path: Path) -> None:
    if which == "dcmqrscp" and not shutil.which(which):
        pytest.skip("DCMTK is not installed (Debian: dcmtk)")
    (tmp_path / "cohort.csv").write_text("local_id,issuer,accession_number\nLID1001,HOSP-A,\n,,ACC3\n")
    with running(which, tmp_path, shelf) as found:
        made = kit.config(tmp_path, service=service, **found)
        asked = steps.ask_pacs(made, cohort=str(tmp_path / "cohort.csv"))
        assert (asked["rows"], asked["instances"]) == ({"found": 2}, len(shelf.images)), asked
        steps.retrieve(made, asked["retrieval"])
    result = steps.reconcile(made, asked["retrieval"])
    assert (result["studies"], result["missing"], result["not_asked"]) == ({"complete": 3}, 0, 0)
