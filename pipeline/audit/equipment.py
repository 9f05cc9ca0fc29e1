"""Equipment: which x-ray sets and scanners, with which software versions, and how many people each has seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pipeline.audit import draw, suppress
from pipeline.audit.base import Asked, Audit, Grid, Need, Plot, Reads, Report, Section
from pipeline.audit.exposed import DEVICE, MODEL, PERSON, STUDY
from pipeline.audit.figures import HELD, table

MOST = 40
ORDER = ("first version", "2nd", "3rd", "4th", "5th", "6th", "7th and later")

# A row per study on a device under a version, whatever the number of its series.
_USED = """
CREATE TABLE used AS
WITH s AS (SELECT DISTINCT patient_id, study_uid, device_id, software_versions FROM series),
     n AS (SELECT device_id, min(model) AS model, min(manufacturer) AS manufacturer FROM series
           WHERE device_id IS NOT NULL GROUP BY device_id),
     l AS (SELECT *, coalesce(trim(model) || ' ', 'Set ') || left(device_id, 5) AS short FROM n),
     m AS (SELECT *, CASE WHEN count(*) OVER (PARTITION BY short) = 1 THEN short
                          ELSE short || substr(device_id, 6) END AS label FROM l),
     p AS (SELECT patient_id, row_number() OVER (ORDER BY patient_id)::INT AS person
           FROM (SELECT DISTINCT patient_id FROM series))
SELECT p.person, coalesce(m.label, 'not stated') AS device, s.device_id, s.software_versions::VARCHAR AS stated,
       coalesce(nullif(trim(coalesce(m.manufacturer, '') || ' ' || coalesce(m.model, '')), ''), 'not stated') AS model,
       coalesce(replace(s.software_versions::VARCHAR, '\\', ', '), 'not stated') AS version
FROM s JOIN p USING (patient_id) LEFT JOIN m USING (device_id)
"""

_ORDERED = """
CREATE VIEW ordered AS SELECT u.*, q.version_order AS place FROM used u
LEFT JOIN equipment q ON q.device_id = u.device_id AND q.software_versions::VARCHAR = u.stated
"""
_NOT_ORDERED = "CREATE VIEW ordered AS SELECT *, NULL::INT AS place FROM used"


class Used(NamedTuple):
    people: int
    studies: int
    place: int | None       # of a version: its order of appearance on the device


def answer(asked: Asked) -> Report:
    """Return models, their devices and versions; a row counted is a study on a device under a version."""
    asked.db.execute(_USED)
    report = Report()
    told = asked.has("equipment", "device_id", "software_versions", "version_order")
    asked.db.execute(_ORDERED if told else _NOT_ORDERED)
    found = {tuple(part for part in row[:3] if part is not None): Used(*row[3:]) for row in asked.rows(
        "SELECT model, device, version, count(DISTINCT person), count(*), min(place) FROM ordered"
        " GROUP BY GROUPING SETS ((model, device, version), (model, device), (model), ())")}
    found.setdefault((), Used(0, 0, None))
    hidden = suppress.tree({path: n.people for path, n in found.items()}, asked.minimum)
    shown = {path: n for path, n in found.items() if hidden is not None and path not in hidden}
    studies = f", n = {found[()].studies:,}" if () in shown else ""
    report.facts = [(name, text) for name, text in zip(("People", "Studies"), _counts(shown.get(())), strict=True)]
    report.facts += [(name, f"{sum(len(path) == depth for path in found):,}")
                     for depth, name in ((1, "Models"), (2, "Devices"), (3, "Devices and versions"))]
    order = _walk(shown)
    back = len(found) - len(shown)
    bars: dict[str, dict[str, float]] = {}
    for path in order:
        if len(path) == 3:
            row = bars.setdefault(path[1], {})
            part = ORDER[min(found[path].place or 1, len(ORDER)) - 1]
            row[part] = row.get(part, 0.0) + found[path].studies
    report.sections = [Section(
        "Software versions", "Versions of one device in the order in which they first appeared, by the real dates, "
        "which stay behind.", (Plot(
            "versions", "Studies by version", "By device and order of appearance"
            f"{studies}.{f' The first {MOST}.' if len(bars) > MOST else ''}",
            draw.stacked("versions", dict(list(bars.items())[:MOST]), "Studies",
                         [part for part in ORDER if any(part in row for row in bars.values())])),),
        (Grid("Models, devices and versions", ("Model", "Device", "Version", "Order", "People", "Studies"),
              [_line(path, shown[path]) for path in order], texts=3,
              note=f"{back} models, devices or versions kept back." if back else ""),))]
    report.files = {"by-model-device-version.csv": table(
        ("model", "device", "version", "order_of_appearance", "people", "studies"),
        ((*(*path, "", "", "")[:3], shown[path].place if len(path) == 3 else None, shown[path].people,
          shown[path].studies) for path in order))}
    report.definitions = [
        ("Device", "Manufacturer, model and serial number, under one pseudonym. Objects without a serial number stand "
         "together under “not stated”."),
        ("Version", "SoftwareVersions as the objects state it; several are joined with a comma."),
        ("Study", "A study on a device under a version: one that used two devices or two versions counts for each."),
    ]
    return report


def _walk(found: Mapping[tuple[str, ...], Used]) -> list[tuple[str, ...]]:
    """Models with most studies first, each before its devices, each of those before its versions in their order."""
    def place(path: tuple[str, ...]) -> tuple[object, ...]:
        # A sum that is kept back may have parts that are shown.
        above = [(-found[path[:n]].studies if path[:n] in found else 0, path[n - 1])
                 for n in range(1, min(len(path), 2) + 1)]
        last = [(found[path].place or 99, path[2])] if len(path) == 3 else []
        return (*above, *last)

    return [*sorted((path for path in found if path), key=place), *([()] if () in found else [])]


def _counts(shown: Used | None) -> tuple[str, str]:
    return (f"{shown.people:,}", f"{shown.studies:,}") if shown else (HELD, HELD)


def _line(path: tuple[str, ...], used: Used) -> list[str]:
    names = {0: ["All", "", ""], 1: [*path, "all devices", ""], 2: [*path, "all versions"], 3: list(path)}[len(path)]
    return [*names, str(used.place) if used.place and len(path) == 3 else "", *_counts(used)]


AUDIT = Audit(
    "equipment", "Equipment and software", "Which sets stand behind these images, and which software did they run?",
    (PERSON, STUDY, DEVICE, MODEL,
     Need("manufacturer", "Names the set.", (("Manufacturer",),), required=False),
     Need("software versions", "What is asked.", (("SoftwareVersions",),)),
     Need("study date", "The order in which versions appeared.", (("StudyDate",),), least="shifted",
          serves=("shifted", "kept"), required=False)),
    (Reads("series", ("patient_id", "study_uid", "device_id", "manufacturer", "model", "software_versions")),
     Reads("equipment", ("device_id", "software_versions", "version_order"), required=False)),
    answer)
