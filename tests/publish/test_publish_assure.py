"""A review is of the instances drawn and of no others; what it shows is recorded where those who read the release do
not see it."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline import config, layout, steps
from pipeline.errors import UsageError, VerifyFailed
from pipeline.govern import audit_log
from pipeline.publish import assure, review
from pipeline.storage import open_store, tables
from pipeline.synthetic import files
from pipeline.synthetic.bundled import bundled
from pipeline.synthetic.project import project_text
from tests.helpers.s3 import bucket, moto, point_zones

PROJECT, RELEASE = "demo-screening", "0001-0a1b2c3d4e5f"


class Published:
    """A release of few images, written by hand."""

    def __init__(self, root: Path, instances: int = 12, base: str = "") -> None:
        import pyarrow as pa

        self.root = root
        zones = {zone: f"{base or root.as_uri()}/{zone}" for zone in ("landing", "work", "candidate", "release")}
        (root / "landing").mkdir(parents=True)
        self.store, self.work = open_store(zones["release"], "release"), open_store(zones["work"], "work")
        (root / "project.toml").write_text(project_text(*zones.values()))
        self.config = config.load(root / "project.toml")
        self.url = f"{zones['release']}/{PROJECT}/releases/{RELEASE}"
        rows = []
        for n in range(instances):
            data = files.mammogram(seed=n, planted=False, rows=8, columns=6)
            path = f"P{n // 4:020X}/2.25.{n // 4}/2.25.9/2.25.10{n:03}.dcm"
            self.store.write(layout.image(PROJECT, path), data)
            rows.append({"sop_instance_uid": f"2.25.10{n:03}", "study_uid": f"2.25.{n // 4}", "path": path,
                         "sha256": hashlib.sha256(data).hexdigest(), "modality": "MG"})
        table = tables.to_bytes(pa.Table.from_pylist(rows).replace_schema_metadata({"schema_version": "1"}))
        self.store.write(layout.in_release(PROJECT, RELEASE, "tables/instances.parquet"), table)
        doc = {"schema_version": 1, "images": {"table": "tables/instances.parquet"}, "files": [
            {"name": "tables/instances.parquet", "sha256": hashlib.sha256(table).hexdigest(), "bytes": len(table)}]}
        self.store.write(layout.release_manifest(PROJECT, RELEASE), json.dumps(doc).encode())

    def drawn(self, folder: str = "review", n: int = 5, seed: str = "s") -> Path:
        assure.write(self.url, assure.draw(self.url, n, seed), self.root / folder)
        return self.root / folder / "verdicts.csv"

    def sheet(self, path: Path, *leaks: int, change: Any = None) -> Path:
        """Fill a sheet in; `leaks` are places in it, `change` what is done to its rows."""
        rows = list(csv.DictReader(path.open()))
        for n, row in enumerate(rows):
            row |= {"verdict": "leak" if n in leaks else "Clean", "what": "PatientComments" if n in leaks else "",
                    "reviewer": "A Reviewer"}
        rows = change(rows) if change else rows
        with path.open("w", newline="") as file:
            lines = csv.DictWriter(file, assure.COLUMNS)
            lines.writeheader()
            lines.writerows(rows)
        return path


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path)


def test_the_same_seed_draws_the_same_and_every_instance_has_its_chance(published: Published) -> None:
    one, again, other = (assure.draw(published.url, 5, seed) for seed in ("a", "a", "b"))
    assert one.rows == again.rows != other.rows
    assert len({row["sop_instance_uid"] for row in one.rows}) == 5 and one.population == 12
    counts = Counter(row["sop_instance_uid"] for n in range(300) for row in assure.draw(published.url, 3, str(n)).rows)
    assert len(counts) == 12
    assert all(40 < count < 115 for count in counts.values())      # 75 each: six standard deviations
    with pytest.raises(UsageError, match="12 instances"):
        assure.draw(published.url, 13)


def test_pages_show_every_element_and_picture(published: Published) -> None:
    published.drawn()
    page = (published.root / "review" / "review-001.html").read_text()
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    said = json.loads((published.root / "review" / "sample.json").read_text())
    assert said["seed"] == "s" and said["sample"] == 5
    for wanted in ("QUILLFEATHER^ARAMINTA^JOAN", "ViewCodeSequence \u203a CodeMeaning", "GEMS_SENO_02",
                   "TransferSyntaxUID", "(0008,0018)"):
        assert wanted in page, wanted
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 5
    assert Image.open(io.BytesIO(base64.b64decode(pictures[0]))).size == (6, 8)


@pytest.mark.parametrize(("options", "pictures", "note"), [
    ({"frames": 9, "maker": "tomosynthesis"}, 4, "4 of 9 frames: 1, 4, 6, 9."), ({"transfer_syntax": "jpeg"}, 1, ""),
    ({"transfer_syntax": "jpeg2000"}, 1, ""), ({"transfer_syntax": "rle"}, 1, ""),
    ({"pixels": False}, 0, "No pixel data."), ({"rows": 2100, "columns": 30}, 1, ""),
    ({"PhotometricInterpretation": "NONSENSE", "Rows": 3}, 0, "cannot be decoded")])
def test_pictures_of_every_kind(options: dict[str, Any], pictures: int, note: str) -> None:
    maker = getattr(files, options.pop("maker", "mammogram"))
    shown = review.show(1, "2.25.1", maker(**options))
    assert len(shown.pictures) == pictures and note in shown.note and bool(note) == bool(shown.note)
    for picture in shown.pictures:
        assert max(Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))).size) <= review.SIDE


def test_a_picture_in_jpeg_lossless() -> None:
    source = next(path for name, path in bundled() if name == "SC_rgb_jpeg_gdcm.dcm")
    shown = review.show(1, "2.25.1", source.read_bytes())
    assert len(shown.pictures) == 1 and not shown.note


def test_a_mark_in_the_picture_is_seen_in_the_page(published: Published) -> None:
    import numpy as np

    frame = np.zeros((2048, 1024), dtype=np.uint16)
    frame[1000:1040, 500:505] = 4000
    url = review._png(frame, "MONOCHROME2")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))
    assert shown.shape == (683, 342) and shown.max() == 255 and (shown > 100).sum() >= 13
    thin = np.zeros((2048, 1024), dtype=np.uint16)
    thin[1001, 500:540] = 4000          # of one pixel, and on no pixel that skipping would keep
    picture = review._png(thin, "MONOCHROME2").partition(",")[2]
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(picture)))) > 100).sum() >= 13
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(
        review._png(frame, "MONOCHROME1").partition(",")[2])))).min() == 0


def test_values_are_escaped_and_none_is_left_out() -> None:
    shown = review.show(1, "2.25.1", files.mammogram(ImageComments="<b>x</b>", preamble=b"MZ NAME"))
    said = {"release": "r", "sample": 1, "population": 1, "seed": "s", "manifest_sha256": "m"}
    text = review.page(said, [shown], 1, 1)
    assert b"&lt;b&gt;x" in text and b"<b>x" not in text and b"MZ NAME" in text
    long = review.show(1, "2.25.1", files.dose_report())
    assert any("PersonName" in line.path for line in long.lines) and long.note == "No pixel data."


def test_a_review_of_no_leak_is_recorded_with_its_bound(published: Published) -> None:
    sheet = published.sheet(published.drawn())
    found = steps.record_assurance(published.config, published.url, str(sheet))
    assert (found["drawn"], found["leaks"], found["population"], found["at_most"]) == (5, 0, 12, 4)
    assert found["upper_per_100000"] == pytest.approx(45_072.0, abs=0.1)       # 1 − 0.05^(1/5)
    record = json.loads(published.work.read(f"{found['record']}/record.json"))
    assert record["verdicts_sha256"] == hashlib.sha256(sheet.read_bytes()).hexdigest() == found["digest"]
    assert record["reviewers"] == ["A Reviewer"] and record["seed"] == "s" and record["recorded_at"]
    assert published.work.read(f"{found['record']}/verdicts.csv") == sheet.read_bytes()
    assert published.work.stat(f"{found['record']}/recall-proposal.txt") is None
    last = list(audit_log.entries(published.work, PROJECT))[-1]
    assert (last.what, last.state, last.ids["digest"], last.ids["release"]) == (
        "assure", "done", found["digest"], RELEASE)
    assert (last.counts["drawn"], last.counts["leaks"]) == (5, 0)
    before = published.work.read(f"{found['record']}/record.json")
    assert steps.record_assurance(published.config, published.url, str(sheet)) == found      # the record that stands
    assert published.work.read(f"{found['record']}/record.json") == before
    assert not [e.key for e in published.store.list("") if "assur" in e.key]


def test_a_leak_raises_a_recall_proposal_of_its_study(published: Published) -> None:
    from pipeline.deidentify.recall import lines_of

    sheet = published.sheet(published.drawn(), 2)
    found = steps.record_assurance(published.config, published.url, str(sheet))
    uid = list(csv.DictReader(sheet.open()))[2]["instance"]
    proposed = lines_of(published.work.read(f"{found['record']}/recall-proposal.txt").decode())
    assert uid in proposed and len(proposed) == 4 == found["proposed"]
    assert {int(one[-3:]) // 4 for one in proposed} == {int(uid[-3:]) // 4}
    assert found["per_100000"] == 20_000 and found["leaks"] == 1


def test_a_recorded_leak_is_not_taken_back_by_another_sheet(published: Published) -> None:
    sheet = published.sheet(published.drawn(), 2)
    first = steps.record_assurance(published.config, published.url, str(sheet))
    more = steps.record_assurance(published.config, published.url, str(published.sheet(sheet, 1, 2)))
    assert (more["leaks"], more["record"] == first["record"]) == (2, False)
    with pytest.raises(UsageError, match="2 instances that are recorded as leaks"):
        steps.record_assurance(published.config, published.url, str(published.sheet(sheet)))
    other = published.drawn("another", 12, "t")        # another sample has all of them in it
    with pytest.raises(UsageError, match="1 instances that are recorded as leaks"):
        leak = list(csv.DictReader(sheet.open()))[1]["instance"]
        place = [row["instance"] for row in csv.DictReader(other.open())].index(leak)
        steps.record_assurance(published.config, published.url, str(published.sheet(other, place)))
    records = [entry.key for entry in published.work.list(f"{PROJECT}/assurances/") if "record.json" in entry.key]
    assert len(records) == 2
    assert list(audit_log.entries(published.work, PROJECT))[-1].state == "failed"


def test_a_release_on_s3_is_reviewed_by_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tre = Path(sys.executable).with_name("tre")

    def run(*words: object) -> str:
        command = [tre, "release", "assure", *map(str, words)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    with moto() as server:
        point_zones(monkeypatch, server)
        made = Published(tmp_path / "site", base=f"s3://{bucket(server)}/zones")
        said = run(made.url, "--sample", 5, "--seed", "s", "--out", made.root / "review")
        assert "if none leaks" in said
        sheet = made.root / "review" / "verdicts.csv"
        assert sheet.read_bytes() == made.drawn("here").read_bytes()        # the same seed, the same sample
        said = run(made.url, "--record", made.sheet(sheet, 0), "--project", made.root / "project.toml")
        assert re.search(r"upper 95 % bound\s+65,?740\.8 per 100,000", said) and "A leak was found" in said
        kept = {entry.key.rpartition("/")[2] for entry in made.work.list(f"{PROJECT}/assurances/")}
        assert kept == {"record.json", "verdicts.csv", "recall-proposal.txt"}


def _set(n: int, **cells: str) -> Any:
    return lambda rows: [row | cells if i == n else row for i, row in enumerate(rows)]


@pytest.mark.parametrize(("change", "what"), [
    (lambda rows: rows[:-1], "1 drawn instances have no line"),
    (lambda rows: [*rows, rows[0]], "has a verdict already"),
    (_set(1, instance="2.25.99"), ":3: this instance was not drawn"), (_set(1, verdict=""), ":3: no verdict"),
    (_set(1, verdict="perhaps"), ":3: no verdict"), (_set(4, reviewer=" "), ":6: nobody stands behind"),
    (_set(0, verdict="leak"), ":2: a leak without what"), (lambda rows: [], "5 drawn instances")])
def test_a_sheet_that_is_not_of_the_sample_is_refused(published: Published, change: Any, what: str) -> None:
    sheet = published.sheet(published.drawn(), change=change)
    with pytest.raises(UsageError, match=what):
        steps.record_assurance(published.config, published.url, str(sheet))
    assert not list(published.work.list(f"{PROJECT}/assurances/"))
    assert list(audit_log.entries(published.work, PROJECT))[-1].state == "failed"


def test_a_sample_that_was_picked_is_refused(published: Published) -> None:
    sheet = published.sheet(published.drawn())
    said = json.loads((sheet.parent / "sample.json").read_text())
    for lie in ({"population": 5}, {"seed": "t"}, {"sample": 4}, {"recalled": ["2.25.10000"]}, {"release": "0002"}):
        (sheet.parent / "sample.json").write_text(json.dumps(said | lie))
        with pytest.raises(UsageError):
            assure.check(published.url, sheet)
    (sheet.parent / "sample.json").unlink()
    with pytest.raises(UsageError, match="cannot be read"):
        assure.check(published.url, sheet)


def test_what_is_recalled_is_not_drawn_and_a_review_outlives_a_recall(published: Published) -> None:
    sheet = published.sheet(published.drawn())
    gone = next(csv.DictReader(sheet.open()))["instance"]
    published.store.write(layout.tombstone(PROJECT, gone), b"{}")
    assert assure.check(published.url, sheet).found["drawn"] == 5       # drawn before it was taken back
    after = assure.draw(published.url, 11, "s")
    assert after.population == 11 and gone not in {row["sop_instance_uid"] for row in after.rows}


def test_a_release_that_is_not_whole_is_not_reviewed(published: Published) -> None:
    drawn = assure.draw(published.url, 12, "s")
    published.store.write(layout.image(PROJECT, drawn.rows[0]["path"]), files.mammogram(seed=99))
    with pytest.raises(VerifyFailed, match="not what the release says"):
        assure.write(published.url, drawn, published.root / "one")
    published.store.write(layout.in_release(PROJECT, RELEASE, "tables/instances.parquet"), b"PAR1")
    with pytest.raises(VerifyFailed, match="instances table"):
        assure.draw(published.url, 5)


def test_a_review_replaces_no_other_and_is_of_its_project(published: Published, tmp_path: Path) -> None:
    sheet = published.drawn()
    with pytest.raises(UsageError, match="not empty"):
        published.drawn()
    namesake = published.config.model_copy(update={
        "project": published.config.project.model_copy(update={"name": "demo-screen"})})
    other = Published(tmp_path / "other")
    with pytest.raises(UsageError, match="no release of the project"):
        steps.record_assurance(namesake, published.url, str(published.sheet(sheet)))
    with pytest.raises(UsageError, match="no release of the project"):
        steps.record_assurance(other.config, published.url, str(published.sheet(sheet)))
