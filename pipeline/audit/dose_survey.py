"""Dose survey: mean glandular dose against breast thickness, by x-ray set and by target and filter."""

from __future__ import annotations

from pipeline.audit import draw, national_survey
from pipeline.audit.base import Asked, Audit, Grid, Need, Plot, Reads, Report, Section
from pipeline.audit.exposed import (
    BAND_MM,
    BAND_SQL,
    BANDS,
    DEVICE,
    IN_BAND,
    MODEL,
    PERSON,
    READS,
    SIDE,
    STUDY,
    THICK,
    THICKNESS,
    TOMOSYNTHESIS,
    VIEW,
    finite,
    prepare,
)
from pipeline.audit.figures import (
    HELD,
    NOT_STATED,
    Crossed,
    Listed,
    column,
    cross_csv,
    crossed,
    grid,
    list_csv,
    named,
    number,
    table,
)
from pipeline.audit.figures import words as label

QUARTILES = ("quantile_cont(dose, 0.5)", "avg(dose)", "quantile_cont(dose, 0.25)", "quantile_cont(dose, 0.75)")
HEADS = (("Median (mGy)", 2), ("Mean (mGy)", 2), ("Lower quartile", 2), ("Upper quartile", 2))
COLUMNS = ("median_mgy", "mean_mgy", "lower_quartile_mgy", "upper_quartile_mgy")
TILE_MM, TILE_MGY = 2.5, 0.1
POINTS = 20_000     # of the plot that shows individuals: a browser has to draw each


def answer(asked: Asked) -> Report:
    """Return the survey. Where no mean glandular dose was computed, the machine's own figure stands for it."""
    prepare(asked, agd=finite("x.average_glandular_dose_mgy"), mgd=finite("d.mean_glandular_dose_mgy"),
            synthetic="coalesce(d.synthetic, false)", why="d.not_computed", factors="d.factors")
    computed = bool(asked.one("SELECT count(mgd) > 0 FROM e"))
    words = "Mean glandular dose" if computed else "Average glandular dose as the x-ray set states it"
    asked.db.execute(f"CREATE VIEW dosed AS SELECT *, {'mgd' if computed else 'agd'} AS dose FROM e"  # noqa: S608
                     f" WHERE {THICKNESS} AND {'mgd' if computed else 'agd'} IS NOT NULL")
    report = Report()
    if computed and asked.one("SELECT bool_or(synthetic) FROM dosed"):
        report.watermark = "SYNTHETIC FACTORS"
        report.notes.append("The conversion factors were made up for a demonstration. No dose on this page is a dose.")
    # One way to cut each kind of group, over one set of exposures: all tables here share their totals.
    sets = crossed(asked, "dosed", "set_label", BAND_SQL, QUARTILES)
    spectra = crossed(asked, "dosed", "spectrum", BAND_SQL, QUARTILES)
    both = crossed(asked, "dosed", "set_label", "spectrum", QUARTILES)
    total, band = sets.rows.total, sets.columns.groups.get(IN_BAND)
    people, exposures = (f"{total.people:,}", f"{total.n:,}") if total.shown else (HELD, HELD)
    report.facts = [
        ("People", people), ("Exposures", exposures), ("X-ray sets", _sets(sets.rows)),
        (f"Exposures at {IN_BAND}", f"{band.n:,}" if band else HELD),
        (f"Median at {IN_BAND}", f"{number(band.stats[0], 2)} mGy" if band else HELD),
    ]
    at_band = column(sets, IN_BAND)
    rows = [(label, *_range(n.stats)) for label, n in named(at_band).items() if n.shown]
    said = f"{number(band.stats[0], 2)} mGy (n = {band.n:,})" if band else "not shown: too few people"
    drawn = Plot("sets", f"By x-ray set, at {IN_BAND}",
                 f"{words}. Point: median; bar: the middle half; dashed: the median of all, {said}.",
                 draw.ranges("dose-sets", rows, f"{_short(words)} (mGy)", mark=band.stats[0] if band else None,
                             watermark=report.watermark))
    report.sections.append(Section("Dose against thickness", "", (
        *_against_thickness(asked, words, spectra, report.watermark), drawn)))
    report.sections.append(Section(
        "By x-ray set", f"{words} at {IN_BAND}, where UK surveys compare sets, and at every thickness.",
        grids=(grid(f"At {IN_BAND}", "X-ray set", at_band, HEADS),
         grid("At every thickness", "X-ray set", sets.rows, HEADS))))
    report.sections.append(Section(
        "By target and filter", f"{words} by anode and filter material.",
        grids=(grid(f"At {IN_BAND}", "Target/filter", column(spectra, IN_BAND), HEADS),
               grid("At every thickness", "Target/filter", spectra.rows, HEADS))))
    report.sections += _compared(asked, report, computed)
    report.files = {
        "by-set.csv": list_csv("set", sets.rows, COLUMNS),
        "by-set-and-thickness.csv": cross_csv("set", "thickness", sets, COLUMNS),
        "by-target-filter.csv": list_csv("target_filter", spectra.rows, COLUMNS),
        "by-target-filter-and-thickness.csv": cross_csv("target_filter", "thickness", spectra, COLUMNS),
        "by-set-and-target-filter.csv": cross_csv("set", "target_filter", both, COLUMNS),
        **report.files,
    }
    _left_out(asked, report, computed)
    report.definitions += [
        ("Mean glandular dose", "D = K g c s: incident air kerma from the set’s measured output, times the factors of "
         "the physicist’s table (glandular_doses)." if computed else
         "Was not computed: this release has no local output or no factors. The figures are the machine’s own."),
        ("Average glandular dose as stated", "What the x-ray set wrote into header or dose report. Each vendor has its "
         "own way to it, so sets of different vendors cannot be compared by it."),
        (IN_BAND, f"Compressed thickness from {BAND_MM[0]} up to, not including, {BAND_MM[1]} mm."),
        ("Exposure", "One irradiation, however many images came of it. Tomosynthesis stands apart under its set."),
    ]
    national_survey.add(asked, report)
    return report


