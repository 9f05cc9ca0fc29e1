"""The officer's page can be made by hand, and is made with every candidate."""

from __future__ import annotations

import json

from pipeline import errors


def test_the_page_of_the_newest_candidate(tre, gone, tmp_path):
    assert "to be read" in gone.said.out
    out = tmp_path / "candidate.html"
    made = tre("candidate", "page", gone.project, "--to", out, **gone.env)
    assert made.code == 0, made.err
    url = made.out.strip()
    assert url.startswith(f"file://{gone.root}/candidate/") and url.endswith("/candidate.html") and url in gone.said.out
    html = out.read_text()
    emptied = html.partition("In the images without a value, in every one:")[2].partition("</p>")[0]
    assert "Patient&#39;s Name" in emptied and "Accession Number" in emptied and "Patient&#39;s Sex" not in emptied
    assert "<code>PatientName</code>" not in html and "<code>PatientSex</code>" in html
    assert "how long after one examination the next came must stay" in html
    assert "How to answer" in html and "nobody’s approval of recipes" in html
    assert not [sentinel for sentinel in gone.sentinels if sentinel in html]
    latest = json.loads((gone.root / "candidate" / "demo-screening" / "latest.json").read_text())
    assert latest["digest"] in html
    assert tre("candidate", "page", gone.project, "c-" + "0" * 24, **gone.env).code == errors.NotFound.exit_code
