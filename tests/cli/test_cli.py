"""`tre` as people use it: what it says, what it ends with, and what it never prints."""

import hashlib
import re
import stat
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pipeline import errors
from pipeline.cli import doctor
from pipeline.cli import main as cli

pytestmark = pytest.mark.xdist_group("cli")


def commands(command, path=()):
    below = getattr(command, "commands", None)
    if below is None:
        yield path
    else:
        for name, child in below.items():
            if not getattr(child, "hidden", False):
                yield from commands(child, (*path, name))


EVERY = list(commands(typer.main.get_command(cli.app)))


def tree(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file() and not p.is_symlink()
    }


# ---- help and version --------------------------------------------------------------------------------------------
def test_the_documents_name_commands_that_exist():
    from pipeline.audit.registry import AUDITS

    names = {" ".join(path) for path in EVERY} | {f"audit {name}" for name in AUDITS}
    groups = {name.split()[0] for name in names if " " in name}
    root = Path(__file__).parents[2]
    named = set()
    for page in (root / "README.md", *root.glob("*.md"), *(root / "docs").rglob("*.md")):
        for first, second in re.findall(r"(?:`|bin/|^|\|\s)tre ([a-z][a-z-]*)(?: ([a-z-]+))?", page.read_text(), re.M):
            named.add(f"{first} {second}" if first in groups else first)
    assert named <= names | {f"{group} " for group in groups}, named - names
    assert {"run", "stage", "status", "ledger", "doctor", "recipe lint", "release verify"} <= named & names


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_command_explains_itself_with_an_example(path):
    said = CliRunner().invoke(cli.app, [*path, "--help"])
    assert said.exit_code == 0
    assert "Examples" in said.output and f"tre {' '.join(path)}" in said.output.split("Examples")[1]


def test_version(tre):
    said = tre("--version")
    assert said.code == 0 and said.out.startswith("tre-ingest ")


# ---- errors ------------------------------------------------------------------------------------------------------
def test_a_bad_project_file_is_refused_by_line(tre, gone, tmp_path):
    bad = tmp_path / "project.toml"
    bad.write_text(gone.project.read_text().replace("quiet_seconds", "quite_seconds"))
    said = tre("stage", bad)
    assert said.code == errors.ProjectFileError.exit_code
    line = 1 + bad.read_text().splitlines().index("quite_seconds = 60")
    assert f"{bad}:{line}: stage.quite_seconds: unknown key" in said.err
    assert "Traceback" not in said.err


S3 = {
    "TRE_LANDING_ENDPOINT_URL": "http://127.0.0.1:9", "TRE_LANDING_ACCESS_KEY_ID": "a",
    "TRE_LANDING_SECRET_ACCESS_KEY": "b", "TRE_LANDING_REGION": "us-east-1",
}


