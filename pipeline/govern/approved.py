"""Does everything that a project runs have its approval? Recipes, concept rules, suites, approved lists, its file.

An approval is an entry of a TOML file in `infra/approvals/`, or in the directory that the project file names in
`[approve] approvals`: which bytes, under which name, for which project, by whom, from when until when, and an Ed25519
signature over all of that by a key that the list of officers (officers.py) has for this project. What is not approved
by as many officers as it takes does not run. There is no option against it: only a demo project, and only on a machine
without a list of officers, runs what nobody approved (docs/adr/0012-approval-of-what-runs.md).
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date as Day
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline import config as project_files
from pipeline.config import PRODUCT, ProjectConfig
from pipeline.errors import FilesNotApproved, NotFound, UsageError
from pipeline.govern import officers as room
from pipeline.govern.officers import EVERY, Officers
from pipeline.govern.signatures import Statement, holds, public_of, sign

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MOST_DAYS = 731         # from approval to expiry
FOLDER = PRODUCT / "infra" / "approvals"
PROJECT, CANDIDATE = "project", "candidate"
OWN = (PROJECT, CANDIDATE)      # kinds that are approved for their own project alone


@dataclass(frozen=True, slots=True)
class Run:
    """A file that a project runs, by its `kind` (as in `runs`, or project) and `name` as named there; or a candidate,
    by its id and the digest of its manifest."""

    kind: str
    name: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}, {self.sha256[:12]})"


class Entry(BaseModel):
    """One approval as it stands in a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: str
    name: str
    sha256: str
    project: str
    approver: str
    date: Day
    expires: Day
    signature: str

    @property
    def statement(self) -> Statement:
        return Statement(self.kind, self.name, self.sha256, self.project, self.approver, self.date, self.expires)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1]
    approval: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the approvals say of one file: `by` are valid, one an officer; `why` says what is wrong with the others."""

    run: Run
    needed: int
    by: tuple[Entry, ...]
    why: tuple[str, ...]

    @property
    def approved(self) -> bool:
        return len(self.by) >= self.needed

    @property
    def until(self) -> Day:
        """The last day on which enough of the approvals hold, of a file that is approved."""
        return sorted((entry.expires for entry in self.by), reverse=True)[self.needed - 1]

    def reason(self) -> str:
        """Return why not, in words."""
        have = (f"{len(self.by)} of {self.needed} approvers ({', '.join(entry.approver for entry in self.by)})"
                if self.by else "nobody has approved it")
        return "; ".join([have, *self.why])


@dataclass(frozen=True, slots=True)
class Standing:
    """Every file a project runs, with its verdict. `officers` is None where nobody's approval is asked for."""

    officers: Officers | None
    verdicts: tuple[Verdict, ...]

    @property
    def lacking(self) -> tuple[Verdict, ...]:
        return () if self.officers is None else tuple(v for v in self.verdicts if not v.approved)

    def named(self) -> dict[str, str]:
        """Return the digest of each file by its kind and name, as the function `named` does."""
        return _named(v.run for v in self.verdicts)

    def digest(self) -> str:
        """Return an id of exactly these files, for the audit log."""
        return hashlib.sha256("".join(v.run.sha256 for v in self.verdicts).encode()).hexdigest()


def runs(config: ProjectConfig) -> list[Run]:
    """Return what the project runs, each file once. Raises NotFound, naming a file that is not there."""
    found: dict[tuple[str, str], Path] = {(PROJECT, config.path.name): config.path}
    for use in config.deidentify.recipes:
        for name in use.files:
            found["concepts" if name.endswith(".toml") else "recipe", name] = config.recipe(name)
    for kind, path in (("terms", config.deidentify.terms), ("devices", config.deidentify.pixels.devices)):
        if path:
            found[kind, str(path)] = config.beside(path)
    for folder in config.suite_folders():       # the later goes before the earlier, as for validate.suites
        found |= {("suite", path.name): path for path in sorted(folder.glob("*.json"))}
    return [Run(kind, name, _sha256(path)) for (kind, name), path in sorted(found.items())]


