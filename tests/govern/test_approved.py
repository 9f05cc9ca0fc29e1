"""What a project runs has an officer's signature that holds, or the project does not run, and it is said which and why.

The projects here are no demos; their officers are the tests' own, and what is signed is signed with the product's code.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import config
from pipeline.deidentify.plan import load_plans
from pipeline.errors import FilesNotApproved, NotFound, OfficersRefused, UsageError
from pipeline.govern import approved, signatures
from pipeline.govern import officers as lists
from pipeline.govern.signatures import Statement
from pipeline.synthetic.project import project_text
from pipeline.validate.suites import suite_digests
from tests.helpers import officers

ROOT = Path(__file__).parents[2]
TODAY = date(2026, 3, 1)
NAME = "breast-audit"


def lay(folder: Path, approvers: int = 1, demo: bool = False) -> Path:
    """A project with a recipe, concept rules and a suite of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    zones = (f"file://{folder / zone}" for zone in config.Zones.model_fields)
    text = project_text(*zones, name=NAME).replace('["base.dicom", "mammography.dicom"]',
                                                   '["base.dicom", "recipes/mammography.dicom"]')
    text = text.replace('"dose_report.toml"', '"recipes/dose_report.toml"')
    text = text if demo else text.replace("demo = true", "demo = false")
    (folder / "project.toml").write_text(
        f'{text}\n[validate]\nsuites = "suites"\n{officers.SECTION}approvers = {approvers}\n')
    for name in ("mammography.dicom", "dose_report.toml"):
        (folder / "recipes").mkdir(exist_ok=True)
        shutil.copy(ROOT / "deid_recipes" / name, folder / "recipes")
    (folder / "suites").mkdir()
    shutil.copy(ROOT / "expectations" / "episodes.json", folder / "suites")
    return folder / "project.toml"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    with officers.listed():
        yield lay(tmp_path / "site")


def require(project: Path, today: date = TODAY) -> approved.Standing:
    return approved.require(config.load(project), today)


def refused(project: Path, today: date = TODAY) -> str:
    with pytest.raises(FilesNotApproved) as caught:
        require(project, today)
    return str(caught.value)


def test_what_a_project_runs_is_what_is_judged(project):
    """Every recipe and concept file of the plans, every suite that validate reads, and the project file."""
    made = config.load(project)
    listed = {(run.kind, run.name): run.sha256 for run in approved.runs(made)}
    used = {name for plan in load_plans(made).described for name in plan["files"]}
    assert {name for kind, name in listed if kind in ("recipe", "concepts")} == used
    assert {name.removesuffix(".json"): digest for (kind, name), digest in listed.items() if kind == "suite"} \
        == suite_digests(*made.suite_folders())
    assert ("project", "project.toml") in listed
    assert len(listed) == len(approved.runs(made))


LISTS = {"terms": "terms.csv", "devices": "devices.csv"}


def test_a_list_of_what_may_pass_runs_only_signed(project):
    """Terms of free text, and devices whose images pass unread."""
    text = project.read_text().replace("date_shift_days = 365", 'date_shift_days = 365\nterms = "terms.csv"')
    project.write_text(text + '\n[deidentify.pixels]\ndevices = "devices.csv"\n')
    for name in LISTS.values():
        (project.parent / name).write_text("a list\n")
    officers.sign(project, today=TODAY)
    assert {v.run.kind: v.run.name for v in require(project).verdicts if v.run.kind in LISTS} == LISTS
    for kind, name in LISTS.items():
        (project.parent / name).write_text("another\n")
        assert f"{name} ({kind}, " in refused(project)
        (project.parent / name).write_text("a list\n")


def test_every_file_that_decides_what_passes_is_signed():
    """A new setting that names a file says here whether it decides, or is what is decided upon."""
    decides = {"terms", "devices", "suites"}
    data = {"list", "crosswalk", "file", "output", "factors"}
    other = {"path", "approvals", "ca", "certificate", "key", "cohorts", "client_authority"}

    def paths(model):
        for name, field in model.model_fields.items():
            if "Path" in str(field.annotation):
                yield name
            for inner in re.findall(r"pipeline\.config\.(\w+)", str(field.annotation)):
                yield from paths(getattr(config, inner))

    assert set(paths(config.ProjectConfig)) <= decides | data | other


