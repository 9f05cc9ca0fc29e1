"""The project file: each mistake is refused with file, line and key, before anything is read or moved."""

from __future__ import annotations

import pytest

from pipeline import config
from pipeline.errors import ProjectFileError
from pipeline.synthetic.project import TEMPLATE

ZONES = {zone: f"file:///srv/{zone}" for zone in ("landing", "work", "candidate", "release")}
GOOD = TEMPLATE.format(name="mine", **ZONES)


def test_the_file_as_it_is_loads(tmp_path):
    path = tmp_path / "project.toml"
    path.write_text(GOOD)
    assert config.load(path).name == "mine"


@pytest.mark.parametrize(("old", "new", "line", "said"), [
    ("quiet_seconds", "quite_seconds", "quite_seconds", "stage.quite_seconds: unknown key"),
    ("[stage]", "[staging]", "[staging]", "staging: unknown key"),
    ("\ntitle", "\ntitel", "titel", "project.titel: unknown key"),
    ('name = "mine"', 'name = "Mine!"', "name =", "project.name: String should match"),
    ('"file:///srv/landing"', '"/srv/landing"', "landing =", "zones.landing: a zone's URL is file:///absolute/path"),
    ("2000-01-01", '"2000-13-01"', "study_dates", "eligibility.study_dates.earliest: Input should be a valid date"),
    ("2000-01-01", "2025-01-01", "study_dates", "eligibility.study_dates: earliest is after latest"),
    ('list = "permitted.csv", ', "", "people =", "eligibility.people: give either a list of permitted people"),
    ("quiet_seconds = 60", 'quiet_seconds = "a minute"', "quiet_seconds", "stage.quiet_seconds: Input should be"),
    ("schema_version = 1", "schema_version = 2", "schema_version", "schema_version: Input should be 1"),
])
def test_a_mistake_is_refused_by_line_and_key(tmp_path, old, new, line, said):
    path = tmp_path / "project.toml"
    assert GOOD.count(old) == 1
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ProjectFileError) as caught:
        config.load(path)
    at = 1 + next(n for n, text in enumerate(path.read_text().splitlines()) if line in text)
    assert f"{path}:{at}: {said}" in caught.value.message


@pytest.mark.parametrize(("zone", "url", "said"), [
    ("work", "file:///srv/release/inner", "work is the same as release, or inside it"),
    ("work", "file:///srv/landing/", "landing is the same as work"),
    ("candidate", "file:///srv/x/../release", "candidate is the same as release"),
    ("release", "file:///srv", "landing is the same as release, or inside it"),
])
def test_a_zone_is_never_inside_another(tmp_path, zone, url, said):
    """Nor where the command line gives it. Beside one another, with a name that begins alike, they may stand."""
    path = tmp_path / "project.toml"
    path.write_text(GOOD)
    with pytest.raises(ProjectFileError, match=said):
        config.load(path, **{zone: url})
    assert config.load(path, work="file:///srv/release-work").zones.work


@pytest.mark.parametrize("bytes_", [b"\xff\xfe", b"[project\n"])
def test_what_is_no_toml_is_no_fault_of_the_program(tmp_path, bytes_):
    path = tmp_path / "project.toml"
    path.write_bytes(bytes_)
    with pytest.raises(ProjectFileError, match=r"not UTF-8|not TOML"):
        config.load(path)
