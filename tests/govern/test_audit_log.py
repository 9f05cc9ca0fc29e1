"""The audit log grows by whole entries, in one chain, whoever writes; and what is done to it afterwards shows."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline import layout
from pipeline.errors import ApprovalRefused, AuditLogBroken, StoreDenied, UsageError
from pipeline.govern import audit_log
from pipeline.storage import open_store
from pipeline.storage.local import LocalStore

P = "proj"
CANDIDATE = "c-" + "5d2c8f0a91be" * 2


@pytest.fixture
def work(tmp_path):
    return open_store(f"file://{tmp_path}/work", "work")


def path_of(work, number):
    return Path(work.url.removeprefix("file://")) / layout.audit_entry(P, number)


def fill(work, count=6):
    for n in range(count):
        audit_log.append(work, P, "build", "engineer", "done", counts={"parts": n})
    return audit_log.verify(work, P)


def test_an_act_is_entered_before_and_after(work):
    with audit_log.act(work, P, "publish", "engineer", ids={"candidate": CANDIDATE}, reason="weekly release") as doing:
        (begun,) = audit_log.entries(work, P)
        assert (begun.state, begun.ids, begun.reason) == ("begun", {"candidate": CANDIDATE}, "weekly release")
        doing.note({"release": "0001-5d2c8f0a91be", "images": 12, "dry_run": False, "name": "EXAMPLE^ANN"})
    begun, done = audit_log.entries(work, P)
    assert (done.state, done.of, done.counts) == ("done", 1, {"images": 12})
    assert done.ids == {"candidate": CANDIDATE, "release": "0001-5d2c8f0a91be"}
    assert done.previous == begun.sha256
    checked = audit_log.verify(work, P)
    assert (checked.entries, checked.wrong, checked.open, checked.head) == (2, (), (), done.sha256)


def test_a_refusal_is_entered_with_its_code_and_reaches_the_caller(work):
    with pytest.raises(ApprovalRefused), audit_log.act(work, P, "approve", "officer"):
        raise ApprovalRefused("Another answer stands.")
    with pytest.raises(ZeroDivisionError), audit_log.act(work, P, "build", "engineer"):
        _ = 1 / 0
    assert [(e.state, e.ids.get("error")) for e in audit_log.entries(work, P)] == [
        ("begun", None), ("failed", "approval_refused"), ("begun", None), ("failed", "unforeseen")]


def test_what_cannot_be_entered_is_not_done(work, monkeypatch):
    def denied(*_):
        raise StoreDenied("These credentials may not.")

    monkeypatch.setattr(LocalStore, "create", denied)
    done = []
    with pytest.raises(StoreDenied), audit_log.act(work, P, "publish", "engineer"):
        done.append(1)
    assert not done


@pytest.mark.parametrize("text", ["", "x" * 201, "two\nlines", "999 000 0018", "for 9990000018, Ann", "999-000-0018",
                                  "999.000.0018", "999/000/0018", "999_000_0018"])
def test_a_reason_that_may_tell_of_a_person_is_refused_before_anything_is_done(work, text):
    done = []
    with pytest.raises(UsageError), audit_log.act(work, P, "cohort", "ann@site", reason=text or " "):
        done.append(1)
    assert not done and not list(audit_log.entries(work, P))


def test_who_did_it_last_is_who_ended_it_and_an_unreadable_entry_is_passed_over(work):
    for who, state, candidate in (("first", "done", CANDIDATE), ("second", "done", CANDIDATE),
                                  ("third", "failed", CANDIDATE), ("fourth", "done", "c-" + "0" * 23 + "1")):
        audit_log.append(work, P, "build", who, state, ids={"candidate": candidate})
    audit_log.append(work, P, "publish", "fifth", "done", ids={"candidate": CANDIDATE})
    path_of(work, 5).write_bytes(b"{")
    assert audit_log.who_did(work, P, "build", {"candidate": CANDIDATE}) == "second"
    assert audit_log.who_did(work, P, "build", {"candidate": "c-" + "f" * 24}) is None


def test_no_id_that_is_not_opaque_gets_in(work):
    ids = {"candidate": "EXAMPLE^ANN", "recall": "9990000018", "digest": "ab" * 32, "part": "smith"}
    assert audit_log.append(work, P, "build", "x", "done", ids=ids).ids == {"digest": "ab" * 32}


TOUCHED = {
    "changed": lambda work: path_of(work, 3).write_text(
        path_of(work, 3).read_text().replace('"parts": 2', '"parts": 9')),
    "taken out": lambda work: path_of(work, 3).unlink(),
    "swapped": lambda work: (path_of(work, 3).rename(path_of(work, 99)), path_of(work, 4).rename(path_of(work, 3)),
                             path_of(work, 99).rename(path_of(work, 4))),
    "the first gone": lambda work: path_of(work, 1).unlink(),
    "the first changed": lambda work: path_of(work, 1).write_text(path_of(work, 1).read_text().replace("eng", "Eng")),
    "not JSON": lambda work: path_of(work, 3).write_bytes(b"{"),
    "renumbered": lambda work: (path_of(work, 3).unlink(), [
        path_of(work, n).rename(path_of(work, n - 1)) for n in (4, 5, 6)]),
    "another beside": lambda work: path_of(work, 3).with_name("note.json").write_text("{}"),
    "another below": lambda work: open_store(work.url, "work").write(f"{P}/audit/x/00000009.json", b"{}"),
    "a number of other digits": lambda work: path_of(work, 3).with_name("\u0660" * 7 + "\u0667.json").write_text("{}"),
    "of a version to come": lambda work: path_of(work, 3).write_text(
        path_of(work, 3).read_text().replace('"schema_version": 1', '"schema_version": 9')),
    "another project's chain": lambda work: [
        (audit_log.append(work, "another", "build", "engineer", "done"),
         work.write(layout.audit_entry(P, n), work.read(layout.audit_entry("another", n)))) for n in range(1, 7)],
    "an end without a beginning": lambda work: audit_log.append(work, P, "publish", "engineer", "done", of=2),
    "an end of something else": lambda work: audit_log.append(
        work, P, "publish", "engineer", "done", of=audit_log.append(work, P, "build", "engineer", "begun").sequence),
    "numbers left out": lambda work: path_of(work, 3).rename(path_of(work, 90_000_000)),
}
SAYS = {
    "changed": ["entry 3 is not the one that entry 4 was written after: one was changed"],
    "taken out": ["entry 3 is missing"],
    "swapped": ["entry 3 was put there", "entry 4 was put there"],
    "the first gone": ["entry 1 is missing"],
    "the first changed": ["entry 1 is not the one"],
    "not JSON": ["entry 3 cannot be read"],
    "renumbered": ["entry 3 was put there", "entry 2 is not the one"],
    "another beside": ["1 objects among the entries"],
    "another below": ["1 objects among the entries"],
    "a number of other digits": ["1 objects among the entries"],
    "of a version to come": ["entry 3 cannot be read"],
    "another project's chain": ["entry 1 is of another project", "entry 6 is of another project"],
    "an end without a beginning": ["entry 7 ends what no entry began"],
    "an end of something else": ["entry 8 ends what no entry began"],
    "numbers left out": ["entry 3 is missing", "entries 7 to 89999999 are missing"],
}


@pytest.mark.parametrize("how", TOUCHED)
def test_what_was_touched_is_named(work, how):
    assert fill(work).wrong == ()
    TOUCHED[how](work)
    wrong = audit_log.verify(work, P).wrong
    for says in SAYS[how]:
        assert any(line.startswith(says) for line in wrong), wrong


def test_a_cut_end_shows_by_the_head_that_was_kept_and_by_nothing_else(work):
    head = fill(work).head
    assert audit_log.verify(work, P, head).wrong == ()
    audit_log.append(work, P, "build", "engineer", "done")
    assert audit_log.verify(work, P, head).wrong == ()      # an older head still stands in the chain
    for number in (6, 7):
        path_of(work, number).unlink()
    assert audit_log.verify(work, P).wrong == ()
    assert "cut off" in audit_log.verify(work, P, head).wrong[0]


def test_a_cut_end_shows_by_the_head_that_a_release_keeps(work, tmp_path):
    release = open_store(f"file://{tmp_path}/release", "release")
    fill(work, 3)
    for number, name in ((2, "0001-0a1b2c3d4e5f"), (3, "0002-0a1b2c3d4e5f")):
        kept = {"audit_head": hashlib.sha256(path_of(work, number).read_bytes()).hexdigest()}
        release.write(layout.in_release(P, name, "run.json"), json.dumps(kept).encode())
    release.write(layout.in_release(P, "0003-0a1b2c3d4e5f", "run.json"), b"{}")       # of a time before heads were kept
    release.write(layout.in_release(P, "0001-0a1b2c3d4e5f", "tables/run.json"), b'{"audit_head": "00"}')
    heads = audit_log.released_heads(release, P)
    assert len(heads) == 2 and heads["0002-0a1b2c3d4e5f"] == audit_log.head(work, P)
    assert audit_log.verify(work, P, released=heads).wrong == ()
    path_of(work, 3).unlink()
    (wrong,) = audit_log.verify(work, P, released=heads).wrong
    assert "release 0002-0a1b2c3d4e5f" in wrong
    for number in (1, 2):
        path_of(work, number).unlink()
    fill(work, 5)       # another story, whole in itself
    assert audit_log.verify(work, P).wrong == ()
    assert len(audit_log.verify(work, P, released=heads).wrong) == 2


@pytest.mark.parametrize("what", ["another below", "a number of other digits"])
def test_what_is_no_entry_does_not_keep_others_from_writing(work, what):
    fill(work)
    TOUCHED[what](work)
    assert audit_log.append(work, P, "build", "engineer", "done").sequence == 7


def test_the_last_number_that_can_be_is_told_and_waited_for_by_nobody(work):
    fill(work, 2)
    path_of(work, 2).rename(path_of(work, 99_999_999))
    with pytest.raises(AuditLogBroken, match="nobody can follow"):
        audit_log.append(work, P, "build", "engineer", "done")


@pytest.mark.parametrize("create", ["refuses", "replaces"])
def test_two_who_write_at_once_never_share_a_number(work, monkeypatch, create):
    """Four at once; also where `create` does not refuse what is there, as on some stores: the lease holds alone."""
    if create == "replaces":
        monkeypatch.setattr(LocalStore, "create", lambda self, key, data: self.write(key, data) or True)

    def write(who):
        for _ in range(3):
            audit_log.append(open_store(work.url, "work"), P, "build", who, "done")

    threads = [threading.Thread(target=write, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    checked = audit_log.verify(work, P)
    assert (checked.entries, checked.wrong) == (12, ())
    assert sorted(e.who for e in audit_log.entries(work, P)) == sorted(f"w{n}" for n in range(4) for _ in range(3))


def test_a_number_that_was_taken_meanwhile_is_not_written_over(work, monkeypatch):
    """Where the lease was lost: another entry stands under the number that we meant to take."""
    fill(work, 1)
    real, first = audit_log._numbers, [True]

    def late(store, project):
        found = real(store, project)
        if first.pop() if first else False:
            monkeypatch.setattr(audit_log, "_numbers", real)
            audit_log._next(store, project, json.loads(path_of(work, 1).read_text()) | {"who": "other"})
        return found

    monkeypatch.setattr(audit_log, "_numbers", late)
    mine = audit_log.append(work, P, "build", "mine", "done")
    assert mine.sequence == 3
    assert [e.who for e in audit_log.entries(work, P)] == ["engineer", "other", "mine"]
    assert audit_log.verify(work, P).wrong == ()


KILLED = """
import os, signal, sys
from pipeline.govern import audit_log
from pipeline.storage import open_store
from pipeline.storage.local import LocalStore
work, where = open_store(sys.argv[1], "work"), sys.argv[2]
create, delete, calls = LocalStore.create, LocalStore.delete, [0]
def dying(self, key, data):
    calls[0] += 1
    if where == "before" and calls[0] == 2: os.kill(os.getpid(), signal.SIGKILL)
    done = create(self, key, data)
    if where == "after" and calls[0] == 1: os.kill(os.getpid(), signal.SIGKILL)
    return done
LocalStore.create = dying
with audit_log.act(work, "proj", "publish", "engineer"):
    if where == "between": os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("where", ["after", "between", "before"])
def test_killed_in_an_act_it_stands_as_begun_and_the_next_goes_on(work, where):
    """After the first entry (its lease still held), between the two, and before the second."""
    ended = subprocess.run([sys.executable, "-c", KILLED, work.url, where], check=False, env={**os.environ})
    assert ended.returncode == -signal.SIGKILL
    checked = audit_log.verify(work, P)
    assert (checked.entries, checked.wrong, checked.open) == (1, (), (1,))
    with audit_log.act(work, P, "publish", "engineer"):
        pass
    checked = audit_log.verify(work, P)
    assert (checked.entries, checked.wrong, checked.open) == (3, (), (1,))
