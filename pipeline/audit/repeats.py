"""Repeats and rejects: which share of exposures, by x-ray set, operator and view."""

from __future__ import annotations

from pipeline.audit import draw
from pipeline.audit.base import Asked, Audit, Grid, Need, Plot, Reads, Report, Section
from pipeline.audit.exposed import DEVICE, MODEL, PERSON, READS, SIDE, STUDY, VIEW, prepare
from pipeline.audit.figures import HELD, Crossed, cells_text, cross_csv, crossed, wilson, words

MOST = 24
REPEAT, REJECTED = "repeat", "rejected"
NAMES = {REPEAT: "Repeat", REJECTED: "Reject"}
# Each kind against all others, apart: where one is so rare that it is kept back, the other is not kept back with it.
_KINDS = {REPEAT: f"CASE WHEN repeat AND NOT coalesce(rejected, false) THEN '{REPEAT}' ELSE 'other' END",
          REJECTED: f"CASE WHEN rejected THEN '{REJECTED}' ELSE 'other' END"}
_BY = {"X-ray set": "set_label", "Operator": "operator",
       "View": "CASE WHEN view IN ('CC', 'MLO') THEN view WHEN view IS NOT NULL THEN 'other' END"}


def answer(asked: Asked) -> Report:
    """Return rates with their 95 % intervals, of the exposures of which it is known whether they are a repeat."""
    prepare(asked, operator="x.operator_id::VARCHAR", repeat="x.is_repeat", rejected="x.is_rejected")
    asked.db.execute("CREATE VIEW known AS SELECT * FROM e WHERE repeat IS NOT NULL")
    report = Report()
    kinds = [REPEAT]
    if asked.one("SELECT count(rejected) > 0 FROM known"):
        kinds.append(REJECTED)
    else:
        report.notes.append("No file of this release says which exposures were rejected: there are no reject rates.")
    for kind in kinds:
        found = {name: crossed(asked, "known", sql, _KINDS[kind]) for name, sql in _BY.items()}
        states, total = found["View"].columns, found["View"].rows.total
        if kind == REPEAT:
            report.facts = list(zip(("People", "Exposures"), cells_text(total), strict=True))
        n = states.groups.get(kind)
        overall = 100 * n.n / total.n if n and total.n else None
        report.facts.append((f"{NAMES[kind]} rate", HELD if overall is None else f"{overall:.1f} %"))
        report.sections.append(Section(
            f"{NAMES[kind]} rates", "", tuple(_plot(kind, name, table, overall) for name, table in found.items())))
        for name, table in found.items():
            file = f"{NAMES[kind].lower()}s-by-{_slug(name)}.csv"
            report.files[file] = cross_csv(_slug(name).replace("-", "_"), "kind", table, ())
    unknown, people = asked.rows("SELECT count(*), count(DISTINCT person) FROM e WHERE repeat IS NULL")[0]
    if unknown:
        few = f" (fewer than {asked.minimum} people)" if people < asked.minimum else ""
        report.left_out.append((f"not known whether a repeat{few}", 0 if few else unknown))
    report.definitions = [
        ("Repeat", "Where a dose report says so; else an exposure of a study after one of the same side, view, "
         "modifiers and technique. A second exposure that a large breast needs is told apart only where the headers "
         "say that a view is partial."),
        ("Rejected", "Where a dose report or a rejection note says so. An exposure that nobody marked counts as not "
         "rejected, so the rate is a least one. Images deleted at the set never came. What was rejected is no repeat."),
        ("Rate", "Exposures of the kind, of all of which it is known whether they are a repeat. Bar: Wilson’s 95 % "
         "interval, which takes exposures as independent; those of one person are not quite."),
    ]
    return report


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")


def _plot(kind: str, name: str, table: Crossed, overall: float | None) -> Plot:
    rows, lines = [], []
    for group, all_of_it in table.rows.groups.items():
        part, label = table.cell(group, kind), words(group, table.rows.held)
        if part.shown and all_of_it.n:
            lower, rate, upper = wilson(part.n, all_of_it.n)
            rows.append((label, lower, rate, upper))
            lines.append([label, *cells_text(all_of_it), f"{part.n:,}", f"{rate:.1f}", f"{lower:.1f}–{upper:.1f}"])
        else:
            lines.append([label, *cells_text(all_of_it), HELD, HELD, HELD])
    said = f"; dashed: {overall:.1f} % of all" if overall is not None else ""
    more = f" The {MOST} with most exposures." if len(rows) > MOST else ""
    kept = f" {len(lines) - len(rows)} not shown: too few people." if len(rows) < len(lines) else ""
    return Plot(f"{kind}-{_slug(name)}", f"By {name.lower()}",
                f"Point: rate; bar: 95 % interval{said}.{more}{kept}",
                draw.ranges(f"{kind}-{_slug(name)}", rows[:MOST], f"{NAMES[kind]} rate (%)", mark=overall),
                Grid("", (name, "People", "Exposures", f"{NAMES[kind]}s", "Rate (%)", "95 % interval"), lines))


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