def _range(stats: tuple[float | None, ...]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile of QUARTILES."""
    return float(stats[2] or 0), float(stats[0] or 0), float(stats[3] or 0)


def _short(words: str) -> str:
    return words.partition(" as ")[0]


def _sets(rows: Listed) -> str:
    """How many sets there are: those of tomosynthesis are the same machines."""
    return f"{len({label.removesuffix(TOMOSYNTHESIS) for label in (*named(rows), *rows.held)} - {NOT_STATED}):,}"


def _against_thickness(asked: Asked, words: str, spectra: Crossed, watermark: str) -> tuple[Plot, Plot]:
    lines = asked.rows(
        "SELECT floor(thickness_mm / 5) * 5 AS b, quantile_cont(dose, 0.25), quantile_cont(dose, 0.5),"
        " quantile_cont(dose, 0.75) FROM dosed WHERE NOT tomosynthesis GROUP BY b"
        " HAVING count(DISTINCT person) >= ? ORDER BY b", asked.minimum)
    line = [(b + 2.5, q1, q2, q3) for b, q1, q2, q3 in lines]
    band = (float(BAND_MM[0]), float(BAND_MM[1]))
    axes = ("Compressed breast thickness (mm)", f"{_short(words)} (mGy)")
    text = (f"Plain mammograms; tomosynthesis is left out here. Shaded: {IN_BAND}. Line: median of each 5 mm, with its"
            " middle half.")
    if asked.disclosure == "internal":
        points = asked.rows("SELECT thickness_mm, dose FROM dosed WHERE NOT tomosynthesis ORDER BY ALL")
        step = -(-len(points) // POINTS) or 1
        svg = draw.scatter("dose", points[::step], *axes, line=line, band=band, watermark=watermark, every=10)
        which = f"every {step}th of" if step > 1 else "n ="
        caption = f"{text} A point an exposure, {which} {len(points):,}: for the environment alone."
    else:
        bins = asked.rows(
            f"SELECT floor(thickness_mm / {TILE_MM}) * {TILE_MM} AS a, floor(dose / {TILE_MGY}) * {TILE_MGY} AS b,"  # noqa: S608
            " count(DISTINCT person) AS people FROM dosed WHERE NOT tomosynthesis GROUP BY a, b"
            " HAVING people >= ? ORDER BY a, b", asked.minimum)
        svg = draw.density("dose", bins, TILE_MM, TILE_MGY, *axes, minimum=asked.minimum, line=line, band=band,
                           watermark=watermark, every=10)
        caption = (f"{text} Tiles of {TILE_MM:g} mm by {TILE_MGY:g} mGy; a tile of fewer than {asked.minimum} people is"
                   " not drawn.")
    series = {}
    for spectrum in list(named(spectra.rows))[:7]:
        points = [(middle, float(n.stats[0] or 0)) for b, middle in BANDS.items()
                  if (n := spectra.cell(spectrum, b)).shown and n.n]
        if points:
            series[spectrum] = points
    there = [b for b in BANDS if b in spectra.columns.groups]
    rows = [[label(s, spectra.rows.held),
             *(HELD if not (n := spectra.cell(s, b)).shown else number(n.stats[0], 2) if n.n else "" for b in there)]
            for s in spectra.rows.groups]
    drawn = Plot("spectra", "By target and filter", f"{words}: median of each 10 mm of thickness. Shaded: {IN_BAND}.",
                 draw.curves("dose-spectra", series, *axes, band=band, watermark=watermark, every=10),
                 Grid("", ("Target/filter", *there), rows))
    return Plot("dose", f"{words} against thickness", caption, svg, wide=True), drawn


def _compared(asked: Asked, report: Report, computed: bool) -> list[Section]:
    """The machine's own figure beside the mean glandular dose, a ratio a set."""
    if not computed:
        return []
    # Without counts: how many exposures of a set state no dose cannot be worked out from a ratio.
    found = asked.rows(
        "SELECT set_label, quantile_cont(agd, 0.5), quantile_cont(mgd, 0.5), quantile_cont(agd / mgd, 0.25),"
        " quantile_cont(agd / mgd, 0.5), quantile_cont(agd / mgd, 0.75) FROM dosed"
        " WHERE agd IS NOT NULL AND set_label IS NOT NULL GROUP BY set_label HAVING count(DISTINCT person) >= ?"
        " ORDER BY set_label", asked.minimum)
    rows = [(row[0], row[3], row[4], row[5]) for row in found]
    report.files["stated-and-computed.csv"] = table(
        ("set", "median_stated_mgy", "median_mean_glandular_mgy", "ratio_lower_quartile", "ratio_median",
         "ratio_upper_quartile"), found)
    lines = [[row[0], *(number(row[n], 2) for n in (1, 2, 4))] for row in found]
    return [Section("The machine’s own figure", "", (Plot(
        "stated", "What the machine states, beside it",
        "Average glandular dose as the set states it, divided by the mean glandular dose. Point: median; bar: the "
        f"middle half; dashed: equal. Sets with at least {asked.minimum} people whose exposures have both.",
        draw.ranges("dose-stated", rows, "stated / mean glandular", mark=1.0, watermark=report.watermark)),
        Plot("stated-numbers", "", "", "",
             Grid("Medians", ("X-ray set", "Stated (mGy)", "Mean glandular (mGy)", "Ratio"), lines))))]


def _left_out(asked: Asked, report: Report, computed: bool) -> None:
    reason = (f"CASE WHEN NOT coalesce({THICKNESS}, false) THEN 'no thickness'"
              + (" WHEN mgd IS NULL THEN 'no mean glandular dose: ' || coalesce(replace(why, '_', ' '), 'not computed')"
                 if computed else " WHEN agd IS NULL THEN 'no dose stated'") + " END")
    rows = asked.rows(f"SELECT {reason} AS r, count(*), count(DISTINCT person) FROM e"  # noqa: S608
                      " GROUP BY r HAVING r IS NOT NULL ORDER BY r")
    report.left_out += [(r, n) if people >= asked.minimum else (f"{r} (fewer than {asked.minimum} people)", 0)
                        for r, n, people in rows]


AUDIT = Audit(
    "dose-survey", "Dose survey",
    "How much dose does each x-ray set give for a breast of this thickness, and with which target and filter?",
    (PERSON, STUDY, DEVICE, MODEL, THICK, VIEW, SIDE,
     Need("tube voltage", "The factors and the survey file need it.", (("KVP",),)),
     Need("tube current-time product", "Air kerma is output times it.", (("ExposureInuAs",), ("Exposure",))),
     Need("anode", "The factors and the survey file need it.", (("AnodeTargetMaterial",),)),
     Need("filter", "The factors and the survey file need it.", (("FilterMaterial",),)),
     Need("dose as stated", "Stands beside the mean glandular dose, or for it.", (("OrganDose",),), required=False),
     Need("age", "The factors ask for it; the survey file has it in bands.", (("PatientAge",),), least="banded",
          serves=("banded", "kept"), required=False),
     Need("exposure control", "The survey file’s auto/man.", (("ExposureControlMode",),), required=False)),
    (READS, Reads("exposures", ("kvp_kv", "exposure_mas", "exposure_control_mode", "average_glandular_dose_mgy",
                                "acquisition_order")),
     Reads("studies", ("study_uid", "age_band_years"), required=False),
     Reads("glandular_doses", ("exposure_id", "mean_glandular_dose_mgy", "synthetic", "not_computed", "factors"),
           required=False)),
    answer)
