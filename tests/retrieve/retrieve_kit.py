"""A project that asks a PACS, the studies that the PACS holds, and the PACSs themselves."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pydicom
from pydicom.filebase import DicomBytesIO

from pipeline.config import ProjectConfig
from pipeline.storage import ObjectStore, open_store
from pipeline.synthetic import files

PROJECT = "asking"
MG = "Digital Mammography X-Ray Image Storage - For Presentation"
CLASSES = [MG, "CT Image Storage", "X-Ray Radiation Dose SR Storage"]
PLUGINS = ("/usr/share/orthanc/plugins/libOrthancDicomWeb.so", "/usr/lib/orthanc/libOrthancDicomWeb.so")


def config(root: Path, **retrieve: Any) -> ProjectConfig:
    """Return a project whose zones are below `root`."""
    given = {"host": "127.0.0.1", "called_ae": "PACS", "studies_an_hour": 0, "timeout_seconds": 10,
             "seconds_between_queries": 0, "late_seconds": 0.3, "issuer": "HOSP-A", **retrieve}
    doc = {
        "schema_version": 1,
        "project": {"name": PROJECT, "title": "Asking", "data_steward": "A steward", "linked": False, "demo": True},
        "zones": {name: (root / name).as_uri() for name in ("landing", "work", "candidate", "release")},
        "stage": {"quiet_seconds": 0},
        "eligibility": {"sop_classes": CLASSES, "study_dates": {"earliest": "2000-01-01", "latest": "2030-12-31"},
                        "people": {"not_required": "Synthetic people only: no legal basis is needed."}},
        "deidentify": {"recipes": [{"files": ["base.dicom"], "sop_classes": CLASSES}]},
        "retrieve": given,
    }
    return ProjectConfig.model_validate(doc)


def project_file(root: Path, **retrieve: Any) -> Path:
    """Write the same project as a file; return its path."""
    made = config(root, **retrieve).model_dump(mode="json", exclude={"path"}, by_alias=True, exclude_defaults=True)
    lines = ["schema_version = 1"]

    def put(name: str, section: dict[str, Any]) -> None:
        lines.append(f"[{name}]")
        lines.extend(f"{key} = {_toml(value)}" for key, value in section.items())

    for name in ("project", "zones", "stage", "eligibility", "deidentify", "retrieve"):
        put(name, made[name])
    path = root / "project.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    text = json.dumps(value)
    return text.strip('"') if isinstance(value, str) and len(value) == 10 and value[4::3] == "--" else text


def zones(made: ProjectConfig) -> tuple[ObjectStore, ObjectStore]:
    """Return landing and work."""
    return open_store(made.zones.landing, "landing"), open_store(made.zones.work, "work")


@dataclass(frozen=True)
class Image:
    """One instance of the PACS: its bytes, and its UIDs."""

    data: bytes
    study: str
    series: str
    sop: str

    @property
    def dataset(self) -> pydicom.Dataset:
        """All of it, anew each time: it may be changed."""
        return pydicom.dcmread(DicomBytesIO(self.data))

    @cached_property
    def head(self) -> pydicom.Dataset:
        """Without its pixels, read once: to be looked at only."""
        return pydicom.dcmread(DicomBytesIO(self.data), stop_before_pixels=True)


def image(kind: str = "mammogram", **options: Any) -> Image:
    data = getattr(files, kind)(**options)
    ds = pydicom.dcmread(DicomBytesIO(data), stop_before_pixels=True)
    return Image(data, ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)


def written(ds: pydicom.Dataset) -> Image:
    """The image that a data set is."""
    out = DicomBytesIO()
    ds.save_as(out)
    return Image(out.getvalue(), ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)


@dataclass(frozen=True)
class Shelf:
    """What a PACS holds: two people, three studies, one of them with a dose report beside its images."""

    images: list[Image] = field(default_factory=list)

    @classmethod
    def made(cls) -> Shelf:
        one = {"patient_id": "LID1001", "patient_name": "QUILLFEATHER^ARAMINTA", "issuer": "HOSP-A"}
        two = {"patient_id": "LID2002", "patient_name": "MARCHBANKS^OLIVE", "issuer": "HOSP-A"}
        found = [image(**one, accession="ACC1", study_date="20180614", view=view, laterality=side)
                 for view in ("MLO", "CC") for side in "LR"]
        found.append(image("dose_report", **one, accession="ACC1", study_date="20180614", laterality="L"))
        found += [image(**one, accession="ACC2", study_date="20210302", laterality=side) for side in "LR"]
        found += [image("ct", **two, accession="ACC3", study_date="20210302", seed=n) for n in range(3)]
        return cls(found)

    def of(self, accession: str) -> list[Image]:
        return [one for one in self.images if one.head.AccessionNumber == accession]

    def study(self, accession: str) -> str:
        return self.of(accession)[0].study


def free_ports(n: int) -> list[int]:
    held = [socket.socket() for _ in range(n)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc: where it answers, and where it sends what C-MOVE asks for."""

    port: int
    http: int
    receive: int

    def options(self, service: str) -> dict[str, Any]:
        return {"service": service, "port": self.port, "called_ae": "ORTHANC", "receive_port": self.receive,
                "url": f"http://127.0.0.1:{self.http}/dicom-web"}


def orthanc_missing() -> str | None:
    """Say what of Orthanc is not installed, or None."""
    if not (shutil.which("Orthanc") or Path("/usr/sbin/Orthanc").exists()):
        return "Orthanc is not installed (Debian: orthanc, orthanc-dicomweb)"
    if not any(Path(name).exists() for name in PLUGINS):
        return "Orthanc's DICOMweb plugin is not installed (Debian: orthanc-dicomweb)"
    return None


@contextmanager
def orthanc(root: Path, shelf: Sequence[Image]) -> Iterator[Orthanc]:
    """Run an Orthanc of our own on loopback, with `shelf` in it."""
    import requests

    port, http, receive = free_ports(3)
    settings = {
        "Name": "tests", "StorageDirectory": str(root / "storage"), "IndexDirectory": str(root / "index"),
        "HttpPort": http, "DicomPort": port, "DicomAet": "ORTHANC", "DicomCheckCalledAet": True,
        "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "DicomAlwaysAllowGet": True,
        "DicomModalities": {"tre": {"AET": "TRE_INGEST", "Host": "127.0.0.1", "Port": receive}},
        "Plugins": [next(name for name in PLUGINS if Path(name).exists())],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (root / "orthanc.json").write_text(json.dumps(settings))
    program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    with (root / "log.txt").open("wb") as log:
        process = subprocess.Popen([program, str(root / "orthanc.json")], stdout=log, stderr=log, cwd=root)
    try:
        until = time.monotonic() + 30
        while True:
            try:
                requests.get(f"http://127.0.0.1:{http}/system", timeout=2).raise_for_status()
                break
            except requests.RequestException:
                assert process.poll() is None and time.monotonic() < until, (root / "log.txt").read_text()[-2000:]
                time.sleep(0.1)
        for one in shelf:
            requests.post(f"http://127.0.0.1:{http}/instances", data=one.data, timeout=30).raise_for_status()
        yield Orthanc(port, http, receive)
    finally:
        process.terminate()
        process.wait(20)
