import hashlib
import json
import os
import subprocess
import sys

import pytest

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.errors import ApprovalRefused, EnvironmentUnfit, Interrupted, PublishRefused
from pipeline.publish import process
from pipeline.publish.verify import verify

SECRETS = {
    "TRE_KEY_DIR": "/secret/keys", "TRE_LANDING_URL": "landing-url", "TRE_LANDING_ENDPOINT_URL": "landing-host",
    "TRE_LANDING_ACCESS_KEY_ID": "landing-key-id", "TRE_LANDING_SECRET_ACCESS_KEY": "landing-secret",
    "TRE_WORK_ACCESS_KEY_ID": "work-id", "TRE_WORK_SECRET_ACCESS_KEY": "work-secret",
    "AWS_ACCESS_KEY_ID": "aws-id", "AWS_SECRET_ACCESS_KEY": "aws-secret", "AWS_PROFILE": "landing-profile",
    "AIRFLOW__CORE__FERNET_KEY": "fernet", "SOMETHING_ELSE": "else-secret",
}  # fmt: skip


def config(small, **zones):
    return ProjectConfig.model_validate({
        "schema_version": 1,
        "project": {"name": small.project, "title": "T", "data_steward": "D", "demo": True},
        "zones": {"landing": "file:///secret/landing", "work": "file:///secret/work", "candidate": small.candidate.url,
                  "release": small.release.url, **zones},
        "eligibility": {"sop_classes": ["1.2.840.10008.5.1.4.1.1.1.2"],
                        "study_dates": {"earliest": "2016-01-01", "latest": "2023-12-31"},
                        "people": {"not_required": "Synthetic data: nobody is in it."}},
        "deidentify": {"recipes": [{"files": ["base.dicom"], "sop_classes": ["1.2.840.10008.5.1.4.1.1.1.2"]}]},
    })  # fmt: skip


@pytest.fixture
def approved(small):
    small.candidate.write(layout.approval(small.project, small.id), json.dumps(small.approval()).encode())
    return small


def test_it_publishes(approved):
    done = process.run(config(approved), approved.id, run_id="manual__1")
    assert (done["sequence"], done["images"], done["copied"]) == (1, 4, 4)
    assert verify(f"{approved.base}/release/{approved.project}").release == done["release"]
    run = layout.in_release(approved.project, done["release"], "run.json")
    assert json.loads(approved.release.read(run))["run_id"] == "manual__1"
    assert process.run(config(approved), approved.id)["copied"] == 0


def test_nothing_that_opens_landing_or_the_key_can_be_read_inside(approved, monkeypatch, tmp_path):
    """The child itself tells what it was given: a stand-in for the interpreter dumps it, then becomes the publisher."""
    for name, value in {**SECRETS, "TRE_RELEASE_REGION": "eu-west-2", "TRE_CANDIDATE_REGION": "eu-west-1"}.items():
        monkeypatch.setenv(name, value)
    dump, stand_in = tmp_path / "dump", tmp_path / "python"
    stand_in.write_text(
        "#!/bin/sh\n"
        f"{{ cat /proc/self/environ; tr '\\0' '\\n' < /proc/$$/cmdline; }} > {dump}\n"
        f"exec {sys.executable} \"$@\"\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    assert process.run(config(approved), approved.id)["images"] == 4
    seen = dump.read_text()
    for name, value in SECRETS.items():
        assert name not in seen
        assert value not in seen
    assert "/secret/" not in seen
    assert "TRE_RELEASE_REGION=eu-west-2" in seen
    assert approved.release.url in seen


def test_inside_the_key_and_landing_cannot_be_loaded(approved, monkeypatch):
    """What the product itself would use to reach them fails in the publisher's environment."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    code = (
        "import os\n"
        "assert not [n for n in os.environ if 'KEY_DIR' in n or 'LANDING' in n or 'WORK' in n], 'told'\n"
        "import boto3\n"
        "assert boto3.session.Session().get_credentials() is None, 'boto3 found credentials'\n"
    )
    env = {**process.environment(os.environ), "AWS_EC2_METADATA_DISABLED": "true"}
    subprocess.run([sys.executable, "-c", code], env=env, cwd="/", check=True)


def test_a_refusal_comes_back_as_itself(approved):
    key = layout.in_candidate(approved.project, approved.id, "tables/patients.parquet")
    approved.candidate.write(key, b"other")
    with pytest.raises(PublishRefused, match=r"patients\.parquet is not what was approved"):
        process.run(config(approved), approved.id)


def test_no_approval_is_refused(small):
    with pytest.raises(ApprovalRefused, match="Nobody"):
        process.run(config(small), small.id)


def test_a_publisher_that_is_killed_is_told_from_one_that_refuses(approved, monkeypatch, tmp_path):
    stand_in = tmp_path / "python"
    stand_in.write_text("#!/bin/sh\nkill -9 $$\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    with pytest.raises(Interrupted):
        process.run(config(approved), approved.id)


def test_an_error_inside_comes_back_without_its_text(approved):
    rotten = approved.approval() | {"digest": ["SENTINELSMITH"]}
    approved.candidate.write(layout.approval(approved.project, approved.id), json.dumps(rotten).encode())
    with pytest.raises(ApprovalRefused) as caught:
        process.run(config(approved), approved.id)
    assert "SENTINELSMITH" not in str(caught.value)
    approved.candidate.write(layout.approval(approved.project, approved.id), b"SENTINELSMITH")
    with pytest.raises(Exception, match=r"damaged") as caught:
        process.run(config(approved), approved.id)
    assert "SENTINELSMITH" not in str(caught.value)


def test_zones_on_s3_need_credentials_of_their_own(small, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.delenv("TRE_RELEASE_ACCESS_KEY_ID", raising=False)
    with pytest.raises(EnvironmentUnfit, match="release"):
        process.run(config(small, release="s3://bucket/release"), small.id)


def test_an_approval_of_who_triggered_the_run_is_refused_when_it_is_used(approved):
    """Whoever writes a record by hand does not get past the rule of two people; a demo alone may."""
    key = layout.candidate_manifest(approved.project, approved.id)
    sealed = json.loads(approved.candidate.read(key))
    sealed["demo"] = False
    approved.candidate.write(key, json.dumps(sealed).encode())
    digest = hashlib.sha256(approved.candidate.read(key)).hexdigest()
    record = {**approved.approval(), "digest": digest, "approver": "Ann", "triggered_by": "ann"}
    approved.candidate.write(layout.approval(approved.project, approved.id), json.dumps(record).encode())
    with pytest.raises(ApprovalRefused, match="triggered"):
        process.run(config(approved), approved.id)
    assert approved.release.stat(layout.current(approved.project)) is None
