"""A full disk at every step: a clear error of the tree, nothing half made is visible, and once there is room the same
command ends with the same bytes."""

from __future__ import annotations

import shutil

import pytest
from faults_kit import NAME, Bench

from pipeline.errors import StoreUnreachable

pytestmark = pytest.mark.xdist_group("faults")
WRITERS = (
    ("stage", "work"), ("deidentify", "candidate"), ("deidentify", "work"), ("clinical", "candidate"),
    ("clinical", "work"), ("assemble", "candidate"), ("assemble", "work"), ("curate", "candidate"),
    ("validate", "candidate"), ("approve", "candidate"), ("publish", "release"),
)  # fmt: skip


def refused(bench: Bench, step: str, zone: str, fault: dict[str, object]) -> None:
    ended = bench.run(*bench.words(step), fault=fault)
    assert ended.error == "StoreUnreachable", ended.log
    assert ended.answer["exit"] == StoreUnreachable.exit_code
    assert ended.answer["said"].startswith(f"There is no room left on the disk of the {zone} files.")
    assert str(bench.folder) not in ended.answer["said"]


def finished(bench: Bench, step: str) -> None:
    bench.whole()
    bench.do(step)
    assert bench.digests() == bench.states[step]


@pytest.mark.parametrize("room", [pytest.param(0, marks=pytest.mark.long), 2000])
@pytest.mark.parametrize(("step", "zone"), WRITERS)
def test_a_full_disk(step: str, zone: str, room: int, bench: Bench) -> None:
    """`room`: bytes that still fit. The write that does not is cut short."""
    if step == "approve" or (step, zone) == ("clinical", "work"):
        room = min(room, 100)  # all that it writes is not longer
    bench.before(step)
    refused(bench, step, zone, {"kind": "full", "root": str(bench.folder / zone), "bytes": room})
    finished(bench, step)


def test_no_room_for_what_the_engine_writes(bench: Bench) -> None:
    """Not the store's own write: a worker's, into scratch. The kernel refuses it."""
    bench.before("deidentify")
    refused(bench, "deidentify", "work", {"kind": "small_files", "bytes": 5000})
    assert not list((bench.folder / "candidate").rglob("*.dcm"))
    finished(bench, "deidentify")


def test_the_command_line_says_it(bench: Bench) -> None:
    bench.before("publish")
    shutil.rmtree(bench.folder / "candidate" / NAME / "approvals")
    words = ["tre", "publish", str(bench.project), "--approve-as", "officer"]
    fault = {"kind": "full", "root": str(bench.folder / "release"), "bytes": 100_000}
    ended = bench.run(words, fault=fault)
    assert ended.answer["results"] == [StoreUnreachable.exit_code]
    assert "store_unreachable: There is no room left on the disk of the release files." in ended.log
    assert bench.release_url() is None
    assert bench.run(words).answer["results"] == [0]
    assert bench.digests() == bench.states["publish"]
