"""A store or a machine that fails is not the object's fault: nothing is quarantined, and a retry does the work."""

import errno
from datetime import date

import pytest

from pipeline import config, layout, steps
from pipeline.deidentify import shard
from pipeline.errors import StoreUnreachable
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
    [StoreUnreachable("The store does not answer."), OSError(errno.ENOSPC, "no space left"), MemoryError()],
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
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("quotes a value")
        return real(*args, **options)

    monkeypatch.setattr(shard, "rewrite", once)
    counts = steps.deidentify(project, pending["batch"], pending["shard"])["counts"]
    assert counts["quarantined/engine_failed"] == 1 and counts["pending"] >= 3