def standing(config: ProjectConfig, today: Day) -> Standing:
    """Return what is approved of what the project runs. Raises OfficersRefused, NotFound, FilesNotApproved (an approval
    file that cannot be read, or settings that are not those of the project file)."""
    officers = room.load(config)
    if officers is None:
        return Standing(None, tuple(Verdict(run, 0, (), ()) for run in runs(config)))
    _same_as_file(config)
    entries = list(_entries(config))
    needed = officers.needed(config)
    return Standing(officers, tuple(_judge(run, entries, officers, config, needed, today) for run in runs(config)))


def require(config: ProjectConfig, today: Day) -> Standing:
    """Return the standing of a project whose every file is approved. Raises FilesNotApproved, which names the others,
    and what `standing` raises."""
    if room.load(config) is None:
        return Standing(None, ())
    found = standing(config, today)
    if found.lacking:
        said = [f"{v.run}: {v.reason()}" for v in found.lacking]
        more = f"; and {len(said) - 20} more" if len(said) > 20 else ""
        raise FilesNotApproved(f"Not approved, so {config.name} does not run: {'; '.join(said[:20])}{more}.",
                               hint="An officer reads them and signs: tre approve PROJECT.toml --as NAME.")
    return found


def of_candidate(config: ProjectConfig, candidate: str, digest: str, today: Day) -> Verdict | None:
    """Return what officers have signed of exactly these bytes of a candidate (`digest`: of its manifest); None for a
    demo, whose candidates are answered without a key. Raises as `standing` does."""
    if config.project.demo:
        return None
    officers = room.load(config)
    assert officers is not None, "a project that is no demo has a list of officers, or is refused"
    run = Run(CANDIDATE, candidate, digest)
    return _judge(run, _entries(config), officers, config, officers.needed(config), today)


def chosen(config: ProjectConfig, names: Iterable[str]) -> list[Run]:
    """Return what the project runs, or of that the files of these names. Raises UsageError, naming one that it does not
    run."""
    every, wanted = runs(config), list(names)
    for name in wanted:
        if not any(run.name == name or Path(run.name).name == Path(name).name for run in every):
            raise UsageError(f"{config.name} does not run {Path(name).name}.",
                             hint="tre approve --check PROJECT.toml lists what it runs.")
    short = {Path(name).name for name in wanted}
    return [run for run in every if not wanted or Path(run.name).name in short]


def named(config: ProjectConfig) -> dict[str, str]:
    """Return the digest of each file that the project runs by its kind and name, as the audit log has it."""
    return _named(runs(config))


def _named(files: Iterable[Run]) -> dict[str, str]:
    return {f"{run.kind} {run.name}": run.sha256 for run in files}


def known(config: ProjectConfig, approver: str, private: Ed25519PrivateKey) -> None:
    """Raise FilesNotApproved where the list of officers does not have this key under this name for the project."""
    officers = room.load(config)
    if officers is not None:
        officer = officers.by_name.get(approver)
        if officer is None or officer.public != public_of(private) or not officer.may(config.name):
            raise FilesNotApproved("The list of officers does not have this key under this name for this project.",
                                   hint="The machine's administrator keeps the list; tre approve --check shows it.")


def approve(config: ProjectConfig, approver: str, private: Ed25519PrivateKey, wanted: Iterable[Run], *, today: Day,
            expires: Day, every_project: bool = False) -> Path:
    """Sign these files and write the approvals as a new file; return its path.

    `every_project`: for whatever project names them, but for the project file. Raises FilesNotApproved where the list
    of officers does not have this key under this name for the project, UsageError for dates that cannot be.
    """
    known(config, approver, private)
    if not today <= expires <= today + timedelta(MOST_DAYS):
        raise UsageError(f"An approval ends on a day from today to {MOST_DAYS} days ahead.")
    lines = ["schema_version = 1"]
    for run in wanted:
        project = EVERY if every_project and run.kind not in OWN else config.name
        said = Statement(run.kind, run.name, run.sha256, project, approver, today, expires)
        lines += ["", "[[approval]]", *_toml(said), f'signature = "{sign(private, said)}"']
    text = "\n".join([*lines, ""])
    folder = config.beside(config.approve.approvals) if config.approve.approvals else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{today}-{approver}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.toml"
    draft = path.with_suffix(".part")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    return path


