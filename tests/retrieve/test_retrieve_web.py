"""DICOMweb that answers by halves, in other pages than asked for, with what was not asked, or over TLS."""

from __future__ import annotations

import resource
import ssl
from pathlib import Path
from typing import Any

import faulty_web as web
import pytest
import retrieve_kit as kit
from pydantic import ValidationError
from test_listener_tls import Authority
from test_retrieve_faults import Asked, by_accession

from pipeline.errors import PacsRefused, PacsUnreachable

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("faults", [{"page": 2}, {"page": 1}, {"page": 2, "overlaps": 1}, {"ignores_offset": True}])
def test_pages_of_any_size_give_everything_once(faults: Any, shelf: kit.Shelf, tmp_path: Path) -> None:
    with web.serving(shelf.images, **faults) as pacs:
        asked = Asked(kit.config(tmp_path, **web.options(pacs)), ",LID1001,HOSP-A,,,,,")
        assert (asked.found["studies"], asked.found["instances"]) == (2, 7)
        assert asked.fetch()["ended"] == {"complete": 2}
    assert asked.landed() == 7


def test_an_answer_without_a_uid_ends(shelf: kit.Shelf, tmp_path: Path) -> None:
    with web.serving(shelf.images, nameless=True) as pacs:
        asked = by_accession(kit.config(tmp_path, **web.options(pacs)))
    assert asked.found["instances"] == 0 and asked.found["rows"] != {"found": 1}


def test_one_instance_that_is_gone_keeps_no_other_back(shelf: kit.Shelf, tmp_path: Path) -> None:
    gone = sorted(shelf.of("ACC3"), key=lambda one: one.sop)[0].sop
    with web.serving(shelf.images, gone=frozenset({gone})) as pacs:
        asked = by_accession(kit.config(tmp_path, **web.options(pacs)), "ACC3")
        asked.fetch()
    assert (asked.document["state"], asked.document["missing"], asked.landed()) == ("partial", 1, 2)
    assert asked.document["words"][0] == "HTTP 404" and asked.ledger()["missing"] == {"pacs_failed": 1}


@pytest.mark.parametrize("way", ["bare", "gzip"])
def test_one_instance_comes_in_several_ways(way: str, shelf: kit.Shelf, tmp_path: Path) -> None:
    with web.serving(shelf.images, wado=way) as pacs:
        asked = by_accession(kit.config(tmp_path, **web.options(pacs)))
        assert asked.fetch()["ended"] == {"complete": 1}


@pytest.mark.parametrize("way", ["cut", "short", "long", "empty", "html"])
def test_half_an_answer_is_no_image(way: str, shelf: kit.Shelf, tmp_path: Path) -> None:
    with web.serving(shelf.images, wado=way) as pacs:
        asked = by_accession(kit.config(tmp_path, **web.options(pacs, timeout_seconds=2)))
        done = asked.fetch()
    assert asked.landed() == 0
    assert done["left"] == 1 or asked.ledger()["missing"] == {"pacs_failed": 5}


def test_a_study_of_somebody_else_under_the_uid_that_was_asked_for_is_kept_out(
    shelf: kit.Shelf, tmp_path: Path
) -> None:
    asked_for, theirs = shelf.of("ACC2")[0], shelf.of("ACC3")[0].dataset
    theirs.SOPInstanceUID = theirs.file_meta.MediaStorageSOPInstanceUID = asked_for.sop
    changed = kit.written(theirs)
    with web.serving(shelf.images, other=changed) as pacs:
        asked = by_accession(kit.config(tmp_path, **web.options(pacs)), "ACC2")
        asked.fetch()
    assert (asked.landed(), asked.document["missing"]) == (0, 2) and asked.document["not_asked"] > 0


def test_more_bytes_than_an_object_may_have_are_not_kept(shelf: kit.Shelf, tmp_path: Path) -> None:
    with web.serving(shelf.images) as pacs:
        made = kit.config(tmp_path, **web.options(pacs))
        small = made.model_copy(update={"stage": made.stage.model_copy(update={"max_object_bytes": 1000})})
        asked = by_accession(small)
        big = kit.Image(shelf.images[0].data + bytes(3 << 20), *["1.2"] * 3)
        pacs.other = big
        asked.fetch()
    assert asked.landed() == 0 and asked.document["words"] == ["The PACS sent more than an object may have"]


