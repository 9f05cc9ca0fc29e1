"""What PACS owes stands in the ledger as missing until it has been staged, once, whichever retrieval asked."""

from __future__ import annotations

from pathlib import Path

import ledger_kit as kit

from pipeline import layout
from pipeline.schemas import INVENTORY, MISSING
from pipeline.storage import tables


def owe(world: kit.World, retrieval: str, **reasons: str) -> None:
    rows = [{"study": "s-" + "0" * 24, "study_uid": "1.2", "series_uid": "1.2.3", "sop_instance_uid": f"1.2.3.{uid}",
             "reason": reason} for uid, reason in reasons.items()]
    key = layout.retrieval_missing(kit.PROJECT, "t-" + retrieval * 24, "s-" + "0" * 24)
    tables.write(world.work, key, tables.from_rows(MISSING, rows))


def inventory(world: kit.World, letter: str, name: str, uid: str) -> None:
    row = {"source_uri": kit.uri(name), "bytes": 1, "source_sha256": kit.sha(name), "status": "pending",
           "sop_instance_uid": uid}
    tables.write(world.work, layout.inventory(kit.PROJECT, "b-" + letter * 24), tables.from_rows(INVENTORY, [row]))


def test_what_was_not_sent_is_missing_until_it_is_staged(tmp_path: Path) -> None:
    world = kit.World(tmp_path)
    inventory(world, "1", "one", "1.2.3.1")
    owe(world, "a", **{"7": "not_sent", "8": "pacs_failed"})
    owe(world, "b", **{"8": "pacs_failed"})
    assert world.fates() == {"one": ("pending", None, None), "pacs:1.2.3.7": ("missing", "not_sent", None),
                             "pacs:1.2.3.8": ("missing", "pacs_failed", None)}
    assert world.identity() == {}
    assert world.last.counts["missing"] == {"not_sent": 1, "pacs_failed": 1}
    inventory(world, "2", "late", "1.2.3.7")
    assert set(world.fates()) == {"one", "late", "pacs:1.2.3.8"}
    assert world.identity() == {}
