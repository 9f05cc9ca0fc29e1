"""Quarantine: list, show, close; no name and no value."""

from __future__ import annotations

import json

import pytest
from ledger_kit import CONFIG, PROJECT, A, B, sha

from pipeline import layout
from pipeline.errors import NotFound, UsageError
from pipeline.ledger import quarantine

QUARANTINED = ("quarantined", "vr_mismatch")


@pytest.fixture
def held(world):
    world.batch("1", dict.fromkeys("abc", ("pending", None)))
    world.batch("2", {"twin": ("duplicate", "same_bytes")})
    world.part("1", {"a": QUARANTINED, "b": ("pending", None), "c": QUARANTINED}, tag="00181000")
    return world


def listed(world, **options):
    return [q.sha256 for q in quarantine.listed(CONFIG, world.work, world.candidate, **options)]


def test_list(held):
    both = sorted([sha("a").hex(), sha("c").hex()])
    assert listed(held) == both                                 # no candidate yet: every part
    item = quarantine.listed(CONFIG, held.work, held.candidate)[0]
    assert item.short == both[0][:12]
    assert (item.reason, item.tag, item.sop_class_uid, item.batch) == (
        "vr_mismatch", "00181000", "1.2", "b-" + "1" * 24)
    assert item.meaning
    assert "file:" not in repr(item)
    held.build(A, "1")
    assert listed(held) == both
    held.part("2", {"a": QUARANTINED, "c": ("pending", None)})  # a mended plan
    held.build(B, "2")
    assert listed(held) == [sha("a").hex()]
    assert listed(held, candidate_id=A) == both


def test_show(held):
    digest = sha("a").hex()
    for given in (digest, digest[:12], digest[:12].upper()):
        assert quarantine.show(CONFIG, held.work, held.candidate, given).sha256 == digest
    for given in ("", sha("b").hex(), "zz"):
        with pytest.raises(NotFound):
            quarantine.show(CONFIG, held.work, held.candidate, given)


def test_close_is_recorded_once(held):
    digest = sha("a").hex()
    closed = quarantine.close(CONFIG, held.work, held.candidate, digest[:12], "Test object of the vendor", "officer")
    assert (closed.closed["reason"], closed.closed["who"]) == ("Test object of the vendor", "officer")
    assert closed.closed["when"]
    again = quarantine.close(CONFIG, held.work, held.candidate, digest, "Another reason", "somebody else")
    assert again == closed
    assert json.loads(held.work.read(layout.quarantine_closed(PROJECT, digest))) == closed.closed
    assert listed(held) == [sha("c").hex()]
    assert len(listed(held, include_closed=True)) == 2
    with pytest.raises(UsageError):
        quarantine.close(CONFIG, held.work, held.candidate, digest, "  ", "officer")
