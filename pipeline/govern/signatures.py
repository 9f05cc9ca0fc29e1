"""Ed25519 keys of officers, and what exactly they sign when they approve a file (RFC 8032; package cryptography).

A private key is a PEM file (PKCS #8) of its owner alone, outside any checkout, with a passphrase where its owner gives
one. What is signed is a `Statement`: each field stands in the signed bytes with its length, so that no byte of one can
pass for part of another, and a signature holds for no other file, project, person or date.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date as Day
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import OfficerKeyRefused
from pipeline.layout import encode

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

VARIABLE = "TRE_OFFICER_KEYS"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")       # ASCII: no two names look alike and differ
_DOMAIN = "tre-ingest: approval of a file, version 1"


@dataclass(frozen=True, slots=True)
class Statement:
    """What an officer says: these bytes, under this name, may run in this project (`*`: in every one) until then."""

    kind: str
    name: str
    sha256: str
    project: str
    approver: str
    date: Day
    expires: Day

    def canonical(self) -> bytes:
        """Return the bytes that are signed."""
        days = (self.date.isoformat(), self.expires.isoformat())
        return encode([_DOMAIN, self.kind, self.name, self.sha256, self.project, self.approver, *days])


def sign(private: Ed25519PrivateKey, statement: Statement) -> str:
    """Return the signature in base64."""
    return base64.b64encode(private.sign(statement.canonical())).decode()


def holds(public: bytes, statement: Statement, signature: str) -> bool:
    """Whether the signature (base64) of exactly this statement is by this key (32 bytes)."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(base64.b64decode(signature, validate=True),
                                                          statement.canonical())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def fingerprint(public: bytes) -> str:
    """Return what people compare: 16 hexadecimal digits of the key's SHA-256, in groups of four."""
    digits = hashlib.sha256(public).hexdigest()[:16]
    return " ".join(digits[n:n + 4] for n in range(0, 16, 4))


def public_of(private: Ed25519PrivateKey) -> bytes:
    """Return the 32 bytes of the public half."""
    return private.public_key().public_bytes_raw()


def key_path(name: str) -> Path:
    """Return where an officer's private key stands: `$TRE_OFFICER_KEYS/NAME.key`, else in ~/.config/tre/officers."""
    folder = os.environ.get(VARIABLE) or Path.home() / ".config" / "tre" / "officers"
    return Path(folder) / f"{_name(name)}.key"


def new_key(path: Path, passphrase: str = "") -> bytes:
    """Write a new private key, mode 0600, and return its public half. Raises OfficerKeyRefused: one is there already,
    or the place is inside a checkout, from which it would be copied to others."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    _name(path.stem)
    where = path.absolute()
    if any((parent / ".git").exists() for parent in where.parents):
        raise OfficerKeyRefused("A private key does not belong into a checkout.",
                                hint=f"Give --key, or set {VARIABLE} to a directory of your own.")
    where.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    private = Ed25519PrivateKey.generate()
    locked = form.BestAvailableEncryption(passphrase.encode()) if passphrase else form.NoEncryption()
    pem = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, locked)
    try:
        with os.fdopen(os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
    except FileExistsError:
        raise OfficerKeyRefused(f"{where.name} is there already, and no key is ever replaced.",
                                hint="Move the old one away first.") from None
    return public_of(private)


def load_key(path: Path, ask: Callable[[], str]) -> Ed25519PrivateKey:
    """Return a private key that only its owner can read; `ask` gives the passphrase where it needs one.

    Raises OfficerKeyRefused: missing, readable by others, no Ed25519 key, or another passphrase.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or stat.S_IMODE(found.st_mode) & 0o077:
                raise OfficerKeyRefused(f"{path.name} may be read by others.", hint=f"chmod 600 {path.name}")
            pem = file.read(1 << 16)
    except OSError as error:
        raise OfficerKeyRefused(f"{path.name} cannot be read ({error.strerror}).",
                                hint="Make one with tre approve --new-key NAME, or give --key FILE.") from None
    try:
        private = load_pem_private_key(pem, ask().encode() if b"ENCRYPTED" in pem else None)
    except (ValueError, TypeError):
        raise OfficerKeyRefused(f"{path.name} cannot be opened: it is no key, or that is not its passphrase.") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise OfficerKeyRefused(f"{path.name} is not an Ed25519 key.", hint="Make one with tre approve --new-key NAME.")
    return private


def _name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise OfficerKeyRefused("An officer's name is up to 64 letters, digits and . _ @ - of ASCII.",
                                hint="The same as on the list of officers.")
    return name
