"""Every act that somebody answers for is entered in the audit log: who, what, of which digest, when; its refusal too.

Each step is called where it must fail, so that the entry before it and the entry of its refusal are seen; what a
success enters is seen where the whole way is gone (tests/cli: test_cli_find.py, test_cli_approve.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline import config, steps
from pipeline.deidentify.keys import create_key
from pipeline.errors import FilesNotApproved, OfficersRefused, TreError
from pipeline.govern import approved, audit_log
from pipeline.govern.officers import VARIABLE
from pipeline.storage import open_store
from pipeline.synthetic.project import project_text
from tests.helpers import officers

CANDIDATE, RECALL, DIGEST = "c-" + "0a" * 12, "x-" + "0b" * 12, "5d2c8f0a" * 8
NAME = "demo-screening"

# Each act: the step, its arguments after the project, who is entered, what must be named.
ACTS: dict[str, tuple[str, tuple[Any, ...], str | None, dict[str, str]]] = {
    "build": ("assemble", (), None, {}),
    "approve": ("approve", (CANDIDATE, DIGEST, "officer", "engineer", "approve"), "officer",
                {"candidate": CANDIDATE, "digest": DIGEST}),
    "reject": ("approve", (CANDIDATE, DIGEST, "officer", "engineer", "reject"), "officer",
               {"candidate": CANDIDATE, "digest": DIGEST}),
    "approve, with a key": ("sign_candidate", (CANDIDATE, DIGEST, "officer", "approve", None), "officer",
                            {"candidate": CANDIDATE, "digest": DIGEST}),
    "reject, with a key": ("sign_candidate", (CANDIDATE, DIGEST, "officer", "reject", None), "officer",
                           {"candidate": CANDIDATE, "digest": DIGEST}),
    "publish": ("publish", (CANDIDATE,), None, {"candidate": CANDIDATE}),
    "recall_order": ("order_recall", ("withdrawn", "officer", "engineer"), "officer", {}),
    "recall": ("recall", (RECALL,), None, {"recall": RECALL}),
    "recall_certify": ("finish_recall", (RECALL,), None, {"recall": RECALL}),
    "cohort": ("resolve_cohort", ("none.csv", "out.csv", "dose audit, paper 12", "steward"), "steward", {}),
    "quarantine_close": ("close", (DIGEST, "scanned paper", "engineer"), "engineer", {"digest": DIGEST}),
    "quarantine_retry": ("retry", (DIGEST,), None, {"source_sha256": DIGEST}),
    "terms_propose": ("propose_terms", ("out.csv",), None, {}),
    "assure": ("record_assurance", ("file:///elsewhere", "sheet.csv"), None, {}),
}
# Steps that decide nothing: they prepare what `build` names, or only read. A retrieval is a record of its own.
NOT_ENTERED = {"stage", "ask_pacs", "retrieve", "reconcile", "pending_shards", "deidentify", "clinical", "curate",
               "validate", "newest_candidate", "candidate_answer", "candidate_page", "candidate_summary",
               "ledger_summary"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A demo project with a key and nothing else: whatever is asked of it fails."""
    monkeypatch.chdir(tmp_path)
    create_key(tmp_path / "keys", NAME)
    monkeypatch.setenv("TRE_KEY_DIR", str(tmp_path / "keys"))
    monkeypatch.delenv(VARIABLE, raising=False)
    zones = (tmp_path / zone for zone in config.Zones.model_fields)
    (tmp_path / "landing").mkdir()
    (tmp_path / "project.toml").write_text(project_text(*(f"file://{zone}" for zone in zones)) + officers.SECTION)
    return tmp_path / "project.toml"


def entered(project: Path) -> list[audit_log.Entry]:
    made = config.load(project)
    return list(audit_log.entries(open_store(made.zones.work, "work"), made.name))


def fully(one: audit_log.Entry) -> bool:
    return bool(one.who and one.what and datetime.fromisoformat(one.time).tzinfo and len(one.previous) == 64)


def public() -> dict[str, Callable[..., Any]]:
    return {name: step for name, step in inspect.getmembers(steps, inspect.isfunction)
            if step.__module__.startswith(f"{steps.__name__}.") and not name.startswith("_")}