@pytest.mark.parametrize(
    ("kind", "edit", "env"),
    [
        (errors.KeyRefused, None, {"TRE_KEY_DIR": "/nonexistent"}),
        (errors.PeopleListRefused, ("permitted.csv", r"# as-of: \S+", "# as-of: 2001-01-01"), {}),
        (errors.CrosswalkRefused, ("crosswalk.csv", "^issuer,", "publisher,"), {}),
        (errors.RecipeRefused, ("project.toml", r'"base\.dicom", "ct\.dicom"', '"./bad.dicom"'), {}),
        (errors.ProjectFileError, ("project.toml", "Breast Tomosynthesis Image Storage", "No Such Storage"), {}),
        (errors.StoreUnreachable, ("project.toml", r'landing = ".*"', 'landing = "s3://nowhere/in"'), S3),
    ],
    ids=lambda x: getattr(x, "code", None),
)
def test_what_would_stop_a_run_stops_it_before_anything_moves(tre, gone, tmp_path, kind, edit, env):
    for path in (*gone.root.glob("*.csv"), gone.root / "project.toml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "bad.dicom").write_text("FORMAT dicom\n\n%header\n\nKEEP PatientID\n")
    if edit:
        path = tmp_path / edit[0]
        changed, n = re.subn(edit[1], edit[2], path.read_text(), flags=re.M)
        assert n
        path.write_text(changed)
    zones = [w for z in ("work", "candidate", "release") for w in (f"--{z}", f"file://{tmp_path}/{z}")]
    said = tre("run", tmp_path / "project.toml", "--approve-as", "officer", *zones, **{**gone.env, **env})
    assert said.code == kind.exit_code, said.err + said.out
    assert said.err.startswith(f"tre: {kind.code}: ") and "Traceback" not in said.err
    assert not list(tmp_path.rglob("*.parquet"))


def test_approve_as_is_for_demo_projects(tre, gone, tmp_path):
    real = tmp_path / "project.toml"
    real.write_text(gone.project.read_text().replace("demo = true", "demo = false"))
    for words in (("run", real), ("publish", real)):
        said = tre(*words, "--approve-as", "me", **gone.env)
        assert said.code == errors.ApprovalRefused.exit_code
        assert "demo = true" in said.err


def test_a_refused_recipe_names_line_and_mend(tre, tmp_path):
    recipe = tmp_path / "bad.dicom"
    recipe.write_text("FORMAT dicom\n\n%header\n\nREMOVE ALL\nremove PatientID\n")
    said = tre("recipe", "lint", recipe)
    assert said.code == errors.RecipeRefused.exit_code
    assert "bad.dicom:6: " in said.out and "mend: " in said.out


def test_wrong_words_end_with_2(tre):
    assert tre("stage").code == 2
    assert tre("ledger", "project.toml").code == 2
    assert tre("nonsense").code == 2


SECRET = "Zebedee^Quartermain"


def test_an_unknown_exception_shows_its_type_and_no_text(monkeypatch, capsys):
    def boom(*_args, **_options):
        raise ValueError(SECRET)

    monkeypatch.setattr(doctor, "machine", boom)
    monkeypatch.setattr("sys.argv", ["tre", "doctor"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr()
    assert end.value.code == 1
    assert "ValueError" in said.err and SECRET not in said.err + said.out and "Traceback" not in said.err


def test_debug_warns_and_shows_all(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "machine", lambda *_: 1 / 0)
    monkeypatch.setattr("sys.argv", ["tre", "doctor"])
    monkeypatch.setenv("TRE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main()
    assert "may show values" in capsys.readouterr().err


# ---- doctor ------------------------------------------------------------------------------------------------------
def test_doctor_passes_here_without_a_store_of_its_own(tre, tmp_path):
    said = tre("doctor", "--store", "file", "--at", tmp_path)
    assert said.code == 0, said.out
    assert "none failed" in said.out and list(tmp_path.iterdir()) == []


def test_doctor_fails_by_name(monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError(95, "no")

    monkeypatch.setattr("os.setxattr", refuse)
    found = {c.name: c for c in doctor.machine(tmp_path, "s3")}
    assert found["user extended attributes"].result == "fail" and "DEMO_STORE=file" in found[
        "user extended attributes"
    ].mend
    assert {c.name: c for c in doctor.machine(tmp_path, "file")}["user extended attributes"].result == "warn"


def test_doctor_looks_at_a_project(tre, gone, tmp_path):
    said = tre("doctor", gone.project, "--store", "file", **gone.env)
    assert said.code == 0, said.out + said.err
    for name in ("key", "recipes", "permitted people", "crosswalk", "zone landing", "zone release"):
        assert name in said.out
    said = tre("doctor", gone.project, "--store", "file", TRE_KEY_DIR=str(tmp_path))
    assert said.code == errors.EnvironmentUnfit.exit_code and "key" in said.err


# ---- the whole way -----------------------------------------------------------------------------------------------
def test_the_whole_way_ends_with_a_release_and_every_fate(gone):
    assert "published" in gone.said.out and gone.release_url in gone.said.out
    for reason in ("not_dicom", "truncated", "same_bytes"):
        assert reason in gone.said.out


def test_looking_changes_nothing_and_tells_of_nobody(tre, gone):
    zones = [gone.root / zone for zone in ("landing", "work", "candidate", "release")]
    before = [tree(zone) for zone in zones]
    said = gone.said.out + gone.said.err
    for words in (
        ("status", gone.project), ("ledger", gone.project, "summary"), ("quarantine", "list", gone.project),
        ("stage", gone.project, "--dry-run"), ("-v", "build", gone.project, "--dry-run"),
        ("publish", gone.project, "--dry-run"), ("release", "verify", gone.release_url),
        ("release", "open", gone.release_url),
    ):
        answer = tre(*words, **gone.env)
        assert answer.code == 0, (words, answer.err)
        said += answer.out + answer.err
    assert [tree(zone) for zone in zones] == before
    assert [s for s in gone.sentinels if s in said] == []


def test_running_again_gives_the_same_release(tre, gone):
    before = tree(gone.root / "release")
    said = tre("run", gone.project, "--approve-as", "officer", **gone.env)
    assert said.code == 0, said.err
    assert {k: v for k, v in tree(gone.root / "release").items() if "run.json" not in k} == {
        k: v for k, v in before.items() if "run.json" not in k
    }


def test_the_ledger_as_a_file_is_for_its_owner(tre, gone, tmp_path):
    out = tmp_path / "ledger.csv"
    said = tre("ledger", gone.project, "--out", out, **gone.env)
    assert said.code == 0 and "exactly once" in said.out
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    listed = sum(1 for p in (gone.root / "landing").rglob("*") if not p.is_dir())
    assert len(out.read_text().splitlines()) - 1 == listed


def test_a_changed_release_does_not_verify(tre, gone, tmp_path):
    import shutil

    copy = tmp_path / "release"
    shutil.copytree(gone.root / "release", copy)
    url = gone.release_url.replace(str(gone.root / "release"), str(copy))
    assert tre("release", "verify", url).code == 0
    image = next(copy.rglob("*.dcm"))
    image.chmod(0o600)
    image.write_bytes(image.read_bytes()[:-1] + b"\x00\x01")
    said = tre("release", "verify", url)
    assert said.code == errors.VerifyFailed.exit_code and "changed" in said.err


def test_quarantine_is_shown_and_closed(tre, gone, tmp_path):
    import shutil

    copy = tmp_path / "work"
    shutil.copytree(gone.root / "work", copy)
    zones = ("--work", f"file://{copy}")
    listed = tre("quarantine", "list", gone.project, *zones, **gone.env)
    assert "person_id_missing: The object has no Patient ID." in listed.out
    assert listed.code == 0
    digest = next(word for word in listed.out.split() if len(word) == 12 and set(word) <= set("0123456789abcdef"))
    shown = tre("quarantine", "show", gone.project, digest, *zones)
    assert shown.code == 0 and digest in shown.out and "open" in shown.out
    assert tre("quarantine", "close", gone.project, digest, *zones).code == 2
    closed = tre("quarantine", "close", gone.project, digest, "--reason", "a scan of paper", *zones)
    assert closed.code == 0 and "a scan of paper" in closed.out
    assert digest not in tre("quarantine", "list", gone.project, *zones).out
    assert digest in tre("quarantine", "list", gone.project, "--all", *zones).out
    again = tre("quarantine", "retry", gone.project, digest, *zones, **gone.env)
    assert again.code == 0 and "as before" in again.out


def test_synthetic_makes_a_project_that_doctor_passes(tre, tmp_path):
    assert tre("synthetic", tmp_path / "new", "--women", "1").code == 0
    assert tre("synthetic", tmp_path / "new").code == 2
    env = {"TRE_KEY_DIR": str(tmp_path / "new" / "keys")}
    said = tre("doctor", tmp_path / "new" / "project.toml", "--store", "file", **env)
    assert said.code == 0 and "permitted people" in said.out
