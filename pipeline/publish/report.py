"""report.html: one page, self-contained, whose bytes depend on the candidate alone. No script, no outside address."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.model import Status
from pipeline.publish import charts, checks, pages, words
from pipeline.publish.figures import SMALL, Figures, Group, keep_back, measure

BAND = "50–60"  # mm: the thickness at which UK surveys compare dose
_STATUS = {
    Status.PUBLISHED: "In this dataset.",
    Status.PENDING: "Staged, and not de-identified yet.",
    Status.REJECTED: "Not admitted, or not eligible.",
    Status.DUPLICATE: "Staged before with the same bytes.",
    Status.CONFLICT: "One instance UID, different bytes.",
    Status.QUARANTINED: "Could not be de-identified safely.",
    Status.WITHHELD: "Kept back: no certain identity, or a failed check.",
    Status.RECALLED: "Taken back: it stays out for good.",
}


def html(
    tables: Mapping[str, Path],
    candidate: Mapping[str, Any],
    plan: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Any]],
    dictionary: Mapping[str, Any],
) -> bytes:
    """Return the report of a candidate. `candidate` is candidate.json before its list of files is added."""
    width = plan.get("age_band_years", 5)
    found = measure(tables, width)
    return pages.render(
        "report.html.j2",
        candidate=candidate,
        figures=found,
        shift_days=plan.get("date_shift_days"),
        age_band_years=width,
        keep_times=bool(plan.get("keep_times")),
        plots=_plots(found, width),
        dictionary=dictionary,
        small=SMALL,
        fates=fates(candidate["counts"]),
        suites=_suites(results),
        makers=found.makers,
        devices=[_device(g, found.device_names) for g in found.devices],
        in_band=next((g for g in found.dose if g.label == BAND and g.shown), None),
        methods=[(code, words.METHODS.get(code, "")) for code in plan.get("method_codes", ())],
        band=BAND,
        years=candidate["study_years"],
    )


def _plots(found: Figures, age_band_years: int) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return (section, plots) for what there is to plot."""
    people = [
        _plot(
            "years",
            "Images by year of study",
            "Years are of the shifted dates.",
            found.years,
            "Year (shifted)",
            "Images",
        ),
        _plot(
            "ages",
            "Studies by age band",
            f"Age at the study, in bands of {age_band_years} years.",
            found.ages,
            "Age (years)",
            "Studies",
        ),
    ]
    if found.views:
        people.append(
            _figure(
                "views",
                "Views and sides",
                "Images by view; the ten commonest.",
                [g for gs in found.views.values() for g in gs],
                "Images",
                charts.pairs("views", found.views, "View", "Images"),
            )
        )
    exposure = [
        _plot(
            "thickness",
            "Compressed breast thickness",
            f"Exposures in bands of 10 mm. Shaded: {BAND} mm, where UK surveys compare dose.",
            found.thickness,
            "Thickness (mm)",
            "Exposures",
            band=BAND,
        ),
        _plot("force", "Compression force", "Exposures in bands of 20 N.", found.force, "Force (N)", "Exposures"),
    ]
    if any(g.shown for g in found.dose):
        dose = _figure(
            "dose",
            "Dose against thickness",
            f"Organ dose as the x-ray set states it: point, median; bar, the middle half. Shaded: {BAND} mm.",
            found.dose,
            "Exposures",
            charts.quartiles("dose", found.dose, "Thickness (mm)", "Organ dose (mGy)", band=BAND),
        )
        for row, group in zip(dose["rows"], found.dose, strict=True):
            row.append(" / ".join(f"{v:.2f}" for v in group.extra if v is not None) if group.shown else "not shown")
        dose["head"].append("Quartiles (mGy)")
        exposure.append(dose)
    kept = [
        (title, [p for p in plots if p]) for title, plots in (("People and images", people), ("Exposures", exposure))
    ]
    return [(title, [p for p in plots if p is not None]) for title, plots in kept if plots]


def _plot(
    name: str, title: str, caption: str, groups: list[Group], x: str, y: str, band: str | None = None
) -> dict[str, Any] | None:
    return _figure(name, title, caption, groups, y, charts.bars(name, groups, x, y, band=band)) if groups else None


def _figure(name: str, title: str, caption: str, groups: list[Group], what: str, svg: str) -> dict[str, Any]:
    """A plot with the numbers behind it, for those who read rather than look."""
    return {
        "name": name,
        "title": title,
        "caption": caption,
        "svg": svg,
        "head": ["", what, "People"],
        "rows": [[g.label, g.n_text, g.people_text] for g in groups],
    }


def _device(group: Group, names: Mapping[str, str]) -> dict[str, Any]:
    medians = [
        f"{value:.{digits}f}" if value is not None and group.shown else "–"
        for value, digits in zip(group.extra, (0, 0, 2), strict=True)
    ]
    name = names.get(group.label, "not stated") if group.shown else "not shown"
    return {"device": group.label, "name": name, "group": group, "medians": medians}


def fates(counts: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """Status, its words, its reasons; small counts kept back like small groups of people."""
    out = []
    for status in _STATUS:
        by_reason = counts.get(status, {})
        flat = keep_back(Group(code, n, n) for code, n in sorted(by_reason.items(), key=lambda i: (-i[1], i[0])))
        if flat:
            out.append(
                {
                    "status": str(status),
                    "words": _STATUS[status],
                    "reasons": flat,
                    "total": keep_back([Group("", sum(by_reason.values()), sum(by_reason.values()))])[0],
                }
            )
    return out


def _suites(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Suite, how many expectations passed, and those that did not."""
    by_suite: dict[str, list[checks.Check]] = {suite: [] for suite in sorted(results)}
    for check in checks.rows(results):
        by_suite[check.suite].append(check)
    return [
        {
            "suite": suite,
            "all": len(found),
            "passed": sum(c.passed for c in found),
            "failed": [c for c in found if not c.passed],
            "held": results[suite].get("withheld_instances", 0),
            "dropped": results[suite].get("dropped_rows", 0),
        }
        for suite, found in by_suite.items()
    ]
