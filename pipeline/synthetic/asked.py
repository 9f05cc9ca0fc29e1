"""What is asked of an object of the answer key, in the ten actions of the MIDI-B challenge."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from pipeline.synthetic.read_back import Path

# The ten actions. Those of RESIDUAL leave an identifier where they fail; the others lose something of use.
ACTIONS = ("text_removed", "uid_changed", "date_shifted", "pixels_hidden", "text_retained", "text_notnull",
           "tag_retained", "uid_consistent", "patid_consistent", "pixels_retained")
RESIDUAL = frozenset(ACTIONS[:4])


@dataclass(frozen=True, slots=True)
class Check:
    """One action that is asked for. `path`: tags with item numbers between; of a report's items, see answer_reports."""

    action: str
    name: str
    path: Path
    value: bytes = b""
    absent: bool = False        # text_removed: nothing may stand there
    empty: bool = False         # text_removed: there, and of no length
    mask: bytes = b""           # of pixels: a byte a sample, 1 where `value` must be gone, or must stand


@dataclass
class Planted:
    """One object, what is asked of it, and every sentinel that may stand nowhere in what becomes of it."""

    name: str
    person: int
    data: bytes
    checks: list[Check] = field(default_factory=list)
    secrets: dict[bytes, str] = field(default_factory=dict)


def word(*seed: object) -> str:
    """Return twelve capital letters that stand nowhere else."""
    number = int.from_bytes(hashlib.sha256("\x1f".join(map(str, seed)).encode()).digest()[:12], "big")
    return "ZQ" + "".join(chr(65 + number // 26**n % 26) for n in range(10))
