"""A small project, the states it goes through undisturbed, and runs of its steps in processes that a test may break."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from points import STEPS

from pipeline.publish.verify import verify
from pipeline.synthetic.population import population, write
from pipeline.synthetic.project import project_text

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NAME = "demo-screening"
KEY = hashlib.sha256(b"tests").hexdigest()
ZONES = ("work", "candidate", "release")
# times, people, and what is said of them: outside what must be the same
OUTSIDE = {"run.json", "approvals", "leases", "audit", "candidate.html"}
TIMED = {"recalls", "certificates"}  # when a recall was ordered and certified: the same but for that


@dataclass(frozen=True)
class Ended:
    """How a child ended: `code` as subprocess says it, and what it answered (nothing, where it was killed)."""

    code: int
    answer: dict[str, Any]
    log: str

    @property
    def error(self) -> str | None:
        return self.answer.get("error")


class Zygote:
    """The process that forks the children (zygote.py)."""

    def __init__(self, folder: Path) -> None:
        self._numbers, self._folder = itertools.count(), folder
        env = {k: v for k, v in os.environ.items() if not k.startswith(("TRE_", "AWS_"))}
        env |= {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, HERE / "zygote.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def start(self, project: Path, *steps: list[Any], env: dict[str, str], **more: Any) -> tuple[int, Path]:
        out = self._folder / f"child-{next(self._numbers)}.json"
        order = {"project": str(project), "steps": steps, "env": env, "out": str(out), **more}
        return int(self._ask({"start": order})["pid"]), out

    def wait(self, started: tuple[int, Path]) -> Ended:
        pid, out = started
        code = int(self._ask({"wait": pid})["code"])
        answer = json.loads(out.read_text()) if out.exists() else {}
        return Ended(code, answer, Path(f"{out}.log").read_text())

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)


@dataclass
class Bench:
    """One folder in which the same project is run again and again. Its zones' states after each step are kept."""

    folder: Path
    zygote: Zygote
    states: dict[str, dict[str, str]] = field(default_factory=dict)
    order: tuple[str, ...] = STEPS
    file: str = "project.toml"
    candidate: str = ""
    changes: list[tuple[str, str, str, str]] = field(default_factory=list)

    @property
    def project(self) -> Path:
        return self.folder / self.file

    @property
    def env(self) -> dict[str, str]:
        return {"TRE_KEY_DIR": str(self.folder / "keys")}

    # ---- running ---------------------------------------------------------------------------------------------
    def words(self, *steps: str) -> list[list[Any]]:
        named = ("curate", "validate", "publish")
        return [[step, self.candidate] if step in named else [step] for step in steps]

    def start(self, *steps: list[Any], **more: Any) -> tuple[int, Path]:
        known = {"known": str(self.folder / "validation.pickle")}
        return self.zygote.start(self.project, *steps, env={**self.env, **more.pop("env", {})}, **{**known, **more})

    def run(self, *steps: list[Any], **more: Any) -> Ended:
        return self.zygote.wait(self.start(*steps, **more))

    def do(self, *steps: str, **more: Any) -> Ended:
        """Run these steps, undisturbed; they must succeed."""
        done = self.run(*self.words(*steps), **more)
        assert done.code == 0, done.log
        return done

    # ---- states ----------------------------------------------------------------------------------------------
    def digests(self, *zones: str) -> dict[str, str]:
        found = {}
        for zone in zones or ZONES:
            for path in sorted((self.folder / zone).rglob("*")):
                temporary = any(part.startswith(".tre-") for part in path.parts)  # a kill leaves them; none is listed
                if path.is_file() and not temporary and not OUTSIDE & set(path.parts):
                    data = path.read_bytes()
                    if path.parent.name in TIMED:
                        data = re.sub(rb"\d{4}-\d\d-\d\dT[\d:+.]+", b"a time", data)
                    found[str(path.relative_to(self.folder))] = hashlib.sha256(data).hexdigest()
        return found

    def save(self, step: str) -> None:
        self.states[step] = self.digests()
        for zone in ZONES:
            if (self.folder / zone).exists():
                shutil.copytree(self.folder / zone, self.folder / "saved" / step / zone)

    def restore(self, step: str | None) -> None:
        """Put the zones back to what they were after this step; None: before the first."""
        for zone in ZONES:
            shutil.rmtree(self.folder / zone, ignore_errors=True)
            saved = self.folder / "saved" / str(step) / zone
            if step and saved.exists():  # links: no step changes a file, it puts another in its place
                shutil.copytree(saved, self.folder / zone, copy_function=os.link)

    def before(self, step: str) -> None:
        index = self.order.index(step)
        self.restore(self.order[index - 1] if index else None)

    # ---- what must hold at every moment ------------------------------------------------------------------------
    def release_url(self) -> str | None:
        current = self.folder / "release" / NAME / "current.json"
        if not current.exists():
            return None
        return f"{(self.folder / 'release').as_uri()}/{NAME}/releases/{json.loads(current.read_text())['release']}"

    def whole(self) -> None:
        """No half release is visible, and no half candidate."""
        if url := self.release_url():
            assert verify(url).images > 20
        latest = self.folder / "candidate" / NAME / "latest.json"
        manifests = list((self.folder / "candidate" / NAME).glob("candidates/*/candidate.json"))
        if latest.exists():
            assert manifests
        for manifest in manifests:
            for file in json.loads(manifest.read_text())["files"]:
                assert hashlib.sha256((manifest.parent / file["name"]).read_bytes()).hexdigest() == file["sha256"]

    def releases(self) -> list[str]:
        return sorted(p.parent.name for p in (self.folder / "release").glob("*/releases/*/manifest.json"))


def make(folder: Path, zygote: Zygote, women: int = 2) -> Bench:
    """Lay out a landing of about thirty objects in two shards."""
    folder.mkdir(parents=True)
    pop = population(women, 1)
    write(folder, pop, as_of=date.today())
    (folder / "landing" / "not-dicom.txt").write_bytes(b"not DICOM")
    shutil.copyfile(folder / "landing" / pop.landed[0].key, folder / "landing" / "twin.dcm")
    text = project_text(*((folder / zone).as_uri() for zone in ("landing", *ZONES)))
    text = text.replace("quiet_seconds = 60", "quiet_seconds = 0\nshard_instances = 16")
    (folder / "project.toml").write_text(text)
    (folder / "keys").mkdir(mode=0o700)
    key = folder / "keys" / f"{NAME}.key"
    key.write_text(KEY + "\n")
    key.chmod(0o600)
    return Bench(folder, zygote)


def undisturbed(bench: Bench) -> Bench:
    """Run every step in peace; keep the state after each, and every change of a zone."""
    record = bench.folder / "changes.jsonl"
    for step in STEPS:
        done = bench.do(step, fault={"kind": "recording", "to": str(record)})
        if step == "assemble":
            bench.candidate = done.answer["results"][0]["candidate"]
        bench.save(step)
    bench.changes = [tuple(json.loads(line)) for line in record.read_text().splitlines()]
    return bench


@contextmanager
def zygote(folder: Path) -> Iterator[Zygote]:
    made = Zygote(folder)
    try:
        yield made
    finally:
        made.close()
