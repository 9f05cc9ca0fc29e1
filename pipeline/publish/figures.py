"""The numbers behind the report: groups of images and people, small groups kept back.

Counts come from the release's own tables through DuckDB, one thread, so that they are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.publish.query import database

SMALL = 10  # groups of fewer people are not told apart


@dataclass(frozen=True, slots=True)
class Group:
    """A group as the report shows it. `shown` is False where `people` is small or would give a small one away."""

    label: str
    people: int
    n: int
    extra: tuple[float | None, ...] = ()
    shown: bool = True

    @property
    def people_text(self) -> str:
        return f"{self.people:,}" if self.shown else f"<{SMALL}" if 0 < self.people < SMALL else "not shown"

    @property
    def n_text(self) -> str:
        return f"{self.n:,}" if self.shown else "not shown"


def keep_back(groups: Iterable[Group]) -> list[Group]:
    """Return the groups, those with 1 to 9 people not shown; where that is one alone, the next smallest goes with it,
    else it could be had by subtraction from the total."""
    groups = list(groups)
    hidden = {i for i, g in enumerate(groups) if 0 < g.people < SMALL}
    if len(hidden) == 1:
        rest = sorted((g.people, i) for i, g in enumerate(groups) if i not in hidden and g.people)
        hidden.update(i for _, i in rest[:1])
    return [Group(g.label, g.people, g.n, g.extra, i not in hidden) for i, g in enumerate(groups)]


@dataclass(frozen=True, slots=True)
class Figures:
    """All numbers of the report. Groups are in the order in which they are drawn; lists may be empty."""

    totals: dict[str, int]
    years: list[Group]
    ages: list[Group]
    makers: list[Group]
    views: dict[str, list[Group]]  # view → a group per laterality
    thickness: list[Group]  # 10 mm bands
    force: list[Group]  # 20 N bands
    dose: list[Group]  # 10 mm bands; extra = lower quartile, median, upper quartile in mGy
    device_names: dict[str, str]  # manufacturer and model
    devices: list[Group]  # extra = median thickness mm, force N, dose mGy


def measure(tables: Mapping[str, Path], age_band_years: int = 5) -> Figures:
    """Return the report's numbers. `tables` are a release's, as files; every table of `schemas.PUBLISHED` is there."""
    named = {name: tables[name] for name in ("patients", "studies", "series", "instances", "exposures")}
    with database(named) as con:

        def groups(sql: str) -> list[Group]:
            return keep_back(Group(str(r[0]), int(r[1]), int(r[2]), tuple(r[3:])) for r in con.execute(sql).fetchall())

        def one(sql: str) -> int:
            row = con.execute(sql).fetchone()
            return int(row[0] or 0) if row else 0

        totals = {name: one(f"SELECT count(*) FROM {name}") for name in ("patients", "studies", "series", "instances")}  # noqa: S608
        totals["bytes"] = one("SELECT sum(bytes) FROM instances")
        return Figures(
            totals=totals,
            years=groups(
                "SELECT coalesce(year(study_date)::VARCHAR, 'unknown') y, count(DISTINCT patient_id),"
                " sum(n_instances) FROM studies GROUP BY y ORDER BY y"
            ),
            ages=groups(
                "SELECT CASE WHEN age_band_years IS NULL THEN 'unknown' WHEN age_band_years >= 90 THEN '90+'"  # noqa: S608
                f" ELSE age_band_years || '–' || (age_band_years + {age_band_years - 1}) END,"
                " count(DISTINCT patient_id), count(*)"
                " FROM studies GROUP BY 1, least(age_band_years, 90) ORDER BY least(age_band_years, 90) NULLS LAST"
            ),
            makers=_named(
                groups(
                    "SELECT coalesce(manufacturer, 'not stated') || coalesce(' ' || model, '') m,"
                    " count(DISTINCT patient_id), sum(n_instances) FROM series GROUP BY m ORDER BY 3 DESC, m"
                )
            ),
            views=_views(con),
            thickness=groups(_histogram("body_part_thickness_mm", 10)),
            force=groups(_histogram("compression_force_n", 20)),
            dose=groups(
                "SELECT b || '–' || (b + 10), count(DISTINCT patient_id), count(*), quantile_cont(d, 0.25),"
                " quantile_cont(d, 0.5), quantile_cont(d, 0.75) FROM (SELECT patient_id, average_glandular_dose_mgy d,"
                " (floor(body_part_thickness_mm / 10) * 10)::INT b FROM exposures"
                " WHERE isfinite(average_glandular_dose_mgy) AND body_part_thickness_mm BETWEEN 0 AND 300)"
                " GROUP BY b ORDER BY b"
            ),
            devices=groups(
                "SELECT device_id, count(DISTINCT patient_id), count(*), median(body_part_thickness_mm),"
                " median(compression_force_n), median(average_glandular_dose_mgy) FROM exposures"
                " WHERE device_id IS NOT NULL GROUP BY device_id ORDER BY 3 DESC, device_id LIMIT 40"
            ),
            device_names={
                str(device): str(name).strip() or "not stated"
                for device, name in con.execute(
                    "SELECT device_id, coalesce(min(manufacturer), '') || ' ' || coalesce(min(model), '') FROM series"
                    " WHERE device_id IS NOT NULL GROUP BY device_id"
                ).fetchall()
            },
        )


def _named(groups: list[Group]) -> list[Group]:
    """Groups named by text of the images: where a group is kept back, so is its name."""
    hidden = [g for g in groups if not g.shown]
    rest = Group(f"{len(hidden)} not shown", 0, sum(g.n for g in hidden), (), False)
    return [g for g in groups if g.shown] + ([rest] if hidden else [])


def _histogram(column: str, width: int) -> str:
    """SQL for people and exposures in bands of `width`, empty bands between the first and the last included."""
    return (
        f"WITH v AS (SELECT patient_id, (floor({column} / {width}) * {width})::INT b FROM exposures"  # noqa: S608
        f" WHERE {column} BETWEEN 0 AND 1000),"
        f" bands AS (SELECT unnest(range((SELECT min(b) FROM v), (SELECT max(b) FROM v) + {width}, {width})) b)"
        f" SELECT b || '–' || (b + {width}), count(DISTINCT patient_id), count(patient_id)"
        " FROM bands LEFT JOIN v USING (b) GROUP BY b ORDER BY b"
    )


def _views(con: Any) -> dict[str, list[Group]]:
    """View → groups for R and L (and B where it occurs), the commonest view first, at most ten."""
    rows = con.execute(
        "SELECT view, laterality, count(DISTINCT patient_id), count(*) FROM instances WHERE view IS NOT NULL"
        " AND laterality IN ('R', 'L', 'B') GROUP BY 1, 2"
    ).fetchall()
    count: dict[str, int] = {}
    for view, _, _, n in rows:
        count[view] = count.get(view, 0) + n
    views = sorted(count, key=lambda v: (-count[v], v))[:10]
    sides = [side for side in ("R", "L", "B") if any(row[1] == side for row in rows)]
    found = {(view, side): (people, n) for view, side, people, n in rows}
    flat = keep_back(Group(f"{v} {s}", *found.get((v, s), (0, 0))) for v in views for s in sides)
    shown = {view: flat[i * len(sides) : (i + 1) * len(sides)] for i, view in enumerate(views)}
    return {view: row for view, row in shown.items() if any(g.shown and g.n for g in row)}
