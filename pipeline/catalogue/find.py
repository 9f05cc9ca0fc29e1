"""Ask a catalogue: how many people, studies, series and images a filter finds, or which, by pseudonym.

Only the columns that a filter names are read, batch by batch; DuckDB sees them as c0, c1, ... and cannot reach a file.
Counts are for people's eyes: rounded, and told as fewer than a limit where they are of few people.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.catalogue import filter as language
from pipeline.catalogue.ask import Question, question
from pipeline.errors import NotFound
from pipeline.storage import ObjectStore, tables

if TYPE_CHECKING:
    import pyarrow as pa

By = Literal["patient", "study", "series"]
IDS: dict[By, tuple[str, ...]] = {
    "patient": ("patient_id",),
    "study": ("patient_id", "study_uid"),
    "series": ("patient_id", "study_uid", "series_uid"),
}
ROUND_TO, FEWEST = 5, 10
_BATCH = 65_536


@dataclass(frozen=True, slots=True)
class Counts:
    """What a filter found, exactly. `unreadable`: by element, (images, people) with a value not as its VR asks."""

    people: int
    studies: int
    series: int
    images: int
    unreadable: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A catalogue on this machine. `stated`: by element path, in how many images and of how many people it has a
    value."""

    path: Path
    rows: int
    stated: dict[str, tuple[int, int]]

    def ask(self, text: str) -> Question:
        """Return a filter made ready for this catalogue. Raises filter.FilterError."""
        return question(language.parse(text), self.stated.keys())

    def count(self, asked: Question) -> Counts:
        """Return how much an asked filter finds."""
        extra = "".join(
            f", count(*) FILTER ({sql}), count(DISTINCT patient_id) FILTER ({sql})"
            for sql in asked.unreadable.values()
        )
        sql = f"""
            SELECT count(DISTINCT patient_id) FILTER (found), count(DISTINCT study_uid) FILTER (found),
                   count(DISTINCT series_uid) FILTER (found), count(*) FILTER (found){extra}
            FROM (SELECT *, {asked.sql} AS found FROM catalogue)"""  # noqa: S608 - of our own words (ask.py)
        row = self._run(sql, asked, IDS["series"])[0]
        pairs = dict(zip(asked.unreadable, zip(row[4::2], row[5::2], strict=True), strict=True))
        people, studies, series, images = row[:4]
        return Counts(people, studies, series, images, {name: pair for name, pair in pairs.items() if pair[0]})

    def rows_of(self, asked: Question, by: By) -> list[tuple[str, ...]]:
        """Return the pseudonyms of what is found, sorted, each once."""
        ids = ", ".join(IDS[by])
        return self._run(f"SELECT DISTINCT {ids} FROM catalogue WHERE {asked.sql} ORDER BY {ids}",  # noqa: S608
                         asked, IDS[by])

    def _run(self, sql: str, asked: Question, ids: tuple[str, ...]) -> list[tuple[Any, ...]]:
        import duckdb

        with duckdb.connect(config={"memory_limit": "700MB", "threads": 2, "enable_external_access": False,
                                    "autoinstall_known_extensions": False}) as db:
            db.register("catalogue", self._reader(ids, asked.columns))
            db.execute("SET lock_configuration = true")
            return db.execute(sql, list(asked.values)).fetchall()

    def _reader(self, ids: tuple[str, ...], columns: tuple[str, ...]) -> pa.RecordBatchReader:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([*((name, pa.string()) for name in ids),
                            *((f"c{n}", pa.list_(pa.string())) for n in range(len(columns)))])

        def batches() -> Iterator[pa.RecordBatch]:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(_BATCH, columns=[*ids, *columns], use_threads=False):
                    yield pa.RecordBatch.from_arrays([batch.column(n) for n in (*ids, *columns)], schema=schema)

        return pa.RecordBatchReader.from_batches(schema, batches())


@contextmanager
def opened(store: ObjectStore, key: str) -> Iterator[Catalogue]:
    """Yield the catalogue at `key`; on S3 it is copied here first. Raises NotFound, SchemaTooNew."""
    import pyarrow.parquet as pq

    if store.stat(key) is None:
        raise NotFound("There is no catalogue here.", hint="Releases have one since they were built with this version.")
    with store.fetch(key) as path, pq.ParquetFile(path) as file:
        metadata = file.metadata.metadata or {}
        tables.understood(file.schema_arrow)
        stated = {name: (images, people) for name, (images, people) in json.loads(metadata[b"stated"]).items()}
        yield Catalogue(path, file.metadata.num_rows, stated)


def shown(count: int, people: int, *, round_to: int = ROUND_TO, fewest: int = FEWEST) -> str:
    """Return a count as it may be shown, `people` being those behind it: none, fewer than, or about.

    Small are the numbers of people, not of images: forty images of two women tell of two women.
    """
    if not count:
        return "none"
    if people < fewest:
        return f"fewer than {fewest} people"
    return f"{(count + round_to // 2) // round_to * round_to:,}"


