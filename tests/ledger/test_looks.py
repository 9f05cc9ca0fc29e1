"""What came of looking for text in pixels: counted by device, an image once, and told as coordinates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline import config, layout
from pipeline.cli.main import app
from pipeline.deidentify import devices
from pipeline.ledger import looks
from pipeline.schemas import LOOKS, OUTCOMES
from pipeline.storage import open_store, tables
from pipeline.synthetic.project import project_text


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose work zone holds two parts that share an image, and one that nobody finished."""
    path = tmp_path / "project.toml"
    zones = [(tmp_path / zone).as_uri() for zone in ("landing", "work", "candidate", "release")]
    path.write_text(project_text(*zones, name="seen"))
    work = open_store(zones[1], "work")

    def row(n: int, software: str, boxes: list[str]) -> dict[str, Any]:
        return {"source_sha256": bytes([n]) * 32, "manufacturer": "maker", "model": "one", "software": software,
                "pictures": 1, "boxes": boxes}

    clean = [row(n, "2", []) for n in range(10, 10 + devices.LEAST)]
    parts = {"p-1": [row(1, "1", ["3,4,50,20"]), row(2, "1", []), *clean], "p-2": [row(1, "1", []), row(3, "1", [])],
             "p-unfinished": [row(4, "9", ["0,0,1,1"])], "p-without": []}
    for part, rows in parts.items():
        if rows:
            tables.write(work, layout.looks("seen", part), tables.from_rows(LOOKS, rows))
        if part != "p-unfinished":
            tables.write(work, layout.outcomes("seen", part), tables.from_rows(OUTCOMES, []))
    return path


def test_images_are_counted_once_and_text_in_any_part_counts(project: Path) -> None:
    loaded = config.load(project)
    work = open_store(loaded.zones.work, "work")
    assert looks.devices(loaded, work) == [looks.Device("maker", "one", "1", 3, 1),
                                           looks.Device("maker", "one", "2", devices.LEAST, 0)]
    assert looks.boxes(loaded, work, "01" * 32, "p-1") == ["3,4,50,20"]
    assert looks.boxes(loaded, work, "02" * 32, "p-1") == looks.boxes(loaded, work, "01" * 32, "p-without") == []


def test_a_draft_holds_only_what_was_read_often_and_clean(project: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["pixels", "devices", str(project)])
    assert shown.exit_code == 0 and "with text" in shown.output
    draft = CliRunner().invoke(app, ["pixels", "devices", str(project), "--draft"])
    path = tmp_path / "devices.toml"
    path.write_text(draft.output)
    assert [device.software for device, _ in devices.read(path)] == ["2"]
