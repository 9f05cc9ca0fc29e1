"""The list of officers: whose key counts, for which projects, and how many must agree. It is where trust begins.

It stands outside everything that a data engineer edits: a file that TRE_OFFICERS names, kept by whoever administers the
machine (docs/adr/0012-approval-of-what-runs.md). TOML:

    schema_version = 1
    [[officer]]
    name = "a.officer"
    key = "…"                   # what tre approve --new-key printed
    projects = ["breast-audit"] # or ["*"]
    [approvers]                 # at least so many, even if the project's file asks for fewer
    breast-audit = 2            # or "*" = 2: in every project
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator, model_validator

from pipeline.config import PRODUCT, ProjectConfig
from pipeline.errors import OfficersRefused
from pipeline.govern.signatures import NAME, fingerprint

VARIABLE = "TRE_OFFICERS"
EVERY = "*"


class Officer(BaseModel):
    """A person, the public half of their key, and the projects they may approve for."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=f"^{NAME.pattern}$")
    key: str
    projects: tuple[str, ...] = Field(min_length=1)

    @field_validator("key")
    @classmethod
    def _ed25519(cls, value: str) -> str:
        if len(base64.b64decode(value, validate=True)) != 32:
            raise ValueError("a key is 32 bytes in base64")
        return value

    @property
    def public(self) -> bytes:
        return base64.b64decode(self.key)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public)

    def may(self, project: str) -> bool:
        return EVERY in self.projects or project in self.projects


class Officers(BaseModel):
    """The list as it was read. `sha256`: of its bytes, so that everybody can tell which list was in force."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1]
    officer: tuple[Officer, ...] = Field(min_length=1)
    approvers: dict[str, PositiveInt] = {}
    sha256: str = Field(default="", exclude=True)
    changeable: bool = Field(default=False, exclude=True)      # by the account that reads it

    @model_validator(mode="after")
    def _one_person_one_key(self) -> Officers:
        names, keys = [o.name.casefold() for o in self.officer], [o.public for o in self.officer]
        if len(set(names)) < len(names) or len(set(keys)) < len(keys):
            raise ValueError("a name, or a key, is listed twice: two approvers are two people with two keys")
        return self

    @cached_property
    def by_name(self) -> dict[str, Officer]:
        return {officer.name: officer for officer in self.officer}

    def needed(self, config: ProjectConfig) -> int:
        """Return how many officers must have approved each file of a project: the greater of what both files say."""
        return max(config.approve.approvers, self.approvers.get(config.name, 1), self.approvers.get(EVERY, 1))


def load(config: ProjectConfig) -> Officers | None:
    """Return the list of officers of this machine; None for a demo project on a machine that has none.

    Raises OfficersRefused: none for a real project, malformed, writable by others, or where engineers edit.
    """
    given = os.environ.get(VARIABLE)
    if not given:
        if config.project.demo:
            return None
        raise OfficersRefused(f"{VARIABLE} is not set: this machine knows no officer whose approval counts.",
                              hint="Set it to the list of officers that the machine's administrator keeps.")
    path = Path(given).resolve()
    try:
        found, folder, data = path.stat(), path.parent.stat(), path.read_bytes()
    except OSError as error:
        raise OfficersRefused(f"The list of officers cannot be read ({error.strerror}).", hint=f"See {VARIABLE}.") \
            from None
    loose = folder.st_mode & 0o022 and not folder.st_mode & stat.S_ISVTX
    if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o022 or loose:
        raise OfficersRefused("The list of officers, or its directory, may be changed by others than its owner.",
                              hint="chmod go-w, and give it to the machine's administrator.")
    if not config.project.demo and any(path.is_relative_to(d) for d in (PRODUCT, config.path.resolve().parent)):
        raise OfficersRefused("The list of officers stands among the files that it is there to judge.",
                              hint="Put it where those who edit recipes and project files cannot.")
    try:
        read = Officers.model_validate(tomllib.loads(data.decode()))
    except (ValidationError, ValueError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "not TOML"
        raise OfficersRefused(f"The list of officers is malformed: {what}.") from None
    return read.model_copy(update={"sha256": hashlib.sha256(data).hexdigest(), "changeable": os.access(path, os.W_OK)})
