"""`make demo` on file zones, as a newcomer runs it; and what is left when it is stopped half-way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("airflow")]


def start(folder: Path) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "TRE_"))}
    env |= {"DEMO_STORE": "file", "DEMO_DIR": str(folder), "SIZE": "", "KEEP": "", "ACCEPT": ""}
    command = [sys.executable, "-m", "infra.demo.run"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def left_over(folder: Path) -> list[str]:
    """Return the processes that work below this folder: the demo starts every one of them there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str((process / "cwd").readlink()).startswith(f"{folder}/"):
                found.append(process.name)
        except OSError:
            continue
    return found


def test_the_demo_ends_with_the_totals_it_must_have(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    process = start(folder)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said[-6000:]
    assert "The demo officer (demo-officer) approves exactly this" in said
    assert "The totals are those of infra/demo/expected.json." in said
    report = next(line.split()[1] for line in said.splitlines() if line.startswith("Report"))
    assert Path(report.removeprefix("file://")).stat().st_size > 10_000
    assert left_over(folder) == []


def test_a_demo_that_is_stopped_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    process = start(folder)
    assert process.stdout
    for line in process.stdout:
        if "Airflow answers" in line:
            break
    assert len(left_over(folder)) > 3, "the search finds what runs"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    until = time.monotonic() + 10
    while left_over(folder) and time.monotonic() < until:
        time.sleep(0.2)
    assert left_over(folder) == []


def test_disk_and_s3_differ_only_in_what_s3_cannot_hold() -> None:
    expected = json.loads((ROOT / "infra" / "demo" / "expected.json").read_text())
    disk, s3 = expected["file"], expected["s3"]
    landed = {store: totals["objects"] for store, totals in expected.items()}
    special = disk["ledger"]["rejected"].pop("not_a_regular_file")
    assert landed["file"] - landed["s3"] == special
    del disk["objects"], s3["objects"]
    assert disk == s3
    assert sum(n for reasons in s3["ledger"].values() for n in reasons.values()) == landed["s3"]
