"""Recipe sets on trial: the shipped ones leave nothing, and whatever is broken is noticed."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from pipeline import trial
from pipeline.cli.main import app
from pipeline.deidentify import elements, mutants
from pipeline.deidentify.linter import confidentiality_profile
from pipeline.deidentify.plan import RECIPES, Op
from pipeline.dicom.file import scan
from pipeline.errors import RecipeFailed, UsageError
from pipeline.model import Reason, Refusal
from pipeline.synthetic import answer_key, encode
from pipeline.synthetic.asked import ACTIONS
from pipeline.synthetic.judge import Judge

CT = [RECIPES / "base.dicom", RECIPES / "ct.dicom"]
MG = [RECIPES / "base.dicom", RECIPES / "mammography.dicom"]
CAD = [RECIPES / "base.dicom", RECIPES / "report.dicom", RECIPES / "mammography_cad.toml"]


@pytest.mark.parametrize("files", trial.shipped(), ids=lambda files: files[-1].stem)
def test_a_shipped_set_leaves_nothing_and_loses_nothing(files: list[Path]) -> None:
    verdict = trial.run(files, people=2, mutate=False)
    assert verdict.passed, (verdict.residuals, verdict.lost, verdict.refused)
    assert verdict.utility == 1 and verdict.residual_per_1000 == 0
    assert set(verdict.asked) >= set(ACTIONS) - {"pixels_hidden", "pixels_retained"}


@pytest.mark.parametrize("files", [CT, CAD], ids=["ct", "cad"])
def test_every_mutant_is_noticed(files: list[Path]) -> None:
    verdict = trial.run(files, people=1)
    assert verdict.survivors == []
    assert verdict.mutants > 700 and verdict.by_residual > 600 and verdict.by_loss > 90
    assert verdict.equals.keys() <= {mutants.SAME_PLAN, mutants.NO_DATA_SET, mutants.NO_PIXELS}


@pytest.mark.long
@pytest.mark.parametrize("keep_times", [False, True])
@pytest.mark.parametrize("files", trial.shipped(), ids=lambda files: files[-1].stem)
def test_every_mutant_of_every_set_is_noticed(files: list[Path], keep_times: bool) -> None:
    assert trial.run(files, people=2, keep_times=keep_times).passed


def test_the_key_holds_every_attribute_of_the_table(tmp_path: Path) -> None:
    claims = trial.claims_of(trial.compile_rules(trial.read(CT), keep_times=False))
    table = [tag for tag in confidentiality_profile() if tag >> 16 >= 4]
    (planted,) = answer_key.make(claims, table, 1)
    asked = {check.path[-1] for check in planted.checks}
    assert set(table) <= asked
    first, second = answer_key.make(claims, table, 2)
    texts = [{raw for raw in one.secrets if raw.startswith(b"ZQ")} for one in (first, second)]
    assert len(texts[0]) > 400 and not texts[0] & texts[1]      # each person's are their own


def test_an_engine_that_forgets_to_empty_leaves_residuals(monkeypatch: pytest.MonkeyPatch) -> None:
    real = elements.Work.value
    monkeypatch.setattr(elements.Work, "value",
                        lambda self, op, raw, tag: raw if op is Op.EMPTY else real(self, op, raw, tag))
    verdict = trial.run(CT, people=2, mutate=False)
    assert {"PatientName", "AccessionNumber", "ReferringPhysicianName"} <= set(verdict.residuals)
    assert not verdict.passed and verdict.residual_per_1000 >= 3000


def test_an_engine_that_moves_everybody_alike_but_one_date_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = elements.Work._move
    monkeypatch.setattr(elements.Work, "_move",
                        lambda self, op, raw, tag: b"20000101" if tag == 0x00080021 else real(self, op, raw, tag))
    assert "SeriesDate" in trial.run(CT, people=1, mutate=False).lost


def test_one_name_for_two_people_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial.Bench, "subject", lambda self, person: trial.Subject("P", self.pseudonyms, -200, 0, "S"))
    assert "PatientID" in trial.run(CT, people=2, mutate=False).lost


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a maker of sets with a recipe of a test's own; the attributes of the table are not what is asked."""
    table = {tag: row for tag, row in confidentiality_profile().items() if tag == 0x00100010}
    monkeypatch.setattr(trial, "confidentiality_profile", lambda: table)

    def make(lines: str) -> list[Path]:
        path = tmp_path / "own.dicom"
        path.write_text("FORMAT dicom\n\n%header\n" + lines)
        return [RECIPES / "base.dicom", path]

    return make


