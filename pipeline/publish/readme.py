"""README.md of a release: what is in it, how to open and verify it, the rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.publish import pages


def text(sealed: Mapping[str, Any], release: str, sequence: int, predecessor: Mapping[str, Any] | None) -> bytes:
    """Return the README as Markdown. `sealed` is candidate.json."""
    return pages.render("README.md.j2", doc=sealed, release=release, sequence=sequence, predecessor=predecessor)
