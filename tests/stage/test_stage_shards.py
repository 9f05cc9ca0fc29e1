"""Shards: whole studies, within size, at most 512."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from stage_kit import PROJECT, image

from pipeline.stage import batches, shards
from pipeline.stage.inventory import Landed

WHEN = datetime(2024, 1, 1, tzinfo=UTC)


def row(study: int, size: int, n: int) -> Landed:
    uid = f"1.2.{study}"
    return Landed(f"file:///l/{n}", "v", WHEN, size, bytes([n % 256]) * 32, "pending", None, "1.2", f"1.2.3.{n}", uid,
                  uid, "1.2", "MG", None, None, None, 1)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 50), st.booleans()), max_size=60), st.integers(1, 100),
       st.integers(1, 10))
@settings(max_examples=200, deadline=None)
def test_shards_are_whole_studies_within_size(spec, max_bytes, max_instances):
    rows = [row(study, size, n) for n, (study, size, _) in enumerate(spec)]
    counts = {r.source_uri: weighs for r, (_, _, weighs) in zip(rows, spec, strict=True)}
    total = shards.assign(rows, max_bytes, max_instances, lambda r: counts[r.source_uri])
    assert {r.shard for r in rows} == set(range(total))
    for study in {r.study_uid for r in rows}:
        assert len({r.shard for r in rows if r.study_uid == study}) == 1
    for number in range(total):
        inside = [r for r in rows if r.shard == number and counts[r.source_uri]]
        if len({r.study_uid for r in inside}) > 1:
            assert sum(r.size for r in inside) <= max_bytes
            assert len(inside) <= max_instances
    again = [row(study, size, n) for n, (study, size, _) in enumerate(spec)][::-1]
    shards.assign(again, max_bytes, max_instances, lambda r: counts[r.source_uri])
    assert {r.source_uri: r.shard for r in again} == {r.source_uri: r.shard for r in rows}


def test_never_more_than_512():
    rows = [row(n, 10, n) for n in range(2000)]
    total = shards.assign(rows, 10, 1, lambda r: True)
    assert 256 <= total <= 512


def test_shard_files_hold_the_pending_rows_by_study(zones):
    for study in range(5):
        for n in range(2):
            zones.put(f"{9 - study}/{n}.dcm", image((study, n), study=study))
    zones.put("bad.dcm", b"no")
    result = zones.run(shard_instances=4)
    assert batches.shards(zones.work, PROJECT, result.batch) == [0, 1, 2]
    inventory = batches.read_inventory(zones.work, PROJECT, result.batch).to_pylist()
    held = [r for n in range(3) for r in batches.read_shard(zones.work, PROJECT, result.batch, n).to_pylist()]
    assert sorted(map(str, held)) == sorted(str(r) for r in inventory if r["status"] == "pending")
    assert [r["study_uid"] for r in held] == sorted(r["study_uid"] for r in held)
    assert [r["source_uri"] for r in inventory] == sorted(r["source_uri"] for r in inventory)
