"""An officer makes a key, reads what a project runs, signs it; a real project runs after that and not before."""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import time
from datetime import date
from pathlib import Path

import pytest

from pipeline import errors
from pipeline.deidentify.keys import create_key
from pipeline.synthetic.demo import write_demo

TRE = Path(sys.executable).with_name("tre")


@pytest.fixture
def real(tmp_path):
    """A project that is no demo, with approvals beside it; its officer's list stands elsewhere."""
    site = tmp_path / "site"
    write_demo(site, women=1, as_of=date.today())
    create_key(tmp_path / "keys", "demo-screening")
    text = (site / "project.toml").read_text().replace("demo = true", "demo = false")
    (site / "project.toml").write_text(text + '\n[approve]\napprovals = "approvals"\n')
    return site / "project.toml"


@pytest.fixture
def env(tmp_path):
    return {"TRE_KEY_DIR": str(tmp_path / "keys"), "TRE_OFFICER_KEYS": str(tmp_path / "officers"),
            "TRE_OFFICERS": str(tmp_path / "list" / "officers.toml")}


def keep_list(env, said):
    """What the administrator does with what a new officer hands over."""
    path = Path(env["TRE_OFFICERS"])
    path.parent.mkdir(exist_ok=True)
    table = said[said.index("[[officer]]"):].replace('"…"', '"demo-screening"')
    path.write_text("schema_version = 1\n" + table)
    path.chmod(0o644)


def test_from_a_new_key_to_a_project_that_runs(tre, real, env, tmp_path):
    bare = tre("stage", real, TRE_KEY_DIR=env["TRE_KEY_DIR"])
    assert bare.code == errors.OfficersRefused.exit_code and "TRE_OFFICERS is not set" in bare.err
    made = tre("approve", "--new-key", "a.officer", "--no-passphrase", **env)
    assert made.code == 0, made.err
    assert "PRIVATE KEY" not in made.out + made.err
    keep_list(env, made.out)

    refused = tre("stage", real, **env)
    assert refused.code == errors.FilesNotApproved.exit_code
    assert "project.toml (project, " in refused.err and "base.dicom (recipe, " in refused.err
    assert not list((tmp_path / "site" / "work").rglob("*.parquet")), "nothing was read before the refusal"

    unsure = tre("approve", real, "--as", "a.officer", **env)
    assert unsure.code == 2 and "Nothing was signed" in unsure.err
    signed = tre("approve", real, "--as", "a.officer", "--yes", "--days", "30", **env)
    assert signed.code == 0, signed.err
    checked = tre("approve", "--check", real, **env)
    assert checked.code == 0, checked.err
    assert "NOT APPROVED" not in checked.out and "a.officer" in checked.out
    last = re.findall(r"until (\d{4}-\d\d-\d\d)", signed.out)[0]
    assert f"All of it may run until {last}." in checked.out
    (fingerprint,) = re.findall(r"fingerprint:\s+((?:[0-9a-f]{4} ?){4})\.", made.out)
    assert fingerprint in checked.out
    assert tre("stage", real, **env).code == 0

    log = tre("audit-log", "show", real, **env).out
    assert "refuse_files" in log and "approve_files" in log and "a.officer" in log
    assert "recipe base.dicom=" in log

    recipe = tmp_path / "site" / "approvals"
    for path in recipe.glob("*.toml"):
        path.write_text(path.read_text().replace('name = "ct.dicom"', 'name = "other.dicom"'))
    lacking = tre("approve", "--check", real, **env)
    assert lacking.code == errors.FilesNotApproved.exit_code
    states = re.findall(r"NOT APPROVED|approved +│", lacking.out)
    assert states[0] == "NOT APPROVED" and states == sorted(states), "what lacks approval stands on top"
    assert [line for line in lacking.out.splitlines() if "ct.dicom" in line and "NOT APPROVED" in line]
    assert tre("doctor", real, **env).code == errors.EnvironmentUnfit.exit_code


