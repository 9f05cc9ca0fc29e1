"""Technology against outcome: how episodes ended, by technique, model, dose and compression of their mammograms."""

from __future__ import annotations

from itertools import pairwise

from pipeline.audit import draw
from pipeline.audit.base import Asked, Audit, Grid, Need, Plot, Reads, Report, Section
from pipeline.audit.exposed import DEVICE, MODEL, PERSON, READS, STUDY, finite, prepare
from pipeline.audit.figures import HELD, TOGETHER, Crossed, cross_csv, cross_grid, crossed, wilson, words
from pipeline.errors import UsageError

NEVER, TIED, OPEN = ("no episode near the study", "two episodes equally near, with different outcomes",
                     "an episode without an outcome")

# One row an attendance: its technology, and the outcome of the person's nearest episode.
_ATTENDED = """
CREATE TABLE attended AS
WITH t AS (
    SELECT study_uid, person, bool_or(tomosynthesis) AS tomo,
           CASE WHEN count(DISTINCT model) = 1 THEN min(model) WHEN count(DISTINCT model) > 1 THEN 'more than one' END
             AS model,
           avg(agd) FILTER (NOT tomosynthesis) AS agd, avg(force) FILTER (NOT tomosynthesis) AS force,
           avg(pressure) FILTER (NOT tomosynthesis) AS pressure
    FROM e GROUP BY study_uid, person),
near AS (
    SELECT t.study_uid, abs(date_diff('day', s.study_date, c.on_date)) AS days, c.outcome
    FROM t JOIN people p USING (person) JOIN studies s USING (study_uid) JOIN ends c ON c.patient_id = p.patient_id
    WHERE s.patient_id = p.patient_id AND days <= {days} {after}),
best AS (SELECT study_uid, min(days) AS days FROM near GROUP BY study_uid),
found AS (SELECT study_uid, count(DISTINCT coalesce(outcome, '')) AS n, min(outcome) AS outcome
          FROM near JOIN best USING (study_uid, days) GROUP BY study_uid)
SELECT t.*, CASE WHEN f.n IS NULL THEN nullif({absent}, '') ELSE f.outcome END AS outcome,
       CASE WHEN f.n IS NULL AND {absent} = '' THEN '{never}' WHEN f.n > 1 THEN '{tied}'
            WHEN f.n = 1 AND f.outcome IS NULL THEN '{open}' END AS why
FROM t LEFT JOIN found f USING (study_uid)
"""


def _bands(column: str, edges: tuple[float, ...], unit: str) -> str:
    """SQL for bands of a number by fixed edges."""
    cases = [f"WHEN {column} < {edges[0]} THEN 'below {edges[0]:g} {unit}'"]
    cases += [f"WHEN {column} < {b} THEN '{a:g} to {b:g} {unit}'" for a, b in pairwise(edges)]
    return f"CASE {' '.join(cases)} WHEN {column} IS NOT NULL THEN '{edges[-1]:g} {unit} and more' END"


# Bands of the house, chosen to be few: they are no reference levels.
BY = {
    "Technique": "CASE WHEN tomo THEN 'with tomosynthesis' ELSE 'plain mammograms' END",
    "Model": "model",
    "Dose": _bands("agd", (1.0, 1.5, 2.0, 3.0), "mGy"),
    "Force": _bands("force", (80, 100, 120), "N"),
    "Pressure": _bands("pressure", (6, 8, 10, 12), "kPa"),
}


