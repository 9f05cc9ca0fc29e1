"""What an audit is: a question, the attributes it needs, the tables it reads, and a function that answers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MINIMUM = 10            # people: smaller groups are not told apart, where the project says nothing else
Disclosure = Literal["safe", "internal"]
Treatment = Literal["kept", "emptied", "pseudonym", "removed", "shifted", "banded", "remapped"]


@dataclass(frozen=True, slots=True)
class Need:
    """An attribute that an audit reads, and what a recipe may leave of it.

    `ways`: alternatives, each the DICOM keywords that must all be there; the first is the usual one. `serves`: what may
    have been done to them. `least`: the least that serves. `required`: without it the audit cannot be run at all.
    """

    what: str
    why: str
    ways: tuple[tuple[str, ...], ...]
    least: Treatment = "kept"
    serves: tuple[Treatment, ...] = ("kept",)
    required: bool = True


@dataclass(frozen=True, slots=True)
class Reads:
    """A table of a release that an audit reads. Without one that is required it does not run."""

    table: str
    columns: tuple[str, ...]
    required: bool = True


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows of text under a head. The first `texts` columns are words, the others numbers."""

    title: str
    head: tuple[str, ...]
    rows: list[list[str]]
    texts: int = 1
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    name: str
    title: str
    caption: str
    svg: str
    grid: Grid | None = None        # the numbers behind it, for those who read rather than look
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    text: str
    plots: tuple[Plot, ...] = ()
    grids: tuple[Grid, ...] = ()


@dataclass(slots=True)
class Report:
    """An answer. `files`: CSVs by name. `internal`: files with a row a person, which never leave the environment.

    `left_out`: (what, how many) that the figures do not count. `watermark`: words to stand over every plot.
    """

    facts: list[tuple[str, str]] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    left_out: list[tuple[str, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    definitions: list[tuple[str, str]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    internal: dict[str, bytes] = field(default_factory=dict)
    internal_counts: list[tuple[str, int]] = field(default_factory=list)     # exact, for readers of internal files
    watermark: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What an audit is asked over: DuckDB with a view per table, its columns by table, and how it may answer."""

    db: DuckDBPyConnection
    columns: Mapping[str, frozenset[str]]
    minimum: int
    disclosure: Disclosure
    outcome: Outcome

    def has(self, table: str, *columns: str) -> bool:
        return table in self.columns and set(columns) <= self.columns[table]

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return list(self.db.execute(sql, list(values)).fetchall())

    def one(self, sql: str, *values: Any) -> Any:
        row = self.db.execute(sql, list(values)).fetchone()
        return row[0] if row else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a clinical table says how an episode ended: `outcome.toml` beside this file, or a file of the same form.

    A study has the outcome of the person's row whose `date` is nearest, at most `days` away; with `after`, of rows on
    or after the study alone. `absent`: the outcome of a study without such a row; empty: it is left out, and counted.
    """

    table: str
    date: str
    column: str
    days: int
    labels: Mapping[str, str]
    after: bool = False
    absent: str = ""


@dataclass(frozen=True, slots=True)
class Audit:
    """`applies`: SOP classes, by their names in PS3.6, whose recipe has to serve the audit."""

    name: str
    title: str
    question: str
    needs: tuple[Need, ...]
    reads: tuple[Reads, ...]
    answer: Callable[[Asked], Report]
    applies: tuple[str, ...] = (
        "Digital Mammography X-Ray Image Storage - For Presentation",
        "Digital Mammography X-Ray Image Storage - For Processing",
        "Breast Tomosynthesis Image Storage",
    )
