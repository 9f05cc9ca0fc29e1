"""A project's key: 32 random bytes or more in a file of its own that only its owner can read. None is ever made up."""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import KeyRefused
from pipeline.layout import encode

VARIABLE = "TRE_KEY_DIR"
_HEX = re.compile(rb"(?:[0-9a-fA-F]{2}){32,512}")
MEND = "Put the key back from its copy. Only for a project that has never built anything: openssl rand -hex 32."


@dataclass(frozen=True, slots=True)
class Key:
    """The secret, which `repr` does not show, and an id that tells keys apart and nothing about them."""

    secret: bytes = field(repr=False)
    id: str


def load_key(project: str) -> Key:
    """Return the key in `$TRE_KEY_DIR/<project>.key`: one line of at least 64 hexadecimal digits, mode 0600 or 0400.

    Raises KeyRefused where it is missing, readable by others, too short, malformed or plainly not random.
    """
    directory = os.environ.get(VARIABLE)
    if not directory:
        raise KeyRefused(f"{VARIABLE} is not set.", hint="Set it to the directory that holds the projects' keys.")
    name = f"{project}.key"
    try:
        # Opened once, then judged by its descriptor; a pipe does not hang the run.
        with os.fdopen(os.open(Path(directory) / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise KeyRefused(f"{name} is not a regular file.")
            if stat.S_IMODE(found.st_mode) not in (0o600, 0o400):
                raise KeyRefused(f"{name} may be read or changed by others.", hint=f"chmod 600 {name}")
            text = file.read(1027).strip(b" \r\n")
    except OSError as error:
        raise KeyRefused(f"{name} cannot be read ({error.strerror}).",
                         hint=f"Have the data steward put it in the directory that {VARIABLE} names.") from None
    return _key(name, text)


def create_key(directory: Path, project: str) -> Path:
    """Write a random key for a demo project unless one is there; return its path. A real key is the data steward's."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"{project}.key"
    draft = directory / f".{project}.key.{secrets.token_hex(8)}"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32) + "\n")
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)        # whole or not at all, and never over another
    draft.unlink()
    return path


def _key(name: str, text: bytes) -> Key:
    if not _HEX.fullmatch(text):
        raise KeyRefused(f"{name} is not one line of at least 64 hexadecimal digits.",
                         hint=MEND)
    secret = bytes.fromhex(text.decode("ascii"))
    if len(set(secret)) < 16:       # 32 random bytes have about 30 different ones
        raise KeyRefused(f"{name} is not random.", hint=MEND)
    return Key(secret, hmac.digest(secret, encode(["key id"]), "sha256").hex()[:16])
