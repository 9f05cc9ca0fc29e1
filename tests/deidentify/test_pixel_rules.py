"""`%filter` sections read strictly, and as deid's own parser and evaluation read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pixels_kit import dataset, native

from pipeline.deidentify import pixel_rules
from pipeline.deidentify.linter import lint, read
from pipeline.deidentify.masks import applies
from pipeline.dicom.file import scan
from pipeline.errors import RecipeRefused

HEAD = "FORMAT dicom\n%header\nREMOVE ALL\nKEEP Rows\n"
GOOD = ("%filter graylist\nLABEL Ultrasound\ncontains Modality US\n+ present SequenceOfUltrasoundRegions\n"
        "coordinates all\nkeepcoordinates from:SequenceOfUltrasoundRegions\n")


def recipe(folder: Path, text: str, name: str = "r.dicom") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_section_is_read_wherever_it_stands(tmp_path: Path) -> None:
    behind = recipe(tmp_path, HEAD + GOOD, "a.dicom")
    before = recipe(tmp_path, HEAD.replace("%header", GOOD + "%header"), "b.dicom")
    assert len(read([behind])) == len(read([before])) == 2
    one, other = pixel_rules.read([behind])[0], pixel_rules.read([before])[0]
    assert one.canonical() == other.canonical()
    assert [c.test for c in one.conditions] == ["contains", "present"]
    assert [(a.keep, a.box, a.regions) for a in one.areas] == [(False, None, False), (True, None, True)]


TRAPS = {
    "filter_section": "%filter\nLABEL a\ncontains Modality US\ncoordinates all",
    "filter_outside": "%filter g\ncontains Modality US\nLABEL a\ncontains Modality US\ncoordinates all",
    "filter_or": "%filter g\nLABEL a\ncontains Modality US || contains Modality MG\ncoordinates all",
    "filter_join": "%filter g\nLABEL a\ncontains Modality US\ncontains Modality MG\ncoordinates all",
    "filter_test": "%filter g\nLABEL a\nempty Modality\ncoordinates all",
    "filter_keyword": "%filter g\nLABEL a\ncontains Modalty US\ncoordinates all",
    "filter_value": "%filter g\nLABEL a\ncontains Modality U.*\ncoordinates all",
    "filter_vr": "%filter g\nLABEL a\ncontains PatientName DOE\ncoordinates all",
    "filter_equals": "%filter g\nLABEL a\nequals ImageType DERIVED\ncoordinates all",
    "filter_without_condition": "%filter g\nLABEL a\ncoordinates all",
    "filter_without_area": "%filter g\nLABEL a\ncontains Modality US",
    "filter_area": "%filter g\nLABEL a\ncontains Modality US\nctpcoordinates 0,0,5,5",
    "filter_keep_first": "%filter g\nLABEL a\ncontains Modality US\nkeepcoordinates 0,0,5,5",
    "character": "%filter g\nLABEL a # why\ncontains Modality US\ncoordinates all",
}


@pytest.mark.parametrize("rule", TRAPS)
def test_traps_are_refused_by_line(rule: str, tmp_path: Path) -> None:
    path = recipe(tmp_path, HEAD + TRAPS[rule] + "\n")
    found = [finding for finding in lint([path]) if finding.rule == rule]
    assert found, lint([path])
    assert found[0].line > 4
    assert found[0].file == "r.dicom" and found[0].deid_does and found[0].mend
    with pytest.raises(RecipeRefused):
        read([path])


@pytest.mark.parametrize("line", [
    "contains ImageType DERIVED", "+ contains Modality US", "||contains Modality MG",
    "+ contains Modality US + missing Rows", "coordinates 5,0,5,9", "coordinates 0,0,5",
    "coordinates from:SequenceOfUltrasoundRegions",
    "keepcoordinates all",
    "keepcoordinates from:OtherSequence", "Coordinates all", "coordinates ALL", "coordinates 0, 0, 5, 5",
    "present Rows 5", "equals Rows", "KEEP PixelData", "notequals SoftwareVersions 1", "labels Rows",
])
def test_lines_that_deid_would_guess_at(line: str, tmp_path: Path) -> None:
    """Each in a rule that is sound without it."""
    text = HEAD + "%filter g\nLABEL a\ncontains Modality US\ncoordinates all\n"
    assert lint([recipe(tmp_path, text)]) == []
    assert lint([recipe(tmp_path, text + line + "\n")]) != []


def test_a_group_stands_once_in_a_set(tmp_path: Path) -> None:
    first = recipe(tmp_path, HEAD + GOOD, "a.dicom")
    again = recipe(tmp_path, "FORMAT dicom\n%header\nKEEP Columns\n" + GOOD, "b.dicom")
    assert [(f.file, f.rule) for f in lint([first, again])] == [("b.dicom", "filter_group_again")]
    with pytest.raises(RecipeRefused):
        read([first, again])
    other = recipe(tmp_path, again.read_text().replace("graylist", "more"), "b.dicom")
    assert len(pixel_rules.read([first, other])) == 2
    assert any(f.rule == "filter_section" for f in lint([recipe(tmp_path, HEAD + GOOD + GOOD)]))


def evaluated_by_deid(path: Path, image: Path) -> bool:
    from deid.config import DeidRecipe
    from deid.dicom.pixels.detect import has_burned_pixels
    from deid.logger import bot

    bot.level = -10
    return bool(has_burned_pixels(str(image), deid=DeidRecipe(deid=str(path)))["flagged"])


CONDITIONS = st.one_of(
    st.tuples(st.sampled_from(["contains", "notcontains"]),
              st.sampled_from(["Modality US", "Modality u", "ImageType SECONDARY", "ImageType PRIMARY",
                               "Manufacturer a 1", "SoftwareVersions 2", "Rows 4", "SOPClassUID 840"])),
    st.tuples(st.sampled_from(["equals", "notequals"]),
              st.sampled_from(["Modality US", "Rows 4", "Rows 44", "Manufacturer MAKER A 1", "StationName x"])),
    st.tuples(st.sampled_from(["present", "missing"]),
              st.sampled_from(["Modality", "StationName", "Rows", "SequenceOfUltrasoundRegions", "ImageComments"])),
).map(" ".join)
FACTS: dict[str, Any] = {
    "Modality": ["US", "MG"], "ImageType": [["DERIVED", "SECONDARY"], ["ORIGINAL", "PRIMARY"], "PRIMARY"],
    "Manufacturer": ["Maker A 1", "Other"], "SoftwareVersions": [["1", "2"], "3"], "StationName": ["X", ""],
    "SequenceOfUltrasoundRegions": [[]],
}


@given(st.lists(CONDITIONS, min_size=1, max_size=3),
       st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in FACTS.items()}))
@settings(max_examples=60, deadline=None)
def test_conditions_hold_where_deids_hold(tmp_path_factory: pytest.TempPathFactory, conditions: list[str],
                                          facts: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("rules")
    lines = "\n+ ".join(conditions)
    path = recipe(folder, HEAD + f"%filter g\nLABEL a\n{lines}\ncoordinates all\n")
    assert read([path])         # deid's own parser reads the same
    ds = dataset(4, 4)
    for keyword in FACTS:
        ds.pop(keyword, None)
    for keyword, value in facts.items():
        setattr(ds, keyword, value)
    image = folder / "i.dcm"
    image.write_bytes(native(ds, bytes(16)))
    with image.open("rb") as file:
        data = file.read()
        source = scan(file.fileno(), len(data), data)
    rule = pixel_rules.read([path])[0]
    assert applies(rule, source) == evaluated_by_deid(path, image)
