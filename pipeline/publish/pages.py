"""Pages of a release, from the templates beside this file. Everything that is put in is escaped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.look import pages


def render(template: str, **values: object) -> bytes:
    """Return the filled template as UTF-8; a name that is not given is an error."""
    from pipeline.publish import words

    filters: dict[str, Callable[..., object]] = {
        "size": words.size, "reason": words.reason, "row_reason": words.row_reason}
    return pages.render(Path(__file__).parent / "templates", template, filters, **values)
