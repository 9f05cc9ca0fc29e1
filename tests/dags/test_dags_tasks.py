"""What leaves a task: an error without its text, a decision whether to try again, an alert."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

VALUE = "QUILLFEATHER^ARAMINTA"

pytestmark = pytest.mark.xdist_group("airflow")


@pytest.fixture(scope="module")
def found(inside: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    alerts = tmp_path_factory.mktemp("alerts") / "alert.json"
    ran = inside("errors", value=VALUE, alerts=str(alerts))
    return {**ran.result, "log": ran.log, "alert": json.loads(alerts.read_text())}


@pytest.mark.parametrize("case", ["unforeseen", "recipe", "key", "store", "lease"])
def test_no_error_carries_a_value_out_of_a_task(found: dict[str, Any], case: str) -> None:
    assert VALUE not in found[case]["said"]


def test_an_unforeseen_error_says_its_type_and_not_its_text(found: dict[str, Any]) -> None:
    assert found["unforeseen"]["type"] == "StepFailed"
    assert "ValueError" in found["unforeseen"]["said"]


@pytest.mark.parametrize(
    ("case", "decision"),
    [("recipe", "fail"), ("key", "fail"), ("store", "retry"), ("lease", "retry"), ("unforeseen", "retry")],
)
def test_what_cannot_mend_itself_fails_at_once(found: dict[str, Any], case: str, decision: str) -> None:
    assert found[case]["decision"] == decision


def test_a_step_of_the_candidate_zone_sees_neither_key_nor_landing(found: dict[str, Any]) -> None:
    assert found["curate_sees"] == ["TRE_CANDIDATE_SECRET_ACCESS_KEY"]
    assert found["afterwards"] == "/keys"


def test_a_failure_is_told_by_ids_alone_and_a_run_that_ended_does_not_wait(found: dict[str, Any]) -> None:
    ids = {"dag": "d", "run": "r", "task": "t", "map_index": -1, "try_number": 2}
    assert found["alert"] == {"event": "task_failed", "reason": "ValueError", **ids}
    assert "approval_waits" not in found["log"]
    assert VALUE not in found["log"]
