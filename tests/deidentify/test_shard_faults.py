"""A store or a machine that fails is not the object's fault: nothing is quarantined, and a retry does the work."""

import errno
import hashlib
import os
import shutil
import time
from datetime import date

import pytest

from pipeline import config, layout, steps
from pipeline.deidentify import shard
from pipeline.errors import StoreUnreachable
from pipeline.isolate import Limits
from pipeline.storage import open_store, tables
from pipeline.storage.local import LocalStore
from pipeline.synthetic.population import population, write
from pipeline.synthetic.project import project_text


@pytest.fixture
def staged(tmp_path, monkeypatch):
    """A small project that is staged; return its config and one shard to do."""
    write(tmp_path, population(1, 1), as_of=date.today())
    zones = (f"file://{tmp_path}/{zone}" for zone in ("landing", "work", "candidate", "release"))
    (tmp_path / "project.toml").write_text(
        project_text(*zones).replace("quiet_seconds = 60", "quiet_seconds = 0")
    )
    (tmp_path / "keys").mkdir()
    key = tmp_path / "keys" / "demo-screening.key"
    key.write_text(bytes(range(32)).hex() + "\n")
    key.chmod(0o600)
    monkeypatch.setenv("TRE_KEY_DIR", str(tmp_path / "keys"))
    project = config.load(tmp_path / "project.toml")
    steps.stage(project)
    (pending,) = steps.pending_shards(project)
    return project, pending, tmp_path


@pytest.mark.parametrize(
    "failure",
    [StoreUnreachable("The store does not answer."), OSError(errno.EIO, "input/output error")],
    ids=lambda e: type(e).__name__,
)
def test_a_failing_store_or_machine_leaves_the_part_undone(staged, monkeypatch, failure):
    project, pending, root = staged
    outcomes = root / "work" / layout.outcomes(project.name, pending["part"])

    def fail(*_args, **_options):
        raise failure

    with monkeypatch.context() as broken:
        broken.setattr(*((LocalStore, "fetch") if isinstance(failure, StoreUnreachable) else (shard, "rewrite")), fail)
        with pytest.raises(type(failure)):
            steps.deidentify(project, pending["batch"], pending["shard"])
    assert not outcomes.exists()
    done = steps.deidentify(project, pending["batch"], pending["shard"])
    assert outcomes.exists() and done["counts"]["pending"] >= 4


def test_an_objects_own_surprise_quarantines_it_alone(staged, monkeypatch):
    project, pending, _ = staged
    real, calls = shard.rewrite, []

    def once(*args, **options):
        if args[0].name == "canary":
            return real(*args, **options)
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("quotes a value")
        return real(*args, **options)

    monkeypatch.setattr(shard, "rewrite", once)
    counts = steps.deidentify(project, pending["batch"], pending["shard"])["counts"]
    assert counts["quarantined/engine_failed"] == 1 and counts["pending"] >= 3


def sleeps():
    time.sleep(60)


def allocates():
    held = []
    while True:
        held.append(bytes(1 << 20))


def exits():
    os._exit(3)


def recurses():
    recurses()


@pytest.mark.parametrize("hostile", [sleeps, allocates, exits, recurses], ids=lambda f: f.__name__)
@pytest.mark.parametrize("where", ["rewrite", "search"])
def test_an_object_over_its_limits_is_quarantined_alone(staged, monkeypatch, hostile, where):
    project, pending, root = staged
    expected = tree(root, steps.deidentify(project, pending["batch"], pending["shard"]))
    for zone in ("candidate", "work/demo-screening/parts"):
        shutil.rmtree(root / zone)
    monkeypatch.setattr(shard.Job, "__init__", limited(shard.Job.__init__))
    victim = sorted((root / "landing").rglob("*.dcm"))[0].read_bytes()
    digest = hashlib.sha256(victim).digest()
    rewrite, search = shard.rewrite, shard.second_look.search
    seen = []

    def rewriting(*args, **options):
        if options["expect"] == digest and where == "rewrite":
            hostile()
        result = rewrite(*args, **options)
        if args[0].name != "canary":        # they are no objects, and are not looked for
            seen.append(result.source_sha256)
        return result

    def searching(*args):
        if digest in seen and seen.pop(0) == digest:
            hostile()
        return search(*args)

    monkeypatch.setattr(shard, "rewrite", rewriting)
    if where == "search":
        monkeypatch.setattr(shard.second_look, "search", searching)
    done = steps.deidentify(project, pending["batch"], pending["shard"])
    found = tree(root, done)
    reason = "engine_failed" if hostile is recurses else "limit_exceeded"
    assert done["counts"][f"quarantined/{reason}"] == 1
    rows = tables.read(open_store(project.zones.work, "work"), layout.outcomes(project.name, done["part"])).to_pylist()
    assert len(rows) == len({row["source_uri"] for row in rows})
    assert [row["reason"] for row in rows if row["source_sha256"] == digest] == [reason]
    assert found.items() < expected.items() and len(found) == len(expected) - 1


def tree(root, done):
    """Digest of every object of the candidate zone, which must hold nothing else but tables: no scratch is left."""
    beside = ("facts.parquet", "content.parquet")
    files = [path for path in (root / "candidate").rglob("*") if path.is_file() and path.name not in beside]
    assert all(path.suffix == ".dcm" and ".tre-" not in str(path) for path in files)
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def limited(init):
    def with_limits(self, *args, **options):
        init(self, *args, **options)
        self.limits = Limits(seconds=0.5, megabytes=128)

    return with_limits
