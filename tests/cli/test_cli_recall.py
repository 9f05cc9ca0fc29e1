"""`tre recall` in a process of its own: what it prints, what it refuses, what it leaves in buckets with versions."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.deidentify.keys import create_key
from pipeline.synthetic.demo import DemoTruth, write_demo
from tests.helpers.s3 import Server, bucket, client, moto

NAME = "demo-screening"
ZONES = ("work", "candidate", "release")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with moto() as running:
        yield running


@pytest.fixture(scope="module")
def versioned(tre: Any, server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str],
                                                                                           dict[str, str], DemoTruth]:
    """A published project whose candidate and release zones are on buckets that keep versions."""
    root = tmp_path_factory.mktemp("versioned")
    truth = write_demo(root, women=2)
    create_key(root / "keys", NAME)
    text = (root / "project.toml").read_text()
    buckets = {zone: bucket(server) for zone in ("candidate", "release")}
    for zone, name in buckets.items():
        client(server).put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        text = text.replace(f'"file://{(root / zone).resolve()}"', f'"s3://{name}/{zone}"')
    (root / "project.toml").write_text(text)
    env = {"TRE_KEY_DIR": str(root / "keys"), **server.environment("candidate", "release")}
    done = tre("run", root / "project.toml", "--approve-as", "officer", **env)
    assert done.code == 0, done.err + done.out
    return root, env, buckets, truth


def one_person(root: Path) -> str:
    """ISSUER:LOCALID of somebody in the crosswalk with a permitted number."""
    permitted = {line.strip() for line in (root / "permitted.csv").read_text().splitlines()}
    for row in csv.DictReader((root / "crosswalk.csv").open()):
        if row["nhs_number"].replace(" ", "") in permitted and (root / "landing" / row["issuer"]).is_dir():
            return f"{row['issuer']}:{row['local_id']}"
    raise AssertionError("nobody")


def test_a_versioned_store_ends_without_any_version_of_theirs(tre: Any, server: Server, versioned: Any) -> None:
    root, env, buckets, truth = versioned
    person = one_person(root)
    (root / "people.txt").write_text(f"# who withdrew\n{person}\n")
    words = ("recall", root / "project.toml", "--person-file", root / "people.txt", "--reason", "withdrawn",
             "--approver", "officer")
    done = tre(*words, **env)
    assert done.code == 0, done.err + done.out
    said = [done.out, done.err]
    (recall,) = [path.stem for path in (root / "work" / NAME / "recalls").iterdir()]
    found = json.loads((root / "work" / NAME / "recalls-found" / f"{recall}.json").read_text())
    patient = {key.split("/")[2] for zone, key, _ in found["objects"] if zone == "release"}
    assert len(patient) == 1
    assert sum(zone == "release" for zone, *_ in found["objects"]) >= 4
    for zone, name in buckets.items():
        left = client(server).list_object_versions(Bucket=name)
        there = [v["Key"] for kind in ("Versions", "DeleteMarkers") for v in left.get(kind, ())]
        assert len(there) < 1000        # one page is all of it
        assert [key for key in there if patient & set(key.split("/"))] == [], zone
    values = {*truth.sentinels, *truth.population.uids, *person.split(":")[1:]}
    assert [n for n, value in enumerate(values) if len(value) >= 6 and any(value in text for text in said)] == []


def test_a_person_on_the_command_line_is_warned_about(tre: Any, gone: Any, tmp_path: Path) -> None:
    person = one_person(gone.root)
    said = tre("recall", gone.project, "--person", person, "--reason", "withdrawn", "--approver", "officer",
               "--dry-run", **gone.env)
    assert said.code == 0, said.err
    assert "--person-file" in said.err
    assert not (gone.root / "work" / NAME / "recalls").exists()


@pytest.mark.parametrize(("words", "code"), [
    (["--person-file", "none.txt", "--reason", "withdrawn", "--approver", "officer"], 2),
    (["--reason", "withdrawn", "--approver", "officer"], 2),
    (["--order", "x-000000000000000000000000"], 23),
    (["--order", "../../x"], 23),
    (["--order", "x-000000000000000000000000", "--dry-run"], 2),
])
def test_refusals(tre: Any, gone: Any, words: list[str], code: int) -> None:
    assert tre("recall", gone.project, *words, cwd=gone.root, **gone.env).code == code
