"""`inside(function, **arguments)` runs a function of inside.py in a process of its own and returns its result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Inside:
    result: Any
    log: str
    home: Path


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Inside]:
    def call(function: str, env: dict[str, str] | None = None, **arguments: Any) -> Inside:
        home = tmp_path_factory.mktemp("airflow")
        given, result = home / "arguments.json", home / "result.json"
        given.write_text(json.dumps(arguments))
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "TRE_"))}
        command = [sys.executable, HERE / "inside.py", function, given, result]
        done = subprocess.run(
            command, env=clean | (env or {}), cwd=home, capture_output=True, text=True, check=False, timeout=600
        )
        log = done.stdout + done.stderr
        (home / "log.txt").write_text(log)
        assert done.returncode == 0, log[-4000:]
        return Inside(json.loads(result.read_text()), log, home)

    return call
