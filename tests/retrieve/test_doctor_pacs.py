"""`tre doctor` of a project that asks a PACS, or is sent images: what it says before either is tried."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import faulty_web as web
import listen_kit
import pytest
import retrieve_kit as kit
from faulty import options, serving
from test_listener_tls import Authority

from pipeline import config as files
from pipeline.cli.doctor import Check
from pipeline.cli.doctor_pacs import of_listen, of_retrieve
from pipeline.errors import ProjectFileError

pytestmark = pytest.mark.integration


def asking(made: Any) -> dict[str, Check]:
    assert made.retrieve
    return {one.name: one for one in of_retrieve(made, made.retrieve)}


def listening(path: Path) -> dict[str, Check]:
    made = files.load(path)
    assert made.listen
    found = list(of_listen(made, made.listen))
    assert all(one.mend for one in found if one.result != "pass")
    return {one.name: one for one in found}


def wrong(found: dict[str, Check]) -> set[str]:
    return {name for name, one in found.items() if one.result == "fail"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    ours = Authority(made, "hospital")
    ours.issue("tre")
    ours.issue("old", expired=True)
    for path in made.glob("*.key"):
        path.chmod(0o600)
    return made


def tls(folder: Path, name: str = "tre") -> dict[str, str]:
    return {"ca": str(folder / "hospital.pem"), "certificate": str(folder / f"{name}.pem"),
            "key": str(folder / f"{name}.key")}


# ---- asking --------------------------------------------------------------------------------------------------------
def test_a_pacs_that_answers(shelf: kit.Shelf, tmp_path: Path) -> None:
    (tmp_path / "cohorts").mkdir()
    with serving(shelf.images) as pacs:
        found = asking(kit.config(tmp_path, **options(pacs, "c-move", cohorts=str(tmp_path / "cohorts"))))
        assert {one.result for one in found.values()} == {"pass"} and found.keys() == {"retrieve port", "PACS"}
        assert pacs.asked == [], "nothing is asked for"
        with socket.create_server(("127.0.0.1", pacs.receive)):
            assert wrong(asking(kit.config(tmp_path, **options(pacs, "c-move")))) == {"retrieve port"}
    with web.serving(shelf.images) as service:
        assert wrong(asking(kit.config(tmp_path, **web.options(service)))) == set()
        assert len(service.asked) == 1 and "2.25.1" in service.asked[0][1]


@pytest.mark.parametrize("service", ["c-get", "dicomweb"])
def test_a_pacs_that_is_not_there_or_does_not_take_us(service: str, shelf: kit.Shelf, tmp_path: Path) -> None:
    there = {"service": service, "port": 9, "url": "http://127.0.0.1:9/dicom-web"}
    (one,) = (c for c in asking(kit.config(tmp_path, **there)).values() if c.name == "PACS")
    assert one.result == "fail" and one.found.startswith("No association") and one.mend
    with serving(shelf.images, rejects=True) as pacs:
        assert wrong(asking(kit.config(tmp_path, **options(pacs)))) == {"PACS"}


def test_in_quiet_hours_it_is_left_alone(shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images) as pacs:
        found = asking(kit.config(tmp_path, **options(pacs, quiet_hours=["mon-sun 00:00-24:00"])))
        assert found["PACS"].result == "warn" and pacs.opened == []
        assert wrong(asking(kit.config(tmp_path, **options(pacs, timezone="Mars/Olympus")))) == {"PACS"}


def test_certificates_of_ours_and_theirs(folder: Path, tmp_path: Path) -> None:
    there = {"service": "dicomweb", "url": "https://127.0.0.1:9/dicom-web"}
    found = asking(kit.config(tmp_path, **there, **tls(folder)))
    assert {name: one.result for name, one in found.items() if name.startswith("retrieve c") and name[9:] != "cohorts"
            } == {"retrieve ca": "warn", "retrieve certificate": "warn"}, "they end within a month"
    found = asking(kit.config(tmp_path, **there, **tls(folder, "old")))
    assert wrong(found) == {"retrieve certificate"}, "and then the PACS is not asked"
    for name, file in (("ca", "none.pem"), ("ca", "tre.key")):
        assert wrong(asking(kit.config(tmp_path, **there, **{**tls(folder), name: str(folder / file)}))) == {
            "retrieve ca"}
    (folder / "tre.key").chmod(0o644)
    assert wrong(asking(kit.config(tmp_path, **there, **tls(folder)))) == {"retrieve key"}
    (folder / "tre.key").chmod(0o600)


def test_nhs_numbers_by_a_crosswalk_that_the_project_has_not(tmp_path: Path) -> None:
    made = kit.config(tmp_path, port=9, nhs_numbers="crosswalk", quiet_hours=["mon-sun 00:00-24:00"])
    assert wrong(asking(made)) == {"retrieve nhs_numbers"}


# ---- being sent ----------------------------------------------------------------------------------------------------
def test_a_place_that_is_free_and_one_where_ours_listens(tmp_path: Path) -> None:
    port, health = kit.free_ports(2)
    given = {"port": port, "health": f"127.0.0.1:{health}"}
    found = listening(listen_kit.project(tmp_path, **given))
    assert wrong(found) == set() and found["listen port"].found == f"port {port} is free"
    assert found["listen TLS"].result == "warn"
    with listen_kit.here(tmp_path, **given):
        found = listening(tmp_path / "project.toml")
        assert wrong(found) == set() and found["listen port"].found.endswith("says: ok")
    with socket.create_server(("127.0.0.1", port)), socket.create_server(("127.0.0.1", health)):
        found = listening(tmp_path / "project.toml")
        assert wrong(found) == {"listen port", "listen health"}


def test_an_address_that_is_not_ours_and_a_port_that_may_be_asked_by_others(tmp_path: Path) -> None:
    found = listening(listen_kit.project(tmp_path, bind="192.0.2.7", port=11999, health="0.0.0.0:0"))
    assert wrong(found) == {"listen port"} and found["listen health"].result == "warn"


@pytest.mark.parametrize("health", ["999.0.0.1:80", "1.2:80", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_refused_with_its_line(health: str, tmp_path: Path) -> None:
    with pytest.raises(ProjectFileError, match=r"project\.toml:\d+: listen\.health"):
        files.load(listen_kit.project(tmp_path, health=health))


@pytest.mark.parametrize(("reserve", "result"), [(0, "pass"), (1 << 60, "fail")])
def test_the_disk_of_landing_against_its_reserve(reserve: int, result: str, tmp_path: Path) -> None:
    assert listening(listen_kit.project(tmp_path, free_bytes=reserve))["listen disk"].result == result


def test_landing_that_is_no_directory(tmp_path: Path) -> None:
    path = listen_kit.project(tmp_path)
    path.write_text(path.read_text().replace(f"file://{tmp_path}/landing", "s3://bucket/landing"))
    assert wrong(listening(path)) == {"listen disk"}


def test_files_for_tls_of_senders(folder: Path, tmp_path: Path) -> None:
    good = {"certificate": str(folder / "tre.pem"), "key": str(folder / "tre.key"),
            "client_authority": str(folder / "hospital.pem")}
    assert wrong(listening(listen_kit.project(tmp_path, **good))) == set()
    other = {**good, "key": str(folder / "old.key")}
    assert wrong(listening(listen_kit.project(tmp_path, **other))) == {"listen TLS"}
    ended = {**good, "certificate": str(folder / "old.pem"), "key": str(folder / "old.key")}
    assert wrong(listening(listen_kit.project(tmp_path, **ended))) == {"listen certificate"}