def test_an_answer_that_unpacks_to_more_than_fits_is_not_held(shelf: kit.Shelf, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with web.serving(shelf.images, wado="bomb") as pacs:
        asked = by_accession(kit.config(tmp_path, **web.options(pacs)))
    assert asked.found["rows"] == {"failed": 1}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024


@pytest.mark.parametrize("content", [b'{"error": "x"}', b'["1.2"]', b"[[]]", b"[", b'[{"0020000D": "1.2"}]', b"null"])
def test_an_answer_that_is_not_what_qido_gives_fails_the_row(content: bytes, shelf: kit.Shelf, tmp_path: Path) -> None:
    with web.serving(shelf.images, content=content) as pacs:
        asked = by_accession(kit.config(tmp_path, **web.options(pacs)))
    assert asked.found["instances"] == 0 and asked.found["rows"].keys() & {"failed", "refused"}


def test_a_key_is_not_carried_on_to_another_address(shelf: kit.Shelf, tmp_path: Path) -> None:
    with web.serving(shelf.images) as elsewhere, web.serving(shelf.images, redirect=elsewhere.url + "/studies") as pacs:
        asked = by_accession(kit.config(tmp_path, **web.options(pacs)))
    assert asked.found["rows"] == {"failed": 1} and elsewhere.asked == []


def test_one_that_is_overloaded_or_gone_is_said(shelf: kit.Shelf, tmp_path: Path) -> None:
    with web.serving(shelf.images, status=503) as pacs:
        assert by_accession(kit.config(tmp_path, **web.options(pacs))).found["rows"] == {"failed": 1}
    with pytest.raises(PacsUnreachable):
        by_accession(kit.config(tmp_path, **web.options(pacs, timeout_seconds=2)), "ACC2")


# ---- TLS ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    ours = Authority(made, "hospital")
    for name in ("pacs", "tre"):
        ours.issue(name)
    ours.issue("old", expired=True)
    ours.issue("elsewhere", address="127.0.0.9")
    Authority(made, "stranger").issue("impostor")
    return made


def server(folder: Path, name: str, *, ours: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "hospital.pem"))
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    context.verify_mode = ssl.CERT_REQUIRED if ours else ssl.CERT_NONE
    return context


def tls(folder: Path, name: str = "tre") -> dict[str, str]:
    return {"ca": str(folder / "hospital.pem"), "certificate": str(folder / f"{name}.pem"),
            "key": str(folder / f"{name}.key")}


def test_certificates_on_both_sides(folder: Path, shelf: kit.Shelf, tmp_path: Path) -> None:
    with web.serving(shelf.images, server(folder, "pacs")) as pacs:
        asked = by_accession(kit.config(tmp_path, **web.options(pacs), **tls(folder)))
        assert asked.fetch()["ended"] == {"complete": 1}
    assert asked.landed() == 5


@pytest.mark.parametrize("name", ["impostor", "old", "elsewhere"])
def test_a_service_with_a_wrong_certificate_is_not_asked(
    name: str, folder: Path, shelf: kit.Shelf, tmp_path: Path
) -> None:
    with web.serving(shelf.images, server(folder, name)) as pacs, pytest.raises(PacsUnreachable) as caught:
        by_accession(kit.config(tmp_path, **web.options(pacs), **tls(folder)))
    assert pacs.asked == [] and "certificate" in str(caught.value)


@pytest.mark.parametrize("name", ["impostor", "old"])
def test_a_service_that_does_not_know_our_certificate_is_said(
    name: str, folder: Path, shelf: kit.Shelf, tmp_path: Path
) -> None:
    with web.serving(shelf.images, server(folder, "pacs")) as pacs, pytest.raises(PacsUnreachable):
        by_accession(kit.config(tmp_path, **web.options(pacs), **tls(folder, name)))
    assert pacs.asked == []


def test_old_tls_is_not_spoken(folder: Path, shelf: kit.Shelf, tmp_path: Path) -> None:
    context = server(folder, "pacs", ours=False)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with web.serving(shelf.images, context) as pacs, pytest.raises(PacsUnreachable):
        by_accession(kit.config(tmp_path, **web.options(pacs), **tls(folder)))
    assert pacs.asked == []


def test_what_the_environment_says_of_trust_counts_for_nothing(
    folder: Path, shelf: kit.Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folder / "stranger.pem"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with web.serving(shelf.images, server(folder, "impostor", ours=False)) as pacs, pytest.raises(PacsUnreachable):
        by_accession(kit.config(tmp_path, **web.options(pacs), **tls(folder)))
    assert pacs.asked == []
    with web.serving(shelf.images, server(folder, "pacs")) as pacs:
        assert by_accession(kit.config(tmp_path, **web.options(pacs), **tls(folder)), "ACC2").found["instances"] == 2


def test_a_token_goes_to_the_service_and_never_without_tls(
    shelf: kit.Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRE_PACS_AUTHORIZATION", "Bearer token")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with web.serving(shelf.images) as pacs:
        by_accession(kit.config(tmp_path, **web.options(pacs)))
        assert set(pacs.tokens) == {"Bearer token"}
    with pytest.raises(PacsRefused):
        by_accession(kit.config(tmp_path, service="dicomweb", url="http://pacs.example/dicom-web"), "ACC2")


def test_files_that_cannot_be_used_are_said(folder: Path, tmp_path: Path) -> None:
    there = {"service": "dicomweb", "url": "https://127.0.0.1:9/dicom-web"}
    for wrong in ({"ca": str(folder / "none.pem")}, {"ca": str(folder / "tre.key")}, {"key": str(folder / "pacs.key")}):
        with pytest.raises(PacsRefused):
            by_accession(kit.config(tmp_path, **there, **{**tls(folder), **wrong}))
    with pytest.raises(ValidationError):
        kit.config(tmp_path, service="dicomweb", url="http://127.0.0.1:9/x", **tls(folder))