def _toml(said: Statement) -> Iterator[str]:
    """Yield a statement's fields as lines of TOML."""
    for name in ("kind", "name", "sha256", "project", "approver"):
        text = str(getattr(said, name)).replace("\\", "\\\\").replace('"', '\\"')
        if not text.isprintable():
            raise UsageError("A file's name holds what cannot be printed.", hint="Give it another name.")
        yield f'{name} = "{text}"'
    yield f"date = {said.date}"
    yield f"expires = {said.expires}"


def _entries(config: ProjectConfig) -> Iterator[Entry]:
    folders = [FOLDER, *([config.beside(config.approve.approvals)] if config.approve.approvals else [])]
    for path in sorted({path for folder in folders for path in folder.glob("*.toml")}):
        try:
            yield from _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).approval
        except (OSError, ValueError, ValidationError):
            raise FilesNotApproved(f"{path.name} in {path.parent.name}/ is not a file of approvals.",
                                   hint="Have it mended or taken away; an approval is never edited by hand.") from None


def _judge(run: Run, entries: Iterable[Entry], officers: Officers, config: ProjectConfig, needed: int,
           today: Day) -> Verdict:
    valid: dict[str, Entry] = {}
    why: dict[str, None] = {}
    for entry in entries:
        if (entry.kind, entry.name) != (run.kind, run.name):
            continue
        problem = _problem(run, entry, officers, config, today)
        if problem:
            why[problem] = None
        elif (there := valid.get(entry.approver)) is None or there.expires < entry.expires:
            valid[entry.approver] = entry
    return Verdict(run, needed, tuple(valid[name] for name in sorted(valid)), tuple(why) if len(valid) < needed else ())


def _problem(run: Run, entry: Entry, officers: Officers, config: ProjectConfig, today: Day) -> str | None:
    """Return what is wrong with an approval of this file's name; None where it is valid."""
    officer = officers.by_name.get(entry.approver)
    if officer is None:
        return f"{_shown(entry.approver)} is not on the list of officers"
    if not holds(officer.public, entry.statement, entry.signature):
        return f"the signature is not {officer.name}'s, or not of this: the approval was changed or moved"
    if entry.project != config.name and (entry.project != EVERY or run.kind in OWN):
        return f"{officer.name} approved it for another project"
    if not officer.may(config.name):
        return f"{officer.name} is not listed for this project"
    if entry.sha256 != run.sha256:
        return f"{officer.name} approved other bytes ({_shown(entry.sha256[:12])}) on {entry.date}"
    if entry.date > today:
        return f"{officer.name}'s approval is dated {entry.date}, in the future"
    if entry.expires < today:
        return f"{officer.name}'s approval ended on {entry.expires}"
    if entry.expires - entry.date > timedelta(MOST_DAYS):
        return f"{officer.name}'s approval is for more than {MOST_DAYS} days"
    return None


def _shown(text: str) -> str:
    """Return a word of an approval nobody has vouched for, as it may stand in a message."""
    return text if text.isascii() and text.isprintable() and len(text) <= 64 else "somebody"


def _same_as_file(config: ProjectConfig) -> None:
    """Refuse settings that are not those of the file, whose digest is what officers approve. Zones may be others."""
    again = project_files.load(config.path, **config.zones.model_dump())
    if again != config.model_copy(update={"path": again.path}):
        raise FilesNotApproved("The project's settings are not those of its file.", hint="Load the file again.")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise NotFound(f"{path.name}, which the project runs, cannot be read ({error.strerror}).") from None
