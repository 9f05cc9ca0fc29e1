"""For any landings over any batches: every object once, statuses as defined, by a model of a dozen lines."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from stage_kit import image, inventories, open_zones

LANDINGS = st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.tuples(st.sampled_from([None, 0, 1, 2]),
                                                                          st.integers(0, 2)), max_size=6),
                    min_size=1, max_size=4)


def data_of(instance, variant) -> bytes:
    return b"junk %d" % variant if instance is None else image(instance, variant, study=instance)


def model(landings):
    """What must stand in the inventories: (name, data) → status, batch by batch."""
    expected: dict[tuple[str, bytes], str] = {}
    admitted_bytes: set[bytes] = set()
    admitted_uids: set[int] = set()
    for landing in landings:
        new = {(name, what) for name, what in landing.items() if (name, data_of(*what)) not in expected}
        sound = {(n, w) for n, w in new if w[0] is not None and data_of(*w) not in admitted_bytes}
        first: dict[int, str] = {}
        for name, what in sorted(new):
            instance, data = what[0], data_of(*what)
            if instance is None:
                status = "rejected"
            elif data in admitted_bytes:
                status = "duplicate"
            elif instance in admitted_uids or len({w for _, w in sound if w[0] == instance}) > 1:
                status = "conflict"
            else:
                status = "duplicate" if instance in first else "pending"
                first.setdefault(instance, name)
            expected[name, data] = status
        pending = {(n, w) for n, w in new if expected[n, data_of(*w)] == "pending"}
        admitted_bytes |= {data_of(*w) for _, w in pending}
        admitted_uids |= {w[0] for _, w in pending}
    return expected


@given(LANDINGS)
@settings(max_examples=40, deadline=None)
def test_every_object_once_with_its_status(landings):
    import hashlib

    with tempfile.TemporaryDirectory() as root:
        zones = open_zones(Path(root))
        for landing in landings:
            for name, what in landing.items():
                zones.put(name, data_of(*what))
            for gone in {e.key for e in zones.landing.list()} - landing.keys():
                zones.landing.delete(gone)
            before = len(inventories(zones.work))
            result = zones.run(shard_instances=2)
            assert sum(result.counts.values()) == len(inventories(zones.work)) - before
        rows = inventories(zones.work)
        got = {(r["source_uri"].rpartition("/")[2], r["source_sha256"]): r["status"] for r in rows}
        assert len(got) == len(rows)
        expected = model(landings)
        assert got == {(name, hashlib.sha256(data).digest()): status for (name, data), status in expected.items()}
