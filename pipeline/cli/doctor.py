"""`tre doctor`: can this machine, and this project, do the work? Says so before anything starts; changes nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.cli.show import examples, table
from pipeline.errors import EnvironmentUnfit, NotFound, TreError

if TYPE_CHECKING:
    from pipeline.config import ProjectConfig

GIB = 1024**3
EXAMPLES = examples(
    "tre doctor                                  this machine, for the demo with its S3 server",
    "tre doctor --store file                     this machine, for zones on its own disk",
    "tre doctor PROJECT.toml                     and this project: file, key, recipes, people, stores, PACS",
)
ZONES = ("landing", "work", "candidate", "release")
NEEDED = ("apache-airflow", "pydicom", "deid", "great-expectations", "boto3", "pyarrow", "duckdb")


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table. `mend` says what to do where it is not a pass."""

    name: str
    result: Literal["pass", "warn", "fail"]
    found: str
    mend: str = ""


def doctor(
    project: Annotated[Path | None, typer.Argument(help="A project file to check too.", show_default=False)] = None,
    store: Annotated[
        Literal["s3", "file"], typer.Option(help="What the demo keeps its zones on: its own S3 server, or plain files.")
    ] = "s3",
    at: Annotated[Path, typer.Option(help="The directory that will hold working files.")] = Path(),
) -> None:
    """Check this machine, and a project file if one is given. Ends with 70 where something fails."""
    checks = [*machine(at, store), *(of_project(project) if project else ())]
    marks = {"pass": "[green]pass[/green]", "warn": "[yellow]warn[/yellow]", "fail": "[red]FAIL[/red]"}
    table(
        "tre doctor", ("check", "result", "found", "mend"), [(c.name, marks[c.result], c.found, c.mend) for c in checks]
    )
    failed = [c.name for c in checks if c.result == "fail"]
    if failed:
        raise EnvironmentUnfit(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}.")
    print(f"{len(checks)} checks, none failed.")


def machine(at: Path, store: str) -> Iterator[Check]:
    """Yield what is found of this machine."""
    yield _system(store)
    ok = sys.version_info[:2] == (3, 11)
    yield Check("Python", "pass" if ok else "fail", platform.python_version(), "" if ok else "Python 3.11 is needed.")
    inside = sys.prefix != sys.base_prefix
    yield Check(
        "environment", "pass" if inside else "warn", "its own" if inside else "the system's",
        "" if inside else "Run make install and use .venv/bin/tre.",
    )
    yield _packages()
    yield _xattr(at, store)
    yield _amount("disk", shutil.disk_usage(existing(at)).free, 2 * GIB, 5 * GIB, "Free some space, or give --at.")
    yield _amount("memory", _memory(), GIB, 3 * GIB, "Close other programs: Airflow alone takes about 1 GB.")
    yield _ports()


def _system(store: str) -> Check:
    system = platform.system()
    if system == "Linux":
        return Check("system", "pass", f"Linux {platform.machine()}")
    if system == "Darwin":
        mend = "Tested on Linux only." if store == "file" else "The S3 server has no macOS build: DEMO_STORE=file."
        return Check("system", "warn" if store == "file" else "fail", f"macOS {platform.machine()}", mend)
    return Check("system", "fail", system, "Linux is needed (on Windows, WSL 2).")


def _packages() -> Check:
    missing = []
    for name in NEEDED:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check("packages", "fail", f"missing: {', '.join(missing)}", "Run make install.")
    return Check("packages", "pass", f"Airflow {importlib.metadata.version('apache-airflow')} and what it needs")


def _xattr(at: Path, store: str) -> Check:
    try:
        with tempfile.NamedTemporaryFile(dir=existing(at), prefix=".tre-doctor-") as file:
            os.setxattr(file.name, "user.tre.doctor", b"1")
        return Check("user extended attributes", "pass", "the disk keeps them")
    except (OSError, AttributeError):
        mend = "The demo's S3 server needs them: give --at another disk, or make demo DEMO_STORE=file."
        return Check("user extended attributes", "fail" if store == "s3" else "warn", "not on this disk", mend)


def _amount(name: str, have: int, least: int, enough: int, mend: str) -> Check:
    found = f"{have / GIB:.1f} GB free"
    if have >= enough:
        return Check(name, "pass", found)
    return Check(name, "fail" if have < least else "warn", found, f"{enough // GIB} GB is comfortable. {mend}")


