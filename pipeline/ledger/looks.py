"""What came of looking for text in pixels, over all parts: per device, and per object. Coordinates, never text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.ledger import sources
from pipeline.storage import ObjectStore, tables


@dataclass(frozen=True, slots=True)
class Device:
    """Images of one device that were read, counted once each, and how many of them hold text."""

    manufacturer: str
    model: str
    software: str
    read: int
    with_text: int


def devices(config: ProjectConfig, work: ObjectStore) -> list[Device]:
    """Return every device of which images were read. An image in which any part found text counts as one with text."""
    seen: dict[bytes, tuple[tuple[str, str, str], bool]] = {}
    for row in _looks(config, work):
        before = seen.get(row["source_sha256"], ((), False))[1]
        seen[row["source_sha256"]] = (row["manufacturer"], row["model"], row["software"]), before or bool(row["boxes"])
    counts: dict[tuple[str, str, str], list[int]] = {}
    for device, text in seen.values():
        one = counts.setdefault(device, [0, 0])
        one[0] += 1
        one[1] += text
    return [Device(*device, *counts[device]) for device in sorted(counts)]


def boxes(config: ProjectConfig, work: ObjectStore, sha256: str, part: str) -> list[str]:
    """Return where text stands in one object (digest in hex), as its part found it: x0,y0,x1,y1."""
    return [box for row in _rows(work, layout.looks(config.name, part)) if row["source_sha256"].hex() == sha256
            for box in row["boxes"]]


def _looks(config: ProjectConfig, work: ObjectStore) -> Iterator[dict[str, Any]]:
    for part in sources.known_parts(work, config.name):
        yield from _rows(work, layout.looks(config.name, part))


def _rows(work: ObjectStore, key: str) -> list[dict[str, Any]]:
    if not any(entry.key == key for entry in work.list(key.rpartition("/")[0] + "/")):
        return []
    return list(tables.read(work, key).to_pylist())
