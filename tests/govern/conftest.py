from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import ProjectConfig


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., ProjectConfig]:
    """Return a maker of project files' content; what is given adds to a section, `people` replaces its own."""
    def make(people: dict[str, Any] | None = None, **sections: dict[str, Any]) -> ProjectConfig:
        doc: dict[str, Any] = {
            "schema_version": 1,
            "project": {"name": "breast-audit", "title": "t", "data_steward": "s"},
            "zones": {zone: (tmp_path / zone).as_uri() for zone in ("landing", "work", "candidate", "release")},
            "eligibility": {
                "sop_classes": ["1.2.840.10008.5.1.4.1.1.1.2"],
                "study_dates": {"earliest": datetime.date(2015, 1, 1), "latest": datetime.date(2024, 12, 31)},
                "people": people or {"not_required": "Consent of every participant, ref 123"},
            },
            "deidentify": {"recipes": [{"files": ["base.dicom"], "sop_classes": ["1.2"]}]},
        }
        for name, section in sections.items():
            doc[name] = {**doc.get(name, {}), **section}
        return ProjectConfig.model_validate(doc).model_copy(update={"path": tmp_path / "project.toml"})
    return make