def test_a_candidate_is_published_by_an_officer_s_key_and_by_nothing_else(tre, real, env, tmp_path):
    keep_list(env, tre("approve", "--new-key", "a.officer", "--no-passphrase", **env).out)
    assert tre("approve", real, "--as", "a.officer", "--yes", **env).code == 0
    said = tre("run", real, **env)
    assert said.code == 0 and "tre approve PROJECT.toml --candidate --as NAME" in said.out, said.err
    assert tre("publish", real, "--approve-as", "a.officer", **env).code == errors.ApprovalRefused.exit_code
    early = tre("publish", real, **env)
    assert early.code == errors.ApprovalRefused.exit_code and "Nobody has approved" in early.err
    assert tre("approve", real, "--candidate", "ct.dicom", "--as", "a.officer", "--yes", **env).code == 2
    assert tre("approve", real, "--reject", "--as", "a.officer", "--yes", **env).code == 2
    unsure = tre("approve", real, "--candidate", "--as", "a.officer", **env)
    assert unsure.code == 2 and "Nothing was signed" in unsure.err and "candidate.html" in unsure.out
    signed = tre("approve", real, "--candidate", "--as", "a.officer", "--yes", **env)
    assert signed.code == 0 and "may be published" in signed.out, signed.err
    done = tre("publish", real, **env)
    assert done.code == 0, done.err
    log = tre("audit-log", "show", real, **env).out
    assert "approve" in log and "signed=1" in log
    checked = tre("audit-log", "verify", real, **env)
    assert checked.code == 0 and re.search(r"heads kept by releases +1", checked.out)
    for path in sorted((tmp_path / "site" / "work").rglob("audit/*.json"))[-6:]:
        path.unlink()
    cut = tre("audit-log", "verify", real, **env)
    assert cut.code == errors.AuditLogBroken.exit_code and "was published with" in cut.err


def test_one_file_can_be_signed_alone_and_another_s_key_signs_nothing(tre, real, env):
    keep_list(env, tre("approve", "--new-key", "a.officer", "--no-passphrase", **env).out)
    said = tre("approve", real, "mammography.dicom", "--as", "a.officer", "--yes", **env)
    assert said.code == 0 and "1 files approved" in said.out
    assert tre("approve", real, "none.dicom", "--as", "a.officer", "--yes", **env).code == 2
    tre("approve", "--new-key", "stranger", "--no-passphrase", **env)
    other = Path(env["TRE_OFFICER_KEYS"]) / "stranger.key"
    for words in (("--as", "stranger"), ("--as", "a.officer", "--key", other)):
        said = tre("approve", real, *words, "--yes", **env)
        assert said.code == errors.FilesNotApproved.exit_code and "does not have this key" in said.err
    assert len(list((real.parent / "approvals").glob("*.toml"))) == 1


def test_words_that_do_not_go_together_are_told(tre, real, env):
    assert tre("approve", **env).code == 2
    assert tre("approve", real, **env).code == 2
    assert tre("approve", real, "--as", "nobody", "--yes", **env).code == errors.OfficerKeyRefused.exit_code
    assert tre("approve", "--new-key", "../x", "--no-passphrase", **env).code == errors.OfficerKeyRefused.exit_code
    assert tre("approve", "--new-key", "b.officer", **env).code == errors.OfficerKeyRefused.exit_code    # no terminal


def typed(words, env, *answers):
    """Run `tre` on a terminal of its own, and answer each question with a line."""
    pid, fd = pty.fork()
    if not pid:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("TRE_", "AWS_"))}
        os.execve(TRE, [str(TRE), *map(str, words)], {**clean, **env})
    out, left, until = b"", list(answers), time.monotonic() + 60
    while time.monotonic() < until:
        if select.select([fd], [], [], 0.2)[0]:
            try:
                out += os.read(fd, 4096)
            except OSError:
                break
        elif left and out.rstrip().endswith((b":", b"]")):
            os.write(fd, left.pop(0).encode() + b"\n")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), out.decode()


def test_a_passphrase_is_asked_on_the_terminal_and_not_shown(tre, real, env):
    code, said = typed(("approve", "--new-key", "a.officer"), env, "correct horse", "correct horse")
    assert code == 0 and "correct" not in said, said
    assert b"ENCRYPTED" in (Path(env["TRE_OFFICER_KEYS"]) / "a.officer.key").read_bytes()
    keep_list(env, said.replace("\r", ""))
    off = tre("approve", real, "--as", "a.officer", "--yes", **env)
    assert off.code == errors.OfficerKeyRefused.exit_code and "terminal" in off.err
    code, said = typed(("approve", real, "--as", "a.officer"), env, "y", "wrong horse")
    assert code == errors.OfficerKeyRefused.exit_code, said
    code, said = typed(("approve", real, "--as", "a.officer"), env, "y", "correct horse")
    assert code == 0 and "files approved" in said, said