def test_approved_terms_are_told_from_all_others(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files = own("# weaker: terms alone\nREPLACE SeriesDescription func:term\n# weaker: terms alone\n"
                "REPLACE ProtocolName func:term\n")
    verdict = trial.run(files, people=1)
    assert verdict.passed, (verdict.lost, verdict.residuals, verdict.survivors)
    plan = trial.compile_rules(trial.read(files), keep_times=False)
    plan = replace(plan, terms=trial._terms(plan))
    found = [one.what for one in mutants.term_mutants(trial.read(files), plan)]
    assert len(found) == 6 and "any text approved: ProtocolName" in found
    real, lists = elements.Work._term, trial._terms(plan).by_tag
    for broken in (lambda self, text, tag: real(self, text, tag) or elements.even(text.lower().encode("latin-1")),
                   lambda self, text, tag: real(self, text.split("\\")[0], tag),
                   lambda self, text, tag: real(self, text, min(lists)) or real(self, text, max(lists)),
                   lambda self, text, tag: real(self, text.strip().removesuffix(" x"), tag)):
        monkeypatch.setattr(elements.Work, "_term", broken)
        assert set(trial.run(files, people=1, mutate=False).residuals) & {"SeriesDescription", "ProtocolName"}
    monkeypatch.setattr(elements.Work, "_term", lambda self, text, tag: b"")
    assert trial.run(files, people=1, mutate=False).lost == {"SeriesDescription": 2, "ProtocolName": 2}


@pytest.mark.parametrize("keep_times", [False, True])
def test_an_engine_that_moves_nobodys_dates_is_noticed(
    keep_times: bool, own: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = own("# weaker: as StudyDate\nJITTER AcquisitionDateTime var:days\n")
    assert trial.run(files, people=1, keep_times=keep_times, mutate=False).passed
    monkeypatch.setattr(elements.dates, "moved", lambda day, days: day + timedelta(days=days))
    residuals = trial.run(files, people=1, keep_times=keep_times, mutate=False).residuals
    assert {"StudyDate", "AcquisitionDateTime"} <= set(residuals)


def test_an_engine_that_moves_everybody_by_the_same_days_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = elements.Work.__init__

    def init(self: elements.Work, source: Any, plan: Any, subject: Any) -> None:
        real(self, source, plan, replace(subject, days=-100))

    monkeypatch.setattr(elements.Work, "__init__", init)
    assert "StudyDate" in trial.run(CT, people=1, mutate=False).lost


@pytest.mark.parametrize("codec", ["ascii", "utf-16-le"])
def test_a_name_in_small_letters_or_wide_ones_is_noticed(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = elements.Work.value
    monkeypatch.setattr(elements.Work, "value", lambda self, op, raw, tag: raw.decode("latin-1").lower().encode(
        codec) if tag == 0x00100010 else real(self, op, raw, tag))
    assert "PatientName" in trial.run(CT, people=1, mutate=False).residuals


def test_text_in_a_private_number_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trial.run(MG, people=1, mutate=False).passed
    monkeypatch.setattr(elements, "private_vr", lambda *_: "")
    assert any("GEMS_SENO_02" in name for name in trial.run(MG, people=1, mutate=False).residuals)


def test_a_missing_output_fails_every_action(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise Refusal(Reason.MALFORMED)

    monkeypatch.setattr(trial, "rewrite", refuse)
    verdict = trial.run(CT, people=1, mutate=False)
    assert verdict.refused == {"malformed": 2} and not verdict.passed
    verdict.asked.pop("pixels_hidden")      # of the object that is hidden by not coming out
    assert verdict.failed == verdict.asked


def test_a_mutant_that_nobody_notices_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Judge.look
    monkeypatch.setattr(Judge, "look", lambda self, planted, out: [
        failure for failure in real(self, planted, out) if failure.name != "PatientComments"])
    verdict = trial.run(CT, people=1)
    assert verdict.survivors == [("ct.dicom:end", "added: KEEP PatientComments")]


def test_a_burned_in_text_that_comes_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.deidentify import pixel_policy, treatment

    monkeypatch.setattr(treatment, "decide", lambda *_, **__: pixel_policy.Care.NONE)
    assert trial.run(CT, people=1, mutate=False).failed == {"pixels_hidden": 1}


def test_what_is_said_to_be_equal_is(tmp_path: Path) -> None:
    data = bytearray(encode.part10(_small(), "explicit"))
    at = data.index(b"\x08\x00\x05\x00")
    stray = b"\x02\x00\x03\x00UI\x04\x001.2\x00"
    with pytest.raises(Refusal), io.BytesIO(bytes(data[:at])) as head:     # behind an element of the data set
        scan(-1, len(head.getvalue() + data[at:] + stray), head.getvalue() + bytes(data[at:]) + stray)
    plan = trial.compile_rules(trial.read(CAD[:2]), keep_times=False, concepts=trial.concept_rules.read(CAD[2]))
    found = {one.equal for one in mutants.mutants(trial.read(CAD[:2]), plan, confidentiality_profile(), (), CAD[2:])}
    assert found == {"", mutants.SAME_PLAN, mutants.NO_DATA_SET, mutants.NO_PIXELS}
    report = trial.claims_of(plan)
    planted = next(iter(answer_key.make(report, (), 1)))
    ds = answer_key.read_back.dataset(planted.data)
    ds.PixelData = b"\0\0"
    ds["PixelData"].VR = "OW"
    bench = trial.Bench(tmp_path, plan)
    refused = [bench.rewrite(trial.Planted("r", 0, encode.part10(ds)), one) for one in
               (plan, replace(plan, acts={t: a for t, a in plan.acts.items() if t != 0x7FE00010}))]
    assert [(r.reason, r.tag) for r in refused if isinstance(r, Refusal)] == [
        (Reason.UNSUPPORTED_STRUCTURE, 0x7FE00010)] * 2


def _small() -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet, ds.SOPClassUID, ds.SOPInstanceUID = "ISO_IR 100", "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    return ds


def test_the_command_names_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [str(path) for path in CT]
    good = CliRunner().invoke(app, ["recipe", "test", *files, "--people", "1", "--no-mutants"])
    assert good.exit_code == 0 and "0 identifiers per 1,000 patients" in good.output
    monkeypatch.setattr(elements.Work, "value", lambda self, op, raw, tag: raw)
    bad = CliRunner().invoke(app, ["recipe", "test", *files, "--people", "1", "--no-mutants"])
    assert isinstance(bad.exception, RecipeFailed) and "left: PatientName (1)" in bad.output


def test_two_files_of_concept_rules_are_no_set() -> None:
    with pytest.raises(UsageError):
        trial.run([*CAD, RECIPES / "measurements.toml"])


PIXEL_RULES = """
%filter graylist
LABEL Captures of one maker
contains Manufacturer ACME
+ contains ImageType SECONDARY
coordinates 0,0,60,12
coordinates 30,20,40,30
keepcoordinates 50,0,60,6
LABEL What lies outside the regions
equals Modality US
+ present SequenceOfUltrasoundRegions
+ notcontains Manufacturer ACME
coordinates all
keepcoordinates from:SequenceOfUltrasoundRegions
LABEL Text that the header speaks of
equals BurnedInAnnotation YES
coordinates 0,0,8,8
"""


def test_rules_for_pixels_are_tried_too(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files = own("KEEP ConversionType\n" + PIXEL_RULES)
    verdict = trial.run(files, people=1)
    assert verdict.passed, (verdict.lost, verdict.residuals, verdict.survivors)
    assert verdict.asked["pixels_hidden"] == 16 and verdict.asked["pixels_retained"] == 16
    from pipeline.deidentify import masks

    real = masks.cover
    monkeypatch.setattr(masks, "cover", lambda rules, source, rows, columns: _less(real(rules, source, rows, columns)))
    lines = {name.split()[0] for name in trial.run(files, people=1, mutate=False).residuals}
    assert lines == {f"own.dicom:{n}" for n in (7, 13, 19)}


@pytest.mark.parametrize(("bug", "kinds"), [
    ("planes", {"planes"}), ("colours", {"colours", "planes"}), ("frames", {"signed", "colours", "planes"})])
def test_a_painter_that_misses_some_samples_is_noticed(
    bug: str, kinds: set[str], own: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planes taken for pixels, the first colour alone, the first frame alone."""
    from pipeline.deidentify import masks

    real_over = masks.over

    def over(samples: Any, shape: Any, mask: Any, values: Any) -> None:
        before = samples.copy()
        real_over(samples, replace(shape, planar=False) if bug == "planes" else shape, mask, values)
        if bug == "colours" and shape.samples > 1:
            samples[1:] = before[1:]
        if bug == "frames" and len(done) % shape.frames:
            samples[:] = before
        done.append(1)

    done: list[int] = []
    monkeypatch.setattr(masks, "over", over)
    found = trial.run(own("KEEP ConversionType\n" + PIXEL_RULES), people=1, mutate=False)
    assert {name.split()[1] for name in {**found.residuals, **found.lost}} == kinds


def _less(mask: Any) -> Any:
    if mask is not None:
        mask[1, 1] = False
    return mask
