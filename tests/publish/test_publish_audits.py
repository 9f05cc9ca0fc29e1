"""Audits that a project publishes are part of what is approved and released, and the report links them."""

import json
import re

from pipeline import layout
from pipeline.publish.release import publish
from pipeline.publish.verify import verify

FILES = {"index.html": b"<!doctype html>", "by-set.csv": b"set\r\n"}


def test_audits_are_sealed_linked_and_published(made):
    audits = {"dose-survey": {"title": "Dose survey", "question": "How much?", "files": FILES}}
    defaults = {"minimum_people": 12, "outcome": None}
    without = made.seal()
    assert made.seal(audits=audits, audit_defaults=defaults) != without
    report = made.candidate.read(layout.in_candidate(made.project, made.id, "report.html")).decode()
    assert re.findall(r'href="(audits/[^"]*)"', report) == ["audits/dose-survey/index.html"]
    assert "fewer than 12 people" in report
    done = publish(made.candidate, made.release, made.project, made.id, approval=made.approval())
    key = layout.in_release(made.project, done.release, "audits/dose-survey/by-set.csv")
    assert made.release.read(key) == FILES["by-set.csv"]
    manifest = json.loads(made.release.read(layout.release_manifest(made.project, done.release)))
    assert manifest["audit_defaults"] == defaults
    found = verify(f"{made.base}/release/{made.project}")
    assert found.extra == [] and found.files == len(manifest["files"])
