"""Shards: whole studies, within size, at most 512."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from stage_kit import PROJECT, image

from pipeline.stage import batches, shards


def assign(spec, max_bytes, max_instances):
    """`spec`: study, bytes and whether it is eligible, of each row. Return the rows' shards and how many there are."""
    studies, sizes, eligible = zip(*spec, strict=True) if spec else ((), (), ())
    columns = pa.array([f"1.2.{n}" for n in studies], pa.string()), pa.array(sizes, pa.int64())
    numbers, total = shards.assign(*(pa.chunked_array([one]) for one in columns), pa.array(eligible, pa.bool_()),
                                   max_bytes, max_instances)
    return numbers.to_pylist(), total


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 50), st.booleans()), max_size=60), st.integers(1, 100),
       st.integers(1, 10))
@settings(max_examples=200, deadline=None)
def test_shards_are_whole_studies_within_size(spec, max_bytes, max_instances):
    numbers, total = assign(spec, max_bytes, max_instances)
    assert set(numbers) == set(range(total))
    of_study = {}
    for (study, *_), number in zip(spec, numbers, strict=True):
        assert of_study.setdefault(study, number) == number
    for number in range(total):
        inside = [row for row, its in zip(spec, numbers, strict=True) if its == number and row[2]]
        if len({study for study, *_ in inside}) > 1:
            assert sum(size for _, size, _ in inside) <= max_bytes
            assert len(inside) <= max_instances
    assert assign(spec[::-1], max_bytes, max_instances) == (numbers[::-1], total)


def test_never_more_than_512():
    numbers, total = assign([(n, 10, True) for n in range(2000)], 10, 1)
    assert 256 <= total == len(set(numbers)) <= 512


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
