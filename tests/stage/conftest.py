from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from stage_kit import open_zones


@pytest.fixture
def zones(tmp_path: Path) -> SimpleNamespace:
    return open_zones(tmp_path)
