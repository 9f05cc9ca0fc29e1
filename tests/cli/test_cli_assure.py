"""`tre release assure` and `tre terms` as people type them, on a release that went the whole way."""

import csv
import json
import re


def test_a_review_from_the_draw_to_the_record(gone, tre, tmp_path):
    planned = tre("release", "assure", "--bound", "1000")
    assert planned.code == 0 and "review 299 and find none" in planned.out
    folder = tmp_path / "review"
    drawn = tre("release", "assure", gone.release_url, "--sample", 3, "--seed", "s", "--out", folder)
    assert drawn.code == 0, drawn.err
    assert {path.name for path in folder.iterdir()} == {"review-001.html", "verdicts.csv", "sample.json"}
    page = (folder / "review-001.html").read_text()
    assert not [word for word in gone.sentinels if len(word) > 5 and word.lower() in page.lower()]
    rows = list(csv.DictReader((folder / "verdicts.csv").open()))
    early = tre("release", "assure", gone.release_url, "--record", folder / "verdicts.csv", "--project", gone.project,
                **gone.env)
    assert early.code == 2 and "verdicts.csv:2: no verdict" in early.err
    with (folder / "verdicts.csv").open("w", newline="") as file:
        lines = csv.DictWriter(file, rows[0].keys())
        lines.writeheader()
        lines.writerows(row | {"verdict": "leak" if n == 1 else "clean", "reviewer": "R Hale", "what": "a marker" * n}
                        for n, row in enumerate(rows))
    done = tre("release", "assure", gone.release_url, "--record", folder / "verdicts.csv", "--project", gone.project,
               **gone.env)
    assert done.code == 0, done.err
    assert re.search(r"upper 95 % bound +86,4\d\d", done.out) and "recall-proposal.txt" in done.out
    log = tre("audit-log", "show", gone.project, "--last", 1, **gone.env)
    assert "assure" in log.out and "leaks=1" in log.out
    (record,) = (gone.root / "work").rglob("assurances/*/*/record.json")
    assert json.loads(record.read_text())["drawn"] == 3
    proposal = record.with_name("recall-proposal.txt")
    ordered = tre("recall", gone.project, "--instances", proposal, "--reason", "identifier_found", "--approver",
                  "officer", "--dry-run", **gone.env)
    assert ordered.code == 0, ordered.err      # the proposal is a list that a recall takes
    assert tre("release", "assure", gone.release_url).code == 2


def test_terms_are_proposed_from_what_landed(gone, tre, tmp_path):
    out = tmp_path / "proposed.csv"
    said = tre("terms", "propose", gone.project, "--attribute", "ProtocolName", "--attribute", "SeriesDescription",
               "--out", out, **gone.env)
    assert said.code == 0, said.err
    assert "series read" in said.out and "fewer than 10 people" in said.out
    assert out.read_text().startswith("attribute,term,people")
    assert not [word for word in gone.sentinels if word.lower() in out.read_text().lower()]
    assert tre("terms", "propose", gone.project, "--out", tmp_path / "two.csv", **gone.env).code == 2     # no func:term
    assert tre("terms", "lint", gone.project, **gone.env).code == 0


def test_no_canary_is_in_what_was_released(gone):
    from pipeline.publish.canaries import absent

    plans = [json.loads(path.read_text()) for path in (gone.root / "candidate").rglob("plan.json")]
    marks = plans[0]["canaries"]
    assert len(marks) == 5 and all(plan["canaries"] == marks for plan in plans)
    for zone in ("work", "candidate", "release"):
        files = [path for path in (gone.root / zone).rglob("*") if path.is_file()]
        absent([path for path in files if path.suffix == ".parquet"], marks)
        for path in files:
            if path.name != "plan.json" and path.suffix != ".parquet":
                data = path.read_bytes().lower()
                assert not [mark for mark in marks if mark.lower().encode() in data], path.name
                assert not [mark for mark in marks if mark.lower() in str(path).lower()]
