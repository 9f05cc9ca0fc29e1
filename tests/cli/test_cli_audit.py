"""`tre audit`, as a person types it."""

import json
import shutil

import pytest


def test_the_list_names_every_audit(tre):
    said = tre("audit", "list")
    assert said.code == 0
    for name in ("dose-survey", "compression", "repeats", "outcomes", "equipment"):
        assert name in said.out


@pytest.mark.parametrize("name", ["dose-survey", "outcomes"])
def test_an_audit_of_a_release_writes_page_and_tables(tre, gone, tmp_path, name):
    said = tre("audit", name, gone.release_url, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert (tmp_path / "out" / "index.html").is_file() and list((tmp_path / "out").glob("*.csv"))
    written = b"".join(path.read_bytes() for path in sorted((tmp_path / "out").iterdir()))
    for sentinel in gone.sentinels:
        if len(sentinel) > 5:
            assert sentinel.encode() not in written
    if name == "dose-survey":
        survey = (tmp_path / "out" / "national-survey.TRE-INTERNAL.csv").read_text().splitlines()
        assert "rows of the survey file" in said.out
        assert len(survey) > 4 and survey[0].startswith("Survey number,Patient number,View code,kV")
        assert "never to leave the environment" in said.out


def test_a_release_is_found_by_its_projects_path_and_by_default_written_here(tre, gone, tmp_path):
    said = tre("audit", "equipment", gone.root / "release" / "demo-screening", cwd=tmp_path)
    assert said.code == 0, said.err
    (folder,) = tmp_path.iterdir()
    assert folder.name.endswith("-equipment") and (folder / "index.html").is_file()


@pytest.mark.long
def test_audits_that_the_project_names_are_sealed_with_the_candidate_and_linked(tre, gone, tmp_path):
    root = tmp_path / "again"
    shutil.copytree(gone.root, root, ignore=shutil.ignore_patterns("landing"))     # a named pipe is in it
    text = (root / "project.toml").read_text()
    for zone in ("work", "candidate", "release"):
        text = text.replace(f"{gone.root}/{zone}", f"{root}/{zone}")
    (root / "project.toml").write_text(text + '\n[audit]\npublish = ["dose-survey", "equipment"]\nminimum = 12\n')
    said = tre("build", root / "project.toml", TRE_KEY_DIR=str(root / "keys"))
    assert said.code == 0, said.err
    latest = json.loads((root / "candidate/demo-screening/latest.json").read_text())["candidate"]
    folder = root / "candidate/demo-screening/candidates" / latest
    sealed = json.loads((folder / "candidate.json").read_text())
    listed = {file["name"] for file in sealed["files"]}
    assert {"audits/dose-survey/index.html", "audits/dose-survey/by-set.csv", "audits/equipment/index.html"} <= listed
    assert not any("INTERNAL" in name for name in listed)
    assert sealed["audit_defaults"]["minimum_people"] == 12
    assert "fewer than 12 different people" in (folder / "audits/equipment/index.html").read_text()
    report = (folder / "report.html").read_text()
    assert 'href="audits/dose-survey/index.html"' in report and "audits/repeats" not in report


def test_a_table_that_was_changed_is_refused(tre, gone, tmp_path):
    copy = tmp_path / "release"
    shutil.copytree(gone.root / "release", copy)
    (path,) = copy.glob("*/releases/*/tables/series.parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(bytes(data))
    said = tre("audit", "equipment", copy / "demo-screening", "--out", tmp_path / "out")
    assert said.code == 60 and "tables/series.parquet" in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("words", "code", "says"), [
    (("nonsense", "URL"), 2, "There is no audit nonsense"),
    (("dose-survey", "URL", "--minimum", "3"), 2, "fewer than 10"),
    (("dose-survey", "URL", "--disclosure", "open"), 2, "safe or internal"),
    (("outcomes", "URL", "--outcome", "none.toml"), 2, "none.toml"),
    (("dose-survey", "/nowhere/at/all"), 23, "not there"),
])
def test_what_cannot_be_done_is_refused_in_words(tre, gone, tmp_path, words, code, says):
    said = tre("audit", *(gone.release_url if word == "URL" else word for word in words), cwd=tmp_path)
    assert said.code == code, said.err
    assert says in said.err and "Traceback" not in said.err


def test_check_tells_what_is_lacking_and_ends_so(tre, gone, tmp_path):
    good = tre("audit", "check", "outcomes", "--project", gone.project)
    assert good.code == 0 and "outcomes is served" in good.out
    text = gone.project.read_text().replace('final_action_code = { role = "category", values = ["RR", "EC"]',
                                            'final_action_code = { role = "drop"')
    (tmp_path / "project.toml").write_text(text)
    bad = tre("audit", "check", "outcomes", "--project", tmp_path / "project.toml")
    assert bad.code == 17 and "role = \"category\"" in bad.out, bad.err + bad.out


def test_check_of_recipes_alone_as_json(tre):
    said = tre("audit", "check", "compression", "deid_recipes/base.dicom", "deid_recipes/ct.dicom", "--json")
    found = json.loads(said.out)
    assert said.code == 17 and not found["served"]
    (recipes,) = found["sets"]
    assert recipes["recipes"] == "base.dicom + ct.dicom"
    force = next(need for need in recipes["needs"] if need["what"] == "compression force")
    assert (force["served"], force["does"], force["least_rules"]) == (False, ["removed"], ["KEEP CompressionForce"])
    assert tre("audit", "check", "compression").code == 2
