"""TLS with certificates of every sender, made here."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import listen_kit as kit
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from listen_kit import Ended, Sender, apart, here

from pipeline.errors import EnvironmentUnfit
from pipeline.retrieve.listener import listening


class Authority:
    """Signs certificates; `folder` holds NAME.pem and NAME.key."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        folder.mkdir(exist_ok=True)
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._write(name, self._key, self._signed(name, self._key, authority=True))

    def issue(self, name: str, expired: bool = False, address: str = "127.0.0.1") -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._write(name, key, self._signed(name, key, expired=expired, address=address))

    def _signed(self, name: str, key: Any, *, authority: bool = False, expired: bool = False,
                address: str = "127.0.0.1") -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        here_ = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        return (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
                .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=9))
                .not_valid_after(now + datetime.timedelta(days=-1 if expired else 9))
                .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
                .add_extension(here_, critical=False).sign(self._key, hashes.SHA256()))

    def _write(self, name: str, key: Any, certificate: x509.Certificate) -> None:
        pem = serialization.Encoding.PEM
        (self.folder / f"{name}.pem").write_bytes(certificate.public_bytes(pem))
        (self.folder / f"{name}.key").write_bytes(key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    ours, other = Authority(folder, "hospital"), Authority(folder, "stranger")
    ours.issue("listener")
    ours.issue("modality")
    ours.issue("expired", expired=True)
    other.issue("impostor")
    return folder


def _listen(folder: Path) -> dict[str, str]:
    return {"certificate": str(folder / "listener.pem"), "key": str(folder / "listener.key"),
            "client_authority": str(folder / "hospital.pem")}


def _client(folder: Path, name: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "hospital.pem"))
    context.check_hostname = False
    if name:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


def test_a_sender_with_its_certificate_is_heard(tmp_path: Path, certificates: Path) -> None:
    with here(tmp_path, **_listen(certificates)) as run:
        sender = Sender(run.port, tls=_client(certificates, "modality"))
        assert sender.store(1, data=kit.data_set(1, 500_000)) == 0
        sender.release()
        assert list(run.landed().values()) == [kit.file_of(1, 500_000)]
        assert Sender(run.port, tls=_client(certificates, "modality"), calling="CT2").rejected == (1, 1, 3)


@pytest.mark.parametrize("name", [None, "impostor", "expired"])
def test_a_sender_without_a_good_certificate_is_not(tmp_path: Path, certificates: Path, name: str | None) -> None:
    with here(tmp_path, **_listen(certificates)) as run:
        with pytest.raises((ssl.SSLError, Ended, OSError)):
            Sender(run.port, tls=_client(certificates, name))
        assert run.landed() == {}
        sender = Sender(run.port, tls=_client(certificates, "modality"))
        assert sender.store(1) == 0
        assert kit.counted(run.listener, "connections_ended_total", "refused_tls") == 1


def test_a_sender_without_tls_is_not(tmp_path: Path, certificates: Path) -> None:
    with here(tmp_path, **_listen(certificates)) as run:
        with pytest.raises((Ended, OSError, AssertionError)):
            assert Sender(run.port).accepted
        assert run.landed() == {}


def test_a_handshake_that_never_comes_holds_nobody_up(tmp_path: Path, certificates: Path) -> None:
    with here(tmp_path, associations=2, silent_seconds=3, **_listen(certificates)) as run:
        silent = Sender(run.port, ask=False)
        assert Sender(run.port, tls=_client(certificates, "modality"), timeout=2).store(1) == 0
        silent.close()


def test_files_that_cannot_be_used_stop_the_start(tmp_path: Path, certificates: Path) -> None:
    from pipeline import config

    wrong = {**_listen(certificates), "key": str(certificates / "modality.key")}
    with pytest.raises(EnvironmentUnfit), listening(config.load(kit.project(tmp_path, **wrong))):
        pass


@pytest.mark.integration
@pytest.mark.skipif(not shutil.which("storescu"), reason="DCMTK's storescu is not at hand (apt install dcmtk)")
def test_dcmtk_sends_over_tls(tmp_path: Path, certificates: Path) -> None:
    (tmp_path / "1.dcm").write_bytes(kit.file_of(1))
    with apart(tmp_path / "site", **_listen(certificates)) as run:
        def send(name: str) -> int:
            tls = ["+tls", str(certificates / f"{name}.key"), str(certificates / f"{name}.pem"),
                   "+cf", str(certificates / "hospital.pem")]
            to = ["-aet", "CT1", "-aec", "TRE", "127.0.0.1", str(run.port), str(tmp_path / "1.dcm")]
            return subprocess.run(["storescu", *tls, *to], capture_output=True, check=False).returncode

        assert send("modality") == 0 and len(run.landed()) == 1
        assert send("impostor") != 0
