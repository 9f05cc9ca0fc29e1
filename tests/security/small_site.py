"""A project of a handful of images in a folder, written by hand: who is whom is known, and the steps run over it.

It is no demo, so it runs what an officer of the tests has signed: a module that uses it has `officers.listed()` on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pydicom

from pipeline import config, layout, steps
from pipeline.synthetic.people import check_digit
from pipeline.synthetic.project import project_text
from tests.helpers import officers

LANDED_AT = 1_700_000_000
EPISODE = ("nhs_number", "episode_id", "episode_type", "episode_date", "appointment_made", "date_of_foa", "date_of_as",
           "end_code", "bso_organisation_code", "bso_batch_id", "final_action_code", "change_db_date_time")


def nhs(number: int) -> str:
    """Return the first valid number of the test range whose middle digits are at least `number`."""
    while (digit := check_digit(f"999{number:06d}")) is None:
        number += 1
    return f"999{number:06d}{digit}"


@dataclass
class Site:
    """`objects`: label → DICOM bytes; the label is the file's name. `crosswalk` and `episodes` are rows of the CSVs."""

    folder: Path
    objects: Mapping[str, bytes]
    crosswalk: list[tuple[str, str, str, str]]
    permitted: list[str]
    episodes: list[dict[str, str]] = field(default_factory=list)
    name: str = "demo-screening"
    secret: str = "tests"
    replace: tuple[tuple[str, str], ...] = (("demo = true", "demo = false"),)

    @property
    def project(self) -> Path:
        return self.folder / "project.toml"

    def lay(self) -> Site:
        """Write everything."""
        landing = self.folder / "landing"
        landing.mkdir(parents=True)
        for label, data in self.objects.items():
            (landing / label).write_bytes(data)
            os.utime(landing / label, (LANDED_AT, LANDED_AT))
        zones = (f"file://{(self.folder / zone).resolve()}" for zone in ("landing", "work", "candidate", "release"))
        text = project_text(*zones, name=self.name)
        for old, new in self.replace:
            assert old in text
            text = text.replace(old, new)
        self.project.write_text(text + officers.SECTION)
        officers.sign(self.project)
        keys = self.folder / "keys"
        keys.mkdir()
        (keys / f"{self.name}.key").write_text(hashlib.sha256(self.secret.encode()).hexdigest() + "\n")
        (keys / f"{self.name}.key").chmod(0o600)
        self.tables()
        return self

    def tables(self) -> None:
        """Write the crosswalk, the permitted people and the clinical table as they are now."""
        lines = ["issuer,local_id,nhs_number,superseded_nhs_number", *(",".join(row) for row in self.crosswalk), ""]
        (self.folder / "crosswalk.csv").write_text("\n".join(lines))
        self.people([f"# as-of: {date.today()}", "person", *self.permitted, f"# end: {len(self.permitted)}"])
        rows = [",".join(row.get(name, "") for name in EPISODE) for row in self.episodes]
        (self.folder / "episodes.csv").write_text("\n".join([",".join(EPISODE), *rows, ""]))

    def people(self, lines: list[str]) -> None:
        (self.folder / "permitted.csv").write_text("\n".join([*lines, ""]))

    def edit(self, old: str, new: str) -> None:
        """Change the project file, as an engineer would, and have an officer sign it again."""
        text = self.project.read_text()
        assert old in text
        self.project.write_text(text.replace(old, new))
        officers.sign(self.project, self.project.name)

    # ---- the steps ---------------------------------------------------------------------------------------------
    def stage(self) -> dict[str, Any]:
        os.environ["TRE_KEY_DIR"] = str(self.folder / "keys")
        return steps.stage(self.project)

    def seal(self) -> dict[str, Any]:
        """From staged to a sealed candidate."""
        os.environ["TRE_KEY_DIR"] = str(self.folder / "keys")
        for shard in steps.pending_shards(self.project):
            steps.deidentify(self.project, shard["batch"], shard["shard"])
        assembled = steps.assemble(self.project)
        steps.curate(self.project, assembled["candidate"])
        return steps.validate(self.project, assembled["candidate"])

    def approve(self, sealed: Mapping[str, Any], approver: str = "tester", key: str = "", days: int = 30) -> None:
        """An officer signs; `key`: with whose key, where it is another's."""
        steps.sign_candidate(self.project, sealed["candidate"], sealed["digest"], approver, "approve",
                             officers.key(key or approver), days=days)

    def release(self) -> dict[str, Any]:
        """From staged to published."""
        sealed = self.seal()
        self.approve(sealed)
        return steps.publish(self.project, sealed["candidate"])

    # ---- what came of it ---------------------------------------------------------------------------------------
    def key(self, zone: str, key: str) -> Path:
        return self.folder / zone / key

    def table(self, released: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
        path = self.key("release", layout.in_release(self.name, released["release"], f"tables/{name}.parquet"))
        found = duckdb.sql(f"select * from '{path}'")
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]

    def images(self, released: Mapping[str, Any]) -> list[pydicom.Dataset]:
        """Every image of the release's instances table, read from the release zone."""
        paths = [row["path"] for row in self.table(released, "instances")]
        return [pydicom.dcmread(self.key("release", layout.image(self.name, path))) for path in paths]

    def fates(self) -> dict[str, tuple[str, str | None]]:
        """Label → status, reason, by the ledger, whose identity holds."""
        from pipeline.ledger.ledger import build
        from pipeline.storage import open_store

        made = config.load(self.project)
        zones = [open_store(getattr(made.zones, zone), zone) for zone in ("work", "candidate", "release")]
        out = self.folder / "ledger.parquet"
        assert build(made, *zones, out).holds
        rows = duckdb.sql(f"select source_uri, status, reason from '{out}'").fetchall()
        return {uri.rpartition("/")[2]: (status, reason) for uri, status, reason in rows}

    def digests(self, *zones: str) -> dict[str, str]:
        """Every file of these zones, with its SHA-256."""
        return {str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
                for zone in zones for path in sorted((self.folder / zone).rglob("*")) if path.is_file()}
