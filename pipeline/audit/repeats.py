"""Repeats and rejects: which share of exposures, by x-ray set, operator and view."""

from __future__ import annotations

from pipeline.audit import draw
from pipeline.audit.base import Asked, Audit, Grid, Need, Plot, Reads, Report, Section
from pipeline.audit.exposed import DEVICE, MODEL, PERSON, READS, SIDE, STUDY, VIEW, prepare
from pipeline.audit.figures import HELD, Count, Crossed, Listed, cross_csv, cross_grid, crossed, wilson, words

MOST = 24
REPEAT, REJECTED, FIRST, UNKNOWN = "repeat", "rejected", "neither", "not known"
NAMES = {REPEAT: "Repeat", REJECTED: "Reject"}
_STATE = (f"CASE WHEN rejected THEN '{REJECTED}' WHEN repeat THEN '{REPEAT}' WHEN repeat IS NULL THEN '{UNKNOWN}'"
          f" ELSE '{FIRST}' END")
_VIEW = "CASE WHEN view IN ('CC', 'MLO') THEN view WHEN view IS NOT NULL THEN 'other' END"


def answer(asked: Asked) -> Report:
    """Return rates with their 95 % intervals. Each exposure is one of: rejected, else repeat, else neither."""
    prepare(asked, operator="x.operator_id::VARCHAR", repeat="x.is_repeat", rejected="x.is_rejected")
    report = Report()
    which = [REPEAT]
    if asked.one("SELECT count(rejected) > 0 FROM e"):
        which.append(REJECTED)
    else:
        report.notes.append("No file of this release says which exposures were rejected: there are no reject rates.")
    found = {name: crossed(asked, "e", sql, _STATE)
             for name, sql in (("X-ray set", "set_label"), ("Operator", "operator"), ("View", _VIEW))}
    states = found["View"].columns
    total = found["View"].rows.total
    report.facts = [("People", f"{total.people:,}" if total.shown else HELD),
                    ("Exposures", f"{total.n:,}" if total.shown else HELD)]
    known = _known(states, total.n) if total.shown else 0
    overall = {}
    for state in which:
        n = states.groups.get(state)
        overall[state] = 100 * n.n / known if n and known else None
        report.facts.append((f"{NAMES[state]} rate", f"{overall[state]:.1f} %" if n and known else HELD))
    for state in which:
        plots = tuple(_plot(state, name, table, overall[state]) for name, table in found.items())
        report.sections.append(Section(f"{NAMES[state]} rates", "", plots))
    report.sections.append(Section("Counts", "Exposures of each kind.", grids=tuple(
        _counts(name, table, which) for name, table in found.items())))
    report.files = {f"by-{_slug(name)}.csv": cross_csv(_slug(name).replace("-", "_"), "kind", table, ())
                    for name, table in found.items()}
    report.definitions = [
        ("Repeat", "Where a dose report says so; else an exposure of a study after one of the same side, view, "
         "modifiers and technique. A second exposure that a large breast needs is told apart only where the headers "
         "say that a view is partial."),
        ("Rejected", "Where a dose report or a rejection note says so. An exposure that nobody marked counts as not "
         "rejected, so the rate is a least one. Images deleted at the set never came."),
        ("Rate", "Exposures of the kind, of all whose kind is known. Bar: Wilson’s 95 % interval, which takes "
         "exposures as independent; those of one person are not quite."),
        ("Not known", "The order of the exposures of the study is not known, and no report says."),
    ]
    return report


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")


def _known(states: Listed, n: int) -> int:
    """Exposures whose kind is known, or 0 where how many are not cannot be shown."""
    return 0 if UNKNOWN in states.held else n - states.groups.get(UNKNOWN, Count(0, 0)).n


def _plot(state: str, name: str, table: Crossed, overall: float | None) -> Plot:
    rows, lines = [], []
    for group, all_of_it in table.rows.groups.items():
        label = words(group, table.rows.held)
        part, unknown = table.cell(group, state), table.cell(group, UNKNOWN)
        whole = all_of_it.n - unknown.n
        if not (part.shown and unknown.shown and whole) or {state, UNKNOWN} & set(table.columns.held):
            lines.append([label, HELD, HELD, HELD])
            continue
        lower, rate, upper = wilson(part.n, whole)
        rows.append((label, lower, rate, upper))
        lines.append([label, f"{whole:,}", f"{rate:.1f}", f"{lower:.1f}–{upper:.1f}"])
    said = f"; dashed: {overall:.1f} % of all" if overall is not None else ""
    slug = _slug(name)
    more = f" The {MOST} with most exposures." if len(rows) > MOST else ""
    kept = f" {len(lines) - len(rows)} not shown: too few people." if len(rows) < len(lines) else ""
    return Plot(f"{state}-{slug}", f"By {name.lower()}",
                f"Point: rate; bar: 95 % interval{said}.{more}{kept}",
                draw.ranges(f"{state}-{slug}", rows[:MOST], f"{NAMES[state]} rate (%)", mark=overall),
                Grid("", (name, "Exposures", "Rate (%)", "95 % interval"), lines))


def _counts(name: str, table: Crossed, which: list[str]) -> Grid:
    kinds = [k for k in (FIRST, *which, UNKNOWN) if k in table.columns.groups or k in table.columns.held]
    return cross_grid(f"By {name.lower()}", name, table, kinds, [kind.capitalize() for kind in kinds])


AUDIT = Audit(
    "repeats", "Repeats and rejects",
    "How many exposures are repeated or rejected, on which sets, by whom, in which view?",
    (PERSON, STUDY, DEVICE, MODEL, VIEW, SIDE,
     Need("operator", "Groups by operator.", (("OperatorsName",),), least="pseudonym", serves=("pseudonym",),
          required=False),
     Need("irradiation event", "Joins header and dose report, and the copies of one exposure.",
          (("IrradiationEventUID",),), least="remapped", serves=("remapped", "kept"), required=False)),
    (READS, Reads("exposures", ("is_repeat", "is_rejected", "operator_id"))),
    answer)