def test_every_step_is_entered_or_stands_here_as_one_that_is_not():
    """A new step makes this fail until it is said which of the two it is."""
    audited = {name for name, step in public().items() if hasattr(step, "__wrapped__")}
    assert audited == {step for step, *_ in ACTS.values()}
    assert set(public()) == audited | NOT_ENTERED | {"approve_files"}


@pytest.mark.parametrize("what", ACTS)
def test_an_act_is_entered_before_it_begins_and_so_is_its_refusal(project: Path, what: str) -> None:
    step, arguments, who, ids = ACTS[what]
    error = ""
    try:
        getattr(steps, step)(project, *arguments)
    except TreError as refusal:
        error = refusal.code
    begun, ended = (one for one in entered(project) if one.what == what.partition(",")[0])
    assert fully(begun) and fully(ended)
    assert begun.who == ended.who and begun.who == (who or begun.who)
    assert (begun.state, ended.state, ended.of) == ("begun", "failed" if error else "done", begun.sequence)
    assert error or what == "quarantine_retry"
    assert ended.ids.get("error", "") == error
    assert ids.items() <= begun.ids.items() and ids.items() <= ended.ids.items()


def test_a_file_s_approval_is_entered_with_every_digest(project: Path) -> None:
    made = config.load(project)
    files, key = approved.chosen(made, ["base.dicom", "project.toml"]), officers.key("tester")
    with officers.listed():
        steps.approve_files(made, "tester", key, date.today() + timedelta(9), files)
    begun, done = entered(project)
    assert (begun.what, begun.who, begun.state, done.state) == ("approve_files", "tester", "begun", "done")
    assert begun.ids == done.ids == {f"{run.kind} {run.name}": run.sha256 for run in files}
    assert done.counts == {"files": 2}
    with officers.listed(), pytest.raises(FilesNotApproved):
        steps.approve_files(made, "stranger", officers.key("stranger"), date.today() + timedelta(9), files)
    assert (entered(project)[-1].what, entered(project)[-1].who, entered(project)[-1].state) \
        == ("approve_files", "stranger", "failed")
    assert len(list((project.parent / "approvals").iterdir())) == 1


@pytest.mark.parametrize("step", ["stage", "pending_shards", "clinical", "curate", "validate"])
def test_what_was_not_run_for_want_of_an_approval_is_entered_with_every_digest(project: Path, step: str) -> None:
    more = (CANDIDATE,) if step in ("curate", "validate") else ()
    with officers.listed(), pytest.raises(FilesNotApproved):
        getattr(steps, step)(project, *more)
    (one,) = entered(project)
    assert fully(one) and one.what == "refuse_files"
    assert one.ids == {**approved.named(config.load(project)), "error": "files_not_approved"}
    project.write_text(project.read_text().replace("demo = true", "demo = false"))
    with pytest.raises(OfficersRefused):
        getattr(steps, step)(project, *more)
    assert entered(project)[-1].ids["error"] == "officers_refused"


def test_a_step_that_is_refused_has_done_nothing(project: Path) -> None:
    with officers.listed():
        for step in ("stage", "pending_shards", "clinical", "assemble"):
            with pytest.raises(FilesNotApproved):
                getattr(steps, step)(project)
        for step in ("curate", "validate", "publish"):
            with pytest.raises(FilesNotApproved):
                getattr(steps, step)(project, CANDIDATE)
        with pytest.raises(FilesNotApproved):
            steps.deidentify(project, "b-" + "0" * 24, 0)
        with pytest.raises(FilesNotApproved):       # whom the file permits would be found again
            steps.resolve_cohort(project, "none.csv", "out.csv", "dose audit, paper 12", "steward")
    there = {path.relative_to(project.parent).parts[:3] for path in project.parent.rglob("*") if path.is_file()}
    assert {parts[2] for parts in there if parts[0] in config.Zones.model_fields} <= {"audit", "leases"}


def test_a_recall_is_not_held_up_by_a_missing_approval(project: Path) -> None:
    """It fails here for want of an order, not of a signature."""
    for step in (steps.recall, steps.finish_recall):
        with officers.listed(), pytest.raises(TreError) as refused:
            step(project, RECALL)
        assert refused.value.code == "not_found"
