"""Pseudonyms: HMAC-SHA-256 with the project's key over length-prefixed fields (domain, issuer, normalised id).

People's ids are normalised as `layout.normalise` says. Devices and operators, whose names are typed by hand on many
machines, are also NFKC-normalised and case-folded: joining two spellings is what their audits want. What is absent or
empty stays None: there is no hash of nothing.
"""

from __future__ import annotations

import hmac
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from pipeline.deidentify.keys import Key
from pipeline.layout import encode, normalise

_UUID8 = 0x8 << 76                  # RFC 9562: version 8 in bits 76-79, variant 0b10 in bits 62-63
_VARIANT = 0x2 << 62
_RANDOM = (1 << 128) - 1 - (0xF << 76) - (0x3 << 62)
LARGEST_TIME_SHIFT = 6 * 3600       # seconds; small enough that a working day seldom crosses midnight


class Pseudonyms:
    """All pseudonyms of one project. Results are cached, with bounds; instances may be sent to other processes."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.person: Callable[[str, str], str] = lru_cache(1 << 14)(self._person)
        self.uid: Callable[[str], str] = lru_cache(1 << 16)(self._uid)
        self.device: Callable[[str | None, str | None, str | None], str | None] = lru_cache(1 << 12)(self._device)
        self.operator: Callable[[str | None, str | None], str | None] = lru_cache(1 << 12)(self._operator)
        self.shift_days: Callable[[str, int], int] = lru_cache(1 << 14)(self._shift_days)
        self.shift_seconds: Callable[[str], int] = lru_cache(1 << 14)(self._shift_seconds)

    def __reduce__(self) -> tuple[type[Pseudonyms], tuple[Key]]:
        return Pseudonyms, (self.key,)

    def digest(self, *fields: str) -> bytes:
        """Return HMAC-SHA-256 (32 bytes) over the length-prefixed fields; the first is the domain."""
        return hmac.digest(self.key.secret, encode(fields), "sha256")

    def _person(self, issuer: str, local_id: str) -> str:
        """Return `P` and 20 hexadecimal digits. Raises ValueError where issuer or id is empty."""
        issuer, local_id = normalise(issuer) or "", normalise(local_id) or ""
        if not issuer or not local_id:
            raise ValueError("a person needs an issuer and an id")
        return "P" + self.digest("person", issuer, local_id).hex()[:20].upper()

    def _uid(self, uid: str) -> str:
        """Return `2.25.` and the integer of a version-8 UUID (PS3.5 B.2). Registered UIDs are the caller's matter."""
        bits = int.from_bytes(self.digest("uid", uid.strip(" \0"))[:16], "big")
        return f"2.25.{bits & _RANDOM | _UUID8 | _VARIANT}"

    def _device(self, manufacturer: str | None, model: str | None, serial: str | None) -> str | None:
        """Return `D` and 12 hexadecimal digits, or None where there is no serial number to tell devices apart by."""
        if not (serial := fold(serial)):
            return None
        return "D" + self.digest("device", fold(manufacturer) or "", fold(model) or "", serial).hex()[:12].upper()

    def _operator(self, site: str | None, name: str | None) -> str | None:
        """Return `O` and 12 hexadecimal digits; None without a name, or without a site: two sites may share a name.

        `name` may be a PN: empty components at its end do not count (PS3.5 6.2.1).
        """
        site, name = fold(site), fold(name)
        name = "^".join(part.strip() for part in (name or "").split("^")).rstrip("^= ")
        return "O" + self.digest("operator", site, name).hex()[:12].upper() if site and name else None

    def identifier(self, domain: str, value: str | None) -> str | None:
        """Return `I` and 16 hexadecimal digits for an id that is nobody's own, such as an episode's; None for none."""
        value = normalise(value)
        return "I" + self.digest("identifier", domain, value).hex()[:16].upper() if value else None

    def _shift_days(self, person: str, largest: int) -> int:
        """Return the person's days, −largest..−1: always into the past. `person` is the pseudonym."""
        return -(1 + int.from_bytes(self.digest("days", person), "big") % largest)

    def _shift_seconds(self, person: str) -> int:
        """Return the person's seconds, up to six hours, always into the past. `person` is the pseudonym."""
        return -(1 + int.from_bytes(self.digest("seconds", person), "big") % LARGEST_TIME_SHIFT)


def fold(text: str | None) -> str | None:
    """Return a device's or operator's text: NFKC, trimmed, inner spaces as one, case-folded; or None."""
    text = normalise(unicodedata.normalize("NFKC", text)) if text else None
    return unicodedata.normalize("NFKC", text.casefold()) if text else None
