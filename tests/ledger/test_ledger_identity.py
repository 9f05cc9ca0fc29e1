"""The identity: every inventoried object exactly once with a status; each way of breaking it is found."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_kit import A, B, World

PENDING = ("pending", None)


@pytest.fixture
def published(world):
    world.batch("1", dict.fromkeys("abc", PENDING))
    world.part("1", dict.fromkeys("abc", PENDING))
    world.build(A, "1")
    world.publish(1, A, list("abc"))
    assert world.identity() == {}
    return world


def test_an_object_inventoried_twice(published):
    published.batch("2", {"a": PENDING})
    assert published.identity() == {"more_than_once": 1, "released_more_than_once": 1}


def test_an_outcome_of_no_object(published):
    published.part("1", dict.fromkeys("abcz", PENDING))
    assert published.identity() == {"not_in_inventory": 1}


def test_an_object_in_two_parts_of_one_candidate(published):
    published.part("2", {"a": ("quarantined", "engine_failed")})
    published.build(A, "12")
    assert published.identity() == {"more_than_once": 1}


def test_a_pending_object_that_the_release_lacks_is_not_shown_as_published(published):
    published.publish(1, A, list("ab"))
    assert published.fates()["c"] == ("pending", None, None)
    assert published.identity() == {"pending_in_release": 1}


def test_a_released_image_without_an_object_or_of_a_withheld_one(published):
    published.publish(1, A, list("abcd"))
    assert published.identity() == {"released_without_object": 1}
    published.publish(1, A, list("abc"))
    published.build(A, "1", held={"a": "study_quarantined"})
    assert published.identity() == {"released_without_object": 1}


def test_a_released_image_listed_twice(published):
    published.publish(1, A, list("abcc"))
    assert published.identity() == {"more_than_once": 1}


def test_a_status_that_is_none(published):
    published.part("1", {"a": ("lost", None), "b": PENDING, "c": PENDING})
    published.publish(1, A, list("bc"))
    assert published.identity() == {"no_status": 1}


INVENTORIED = st.sampled_from([PENDING, PENDING, PENDING, ("rejected", "empty"), ("duplicate", "same_bytes")])
OUTCOME = st.sampled_from([None, PENDING, PENDING, PENDING, ("quarantined", "vr_mismatch"),
                           ("rejected", "date_not_eligible"), ("withheld", "person_not_linked")])
KEPT = st.sampled_from([None, None, None, "held", "withheld"])
SPEC = st.lists(st.tuples(INVENTORIED, st.integers(1, 3), OUTCOME, KEPT, st.booleans()), max_size=25)


@given(SPEC, st.sampled_from(["none", "built", "published", "superseded"]))
@settings(max_examples=25, deadline=None)
def test_any_world_has_one_row_an_object_with_the_status_that_is_defined(spec, state):
    expected = {}
    batches, outcomes, held, withheld, released, recalled = ({1: {}, 2: {}, 3: {}}, {}, {}, {}, [], [])
    for n, (row, batch, outcome, kept, recall) in enumerate(spec):
        batches[batch][n] = row
        status, reason, release = *row, None
        if row == PENDING and outcome and state != "none":
            outcomes[n] = outcome
            status, reason = outcome
            if kept:
                (held if kept == "held" else withheld)[n] = kept
            if outcome == PENDING and kept:
                status, reason = "withheld", kept
            elif outcome == PENDING and state != "built":
                released.append(n)
                release = "0001-" + "a" * 12
                status = state
                if recall:
                    recalled.append(n)
                    status, reason = "recalled", "recalled"
        expected[str(n)] = (status, reason, release)
    with tempfile.TemporaryDirectory() as root:
        world = World(Path(root))
        for number, rows in batches.items():
            world.batch(str(number), rows)
        world.part("1", outcomes)
        if state != "none":
            world.build(A, "1", held, withheld)
        if state in ("published", "superseded"):
            world.publish(1, A, released)
        for n in recalled:
            world.recall(n)
        if state == "superseded":
            world.build(B, "")
            world.publish(2, B, [])
        which = {} if state == "none" else {"candidate_id": A}
        assert world.fates(**which) == expected
        assert world.last.findings == {}
