"""After the whole way: every byte and every name beyond the identifiable zone, searched for what must not be there."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.xdist_group("cli")
BEYOND = ("candidate", "release")


def contents(path: Path) -> bytes:
    """Return a file's bytes; of Parquet also every cell, which compression would hide."""
    data = path.read_bytes()
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        cells = [c.hex() if isinstance(c, bytes) else str(c) for column in table.columns for c in column.to_pylist()]
        data += "\n".join([*cells, str(table.schema)]).encode()
    return data


@pytest.fixture(scope="module")
def beyond(gone):
    """Return {name: name and contents} of every file in the candidate and release zones, in upper case."""
    found = {}
    for zone in BEYOND:
        for path in sorted((gone.root / zone).rglob("*")):
            if path.is_file():
                name = str(path.relative_to(gone.root))
                found[name] = name.encode().upper() + b"\n" + contents(path).upper()
    assert sum(name.endswith(".dcm") for name in found) >= 20
    return found


def holding(beyond, needles):
    """Return which files hold which of the needles; the needles by number, for a failure tells no value either."""
    numbered = {needle: number for number, needle in enumerate(sorted(needles))}
    pattern = re.compile(b"|".join(re.escape(n) for n in sorted(numbered, key=len, reverse=True)))
    return {name: {numbered[m] for m in pattern.findall(data)} for name, data in beyond.items() if pattern.search(data)}


def test_no_planted_value_leaves_the_identifiable_zone(gone, beyond):
    needles = {s.upper().encode(codec, "ignore") for s in gone.sentinels for codec in ("utf-8", "latin-1")} - {b""}
    assert len(needles) > 50 and min(map(len, needles)) >= 4
    landed = b"\n".join(p.read_bytes().upper() for p in (gone.root / "landing").rglob("*.dcm") if p.is_file())
    assert sum(needle in landed for needle in needles) > 30, "the search would find them where they are"
    assert holding(beyond, needles) == {}


def test_nothing_leads_back_to_a_landed_object(gone, beyond):
    inventories = list((gone.root / "work").rglob("inventory.parquet"))
    rows = [row for path in inventories for row in pq.read_table(path).to_pylist()]
    assert len(rows) > 100
    needles = {row["source_sha256"].hex().upper().encode() for row in rows}
    needles |= {row["source_sha256"].upper() for row in rows}
    needles |= {row["source_uri"].upper().encode() for row in rows}
    needles |= {path.parent.name.upper().encode() for path in inventories}
    for column in ("sop_instance_uid", "series_uid", "study_uid"):
        needles |= {row[column].encode() for row in rows if row[column] and len(row[column]) > 12}
    needles.discard(b"")
    assert holding(beyond, needles) == {}
