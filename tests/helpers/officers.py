"""Officers of the tests: keys of their own and a list of officers, and their signatures on what a project runs.

Nothing here goes round the check: projects that are no demo run in tests because somebody has signed them.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from pipeline import config
from pipeline.govern import approved, signatures
from pipeline.govern.officers import VARIABLE

SECTION = '\n[approve]\napprovals = "approvals"\n'     # to be put behind a project's text


@cache
def folder() -> Path:
    """A directory that is gone with the process, away from every project."""
    kept = tempfile.TemporaryDirectory(prefix="officers-")
    folder.kept = kept      # type: ignore[attr-defined]
    return Path(kept.name)


@cache
def key(name: str) -> Any:
    """The private key of an officer, made on first use."""
    path = folder() / "keys" / f"{name}.key"
    signatures.new_key(path)
    return signatures.load_key(path, str)


def public(name: str) -> str:
    return base64.b64encode(signatures.public_of(key(name))).decode()


def write_list(path: Path, officers: Mapping[str, Sequence[str]], keys: Mapping[str, str] | None = None,
               approvers: Mapping[str, int] | None = None) -> Path:
    """Write a list of officers, name → projects. `keys`: of some of them, in base64, instead of their own."""
    lines = ["schema_version = 1"]
    for name, projects in officers.items():
        said = (keys or {}).get(name) or public(name)
        lines += ["[[officer]]", f'name = "{name}"', f'key = "{said}"', f"projects = {json.dumps(list(projects))}"]
    lines += ["[approvers]", *(f"{project} = {least}" for project, least in (approvers or {}).items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]))
    path.chmod(0o644)
    return path


@cache
def usual_list() -> Path:
    """A list with one officer, `tester`, for every project."""
    return write_list(folder() / "officers.toml", {"tester": ["*"]})


@contextmanager
def listed(path: Path | None = None) -> Iterator[None]:
    """TRE_OFFICERS names this list meanwhile; without one, the usual."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(path or usual_list())
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def sign(project: Path, *names: str, by: str = "tester", today: date | None = None, days: int = 30,
         **options: Any) -> Path:
    """Have an officer sign what a project runs (or the files of these names); return the file of approvals."""
    made, today = config.load(project), today or date.today()
    return approved.approve(made, by, key(by), approved.chosen(made, names), today=today,
                            expires=today + timedelta(days), **options)