def answer(asked: Asked) -> Report:
    """Return outcomes by technology. Raises UsageError where the declared table or column is not in the release."""
    end = asked.outcome
    if not asked.has(end.table, "patient_id", end.date, end.column):
        raise UsageError(f"This release has no {end.table} with {end.date} and {end.column}.",
                         hint="Say where outcomes stand: --outcome FILE.toml (see docs/audits.md).")
    prepare(asked, study_uid="x.study_uid", model="trim(x.model::VARCHAR)", agd=finite("x.average_glandular_dose_mgy"),
            force=finite("x.compression_force_n"), pressure=finite("x.compression_pressure_kpa"))
    # Names of columns come from a file of the steward's: quoted, and they exist in the table.
    asked.db.execute(f'CREATE VIEW ends AS SELECT patient_id, "{end.date}"::DATE AS on_date,'  # noqa: S608
                     f' "{end.column}"::VARCHAR AS outcome FROM given."{end.table}"')
    absent = "'" + end.absent.replace("'", "''") + "'"
    asked.db.execute(_ATTENDED.format(days=end.days, never=NEVER, tied=TIED, open=OPEN, absent=absent,
                                      after="AND c.on_date >= s.study_date" if end.after else ""))
    asked.db.execute("CREATE VIEW linked AS SELECT * FROM attended WHERE why IS NULL")
    report = Report()
    found = {name: crossed(asked, "linked", sql, "outcome") for name, sql in BY.items()}
    outcomes, total = found["Technique"].columns, found["Technique"].rows.total
    report.facts = [("People", f"{total.people:,}" if total.shown else HELD),
                    ("Attendances", f"{total.n:,}" if total.shown else HELD)]
    plotted = [o for o in list(outcomes.groups)[1:4] if o != TOGETHER]
    for outcome in plotted:
        n = outcomes.groups[outcome]
        report.facts.append((_word(asked, outcome), f"{100 * n.n / total.n:.1f} %"))
    for name, table in found.items():
        table = _ordered(name, table)
        plots = tuple(_plot(asked, name, table, o, total.n) for o in plotted)
        report.sections.append(Section(f"By {name.lower()}", "", plots, (_counts(asked, name, table),)))
        report.files[f"by-{name.lower()}.csv"] = cross_csv(name.lower(), "outcome", table, (), rows="attendances")
    rows = asked.rows("SELECT why, count(*), count(DISTINCT person) FROM attended WHERE why IS NOT NULL"
                      " GROUP BY 1 ORDER BY 1")
    report.left_out = [(why, n) if people >= asked.minimum else (f"{why} (fewer than {asked.minimum} people)", 0)
                       for why, n, people in rows]
    report.definitions = [
        ("Outcome", f"{end.column} of the table {end.table}, of the person’s episode whose {end.date} is nearest to "
         f"the study, at most {end.days} days {'later' if end.after else 'away'}. Both dates moved by the same days: "
         f"those between are true.{f' No such row: {end.absent}.' if end.absent else ''}"),
        ("Attendance", "A study with at least one exposure. Two studies near one episode both have its outcome."),
        ("Dose, force, pressure", "Mean of the plain exposures of the attendance, as the machine states them."),
        ("Reading it", "Nobody was assigned to a machine by chance. A difference here can be one between people, "
         "places or the years. Bar: Wilson’s 95 % interval."),
    ]
    return report


def _word(asked: Asked, outcome: str) -> str:
    return asked.outcome.labels.get(outcome, outcome)


def _ordered(name: str, table: Crossed) -> Crossed:
    """Rows in the order of their bands, where they are bands."""
    if name in ("Technique", "Model"):
        return table

    def place(label: str) -> tuple[int, float]:
        first = label.removeprefix("below ").split(" ")[0]
        if not first.replace(".", "").isdigit():
            return (2 if label == TOGETHER else 1), 0.0
        return 0, float(first) - 0.001 * label.startswith("below")

    groups = {key: table.rows.groups[key] for key in sorted(table.rows.groups, key=place)}
    return Crossed(type(table.rows)(groups, table.rows.total, table.rows.held), table.columns, table.cells)


def _plot(asked: Asked, name: str, table: Crossed, outcome: str, total: int) -> Plot:
    rows, lines = [], []
    for group, all_of_it in table.rows.groups.items():
        label, part = words(group, table.rows.held), table.cell(group, outcome)
        if part.shown and all_of_it.n:
            lower, rate, upper = wilson(part.n, all_of_it.n)
            rows.append((label, lower, rate, upper))
            lines.append([label, f"{all_of_it.n:,}", f"{rate:.1f}", f"{lower:.1f}–{upper:.1f}"])
        else:
            lines.append([label, f"{all_of_it.n:,}", HELD, HELD])
    overall = 100 * table.columns.groups[outcome].n / total if total else None
    slug = "".join(c if c.isalnum() else "-" for c in outcome.lower())
    return Plot(f"{name.lower()}-{slug}", f"{_word(asked, outcome)}, by {name.lower()}",
                f"Point: share of attendances; bar: 95 % interval; dashed: all, {overall or 0:.1f} % (n = {total:,}).",
                draw.ranges(f"{name.lower()}-{slug}", rows, f"{_word(asked, outcome)} (%)", mark=overall),
                Grid("", (name, "Attendances", "Share (%)", "95 % interval"), lines))


def _counts(asked: Asked, name: str, table: Crossed) -> Grid:
    outcomes = list(table.columns.groups)
    heads = [_word(asked, words(outcome, table.columns.held)) for outcome in outcomes]
    return cross_grid("Attendances", name, table, outcomes, heads, rows="All")


AUDIT = Audit(
    "outcomes", "Technology and outcome",
    "How did episodes end, by technique, model, dose and compression of their mammograms?",
    (PERSON, STUDY, DEVICE, MODEL,
     Need("study date", "Joins a study to its episode.", (("StudyDate",),), least="shifted",
          serves=("shifted", "kept")),
     Need("dose as stated", "Bands of dose.", (("OrganDose",),), required=False),
     Need("compression force", "Bands of force.", (("CompressionForce",),), required=False),
     Need("compression pressure", "Bands of pressure.", (("CompressionPressure",),), required=False)),
    (READS, Reads("exposures", ("average_glandular_dose_mgy", "compression_force_n", "compression_pressure_kpa")),
     Reads("studies", ("study_uid", "patient_id", "study_date"))),
    answer)
