"""An audit's contract: what a recipe leaves, told before data moves, and the least rules that mend it."""

import pytest

from pipeline.audit.base import Outcome
from pipeline.audit.contract import judge_clinical, served
from pipeline.audit.registry import AUDITS
from pipeline.cli.audit import _verdicts
from pipeline.deidentify.linter import lint, read
from pipeline.deidentify.plan import RECIPES, compile_rules

SHIPPED = "\n".join((RECIPES / name).read_text(encoding="utf-8").partition("%header")[2]
                    for name in ("base.dicom", "mammography.dicom"))
CASES = [(name, need) for name, audit in AUDITS.items() for need in audit.needs]


def verdicts(audit, text, tmp_path):
    path = tmp_path / "recipe.dicom"
    claims = "# claims: Retain Patient Characteristics Option"      # as base.dicom does above its first section
    path.write_text(f"{claims}\nFORMAT dicom\n\n%header\n{text}\n", encoding="utf-8")
    assert lint([path]) == []
    return {v.what: v for v in _verdicts(audit, compile_rules(read([path]), keep_times=False))}


def without(text, keywords):
    """The recipe without the rules on these attributes, and without the reasons above them."""
    lines = []
    for line in text.splitlines():
        if len(line.split()) > 1 and line.split()[1] in keywords and not line.startswith("#"):
            if lines and lines[-1].startswith("# weaker"):
                lines.pop()
            continue
        lines.append(line)
    return "\n".join(lines)


@pytest.mark.parametrize("name", AUDITS)
def test_the_shipped_recipes_serve_every_audit_and_leave_no_more_than_it_needs(name, tmp_path):
    found = verdicts(AUDITS[name], SHIPPED, tmp_path)
    assert all(v.served and not v.rules for v in found.values()), [v for v in found.values() if not v.served or v.rules]


@pytest.mark.parametrize(("name", "need"), CASES, ids=[f"{name}: {need.what}" for name, need in CASES])
def test_what_is_removed_is_lacking_and_the_least_rules_bring_it_back(name, need, tmp_path):
    every = {keyword for way in need.ways for keyword in way if keyword not in ("CodeValue", "CodingSchemeDesignator")}
    text = without(SHIPPED, every)
    found = verdicts(AUDITS[name], text, tmp_path)
    lacking = found[need.what]
    assert not lacking.served and set(lacking.does) <= {"removed", "kept"} and lacking.rules
    assert served(list(found.values())) == (not need.required)
    mended = [f"# weaker: the audit {name} asks for it\n{rule}" if rule.split()[1] in lacking.weaker else rule
              for rule in lacking.rules]
    assert verdicts(AUDITS[name], "\n".join([text, *mended]), tmp_path)[need.what].served


def test_a_serial_number_kept_serves_and_is_more_than_is_needed(tmp_path):
    text = without(SHIPPED, {"DeviceSerialNumber"}) + "\n# weaker: a trial\nKEEP DeviceSerialNumber"
    found = verdicts(AUDITS["equipment"], text, tmp_path)["x-ray set"]
    assert found.served and found.does == ("kept",)
    assert found.rules == ("REPLACE DeviceSerialNumber func:device",)


def test_what_is_emptied_does_not_serve(tmp_path):
    text = without(SHIPPED, {"StudyDate"}) + "\nADD StudyDate var:empty"
    found = verdicts(AUDITS["outcomes"], text, tmp_path)["study date"]
    assert (found.served, found.does, found.rules) == (False, ("emptied",), ("JITTER StudyDate var:days",))


def test_an_alternative_serves(tmp_path):
    text = without(SHIPPED, {"ViewCodeSequence", "ExposureInuAs"})
    found = verdicts(AUDITS["dose-survey"], text, tmp_path)
    assert found["view"].attributes == ("ViewPosition",) and found["view"].served
    assert found["tube current-time product"].attributes == ("Exposure",)


def test_a_clinical_column_that_is_dropped_or_not_declared_does_not_serve():
    end = Outcome("episodes", "date_of_foa", "final_action_code", 60, {})
    good = {"episodes": {"date_of_foa": "event_date", "final_action_code": "category"}}
    assert served(judge_clinical(end, good))
    for columns in ({}, {"date_of_foa": "event_date"}, {"date_of_foa": "drop", "final_action_code": "category"},
                    {"date_of_foa": "event_date", "final_action_code": "identifier"}):
        found = judge_clinical(end, {"episodes": columns})
        assert not served(found)
        assert any("role =" in rule for v in found for rule in v.rules)
