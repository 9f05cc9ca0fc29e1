import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest

from pipeline import layout
from pipeline.errors import ApprovalRefused, SchemaTooNew
from pipeline.govern.approval import check, record
from pipeline.storage import open_store

PROJECT, CANDIDATE, OTHER = "breast-audit", "c-" + "1" * 24, "c-" + "2" * 24
NOON = datetime(2024, 6, 10, 12, 0, 0, 999, tzinfo=timezone(timedelta(hours=1)))


@pytest.fixture
def store(tmp_path):
    return open_store((tmp_path / "candidate").as_uri(), "candidate")


@pytest.fixture
def seal(store):
    """Return a sealer of candidates, which gives the digest."""
    def go(candidate=CANDIDATE, *, latest=True, **doc):
        data = json.dumps({"schema_version": 1, "candidate": candidate, "demo": False, **doc}).encode()
        store.write(layout.candidate_manifest(PROJECT, candidate), data)
        if latest:
            store.write(layout.latest_candidate(PROJECT), json.dumps({"candidate": candidate}).encode())
        return hashlib.sha256(data).hexdigest()
    return go


@pytest.fixture
def answer(store, make_config):
    def go(digest, decision="approve", *, approver="officer", by="engineer", candidate=CANDIDATE, when=NOON, **config):
        return record(store, make_config(**config), candidate, digest, approver, by, decision, when)
    return go


def test_an_approval_is_recorded_and_stands(store, seal, answer):
    digest = seal()
    doc = answer(digest)
    assert doc == {"schema_version": 1, "project": PROJECT, "candidate": CANDIDATE, "digest": digest,
                   "approver": "officer", "triggered_by": "engineer", "decision": "approve",
                   "when": "2024-06-10T11:00:00+00:00"}
    assert check(store, PROJECT, CANDIDATE, digest) == doc
    assert json.loads(store.read(layout.approval(PROJECT, CANDIDATE))) == doc


def test_the_same_answer_again_keeps_the_first(seal, answer):
    digest = seal()
    first = answer(digest)
    assert answer(digest, when=NOON + timedelta(hours=1), by="somebody") == first


@pytest.mark.parametrize(("first", "second"), [("reject", "approve"), ("approve", "reject")])
def test_another_answer_is_refused(store, seal, answer, first, second):
    digest = seal()
    answer(digest, first)
    before = store.read(layout.approval(PROJECT, CANDIDATE))
    with pytest.raises(ApprovalRefused, match="Another answer"):
        answer(digest, second)
    with pytest.raises(ApprovalRefused, match="Another answer"):
        answer(digest, first, approver="another officer")
    assert store.read(layout.approval(PROJECT, CANDIDATE)) == before


def test_silence_and_rejection_reject(store, seal, answer):
    digest = seal()
    with pytest.raises(ApprovalRefused, match="Nobody"):
        check(store, PROJECT, CANDIDATE, digest)
    answer(digest, "reject")
    with pytest.raises(ApprovalRefused, match="rejected"):
        check(store, PROJECT, CANDIDATE, digest)


def test_only_exactly_these_bytes_are_approved(store, seal, answer):
    digest = seal()
    with pytest.raises(ApprovalRefused, match="not those"):
        answer("0" * 64)
    answer(digest)
    changed = seal(title="a byte changed after the approval")
    for given in (digest, changed, "0" * 64):
        with pytest.raises(ApprovalRefused):
            check(store, PROJECT, CANDIDATE, given)


def test_a_record_is_of_one_candidate(store, seal, answer):
    digest = seal()
    answer(digest)
    other = seal(OTHER)
    store.write(layout.approval(PROJECT, OTHER), store.read(layout.approval(PROJECT, CANDIDATE)))
    with pytest.raises(ApprovalRefused, match="another candidate"):
        check(store, PROJECT, OTHER, other)
    with pytest.raises(ApprovalRefused, match="no such"):
        answer(digest, candidate="c-" + "3" * 24)


def test_a_superseded_candidate_is_not_approved(store, seal, answer):
    digest = seal()
    seal(OTHER)
    with pytest.raises(ApprovalRefused, match="newer"):
        answer(digest)
    assert store.stat(layout.approval(PROJECT, CANDIDATE)) is None


@pytest.mark.parametrize("same", ["engineer", "ENGINEER", " engineer "])
def test_who_triggered_does_not_approve(store, seal, answer, same):
    digest = seal()
    with pytest.raises(ApprovalRefused, match="triggered"):
        answer(digest, approver=same)
    assert store.stat(layout.approval(PROJECT, CANDIDATE)) is None


@pytest.mark.parametrize(("approver", "by"), [("", "engineer"), ("officer", ""), (" ", "engineer"), ("officer", " ")])
def test_both_are_named(seal, answer, approver, by):
    with pytest.raises(ApprovalRefused, match="names"):
        answer(seal(), approver=approver, by=by)


def test_a_demo_may_answer_itself_and_nothing_else_may(store, seal, answer):
    digest = seal(demo=True)
    with pytest.raises(ApprovalRefused, match="demo"):
        answer(digest)                                      # the project file says it is no demo
    answer(digest, approver="engineer", project={"demo": True})
    assert check(store, PROJECT, CANDIDATE, digest)["approver"] == "engineer"
    with pytest.raises(ApprovalRefused, match="demo"):
        answer(seal(OTHER), approver="engineer", candidate=OTHER, project={"demo": True})


def test_a_record_that_a_demo_would_allow_is_checked_against_the_candidate(store, seal, answer):
    digest = seal()
    doc = {**answer(digest), "approver": "engineer", "demo": True}
    store.write(layout.approval(PROJECT, CANDIDATE), json.dumps(doc).encode())
    with pytest.raises(ApprovalRefused, match="triggered"):
        check(store, PROJECT, CANDIDATE, digest)


def test_only_officers_answer_where_they_are_named(seal, answer):
    digest = seal()
    with pytest.raises(ApprovalRefused, match="officer of"):
        answer(digest, approver="passer-by", approve={"officers": ["officer"]})
    assert answer(digest, approve={"officers": ["officer"]})["approver"] == "officer"


def test_an_unknown_answer_is_no_answer(seal, answer):
    with pytest.raises(ApprovalRefused, match="approve or reject"):
        answer(seal(), "maybe")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"decision": "approve"}', b'"approve"',
                                  b'{"schema_version": "x"}'])
def test_a_damaged_record_approves_nothing(store, seal, text):
    digest = seal()
    store.write(layout.approval(PROJECT, CANDIDATE), text)
    with pytest.raises(ApprovalRefused):
        check(store, PROJECT, CANDIDATE, digest)


def test_a_newer_record_is_not_guessed_at(store, seal):
    store.write(layout.approval(PROJECT, CANDIDATE), b'{"schema_version": 2, "decision": "approve"}')
    with pytest.raises(SchemaTooNew):
        check(store, PROJECT, CANDIDATE, seal())


def test_of_two_answers_at_once_one_stands(store, seal, answer):
    digest = seal()

    def one(decision):
        try:
            return answer(digest, decision, approver=f"officer {decision}", when=datetime.now(UTC))["decision"]
        except ApprovalRefused:
            return None

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(one, ["approve", "reject"] * 8))
    stands = json.loads(store.read(layout.approval(PROJECT, CANDIDATE)))["decision"]
    assert {decision for decision in told if decision} == {stands}
