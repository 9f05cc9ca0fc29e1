from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import ProjectConfig
from pipeline.deidentify.keys import Key
from pipeline.deidentify.pseudonyms import Pseudonyms

MakeConfig = Callable[..., ProjectConfig]


@pytest.fixture
def make_config(tmp_path: Path) -> MakeConfig:
    """Return a maker of project files' content; what is given replaces or adds to a section."""
    def make(**sections: Any) -> ProjectConfig:
        doc: dict[str, Any] = {
            "schema_version": 1,
            "project": {"name": "breast-audit", "title": "t", "data_steward": "s"},
            "zones": {zone: (tmp_path / zone).as_uri() for zone in ("landing", "work", "candidate", "release")},
            "eligibility": {
                "sop_classes": ["Digital Mammography X-Ray Image Storage - For Presentation"],
                "study_dates": {"earliest": datetime.date(2015, 1, 1), "latest": datetime.date(2024, 12, 31)},
                "people": {"not_required": "Consent of every participant, ref 123"},
            },
            "deidentify": {"recipes": [{"files": ["base.dicom"], "sop_classes": ["1.2"]}],
                           "crosswalk": tmp_path / "crosswalk.csv"},
        }
        for name, section in sections.items():
            doc[name] = {**doc[name], **section} if isinstance(section, dict) and name in doc else section
        return ProjectConfig.model_validate(doc).model_copy(update={"path": tmp_path / "project.toml"})
    return make


@pytest.fixture
def pseudonyms() -> Pseudonyms:
    return Pseudonyms(Key(bytes(range(32)), "k"))