def test_nothing_runs_unsigned_and_everything_runs_signed(project):
    said = refused(project)
    for name in ("project.toml (project, ", "base.dicom (recipe, ", "nobody has approved it", "tre approve"):
        assert name in said
    officers.sign(project, today=TODAY)
    found = require(project)
    assert all(v.approved and [e.approver for e in v.by] == ["tester"] for v in found.verdicts)
    assert not found.lacking


CHANGED = ["project.toml", "recipes/mammography.dicom", "recipes/dose_report.toml", "suites/episodes.json"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(CHANGED), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_no_file_runs_with_a_bit_changed(project, name, place, bit):
    """For the project file too, wherever it can still be read."""
    if not list((project.parent / "approvals").glob("*.toml")):
        officers.sign(project, today=TODAY)
    path = project.parent / name
    good = path.read_bytes()
    bad = bytearray(good)
    bad[int(place * len(bad))] ^= 1 << bit
    path.write_bytes(bad)
    try:
        made = config.load(project)
    except Exception:       # it is no project file any more
        return
    else:
        with pytest.raises((FilesNotApproved, NotFound)):
            approved.require(made, TODAY)
    finally:
        path.write_bytes(good)


def test_a_changed_file_is_named_with_its_digest_and_the_others_are_not(project):
    officers.sign(project, today=TODAY)
    path = project.parent / "recipes" / "mammography.dicom"
    path.write_text(path.read_text() + "\n")
    said = refused(project)
    (now,) = (r for r in approved.runs(config.load(project)) if r.name == "recipes/mammography.dicom")
    assert f"recipes/mammography.dicom (recipe, {now.sha256[:12]})" in said
    assert "tester approved other bytes" in said
    assert "base.dicom (" not in said


def test_a_file_that_comes_in_between_is_refused(project):
    """A suite that nobody has read yet is not run because the others were."""
    officers.sign(project, today=TODAY)
    shutil.copy(project.parent / "suites" / "episodes.json", project.parent / "suites" / "letters.json")
    assert "letters.json (suite, " in refused(project)


def test_an_approval_holds_from_its_day_until_its_end(project):
    officers.sign(project, today=TODAY, days=30)
    assert require(project, TODAY) and require(project, TODAY + timedelta(30))
    assert "ended on 2026-03-31" in refused(project, TODAY + timedelta(31))
    assert "in the future" in refused(project, TODAY - timedelta(1))


def test_no_approval_holds_for_ever(project):
    made, key = config.load(project), officers.key("tester")
    for days in (-1, approved.MOST_DAYS + 1):
        with pytest.raises(UsageError):
            approved.approve(made, "tester", key, approved.runs(made), today=TODAY, expires=TODAY + timedelta(days))
    long = approved.MOST_DAYS
    path = approved.approve(made, "tester", key, approved.runs(made), today=TODAY, expires=TODAY + timedelta(long))
    assert require(project)
    lines = path.read_text().replace(f"expires = {TODAY + timedelta(long)}", "expires = 9999-12-31")
    path.write_text(lines)      # whoever makes it longer has no signature for that
    assert "changed or moved" in refused(project)


def test_a_key_that_is_not_on_the_list_signs_nothing_and_its_signature_counts_for_nothing(project, tmp_path):
    made = config.load(project)
    with pytest.raises(FilesNotApproved, match="does not have this key"):
        approved.approve(made, "stranger", officers.key("stranger"), approved.runs(made), today=TODAY, expires=TODAY)
    with pytest.raises(FilesNotApproved, match="does not have this key"):        # a listed name, a key of one's own
        approved.approve(made, "tester", officers.key("stranger"), approved.runs(made), today=TODAY, expires=TODAY)
    elsewhere = officers.write_list(tmp_path / "own" / "officers.toml", {"stranger": ["*"]})
    with officers.listed(elsewhere):
        officers.sign(project, by="stranger", today=TODAY)
        assert require(project)
    assert "stranger is not on the list of officers" in refused(project)
    path = next((project.parent / "approvals").glob("*.toml"))
    path.write_text(path.read_text().replace('approver = "stranger"', 'approver = "tester"'))
    assert "the signature is not tester's" in refused(project)


def test_a_key_that_is_listed_for_another_project_does_not_count(project, tmp_path):
    path = officers.write_list(tmp_path / "own" / "officers.toml", {"tester": ["chest-audit"], "second": [NAME]})
    officers.sign(project, today=TODAY)             # while the usual list still let them
    with officers.listed(path):
        assert "tester is not listed for this project" in refused(project)
        with pytest.raises(FilesNotApproved, match="for this project"):
            officers.sign(project, today=TODAY)
        officers.sign(project, by="second", today=TODAY)
        assert require(project)


def test_an_officer_who_is_taken_off_the_list_has_approved_nothing(project, tmp_path):
    officers.sign(project, today=TODAY)
    with officers.listed(officers.write_list(tmp_path / "own" / "officers.toml", {"second": ["*"]})):
        assert "tester is not on the list of officers" in refused(project)


@pytest.mark.parametrize(("field", "value"), [
    ("name", "recipes/other.dicom"), ("kind", "suite"), ("project", "*"), ("sha256", "0" * 64),
    ("approver", "second"), ("date", "2026-02-28"), ("expires", "2027-03-01")])
def test_a_signature_holds_for_nothing_but_what_it_was_made_for(project, tmp_path, field, value):
    path = officers.sign(project, today=TODAY)
    shutil.copy(project.parent / "recipes" / "mammography.dicom", project.parent / "recipes" / "other.dicom")
    text = project.read_text().replace('"ct.dicom"', '"recipes/other.dicom"')
    project.write_text(text)
    path.unlink()
    signed = officers.sign(project, "recipes/mammography.dicom", today=TODAY)
    rest = [run.name for run in approved.runs(config.load(project)) if run.name != "recipes/mammography.dicom"
            and run.name != "recipes/other.dicom"]
    officers.sign(project, *rest, today=TODAY)
    assert "recipes/other.dicom (" in refused(project)
    assert "recipes/mammography.dicom (" not in refused(project)
    lines = signed.read_text().splitlines()
    (n,) = (n for n, line in enumerate(lines) if line.startswith(f"{field} = "))
    lines[n] = f"{field} = {value}" if field in ("date", "expires") else f'{field} = "{value}"'
    signed.write_text("\n".join(lines))
    with officers.listed(officers.write_list(tmp_path / "own" / "officers.toml", {"tester": ["*"], "second": ["*"]})):
        said = refused(project)
    assert "recipes/mammography.dicom (" in said and "recipes/other.dicom (" in said


def test_the_project_file_is_approved_for_its_own_project_alone(project):
    """A signature for every project is one for recipes and suites; a project file that claims one is refused."""
    path = officers.sign(project, today=TODAY, every_project=True)
    entries = path.read_text().split("[[approval]]")[1:]
    assert [e for e in entries if 'kind = "project"' in e and f'project = "{NAME}"' in e]
    assert sum('project = "*"' in e for e in entries) == len(entries) - 1
    assert require(project)
    other = project.with_name("other.toml")
    other.write_text(project.read_text().replace(f'name = "{NAME}"', 'name = "chest-audit"'))
    said = refused(other)
    assert "other.toml (project, " in said and "base.dicom (" not in said
    other.unlink()
    path.unlink()
    officers.sign(project, today=TODAY)
    project.write_text(project.read_text().replace(f'name = "{NAME}"', 'name = "chest-audit"'))
    assert "tester approved it for another project" in refused(project)


@pytest.mark.parametrize(("change", "says"), [
    ({}, ""), ({"project": "*"}, "for another project"), ({"kind": "recipe"}, "nobody has approved it."),
    ({"expires": TODAY + timedelta(approved.MOST_DAYS + 1)}, "for more than")])
def test_what_an_officer_signs_with_other_tools_is_held_to_the_same_rules(project, change, says):
    """A signature that holds is not enough: of a project file for every project, of another kind, for too long."""
    made = config.load(project)
    names = [run.name for run in approved.runs(made) if run.kind != "project"]
    path = officers.sign(project, *names, today=TODAY)
    (run,) = (run for run in approved.runs(made) if run.kind == "project")
    said = replace(Statement("project", run.name, run.sha256, NAME, "tester", TODAY, TODAY + timedelta(9)), **change)
    entry = ["[[approval]]", *approved._toml(said), f'signature = "{signatures.sign(officers.key("tester"), said)}"']
    path.with_name("own.toml").write_text("\n".join(["schema_version = 1", *entry, ""]))
    if says:
        told = refused(project)
        assert says in told and "project.toml (project" in told and "base.dicom" not in told
    else:
        assert require(project)


# ---- two approvers -----------------------------------------------------------------------------------------------
@pytest.fixture
def two(tmp_path: Path) -> Iterator[Path]:
    listed = officers.write_list(tmp_path / "list" / "officers.toml", {"tester": ["*"], "second": [NAME]})
    with officers.listed(listed):
        yield lay(tmp_path / "site", approvers=2)


def test_the_list_may_ask_for_two_in_every_project(tmp_path):
    project = lay(tmp_path / "site")
    two = officers.write_list(tmp_path / "list" / "officers.toml", {"tester": ["*"], "second": ["*"]},
                              approvers={'"*"': 2})
    with officers.listed(two):
        officers.sign(project, today=TODAY)
        assert "1 of 2 approvers" in refused(project)
        officers.sign(project, by="second", today=TODAY)
        require(project)
    two.write_text(two.read_text().replace('"*" = 2', '"*" = 0'))
    with officers.listed(two), pytest.raises(OfficersRefused, match="greater than 0"):
        require(project)


def test_a_recipe_that_changes_between_its_check_and_its_reading_is_not_run(project, monkeypatch):
    """Between the two a step lists and reads what landed: minutes, on a slow store."""
    from pipeline import side

    officers.sign(project)
    checked = side.approved(project)
    recipe = project.parent / "recipes" / "mammography.dicom"
    recipe.write_text(recipe.read_text() + "\n# later\n")
    with pytest.raises(FilesNotApproved, match="changed while it was read"):
        _ = checked.plans


def test_two_approvers_are_two_people_with_two_keys(two):
    officers.sign(two, today=TODAY)
    officers.sign(two, today=TODAY, days=60)            # the same person once more
    assert "1 of 2 approvers" in refused(two)
    officers.sign(two, by="second", today=TODAY)
    assert {tuple(e.approver for e in v.by) for v in require(two).verdicts} == {("second", "tester")}


def test_a_second_approver_with_the_first_one_s_key_does_not_count(two, tmp_path):
    """Not on the list, and not by writing another name over one's own signature."""
    for path in (officers.sign(two, today=TODAY), officers.sign(two, today=TODAY, days=60)):
        last = path
    last.write_text(last.read_text().replace('approver = "tester"', 'approver = "second"'))
    assert "1 of 2 approvers (tester); the signature is not second's" in refused(two)
    shared = officers.write_list(tmp_path / "list" / "shared.toml", {"tester": ["*"], "second": ["*"]},
                                 keys={"second": officers.public("tester")})
    with officers.listed(shared), pytest.raises(OfficersRefused, match="listed twice"):
        require(two)


@pytest.mark.parametrize("name", ["TESTER", "Tester"])
def test_a_name_is_not_listed_twice_in_another_case(two, tmp_path, name):
    path = officers.write_list(tmp_path / "list" / "case.toml", {"tester": ["*"], name: ["*"]})
    with officers.listed(path), pytest.raises(OfficersRefused, match="listed twice"):
        require(two)


def test_the_project_s_own_file_cannot_ask_for_fewer_than_the_list(project, tmp_path):
    officers.sign(project, today=TODAY)
    listed = officers.write_list(tmp_path / "list" / "officers.toml", {"tester": ["*"], "second": ["*"]},
                                 approvers={NAME: 2})
    with officers.listed(listed):
        assert "1 of 2 approvers" in refused(project)
        officers.sign(project, by="second", today=TODAY)
        assert require(project)


# ---- the list of officers, and demos -----------------------------------------------------------------------------
def test_without_a_list_a_real_project_does_not_run_and_a_demo_does(tmp_path, monkeypatch):
    monkeypatch.delenv(lists.VARIABLE, raising=False)
    with pytest.raises(OfficersRefused, match="knows no officer"):
        require(lay(tmp_path / "real"))
    found = require(lay(tmp_path / "demo", demo=True))
    assert found.officers is None and not found.lacking
    listed = approved.standing(config.load(tmp_path / "demo" / "project.toml"), TODAY)
    assert listed.officers is None and len(listed.verdicts) > 10 and not listed.lacking


def test_where_there_is_a_list_a_demo_is_held_to_it(tmp_path):
    """So that no engineer of a machine for real data makes a project run by calling it a demo."""
    demo = lay(tmp_path / "demo", demo=True)
    with officers.listed():
        assert "nobody has approved it" in refused(demo)
        officers.sign(demo, today=TODAY)
        assert require(demo).officers


def test_calling_a_project_a_demo_is_a_change_that_nobody_approved(project):
    officers.sign(project, today=TODAY)
    project.write_text(project.read_text().replace("demo = false", "demo = true"))
    assert "project.toml (project, " in refused(project)


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_list_that_others_may_change_is_refused(project, tmp_path, mode):
    path = officers.write_list(tmp_path / "list" / "officers.toml", {"tester": ["*"]})
    path.chmod(mode)
    with officers.listed(path), pytest.raises(OfficersRefused, match="changed by others"):
        require(project)
    path.chmod(0o644)
    path.parent.chmod(0o777)
    with officers.listed(path), pytest.raises(OfficersRefused, match="changed by others"):
        require(project)


def test_a_list_among_the_files_it_judges_is_refused(project, tmp_path):
    path = officers.write_list(project.parent / "officers.toml", {"stranger": ["*"]})
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    for said in (path, link):
        with officers.listed(said), pytest.raises(OfficersRefused, match="among the files"):
            require(project)


@pytest.mark.parametrize("text", ["", "schema_version = 1", "no TOML", "schema_version = 2\n[[officer]]",
                                  'schema_version = 1\n[[officer]]\nname = "a"\nkey = "AAAA"\nprojects = ["*"]\n',
                                  'schema_version = 1\n[[officer]]\nname = "a"\nkey = "%s"\nprojects = []\n'])
def test_a_malformed_list_lets_nothing_run(project, tmp_path, text):
    path = tmp_path / "list.toml"
    path.write_text(text.replace("%s", officers.public("tester")))
    path.chmod(0o644)
    with officers.listed(path), pytest.raises(OfficersRefused, match="malformed"):
        require(project)
    with officers.listed(tmp_path / "none.toml"), pytest.raises(OfficersRefused, match="cannot be read"):
        require(project)


# ---- approval files, settings ------------------------------------------------------------------------------------
def test_a_damaged_file_of_approvals_is_named(project):
    path = officers.sign(project, today=TODAY)
    for text in (path.read_text()[:-40], path.read_text() + '\n[[approval]]\nkind = "recipe"\n', "x = 1"):
        path.write_text(text)
        assert f"{path.name} in approvals/ is not a file of approvals" in refused(project)


def test_settings_are_those_of_the_file_that_was_signed(project):
    """A config that was changed in memory is not the project that an officer read. Zones may be others."""
    officers.sign(project, today=TODAY)
    made = config.load(project)
    assert approved.require(made, TODAY)
    eased = made.deidentify.model_copy(update={"date_shift_days": 30})
    with pytest.raises(FilesNotApproved, match="not those of its file"):
        approved.require(made.model_copy(update={"deidentify": eased}), TODAY)
    assert approved.require(config.load(project, landing="file:///elsewhere"), TODAY)


def test_a_file_that_is_gone_is_named(project):
    officers.sign(project, today=TODAY)
    (project.parent / "recipes" / "dose_report.toml").unlink()
    with pytest.raises(NotFound, match="dose_report"):
        require(project)


def test_a_name_that_is_not_run_is_not_signed(project):
    with pytest.raises(UsageError, match="does not run none"):
        approved.chosen(config.load(project), ["none.dicom"])
    assert [r.name for r in approved.chosen(config.load(project), ["deid_recipes/base.dicom"])] == ["base.dicom"]
