"""The page of an assessment: self-contained, for a procurement file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from pipeline.look import pages
from pipeline.retrieve.assess import Tried
from pipeline.sections import Retrieve


def page(asked: Retrieve, tried: Sequence[Tried], day: date) -> bytes:
    """Return the page as HTML: what was tried, and as requirements what was not done."""
    areas = [{"name": name, "tried": list(group)} for name, group in groupby(tried, key=lambda one: one.area)]
    needs = list(dict.fromkeys(one.need for one in tried if one.verdict != "yes" and one.need))
    about = {"ae": asked.called_ae or "the DICOMweb service", "ours": asked.calling_ae, "day": day.isoformat(),
             "version": version("tre-ingest")}
    return pages.render(Path(__file__).parent / "templates", "assess.html.j2", {}, about=about, areas=areas,
                        needs=needs, all=len(tried), well=sum(one.verdict == "yes" for one in tried),
                        ignored=sum(one.verdict == "ignored" for one in tried))
