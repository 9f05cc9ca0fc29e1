"""What only the real study dates tell of x-ray sets: in which order software appeared, and which of the physicist's
measurements were valid at the time of a study. Worked out on the identifiable side: no date and no serial leaves.

What leaves is a rank of the software versions of each device, by the first study of anybody on each, and, per study and
device, the opaque ids of the measurements that were valid then. The rank is of versions and not of people or studies:
it says that one version came before another on this device, as vendors' version numbers mostly do by themselves. It
has no distances, so nobody's number of days can be worked out from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from pipeline import layout
from pipeline.deidentify.output import Output, Validity
from pipeline.model import Status
from pipeline.schemas import SURVEYS, VERSIONS, arrow_schema
from pipeline.storage import ObjectStore, tables

if TYPE_CHECKING:
    import pyarrow as pa

_DEVICE = re.compile(r"D[0-9A-F]{12}")      # the engine's pseudonym: nothing else in that column is passed on
_SQL = """
    SELECT f.study, f.device, f.software, s.study_date AS day
    FROM facts f JOIN outcomes o USING (instance) JOIN shard s USING (source_uri)
    WHERE f.device IS NOT NULL
    GROUP BY ALL ORDER BY ALL"""


@dataclass(frozen=True, slots=True)
class Equipment:
    """`versions` (schemas.VERSIONS) and `surveys` (schemas.SURVEYS), for the candidate zone."""

    versions: pa.Table
    surveys: pa.Table


def follow(work: ObjectStore, candidate: ObjectStore, project: str, shards: Iterable[tuple[str, int, str]],
           output: Output) -> Equipment:
    """Return what the shards' real dates tell of the devices in their parts; `shards`: (batch, number, part).

    One shard at a time is in memory. Raises NotFound where a part has no facts or outcomes.
    """
    import pyarrow as pa

    first: dict[tuple[str, str], date] = {}
    found = [arrow_schema(SURVEYS).empty_table()]
    for batch, number, part in shards:
        days: dict[tuple[str, str], tuple[date, date]] = {}     # (study, device) → earliest and latest
        for study, device, software, day in _seen(work, candidate, project, batch, number, part):
            low, high = days.get((study, device), (day, day))
            days[study, device] = min(low, day), max(high, day)
            if software is not None:
                first[device, software] = min(first.get((device, software), day), day)
        found.append(tables.from_rows(SURVEYS, _valid(days, output.valid)))
    surveys = pa.concat_tables(found)
    surveys = surveys.group_by(surveys.column_names, use_threads=False).aggregate([])
    surveys = surveys.sort_by([(name, "ascending") for name in surveys.column_names]).cast(arrow_schema(SURVEYS))
    return Equipment(tables.from_rows(VERSIONS, _ranked(first)), surveys)


def _valid(days: Mapping[tuple[str, str], tuple[date, date]], valid: Mapping[str, Sequence[Validity]]
           ) -> list[dict[str, str]]:
    """Return a row per study, device and survey that was valid on every date of the study."""
    return [{"study_uid": study, "device_id": device, "survey": one.survey}
            for (study, device), (low, high) in days.items()
            for one in valid.get(device, ()) if one.first <= low and high <= one.last]


def _ranked(first: Mapping[tuple[str, str], date]) -> list[dict[str, Any]]:
    """Return the versions of each device with their place by the first day they were seen."""
    days: dict[str, set[date]] = {}
    for (device, _), day in first.items():
        days.setdefault(device, set()).add(day)
    order = {device: {day: n for n, day in enumerate(sorted(some), 1)} for device, some in days.items()}
    return [{"device_id": device, "software_versions": software, "version_order": order[device][day]}
            for (device, software), day in sorted(first.items())]


def _seen(work: ObjectStore, candidate: ObjectStore, project: str, batch: str, number: int, part: str
          ) -> Iterator[tuple[str, str, str | None, date]]:
    """Yield output study, device, software (values joined as the tables have them) and real study date of a part."""
    import duckdb
    import pyarrow.compute as pc

    facts = _facts(candidate, layout.facts(project, part))
    if facts is None:
        return
    outcomes = tables.read(work, layout.outcomes(project, part), ["source_uri", "status", "instance"])
    outcomes = outcomes.filter(pc.equal(outcomes["status"], Status.PENDING.value))
    shard = tables.read(work, layout.shard(project, batch, number), ["source_uri", "study_date"])
    with duckdb.connect(config={"threads": 1}) as db:
        for name, table in (("facts", facts), ("outcomes", outcomes), ("shard", shard)):
            db.register(name, table)
        for study, device, software, text in db.execute(_SQL).fetchall():
            device, day = (device or [""])[0], _day(text)
            if day and device and _DEVICE.fullmatch(device):
                yield study, device, _joined(software), day


def _facts(candidate: ObjectStore, key: str) -> pa.Table | None:
    """Return study, instance, device and software of a part's facts; None where no object has a device."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with candidate.fetch(key) as path, pq.ParquetFile(path) as file:
        there = set(file.schema_arrow.names)
        if "DeviceSerialNumber" not in there:
            return None
        names = ["study", "instance", "DeviceSerialNumber", *({"SoftwareVersions"} & there)]
        table = file.read(columns=names, use_threads=False).rename_columns(
            {"DeviceSerialNumber": "device", "SoftwareVersions": "software"} if "SoftwareVersions" in there
            else {"DeviceSerialNumber": "device"})
    if "software" not in table.column_names:
        table = table.append_column("software", pa.nulls(table.num_rows, pa.list_(pa.string())))
    return table


def _joined(values: Sequence[str | None] | None) -> str | None:
    """Return the values as curate joins them: trimmed, with a backslash; None where every one is empty."""
    trimmed = [(value or "").strip(" \0") for value in values or ()]
    return "\\".join(trimmed) if any(trimmed) else None


def _day(text: str | None) -> date | None:
    """Return a study date as the file has it (YYYYMMDD), or None."""
    text = (text or "").strip(" \0")
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:])) if re.fullmatch(r"[0-9]{8}", text) else None
    except ValueError:
        return None
