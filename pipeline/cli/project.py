"""The project file and its zones, as commands take them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.config import ProjectConfig
    from pipeline.storage import ObjectStore

ProjectFile = Annotated[Path, typer.Argument(metavar="PROJECT.toml", help="The project file.", show_default=False)]
_HELP = "Instead of the project file's."
Landing = Annotated[str | None, typer.Option("--landing", metavar="URL", help=_HELP, rich_help_panel="Zones")]
Work = Annotated[str | None, typer.Option("--work", metavar="URL", help=_HELP, rich_help_panel="Zones")]
Candidate = Annotated[str | None, typer.Option("--candidate", metavar="URL", help=_HELP, rich_help_panel="Zones")]
Release = Annotated[str | None, typer.Option("--release", metavar="URL", help=_HELP, rich_help_panel="Zones")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Tell what would be done: counts and bytes. Write nothing.")]


def load(path: Path, **zones: str | None) -> ProjectConfig:
    """Read the project file. Raises ProjectFileError, naming the line."""
    from pipeline import config

    return config.load(path, **zones)


def reading(config: ProjectConfig) -> tuple[ObjectStore, ObjectStore, ObjectStore]:
    """Open work, candidate and release. On disk an absent one is made: a project may not have got there yet."""
    from pipeline.storage import open_store

    zones = config.zones
    return (
        open_store(zones.work, "work"),
        open_store(zones.candidate, "candidate"),
        open_store(zones.release, "release"),
    )
