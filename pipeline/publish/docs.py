"""checks.html: every check of a candidate, why it stands, where it comes from, and how many rows failed it.

Made from the result documents of `validate`, which hold no cell. Great Expectations' own Data Docs hold cells and fetch
style sheets from elsewhere (docs/adr/0008-checks-page.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.publish import pages
from pipeline.publish.figures import SMALL

_SEVERITIES = {
    "critical": "A row that fails stops the dataset.",
    "warning": "A row that fails is kept back, with its images.",
    "info": "Counted, and nothing more.",
}
_BLANK = {"expected": "", "why": "", "source": "", "answered": True, "unexpected_count": None, "column": ""}


def html(candidate: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return the page. `candidate` is candidate.json before its files are listed; `results` is a document a suite."""
    suites = [_suite(name, doc) for name, doc in sorted(results.items())]
    lines = [line for suite in suites for line in suite["lines"]]
    totals = [(severity, words, sum(line["severity"] == severity for line in lines),
               sum(line["severity"] == severity and not line["success"] for line in lines))
              for severity, words in _SEVERITIES.items()]
    return pages.render("checks.html.j2", candidate=candidate, suites=suites, totals=totals, small=SMALL,
                        failed=sorted((line for line in lines if not line["success"]),
                                      key=lambda line: list(_SEVERITIES).index(line["severity"])))


def _suite(name: str, doc: Mapping[str, Any]) -> dict[str, Any]:
    lines = [{**_BLANK, **line, "suite": name} for line in doc["expectations"]]
    return {"name": name, "rows": doc.get("rows", 0), "withheld": doc.get("withheld_instances", 0),
            "dropped": doc.get("dropped_rows", 0),
            "lines": lines, "failed": [line for line in lines if not line["success"]]}
