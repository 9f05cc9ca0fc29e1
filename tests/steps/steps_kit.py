"""A whole project in a folder, run by the steps, and what its zones hold."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from pipeline import config, steps
from pipeline.ledger.ledger import build
from pipeline.storage import open_store
from pipeline.synthetic.demo import DemoTruth, write_demo

KEY = hashlib.sha256(b"tests").hexdigest()
NAME = "demo-screening"


@dataclass
class Site:
    """One folder with landing, work, candidate and release, and the truth about what landed."""

    folder: Path
    truth: DemoTruth

    @property
    def project(self) -> Path:
        return self.folder / "project.toml"

    def config(self) -> config.ProjectConfig:
        return config.load(self.project)

    def stage(self) -> dict[str, Any]:
        return steps.stage(self.project)

    def deidentify(self) -> list[dict[str, Any]]:
        return [steps.deidentify(self.project, s["batch"], s["shard"]) for s in steps.pending_shards(self.project)]

    def candidate(self) -> dict[str, Any]:
        assembled = steps.assemble(self.project)
        steps.curate(self.project, assembled["candidate"])
        return steps.validate(self.project, assembled["candidate"])

    def release(self, sealed: dict[str, Any]) -> dict[str, Any]:
        steps.approve(self.project, sealed["candidate"], sealed["digest"], "officer", "engineer", "approve")
        return steps.publish(self.project, sealed["candidate"])

    def everything(self) -> dict[str, Any]:
        self.stage()
        self.deidentify()
        return self.release(self.candidate())

    def ledger(self) -> dict[str, tuple[str, str | None]]:
        """Key below landing → (status, reason), by the ledger."""
        made = self.config()
        zones = [open_store(getattr(made.zones, zone), zone) for zone in ("work", "candidate", "release")]
        out = self.folder / "ledger.parquet"
        summary = build(made, *zones, out)
        assert summary.holds, summary.findings
        rows = duckdb.sql(f"select source_uri, status, reason from '{out}'").fetchall()
        prefix = made.zones.landing + "/"
        assert len({uri for uri, *_ in rows}) == len(rows)
        return {uri.removeprefix(prefix): (status, reason) for uri, status, reason in rows}

    def digests(self, *zones: str) -> dict[str, str]:
        """Key → SHA-256 of every file of these zones that is part of what counts (no times, no leases)."""
        found = {}
        for zone in zones:
            for path in sorted((self.folder / zone).rglob("*")):
                outside = {"run.json", "listing.parquet", "approvals", "leases", "audit"} & set(path.parts)
                temporary = path.name.startswith(".tre-")       # a kill leaves them; no store lists them
                if path.is_file() and not outside and not temporary:
                    found[str(path.relative_to(self.folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found


def make(folder: Path, women: int = 15, seed: int = 1) -> Site:
    folder.mkdir(parents=True, exist_ok=True)
    keys = folder / "keys"
    keys.mkdir(mode=0o700)
    key = keys / f"{NAME}.key"
    key.write_text(KEY + "\n")
    key.chmod(0o600)
    os.environ["TRE_KEY_DIR"] = str(keys)
    return Site(folder, write_demo(folder, women=women, seed=seed, as_of=date.today()))


def keep(site: Site) -> Site:
    """Put a copy of all that a site holds beside it, for `put_back`."""
    (site.folder / "landing/hostile/pipe.dcm").unlink(missing_ok=True)      # no copy can be made of it
    shutil.copytree(site.folder, site.folder.with_name("kept"), symlinks=True)
    return site


def put_back(site: Site) -> None:
    """Make a site again what it was when it was kept."""
    shutil.rmtree(site.folder)
    shutil.copytree(site.folder.with_name("kept"), site.folder, symlinks=True)


KILLED = """
import os, signal, sys
from pipeline import steps
from pipeline.storage.local import LocalStore
from pipeline.publish import release as room
name, method, after = sys.argv[1], sys.argv[2], int(sys.argv[3])
whole, calls = getattr(LocalStore, method), [0]
def dying(self, *args):
    calls[0] += 1
    if calls[0] > after:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, *args)
setattr(LocalStore, method, dying)
args = sys.argv[4:]
if name == "publish":       # in this process, so that it is this one that dies
    from pipeline import config, layout
    from pipeline.publish.files import read_json
    from pipeline.storage import open_store
    made = config.load(args[0])
    candidate = open_store(made.zones.candidate, "candidate")
    _, approval = read_json(candidate, layout.approval(made.name, args[1]), "The approval")
    room.publish(candidate, open_store(made.zones.release, "release"), made.name, args[1], approval=approval)
else:
    getattr(steps, name)(*args[:2], *map(int, args[2:]))
"""


def killed(step: str, method: str, after: int, *args: object) -> bool:
    """Run a step in a process that kills itself with -9 at its nth call of a store's method. Return whether it died."""
    command = [sys.executable, "-c", KILLED, step, method, str(after), *map(str, args)]
    return subprocess.run(command, capture_output=True, check=False).returncode == -9
