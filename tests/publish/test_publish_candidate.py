import json

import pyarrow as pa
import pytest

from pipeline import layout
from pipeline.errors import CandidateFailed
from pipeline.publish.candidate import digest, fates, summary_lines


def doc(made):
    return json.loads(made.candidate.read(layout.candidate_manifest(made.project, made.id)))


def tree(store):
    return {entry.key: store.read(entry.key) for entry in store.list()}


def test_the_digest_is_of_candidate_json_and_every_file_stands_in_it(made):
    found = made.seal()
    assert found == digest(made.candidate, made.project, made.id)
    names = {file["name"] for file in doc(made)["files"]}
    folder = layout.in_candidate(made.project, made.id, "")
    on_disk = {entry.key.removeprefix(folder) for entry in made.candidate.list(folder)}
    assert on_disk - names == {"candidate.json", "plan.json"}
    assert names - on_disk == set()
    assert json.loads(made.candidate.read(layout.latest_candidate(made.project)))["candidate"] == made.id


def test_sealing_again_gives_the_same_bytes(made):
    made.seal()
    before = tree(made.candidate)
    made.seal()
    assert tree(made.candidate) == before


def test_other_bytes_unseal_a_candidate_that_nobody_has_answered(made):
    first = made.seal()
    made.withheld["2.25.9991"] = "residual_identifier"
    assert made.seal() != first


def test_a_kill_while_other_bytes_are_sealed_leaves_no_marker_of_the_old_ones(made, failing):
    made.seal()
    made.withheld["2.25.9991"] = "residual_identifier"
    real, made.candidate = made.candidate, failing(made.candidate, 2)  # the first is the plan
    with pytest.raises(KeyboardInterrupt):
        made.seal()
    assert real.stat(layout.candidate_manifest(made.project, made.id)) is None


def test_an_answered_candidate_stays_as_it_was_sealed(made):
    first = made.seal()
    made.candidate.write(layout.approval(made.project, made.id), b"{}")
    before = tree(made.candidate)
    made.withheld["2.25.9991"] = "residual_identifier"
    assert made.seal() == first
    assert tree(made.candidate) == before


def test_a_kill_while_sealing_leaves_no_marker_and_the_next_run_the_same_bytes(make_candidate, tmp_path, failing):
    whole = make_candidate((tmp_path / "whole").as_uri(), people=2, images_of=1)
    whole.seal()
    expected = tree(whole.candidate)
    for n in (1, 5, len(doc(whole)["files"]) + 1):
        made = make_candidate((tmp_path / str(n)).as_uri(), people=2, images_of=1)
        real, made.candidate = made.candidate, failing(made.candidate, n)
        with pytest.raises(KeyboardInterrupt):
            made.seal()
        assert real.stat(layout.candidate_manifest(made.project, made.id)) is None
        made.candidate = real
        made.seal()
        assert tree(real) == expected


def test_a_column_that_nothing_declares_is_refused(made):
    made.tables["episodes"] = made.tables["episodes"].append_column("postcode", pa.array(["x"] * 12))
    with pytest.raises(CandidateFailed, match="postcode"):
        made.seal()


def test_a_table_that_nothing_declares_is_refused(made):
    made.tables["extra"] = pa.table({"patient_id": ["P1"]})
    with pytest.raises(CandidateFailed, match="extra"):
        made.seal()


def test_images_and_instances_must_tell_of_the_same_objects(made):
    made.images = made.images.slice(1)
    with pytest.raises(CandidateFailed, match="same objects"):
        made.seal()


def test_another_plan_than_the_one_in_the_zone_is_refused(made):
    made.seal()
    made.plan["held"] = {"2.25.1": "study_quarantined"}
    with pytest.raises(CandidateFailed, match="plan"):
        made.seal_beside_its_plan()


def test_what_was_pending_is_published_withheld_or_still_pending():
    counts = {"pending": {"": 10}, "rejected": {"empty": 2}}
    assert fates(counts, 6, {"a": "expectation_failed"}) == {
        "pending": {"": 3}, "published": {"": 6}, "rejected": {"empty": 2}, "withheld": {"expectation_failed": 1},
    }  # fmt: skip
    with pytest.raises(CandidateFailed, match="add up"):
        fates(counts, 10, {"a": "expectation_failed"})


def test_the_officers_summary_has_words_and_no_pseudonym(made):
    made.seal()
    lines = summary_lines(doc(made))
    text = "\n".join(lines)
    assert 12 <= len(lines) <= 24
    assert "People 12" in text
    assert "images 48" in text
    assert "Names too short to be searched for in what comes out: 14 people" in text
    assert "The file ends inside an element." in text
    assert "first" in lines[-1]
    for row in made.tables["instances"].to_pylist():
        assert row["patient_id"] not in text
        assert row["sop_instance_uid"] not in text
    previous = {"release": "0001-0a1b2c3d4e5f", "totals": {"patients": 10, "instances": 50}}
    assert "patients +2" in summary_lines(doc(made), previous)[-1]
    assert "instances -2" in summary_lines(doc(made), previous)[-1]
