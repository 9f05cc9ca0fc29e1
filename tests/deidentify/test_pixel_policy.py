"""Which pixels pass, which are read, which are refused: one table."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.deidentify.devices import entry, policy, read
from pipeline.deidentify.pixel_policy import Care, Device, Image, Policy, decide
from pipeline.errors import ProjectFileError
from pipeline.model import Reason, Refusal

MG, US, SC = "1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.7"
KNOWN, PAINTED, OTHER = Device.of("GE", "One", "1"), Device.of("GE", "Two", "1"), Device.of("GE", "One", "2")
PLAIN = Policy()
READS = Policy(ocr=True, installed=True)
LACKS = Policy(ocr=True)
LISTED = Policy(ocr=True, installed=True, devices=((KNOWN, False), (PAINTED, True)))
LISTED_ONLY = Policy(devices=((KNOWN, False), (PAINTED, True)))
CLEAN, UNREAD = Reason.PIXELS_NEED_CLEANING, Reason.PIXELS_NOT_READ
SECOND = ("DERIVED", "SECONDARY")


def image(sop_class: str = MG, device: Device = KNOWN, **more: object) -> Image:
    return Image(sop_class, device=device, **more)      # type: ignore[arg-type]


TABLE: list[tuple[Image, Policy, bool, bool, Care | Reason]] = [
    # straight from a detector: passes, whatever BurnedInAnnotation says short of YES
    (image(), PLAIN, False, False, Care.NONE),
    (image(burned_in="NO"), READS, False, False, Care.NONE),
    (image(image_type=("DERIVED", "PRIMARY")), READS, False, False, Care.NONE),
    # with a list, only of devices on it
    (image(device=KNOWN), LISTED, False, False, Care.NONE),
    (image(device=OTHER), LISTED, False, False, Care.READ),
    (image(device=PAINTED), LISTED, False, False, Care.READ),
    (image(device=PAINTED), LISTED, True, False, Care.NONE),
    (image(device=OTHER), LISTED_ONLY, False, False, UNREAD),
    (image(device=OTHER, burned_in="NO"), LISTED_ONLY, False, False, UNREAD),
    (image(device=KNOWN), LISTED, False, True, Care.READ),
    (image(device=KNOWN), LISTED_ONLY, False, True, Care.NONE),
    # not from a detector: it is read, or a listed device made it
    (image(US), PLAIN, False, False, CLEAN),
    (image(US), PLAIN, True, False, UNREAD),
    (image(US), LACKS, False, False, UNREAD),
    (image(US), READS, False, False, Care.READ),
    (image(US), READS, True, False, Care.READ),
    (image(US, PAINTED), LISTED, True, False, Care.NONE),
    (image(US, PAINTED), LISTED, True, True, Care.READ),
    (image(US, PAINTED), LISTED, False, False, Care.READ),
    (image(US, OTHER), LISTED, True, False, Care.READ),
    (image(US, KNOWN, burned_in="NO"), LISTED, False, False, Care.NONE),
    # captured, digitised, derived: read, whatever made it
    (image(SC), READS, False, False, Care.READ),
    (image(MG, image_type=SECOND), PLAIN, False, False, CLEAN),
    (image(MG, image_type=SECOND), LISTED, False, False, Care.READ),
    (image(US, PAINTED, image_type=SECOND), LISTED, True, False, Care.READ),
    (image(MG, image_type=("DERIVED", "PRIMARY", "SCREEN SAVE")), LISTED, False, False, Care.READ),
    (image(MG, conversion="DF"), PLAIN, False, False, CLEAN),
    (image(MG, conversion="DF"), LISTED, False, False, Care.READ),
    # the header speaks of text: only a rule answers that, and what it leaves is read
    (image(burned_in="YES"), READS, False, False, CLEAN),
    (image(burned_in="MAYBE"), READS, False, False, CLEAN),
    (image(burned_in="YES"), LISTED, False, False, CLEAN),
    (image(burned_in="YES"), READS, True, False, Care.READ),
    (image(burned_in="YES"), LISTED, True, False, Care.READ),
    (image(burned_in="YES"), PLAIN, True, False, UNREAD),
    # of a face no text tells
    (image(recognizable="YES"), READS, True, False, CLEAN),
]


@pytest.mark.parametrize(("one", "asked", "ruled", "drawn", "expected"), TABLE)
def test_the_decision(one: Image, asked: Policy, ruled: bool, drawn: bool, expected: Care | Reason) -> None:
    try:
        found: Care | Reason = decide(one, asked, ruled=ruled, drawn=drawn)
    except Refusal as refusal:
        found = refusal.reason
    assert found is expected


def test_burned_in_annotation_no_changes_nothing() -> None:
    for one, asked, ruled, drawn, expected in TABLE:
        if one.burned_in == "":
            said = Image(one.sop_class, one.image_type, one.conversion, "NO", one.recognizable, one.device)
            test_the_decision(said, asked, ruled, drawn, expected)


LIST = """
[[device]]
manufacturer = "GE  Medical"
model = "One"
software = "1.2\\\\3"
looked_at = 200
"""


def test_the_list_of_devices(tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    path.write_text(LIST + LIST.replace('"One"', '"Two"') + "after_rules = true\n")
    assert read(path) == ((Device("ge medical", "one", "1.2\\3"), False), (Device("ge medical", "two", "1.2\\3"), True))


def test_a_drafted_entry_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    path.write_text(entry('ge "x"', "two\\three", "é", 31) + entry("ge", "two", "1", 400))
    assert read(path) == ((Device("ge", "two", "1"), False), (Device('ge "x"', "two\\three", "é"), False))


@pytest.mark.parametrize("text", [
    LIST + LIST, LIST.replace("200", "29"), LIST.replace("software", "softwear"), LIST.replace('"One"', '""'), "[[",
    "x = 1",
])
def test_a_list_that_says_too_little(text: str, tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    path.write_text(text)
    with pytest.raises(ProjectFileError):
        read(path)


def test_a_project_asks(tmp_path: Path, make_config) -> None:  # type: ignore[no-untyped-def]
    plain = make_config()
    assert policy(plain) == Policy()
    assert policy(plain).canonical() == []
    (tmp_path / "devices.toml").write_text(LIST)
    pixels = {"ocr": True, "devices": "devices.toml", "words": ["l  mlo"]}
    asked = {**plain.model_dump()["deidentify"], "pixels": pixels}
    config = make_config(deidentify=asked)
    found = policy(config)
    assert found.devices == ((Device("ge medical", "one", "1.2\\3"), False),)
    assert found.words == ("L MLO",)
    assert found.canonical() != []
    assert b"devices.toml" not in config.meaning()
    assert config.meaning() != plain.meaning()
    with pytest.raises(ProjectFileError):
        policy(make_config(deidentify={**asked, "pixels": {"devices": "absent.toml"}}))


def test_doctor_says_whether_text_can_be_read(make_config, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from pipeline.cli import doctor
    from pipeline.deidentify import devices

    plain = make_config().model_dump()["deidentify"]
    config = make_config(deidentify={**plain, "pixels": {"ocr": True}})
    monkeypatch.setattr(devices, "find_spec", lambda _: None)
    found = doctor._reader(config)
    assert found.result == "warn" and "tre-ingest[ocr]" in found.mend
    assert policy(config) == Policy(ocr=True)
    lost = make_config(deidentify={**plain, "pixels": {"ocr": True, "devices": "absent.toml"}})
    assert doctor._reader(lost).result == "fail"