def _memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _ports() -> Check:
    sockets = []
    try:
        for _ in range(8):
            one = socket.socket()
            sockets.append(one)
            one.bind(("127.0.0.1", 0))
            one.listen()
        return Check("ports", "pass", "127.0.0.1 gives free ones")
    except OSError:
        return Check("ports", "fail", "127.0.0.1 gives no free port", "Allow this user to listen on 127.0.0.1.")
    finally:
        for one in sockets:
            one.close()


def existing(at: Path) -> Path:
    """Return `at`, or its nearest parent that is there."""
    at = at.absolute()
    return next(p for p in (at, *at.parents) if p.is_dir())


def of_project(path: Path) -> Iterator[Check]:
    """Yield what is found of a project: its file, key, recipes, people, crosswalk, stores and PACS, each on its own."""
    from pipeline import config as files

    try:
        config = files.load(path)
    except TreError as error:
        yield Check("project file", "fail", error.code, str(error))
        return
    yield Check("project file", "pass", config.name)
    looks = (("approvals", _approvals), ("key", _key), ("recipes", _recipes), ("permitted people", _people),
             ("crosswalk", _crosswalk))
    for name, look in looks:
        yield _said(name, look, config)
    if config.deidentify.pixels.ocr:
        yield _reader(config)
    for zone in ZONES:
        yield _said(f"zone {zone}", _zone, config, zone)
    from pipeline.cli import doctor_pacs

    if config.retrieve:
        yield from doctor_pacs.of_retrieve(config, config.retrieve)
    if config.listen:
        yield from doctor_pacs.of_listen(config, config.listen)


def ready(config: ProjectConfig) -> None:
    """Raise what would stop this project, before anything is read or moved: approvals, key, recipes, people, stores."""
    from pipeline.side import approved

    approved(config)        # the audit log tells where it was refused
    for look in (_key, _recipes, _people, _crosswalk):
        look(config)
    for zone in ZONES:
        _zone(config, zone)


def _said(name: str, look: Callable[..., str], *args: object) -> Check:
    """Return what `look` found; an error of the tree is a failed check, and says its own mend."""
    try:
        return Check(name, "pass", look(*args))
    except TreError as error:
        return Check(name, "fail", error.code, str(error))


def _approvals(config: ProjectConfig) -> str:
    from datetime import UTC, datetime

    from pipeline.govern.approved import require

    found = require(config, datetime.now(UTC).date())
    if found.officers is None:
        return "not asked for: a demo, and no list of officers here"
    loose = "; this account may change the list of officers" if found.officers.changeable else ""
    return f"{len(found.verdicts)} files, by {found.officers.needed(config)} officers each{loose}"


def _key(config: ProjectConfig) -> str:
    from pipeline.deidentify.keys import load_key

    return f"key id {load_key(config.name).id}"


def _recipes(config: ProjectConfig) -> str:
    from pydicom.uid import UID

    from pipeline.deidentify.plan import load_plans
    from pipeline.govern.sop_classes import resolve

    plans = load_plans(config)
    bare = sorted(UID(uid).name for uid in resolve(config.eligibility.sop_classes, config.path) - plans.plans.keys())
    held = f"; eligible without a recipe, so quarantined: {', '.join(bare)}" if bare else ""
    return f"plan {plans.id}, {len(plans.plans)} SOP classes{held}"


def _reader(config: ProjectConfig) -> Check:
    from pipeline.deidentify.devices import policy

    try:
        asked = policy(config)
    except TreError as error:
        return Check("text in pixels", "fail", error.code, str(error))
    if asked.installed:
        return Check("text in pixels", "pass", asked.reader)
    return Check("text in pixels", "warn", "the extra `ocr` is not installed: what must be read is quarantined",
                 "pip install 'tre-ingest[ocr]'")


def _people(config: ProjectConfig) -> str:
    from datetime import UTC, datetime

    from pipeline.govern.people import load_permitted

    ids = load_permitted(config, datetime.now(UTC).date()).ids
    return "not required, by the legal basis in the project file" if ids is None else f"{len(ids):,} people"


def _crosswalk(config: ProjectConfig) -> str:
    from pipeline.deidentify.crosswalk import load

    if not config.project.linked:
        return "none: the project is not linked"
    load(config)
    return "read"


def _zone(config: ProjectConfig, zone: str) -> str:
    """Open the zone; probe the one that publishing depends on. Nothing is left behind."""
    from pipeline.storage import open_store
    from pipeline.storage.probe import probe

    url = getattr(config.zones, zone)
    try:
        store = open_store(url, zone, create=False)
    except NotFound:
        if zone == "landing" or not url.startswith("file://"):
            raise
        return "will be made"
    if zone != "release":
        next(iter(store.list()), None)
        return "can be read"
    return f"digests are checked by the {probe(store).digest_checked}"
