"""The project file: TOML, one section a room, read into a frozen `ProjectConfig`. Unknown keys are refused by line.

Paths in it are relative to the file. `${NAME}` is replaced from the environment in `[zones]` only.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from pipeline.errors import ProjectFileError
from pipeline.sections import (
    Approve,
    Audit,
    Clinical,
    Curate,
    Deidentify,
    Eligibility,
    Equipment,
    Listen,
    Pixels,
    Project,
    Retrieve,
    Section,
    Stage,
    Validate,
    Zones,
)

PRODUCT = Path(__file__).resolve().parents[1]       # the checkout, with deid_recipes/, expectations/ and infra/


class ProjectConfig(Section):
    schema_version: Literal[1]
    project: Project
    zones: Zones
    stage: Stage = Stage()
    eligibility: Eligibility
    deidentify: Deidentify
    clinical: tuple[Clinical, ...] = ()
    equipment: Equipment = Equipment()
    curate: Curate = Curate()
    validate_: Validate = Field(default=Validate(), alias="validate")
    audit: Audit = Audit()
    approve: Approve = Approve()
    retrieve: Retrieve | None = None
    listen: Listen | None = None
    path: Path = Field(default=Path("project.toml"), exclude=True)

    @property
    def name(self) -> str:
        return self.project.name

    def beside(self, path: Path) -> Path:
        """Return a path of the project file as an absolute one."""
        return path if path.is_absolute() else (self.path.parent / path).resolve()

    def recipe(self, name: str) -> Path:
        """Return a recipe of the product by bare name, else a path beside the project file."""
        shipped = PRODUCT / "deid_recipes" / name
        return shipped if "/" not in name and shipped.is_file() else self.beside(Path(name))

    def suite_folders(self) -> tuple[Path, ...]:
        """Return the directories of expectation suites: the product's, then the project's own, which goes before it."""
        given = self.validate_.suites
        return (PRODUCT / "expectations", *([self.beside(given)] if given else []))

    def meaning(self) -> bytes:
        """Return what of the file changes a dataset, as canonical JSON: no zones, no titles, no sizes of shards."""
        unmeant = {"zones", "stage", "approve", "retrieve", "listen", "path"}
        doc = self.model_dump(mode="json", by_alias=True, exclude=unmeant)
        for people_or_table in (doc["eligibility"]["people"], doc["deidentify"], *doc["clinical"]):
            for key in ("list", "max_age_days", "crosswalk", "accept_crosswalk_changes", "file", "limit_seconds",
                        "limit_bytes"):
                people_or_table.pop(key, None)
        if self.audit == Audit():
            del doc["audit"]
        del doc["deidentify"]["terms"], doc["deidentify"]["terms_people"]      # they count by what they say: the plan
        if self.deidentify.age_band_years == 5:     # what it always was
            del doc["deidentify"]["age_band_years"]
        if self.deidentify.pixels == Pixels():
            del doc["deidentify"]["pixels"]
        doc["deidentify"].get("pixels", {}).pop("devices", None)    # the list counts by what it says, in the plan
        if self.validate_.small_groups is None:
            del doc["validate"]["small_groups"]
        del doc["equipment"], doc["curate"]["glandular_dose"]       # these tables count by what they say
        doc["stage"] = {"issuer": self.stage.issuer}
        doc["project"] = {k: doc["project"][k] for k in ("name", "demo", "linked")}
        return json.dumps(doc, sort_keys=True, separators=(",", ":")).encode()


def load(path: str | Path, **zones: str | None) -> ProjectConfig:
    """Read a project file; `zones` given by name replace those of the file. Raises ProjectFileError."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ProjectFileError(
            f"{path}: cannot be read ({error.strerror}).", hint="Give the path of a project file."
        ) from None
    except UnicodeDecodeError:
        raise ProjectFileError(f"{path}: not UTF-8.", hint="Give the path of a project file, in TOML.") from None
    try:
        doc = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProjectFileError(f"{path}: not TOML: {error}.") from None
    given = {name: url for name, url in zones.items() if url}
    doc["zones"] = {
        name: _expand(str(url), path) for name, url in {**doc.get("zones", {}), **given}.items()
    }
    try:
        config = ProjectConfig.model_validate(doc)
    except ValidationError as error:
        raise ProjectFileError("\n".join(_say(path, text, dict(e)) for e in error.errors())) from None
    return config.model_copy(update={"path": path.resolve()})


def _expand(url: str, path: Path) -> str:
    def value(match: re.Match[str]) -> str:
        try:
            return os.environ[match[1]]
        except KeyError:
            raise ProjectFileError(f"{path}: [zones] needs the environment variable {match[1]}.") from None

    return re.sub(r"\$\{([A-Z][A-Z0-9_]*)\}", value, url)


def _say(path: Path, text: str, error: dict[str, Any]) -> str:
    """One refusal as `file:line: key: what is wrong`, without the value that was given."""
    where = [str(part) for part in error["loc"]]
    line = _line_of(text, where)
    what = "unknown key" if error["type"] == "extra_forbidden" else error["msg"].removeprefix("Value error, ")
    what = what.replace("valid tuple", "list")
    return f"{path}:{line}: {'.'.join(where) or 'file'}: {what}"


def _line_of(text: str, where: list[str]) -> int:
    """The line that most likely holds the key: the last named part found below its section's header."""
    names = [w for w in where if not w.isdigit()]
    lines = text.splitlines()
    start = 0
    for depth in range(len(names), 0, -1):
        header = re.compile(r"^\s*\[\[?\s*" + r"\s*\.\s*".join(map(re.escape, names[:depth])) + r"\s*\]\]?")
        found = [n for n, line in enumerate(lines) if header.match(line)]
        if found:
            start = found[0]
            names = names[depth:]
            break
    for name in reversed(names):
        for n in range(start, len(lines)):
            key = re.escape(name)
            if re.match(rf"\s*{key}\s*[=.]", lines[n]) or re.search(rf"[{{,]\s*{key}\s*=", lines[n]):
                return n + 1
    return start + 1
