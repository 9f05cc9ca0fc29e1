"""The engine against deid, on real and synthetic files: equal at every depth but for the numbered differences in
deid_compare, for every recipe set. Why a file was not compared is counted, and the reasons are known ones."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from deid_runner import a_few
from deid_sets import Tally, set_for, sets, sop_class_of

from pipeline.synthetic import files
from pipeline.synthetic.bundled import bundled

CORPUS = Path(os.environ.get("TRE_CORPUS") or Path(__file__).parents[2].parent / "shared" / "corpus")
# why the engine refused one of these files; deid raises on none of those that it passed
REASONS = {f"engine: {reason}" for reason in (
    "codec_missing", "element_repeated", "malformed", "missing_uid", "not_dicom", "overlay_in_pixels", "pixel_geometry",
    "pixel_stream_unsafe", "pixels_need_cleaning", "report_not_covered", "transfer_syntax_unsupported", "truncated",
    "unsupported_structure", "value_malformed")}
MADE = {
    "mammography": [
        *((files.mammogram, options) for options in (
            {}, {"view": "CC", "laterality": "R", "manufacturer": "HOLOGIC, Inc."}, {"birth_date": None},
            {"transfer_syntax": "implicit", "private": False}, {"transfer_syntax": "big"}, {"transfer_syntax": "jpeg"},
            {"operator": None, "serial": None})),
        (files.tomosynthesis, {}), (files.tomosynthesis, {"transfer_syntax": "rle"})],
    "ct": [(files.ct, {}), (files.ct, {"transfer_syntax": "deflated"})],
    "sc": [(files.secondary_capture, {"BurnedInAnnotation": "NO"})],
    "dose_report": [(files.dose_report, {}), (files.dose_report, {"transfer_syntax": "implicit"})],
    "mammography_cad": [(files.cad, {})],
}


@pytest.mark.parametrize("name", sorted(MADE))
def test_synthetic_files(name: str, tmp_path: Path) -> None:
    tally = Tally()
    for number, (make, options) in enumerate(MADE[name]):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(make(**options))
        assert set_for(sop_class_of(path)).name == name
        for keep_times in (False, True):
            tally.file(path, keep_times=keep_times)
    tally.check({name: 2 * len(MADE[name])}, ())


def some(paths: Iterator[Path], most: int) -> Iterator[Path]:
    """At most so many files of each SOP class."""
    seen: Counter[str] = Counter()
    for path in paths:
        kind = sop_class_of(path)
        seen[kind] += 1
        if seen[kind] <= most:
            yield path


def test_files_of_pydicom() -> None:
    tally = Tally()
    for path in some((path for _, path in bundled()), 3):
        tally.file(path, chosen=a_few)
    tally.check({"ct": 3, "enhanced": 2, "mr": 4, "sc": 1, "us": 3, "xray": 2}, REASONS)


def corpus() -> Iterator[Path]:
    if not CORPUS.is_dir():
        pytest.skip("the corpus is not here: set TRE_CORPUS")
    yield from (path for path in sorted((CORPUS / "dicom").rglob("*")) if path.is_file() and "fuzz" not in str(path))


@pytest.mark.corpus
def test_some_of_the_corpus() -> None:
    tally = Tally()
    for path in some(corpus(), 2):
        tally.file(path, chosen=a_few)
    tally.check({"ct": 3, "dose_report": 2, "enhanced": 6, "mammography": 5, "measurements": 4, "mr": 3, "us": 5,
                 "xray": 4}, REASONS)


@pytest.mark.corpus
@pytest.mark.long
def test_the_corpus() -> None:
    tally = Tally()
    for path in corpus():
        tally.file(path)
    tally.check({"ct": 40, "dose_report": 20, "enhanced": 12, "mammography": 12, "measurements": 5, "mr": 35, "sc": 75,
                 "us": 15, "xray": 15}, REASONS)
    # what private elements cause beyond their creators is shown by files that are made for it
    assert set(tally.known) >= {1, 2, 3, 4, 5, 6, 8, 9, 10, 11}, "a difference is known that no file shows"


@pytest.mark.corpus
@pytest.mark.long
@pytest.mark.parametrize("name", sorted(sets()))
def test_the_corpus_under_every_set(name: str) -> None:
    """deid asks for no SOP class, and the engine's plan for none but a report's: what one set leaves alone another
    names."""
    tally = Tally()
    for path in some(corpus(), 2):
        tally.file(path, sets()[name], chosen=a_few)
    tally.check({name: 20}, {*REASONS, "engine: structured_report"})
