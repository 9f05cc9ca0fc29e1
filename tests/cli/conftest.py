"""One project that has gone the whole way by `tre`, shared by the tests that only look at it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

TRE = Path(sys.executable).with_name("tre")


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


def run_tre(*words: object, cwd: Path | None = None, **env: str) -> Said:
    """Run `tre` as a person does: in a process of its own, output not a terminal."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TRE_", "AWS_"))}
    done = subprocess.run(
        [TRE, *map(str, words)], capture_output=True, text=True, env={**clean, **env}, cwd=cwd, check=False
    )
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def tre():
    return run_tre


@dataclass(frozen=True)
class Gone:
    """A project after `tre run`: where it is, its environment, what the run said, and every planted value."""

    root: Path
    env: dict[str, str]
    said: Said
    sentinels: frozenset[str]

    @property
    def project(self) -> Path:
        return self.root / "project.toml"

    @property
    def release_url(self) -> str:
        current = json.loads((self.root / "release/demo-screening/current.json").read_text())
        return f"file://{self.root}/release/demo-screening/releases/{current['release']}"


@pytest.fixture(scope="session")
def gone(tmp_path_factory):
    from pipeline.deidentify.keys import create_key
    from pipeline.synthetic.demo import write_demo

    root = tmp_path_factory.mktemp("whole-way")
    truth = write_demo(root, women=2)
    create_key(root / "keys", "demo-screening")
    env = {"TRE_KEY_DIR": str(root / "keys")}
    said = run_tre("run", root / "project.toml", "--approve-as", "officer", **env)
    assert said.code == 0, said.err + said.out
    return Gone(root, env, said, truth.sentinels)
