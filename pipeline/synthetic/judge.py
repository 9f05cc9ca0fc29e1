"""What came out against the answer key: every action that was asked for, passed or failed.

Stricter than the challenge in one thing: where there is no output, every action fails.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from pipeline.synthetic import read_back
from pipeline.synthetic.answer_key import CONTENT, PIXEL_DATA
from pipeline.synthetic.asked import RESIDUAL, Check, Planted
from pipeline.synthetic.read_back import Found, Path, plain

_SENTINELS = re.compile(rb"ZQ[A-Z]{10}|2\.25\.[0-9]+|77\.[0-9]{8}|[0-9]{6}\.[0-9]{6}")
_VALUE_TYPE, _NAME, _CODE, _CHILDREN = 0x0040A040, 0x0040A043, 0x0040A168, 0x0040A730
# where an item's value stands: PS3.3 C.17.3, C.18
_VALUES = (0x0040A160, 0x0040A123, 0x0040A124, 0x0040A120, 0x0040A121, 0x0040A122, 0x00700022, 0x0040A138)


@dataclass(frozen=True, slots=True)
class Failure:
    """One action that failed. `residual`: what should have gone is there."""

    action: str
    name: str
    residual: bool


@dataclass
class Judge:
    """Remembers over all objects how UIDs and ids were renamed. `days`: by how many each person is to be moved.

    `carry`: days that a date may differ from that, where its time moved too and passed midnight.
    """

    carry: int = 0
    renamed: dict[tuple[str, bytes], bytes] = field(default_factory=dict)
    taken: dict[tuple[str, bytes], bytes] = field(default_factory=dict)
    days: dict[int, int] = field(default_factory=dict)

    def look(self, planted: Planted, out: bytes | None) -> list[Failure]:
        """Return what failed; `out` is None where no file came out."""
        if out is None:
            return [Failure(check.action, check.name, False) for check in planted.checks]
        found = read_back.elements(out, skip=frozenset({CONTENT}))
        items = _items(out) if any(not check.path for check in planted.checks) else {}
        failed = [Failure(check.action, check.name, check.action in RESIDUAL and not lost) for check in planted.checks
                  for lost in self._fails(check, planted, found, items)]
        return failed + self._elsewhere(planted, out, found, failed)

    def _fails(self, check: Check, planted: Planted, found: Mapping[Path, Found], items: Mapping[str, list[bytes]]
               ) -> list[bool]:
        """Return nothing where the action passed, else one item: whether something was lost rather than left."""
        if not check.path:
            values = items.get(check.name)
            if check.name.startswith("template "):
                values = items.get("templates", [])
            there = values is not None
        else:
            values = [plain(found[check.path].raw)] if check.path in found else None
            there = values is not None
        action, value = check.action, check.value
        held = values or []
        if check.empty:
            return [False] if any(held) else [] if there else [True]
        if check.mask:
            return self._masked(check, found)
        if action in ("text_removed", "uid_changed"):
            return [False] if (check.absent and there) or (value and value in held) else []
        if action == "pixels_hidden":
            return [False] if any(value in one for one in held) else []
        if action == "tag_retained":
            return [] if there else [True]
        if action == "text_notnull":
            return [] if any(held) else [True]
        if action in ("text_retained", "pixels_retained"):
            return [] if value in held or (value == b"" and there) else [True]
        if action == "date_shifted":
            return self._moved(planted.person, value, held) if there else []
        assert action in ("uid_consistent", "patid_consistent"), action
        if not check.path:          # items of one concept: the new one is among them
            return [] if any(held) else [True]
        return [] if held and self._same(action, value, held[0]) else [True]

    @staticmethod
    def _masked(check: Check, found: Mapping[Path, Found]) -> list[bool]:
        raw, size = found[check.path].raw if check.path in found else b"", len(check.value)
        if len(raw) - (len(raw) - size * len(check.mask) == 1 == size) != size * len(check.mask):   # a padding byte
            return [True]
        hidden = check.action == "pixels_hidden"
        wrong = any((raw[n * size:n * size + size] == check.value) == hidden
                    for n, asked in enumerate(check.mask) if asked)
        return [not hidden] if wrong else []

    def _same(self, kind: str, old: bytes, new: bytes) -> bool:
        """Whether an identifier was renamed as before, and to a name that no other was given."""
        if not new:
            return False
        return (self.renamed.setdefault((kind, old), new) == new) and (self.taken.setdefault((kind, new), old) == old)

    def _moved(self, person: int, old: bytes, held: list[bytes]) -> list[bool]:
        if old in held or any(one[:8] == old[:8] for one in held if len(old) in (8, 14)):
            return [False]
        if len(old) not in (8, 14):         # a time: moved, its fraction of a second alone may stay
            return []
        try:
            was = date(int(old[:4]), int(old[4:6]), int(old[6:8])).toordinal()
            now = [date(int(n[:4]), int(n[4:6]), int(n[6:8])).toordinal() for n in held]
        except ValueError:
            return [True]
        days = self.days.setdefault(person, now[0] - was) if now else 0
        return [] if days < 0 and any(abs(one - was - days) <= self.carry for one in now) else [True]

    @staticmethod
    def _elsewhere(planted: Planted, out: bytes, found: Mapping[Path, Found], failed: list[Failure]) -> list[Failure]:
        """Sentinels that stand anywhere in the file, and were not reported where they were planted: in small letters
        and in UTF-16 too."""
        known = {failure.name for failure in failed}
        pixels = found.get((PIXEL_DATA,))
        header = out.replace(pixels.raw, b"") if pixels and pixels.raw else out
        loud = header.upper()
        hits = {planted.secrets[one] for text in (loud, loud.replace(b"\0", b"")) for match in _SENTINELS.finditer(text)
                if (one := match[0]) in planted.secrets}
        hits |= {planted.secrets[raw] for path, (vr, value) in found.items() if vr in ("DA", "DT")
                 if (raw := plain(value)) in planted.secrets}
        return [Failure("text_removed", name, True) for name in sorted(hits - known)]


def _items(out: bytes) -> dict[str, list[bytes]]:
    """Return the values of a report's items by "CODE SCHEME TYPE", and the templates."""
    found: dict[str, list[bytes]] = {"templates": []}
    for item in read_back.dataset(out).get("ContentSequence", ()):
        elements = dict(read_back.item(item))
        value_type = plain(elements[_VALUE_TYPE,].raw).decode() if (_VALUE_TYPE,) in elements else ""
        name = _coded(elements, (_NAME, 0))
        values = found.setdefault(f"{name or 'unnamed'} {value_type}", [])
        values += [plain(elements[tag,].raw) if value_type not in ("SCOORD", "SCOORD3D") else elements[tag,].raw
                   for tag in _VALUES if (tag,) in elements]
        if code := _coded(elements, (_CODE, 0)):
            values.append(code.encode())
        for path in ((0x0040A300, 0, 0x0040A30A), (0x00081199, 0, 0x00081155)):
            if path in elements:
                values.append(plain(elements[path].raw))
        if (template := (0x0040A504, 0, 0x0040DB00)) in elements:
            found["templates"].append(plain(elements[template].raw))
    return found


def _coded(elements: Mapping[Path, Found], path: Path) -> str:
    value = elements.get((*path, 0x00080100)) or elements.get((*path, 0x00080119))
    scheme = elements.get((*path, 0x00080102))
    return f"{plain(value.raw).decode()} {plain(scheme.raw).decode()}" if value and scheme else ""


def tally(planted: Planted, failed: list[Failure]) -> tuple[Counter[str], Counter[str]]:
    """Return how often each action was asked for, and how often it failed."""
    return Counter(check.action for check in planted.checks), Counter(failure.action for failure in failed)
