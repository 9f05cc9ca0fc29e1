"""Compression: force and pressure by x-ray set and by operator, and how they spread by view."""

from __future__ import annotations

from pipeline.audit import draw
from pipeline.audit.base import Asked, Audit, Need, Plot, Reads, Report, Section
from pipeline.audit.exposed import DEVICE, MODEL, PERSON, READS, SIDE, VIEW, finite, prepare
from pipeline.audit.figures import (
    HELD,
    NOT_STATED,
    Crossed,
    Listed,
    cross_csv,
    crossed,
    grid,
    list_csv,
    named,
    number,
    without_counts,
)

FORCE_N, PRESSURE_KPA = 10, 1
MOST = 24           # rows of a plot; the table has them all
_STATS = "quantile_cont({0}, 0.5)", "avg({0})", "quantile_cont({0}, 0.25)", "quantile_cont({0}, 0.75)"


def answer(asked: Asked) -> Report:
    """Return force of every exposure that states one, and pressure likewise: two sets of exposures, told apart."""
    prepare(asked, operator="x.operator_id::VARCHAR", force=finite("x.compression_force_n"),
            pressure=finite("x.compression_pressure_kpa"))
    report = Report()
    told = _told(asked)
    for name, unit, width in (("force", "N", FORCE_N), ("pressure", "kPa", PRESSURE_KPA)):
        if asked.one(f"SELECT count({name}) > 0 FROM e"):  # noqa: S608
            asked.db.execute(f"CREATE VIEW {name}s AS SELECT * FROM e WHERE {name} IS NOT NULL"  # noqa: S608
                             f" AND {name} <= {_LARGEST[name]}")
            _part(asked, report, name, unit, width, counted=told or name == "force")
        else:
            report.notes.append(f"No exposure of this release states a compression {name}.")
    for name in ("force", "pressure"):
        n, people = asked.rows(f"SELECT count(*), count(DISTINCT person) FROM e WHERE {name} IS NULL"  # noqa: S608
                               f" OR {name} > {_LARGEST[name]}")[0]
        if n:
            few = people < asked.minimum
            report.left_out.append((f"no {name} stated" + (f" (fewer than {asked.minimum} people)" if few else ""),
                                    0 if few else n))
    report.definitions += [
        ("Force", "Compression force in newton, as header or dose report states it, one conversion a vendor."),
        ("Pressure", "Compression pressure in kilopascal as the set states it. It is not worked out from force and "
         "contact area where the set states none."),
        ("Operator", "Who made the exposure, under a pseudonym of the site. Operators who examined fewer than "
         f"{asked.minimum} people are kept back."),
        ("Spread", "Share of the exposures of a view, in bins of "
         f"{FORCE_N} N and {PRESSURE_KPA} kPa; a bin of few people is not drawn."),
    ]
    return report


def _told(asked: Asked) -> bool:
    """Whether counts of both may be shown: what states one alone is the difference of the two, and must not be few."""
    state = "CASE WHEN pressure IS NULL THEN 'force' WHEN force IS NULL THEN 'pressure' ELSE 'both' END"
    for by in ("set_label", "operator", _VIEW):
        found = crossed(asked, "e", by, state, where="force IS NOT NULL OR pressure IS NOT NULL")
        if found.columns.held or not all(n.shown for n in found.cells.values()):
            return False
    return True


# Rare views together: each of them alone would be kept back, and others with it.
_VIEW = "CASE WHEN view IN ('CC', 'MLO') THEN view ELSE 'other' END"
_LARGEST = {"force": 1000, "pressure": 200}     # house plausibility limits, and wide


def _part(asked: Asked, report: Report, name: str, unit: str, width: int, counted: bool) -> None:
    stats = tuple(sql.format(name) for sql in _STATS)
    heads = ((f"Median ({unit})", 1), (f"Mean ({unit})", 1), ("Lower quartile", 1), ("Upper quartile", 1))
    columns = (f"median_{name}", f"mean_{name}", f"lower_quartile_{name}", f"upper_quartile_{name}")
    both = crossed(asked, f"{name}s", "set_label", "operator", stats)
    views = crossed(asked, f"{name}s", _VIEW,
                    f"(least(floor({name} / {width}), {_TAIL[name]}) * {width})::INT")
    sets, operators = both.rows, both.columns
    if not counted:     # how many state one of the two alone could be had by subtraction
        sets, operators = without_counts(sets), without_counts(operators)
        report.notes.append(f"How many exposures state a {name} is not shown: so few state the other alone.")
    total = sets.total
    median = total.stats[0] if total.shown and total.stats else None
    if name == "force":
        report.facts += [("People", f"{total.people:,}" if total.shown else HELD),
                         ("Exposures with a force", f"{total.n:,}" if total.shown else HELD),
                         ("Operators", f"{len({*named(operators), *operators.held} - {NOT_STATED}):,}")]
    report.facts.append((f"Median {name}", f"{number(median, 0 if name == 'force' else 1)} {unit}"))
    title = f"Compression {name}"

    def ranged(which: str, found: Listed, words: str) -> Plot:
        rows = [(label, float(n.stats[2] or 0), float(n.stats[0] or 0), float(n.stats[3] or 0))
                for label, n in list(named(found).items())[:MOST]]
        more = f" The {MOST} with most exposures." if len(named(found)) > MOST else ""
        return Plot(f"{name}-{which}", words, f"Point: median; bar: the middle half; dashed: median of all"
                    f"{f' (n = {total.n:,})' if total.counted else ''}.{more}",
                    draw.ranges(f"{name}-{which}", rows, f"{title} ({unit})", mark=median))

    report.sections.append(Section(
        title, "",
        (ranged("sets", sets, "By x-ray set"), ranged("operators", operators, "By operator"),
         *([_spread(name, unit, width, views)] if counted else ())),
        (grid("By x-ray set", "X-ray set", sets, heads), grid("By operator", "Operator", operators, heads))))
    report.files |= {
        f"{name}-by-set.csv": list_csv("set", sets, columns),
        f"{name}-by-operator.csv": list_csv("operator", operators, columns),
    }
    if counted:
        report.files |= {
            f"{name}-by-set-and-operator.csv": cross_csv("set", "operator", both, columns),
            f"{name}-by-view.csv": cross_csv("view", f"{name}_from_{unit.lower()}", views, ()),
        }


_TAIL = {"force": 25, "pressure": 30}       # bins; the last one is open


def _spread(name: str, unit: str, width: int, views: Crossed) -> Plot:
    series = {}
    for view, count in views.rows.groups.items():
        shares = {float(b): 100 * n.n / count.n for b in views.columns.groups
                  if b.isdigit() and (n := views.cell(view, b)).shown and n.n}
        if shares and view != "other":
            series[f"{view} (n = {count.n:,})"] = shares
    return Plot(f"{name}-views", "By view", f"Share of a view’s exposures in each {width} {unit}.",
                draw.steps(f"{name}-views", series, width, f"Compression {name} ({unit})", "Exposures (%)"))


AUDIT = Audit(
    "compression", "Compression",
    "With how much force and pressure are breasts compressed, and do x-ray sets and operators differ?",
    (PERSON, DEVICE, MODEL, VIEW, SIDE,
     Need("compression force", "What is asked.", (("CompressionForce",),)),
     Need("compression pressure", "What is asked, where the set states it.", (("CompressionPressure",),),
          required=False),
     Need("operator", "Groups by operator.", (("OperatorsName",),), least="pseudonym", serves=("pseudonym",))),
    (READS, Reads("exposures", ("compression_force_n", "compression_pressure_kpa", "operator_id"))),
    answer)
