"""Over TLS both ways: the PACS shows its certificate when it is asked, and when it sends."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import retrieve_kit as kit
from faulty import options, serving
from pydantic import ValidationError
from test_listener_tls import Authority

from pipeline import steps
from pipeline.errors import PacsRefused, PacsUnreachable

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    ours = Authority(made, "hospital")
    ours.issue("pacs")
    ours.issue("tre")
    Authority(made, "stranger").issue("impostor")
    return made


def contexts(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a PACS with this certificate speaks, as a server and as a client."""
    both = []
    for whom in (ssl.Purpose.CLIENT_AUTH, ssl.Purpose.SERVER_AUTH):
        context = ssl.create_default_context(whom, cafile=str(folder / "hospital.pem"))
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        both.append(context)
    return both[0], both[1]


def tls(folder: Path, name: str = "tre") -> dict[str, str]:
    return {"ca": str(folder / "hospital.pem"), "certificate": str(folder / f"{name}.pem"),
            "key": str(folder / f"{name}.key")}


def ask(made: Any, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "cohort.csv").write_text("accession_number\nACC1\n")
    found = steps.ask_pacs(made, cohort=str(tmp_path / "cohort.csv"))
    return steps.retrieve(made, found["retrieval"])


@pytest.mark.parametrize("service", ["c-get", "c-move"])
def test_with_certificates_on_both_sides(service: str, folder: Path, shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images, tls=contexts(folder, "pacs")) as pacs:
        made = kit.config(tmp_path, **options(pacs, service), **tls(folder))
        assert ask(made, tmp_path)["ended"] == {"complete": 1}


def test_a_pacs_with_another_s_certificate_is_not_asked(folder: Path, shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images, tls=contexts(folder, "impostor")) as pacs, pytest.raises(PacsUnreachable):
        ask(kit.config(tmp_path, **options(pacs), **tls(folder)), tmp_path)
    assert not pacs.asked


def test_what_is_sent_without_tls_is_not_taken(folder: Path, shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images, tls=contexts(folder, "pacs")) as pacs:
        pacs.tls = None         # when it sends
        done = ask(kit.config(tmp_path, **options(pacs, "c-move", timeout_seconds=3), **tls(folder)), tmp_path)
    assert "complete" not in done["ended"] and not list((tmp_path / "landing").rglob("*.dcm"))


def test_files_that_cannot_be_used_are_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PacsRefused):
        ask(kit.config(tmp_path, **{**tls(folder), "ca": str(folder / "tre.key")}), tmp_path)
    with pytest.raises(ValidationError):
        kit.config(tmp_path, service="c-move", ca="hospital.pem")
