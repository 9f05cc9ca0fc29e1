"""Text in pixels is found or painted over: the reader, and what a part makes of it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont
from pixels_kit import ULTRASOUND, dataset, encapsulated, native, plan

from infra import measure_ocr
from pipeline import layout
from pipeline.deidentify import assemble, reader
from pipeline.deidentify.pixel_policy import Device, Policy
from pipeline.deidentify.plan import PlanSet
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.deidentify.shard import Decided, Job, run
from pipeline.schemas import OUTCOMES
from pipeline.storage import open_store, tables
from tests.helpers.jpeg_lossless import crash_at, encode

pytest.importorskip("rapidocr_onnxruntime", exc_type=ImportError, reason="no reader (extra ocr), or no libGL for it")
NAME = "QUILLFEATHER ARAMINTA"
READS = Policy(ocr=True, installed=True)


def rendered(rows: int, columns: int, text: str = NAME, *, at: tuple[int, int] = (20, 20), px: int = 16,
             grey: int = 255, ground: int = 90, turned: int = 0) -> Any:
    """Return 8-bit greys with text on a ground with a little noise."""
    image = Image.new("L", (columns, rows), ground)
    ImageDraw.Draw(image).text(at, text, fill=grey, font=ImageFont.load_default(px))
    noise = np.random.default_rng(7).normal(0, 2, (rows, columns))
    return np.rot90(np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8), turned)


@pytest.mark.parametrize("turned", [0, 1, 3])
def test_a_name_is_found_where_it_stands(turned: int) -> None:
    boxes = list(reader.read(rendered(300, 400, turned=turned)))
    there = np.zeros((300, 400), bool)
    there[20:38, 20:210] = True
    rows, columns = np.nonzero(np.rot90(there, turned))
    assert boxes
    covered = np.zeros_like(np.rot90(there, turned))
    for x0, y0, x1, y1 in boxes:
        covered[y0:y1, x0:x1] = True
    assert covered[rows, columns].mean() > 0.9
    assert covered.mean() < 0.15


def test_small_text_in_a_large_frame_is_found_at_its_own_size() -> None:
    frame = (rendered(2400, 2000, at=(1700, 2300), px=14).astype(np.uint16) * 16)
    boxes = list(reader.read(frame))
    assert any(x1 > 1750 and y1 > 2290 for _, _, x1, y1 in boxes)
    assert all(x0 > 1600 and y0 > 2250 for x0, y0, _, _ in boxes)


def test_letters_of_a_screen_six_pixels_high_are_found() -> None:
    greys, names = measure_ocr.picture("tissue", 8, 60, turned=0, seed=8060)
    covered = np.zeros(greys.shape, bool)
    for x0, y0, x1, y1 in reader.read(greys):
        covered[y0:y1, x0:x1] = True
    assert sum(covered[name].mean() > 0.5 for name in names) >= 5


def test_an_approved_word_that_pieces_cut_is_no_finding() -> None:
    cut = rendered(700, 900, "ADS 56 PROCESSED", at=(200, 300), px=20)
    assert list(reader.read(cut))
    assert list(reader.read(cut, ("ADS 56 PROCESSED",))) == []
    assert list(reader.read(rendered(700, 900, "ADS 56 DOE", at=(200, 300), px=20), ("ADS 56 PROCESSED",)))


def test_text_a_third_as_high_as_the_frame() -> None:
    assert list(reader.read(rendered(2000, 2400, "DOE JOHN", at=(100, 500), px=480)))


def test_what_is_no_text_is_not_found() -> None:
    random = np.random.default_rng(3)
    ramp = np.add.outer(np.arange(600), np.arange(600)).astype(np.uint16)
    for picture in (np.zeros((400, 400), np.uint8), random.integers(0, 4096, (500, 500)), ramp, ramp[:5]):
        assert list(reader.read(picture)) == []


def test_approved_words_and_single_letters_are_no_finding() -> None:
    picture = rendered(200, 300, "L MLO", px=24)
    assert list(reader.read(picture))
    assert list(reader.read(picture, ("L  mlo".upper(),))) == []
    assert list(reader.read(rendered(200, 300, "R", px=24))) == []


def test_a_stack_is_looked_at_all_through(tmp_path: Path) -> None:
    """Text in one frame of forty, which is none of those that are looked at by themselves."""
    frames = np.stack([rendered(120, 260, "" if n != 17 else NAME) for n in range(40)])
    path = tmp_path / "in.dcm"
    path.write_bytes(native(dataset(120, 260, frames=40), frames.tobytes()))
    ticks: list[int] = []
    seen = reader.look(path, (), lambda: ticks.append(1))
    assert seen.boxes
    assert seen.frames == reader.FRAMES + 2
    assert len(ticks) >= 40


@pytest.fixture
def part(tmp_path: Path, pseudonyms: Pseudonyms) -> Callable[..., Any]:
    """Return a function that de-identifies images under rules; it gives counts, looks and outputs by SOP instance."""
    zones = {zone: open_store((tmp_path / zone).as_uri(), zone) for zone in ("landing", "work", "candidate")}

    def do(images: list[bytes], *rules: str, policy: Policy = READS) -> Any:
        decided = []
        for number, data in enumerate(images):
            zones["landing"].write(f"{number}.dcm", data)
            row = {"source_uri": f"{zones['landing'].url}/{number}.dcm", "bytes": len(data), "issuer": "HOSP-A",
                   "source_sha256": hashlib.sha256(data).digest(), "sop_class_uid": ULTRASOUND, "patient_id": "1"}
            decided.append(Decided(row, ("HOSP-A", "LID4471902"), None))
        one = plan(tmp_path, *rules, policy=policy)
        counts = run(Job("us", zones["landing"], zones["candidate"], PlanSet("r", {ULTRASOUND: one}), pseudonyms, 365),
                     zones["work"], "p-1", decided)
        work = zones["work"]
        key = layout.looks("us", "p-1")
        looks = tables.read(work, key).to_pylist() if any(e.key == key for e in work.list("us/parts/")) else []
        return counts, looks, sorted((tmp_path / "candidate").rglob("*.dcm"))
    return do


def image(frame: Any, instance: str = "1.2.1", study: str = "1.2.2", **elements: Any) -> bytes:
    return native(dataset(*frame.shape, SOPInstanceUID=instance, StudyInstanceUID=study, Manufacturer="Maker",
                          ManufacturerModelName="One", SoftwareVersions="1", **elements), frame.tobytes())


HEAD = ("LABEL head", "contains Modality US", "coordinates 0,0,400,45")


def test_a_name_in_the_pixels_is_painted_over_or_the_study_held(part: Callable[..., Any]) -> None:
    """The sentinel: rendered into pixels, it is in no output."""
    named, plain = rendered(300, 400), rendered(300, 400, "")
    both = [image(named), image(plain, "1.2.9"), image(plain, "1.2.10", "1.2.99")]
    counts, looks, out = part(both)
    assert counts == {"pending": 1, "quarantined/text_in_pixels": 2}
    assert [len(row["boxes"]) > 0 for row in looks].count(True) == 1
    assert len(out) == 1 and np.array_equal(pydicom.dcmread(out[0]).pixel_array, plain)
    assert not any(word.lower() in str(looks).lower() for word in NAME.split())


def test_what_the_rule_leaves_is_read(part: Callable[..., Any]) -> None:
    counts, looks, out = part([image(rendered(300, 400))], *HEAD)
    assert counts == {"pending": 1}
    assert [row["boxes"] for row in looks] == [[]]
    done = pydicom.dcmread(out[0])
    assert not done.pixel_array[:45].any()
    assert list(reader.read(done.pixel_array)) == []
    counts, looks, _ = part([image(rendered(300, 400, at=(20, 200)))], *HEAD)
    assert counts == {"quarantined/text_in_pixels": 1}
    x0, y0, x1, y1 = (int(n) for n in looks[0]["boxes"][0].split(","))
    assert x0 <= 21 and 190 < y0 < 206 and x1 > 150 and 214 < y1 < 235


def lossless(frame: Any, instance: str = "1.2.1", study: str = "1.2.2", precision: int = 8) -> bytes:
    """Return an image in JPEG Lossless; `precision` is that of its stream."""
    ds = dataset(*frame.shape, SOPInstanceUID=instance, StudyInstanceUID=study, Manufacturer="Maker",
                 ManufacturerModelName="One", SoftwareVersions="1")
    return encapsulated(ds, [encode(frame, precision)], "1.2.840.10008.1.2.4.70")


def test_jpeg_lossless_is_read_and_painted(part: Callable[..., Any]) -> None:
    named, plain = rendered(300, 400), rendered(300, 400, "")
    counts, looks, out = part([lossless(named), lossless(plain, "1.2.9", "1.2.99")])
    assert counts == {"pending": 1, "quarantined/text_in_pixels": 1}
    assert pydicom.dcmread(out[0]).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.70"
    x0, _, x1, y1 = (int(n) for row in looks for box in row["boxes"] for n in box.split(","))
    assert x1 > x0 + 100 and y1 < 60
    counts, _, out = part([lossless(named)], *HEAD)
    assert counts == {"pending": 1}


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"])
def test_text_is_seen_where_a_header_says_colour_by_plane(syntax: str, tmp_path: Path) -> None:
    """A compressed stream says itself how its colours stand."""
    greys = np.stack([rendered(300, 400)] * 3, axis=2)
    buffer = io.BytesIO()
    Image.fromarray(greys).save(buffer, "JPEG", quality=95)
    stream = encode(greys, 8) if syntax.endswith("70") else buffer.getvalue()
    said = "RGB" if syntax.endswith("70") else "YBR_FULL_422"
    path = tmp_path / "in.dcm"
    path.write_bytes(encapsulated(dataset(300, 400, samples=3, planar=1, photometric=said), [stream], syntax))
    (x0, y0, x1, y1), = reader.look(path).boxes
    assert x0 <= 21 and y0 <= 24 and 190 < x1 < 235 and 34 < y1 < 50


def test_a_decoder_that_crashes_costs_one_object(part: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    crash_at(7, monkeypatch)
    plain = rendered(300, 400, "")
    images = [lossless(plain), lossless(plain // 2, "1.2.9", "1.2.98", 7), lossless(plain, "1.2.10", "1.2.99")]
    counts, _, out = part(images, *HEAD)
    assert counts == {"pending": 2, "quarantined/limit_exceeded": 1}
    assert len(out) == 2


def test_the_proposed_box_painted_over_lets_the_study_pass(part: Callable[..., Any]) -> None:
    frame = rendered(300, 400, at=(20, 200))
    _, looks, _ = part([image(frame)])
    rules = [f"coordinates {box}" for box in looks[0]["boxes"]]
    counts, _, out = part([image(frame)], "LABEL proposed", "contains Modality US", *rules)
    assert counts == {"pending": 1}
    assert (pydicom.dcmread(out[0]).pixel_array != frame).mean() < 0.1


def test_a_study_is_held_back_whichever_part_its_text_was_found_in(tmp_path: Path) -> None:
    work = open_store(tmp_path.as_uri(), "work")
    for number, status, reason in ((1, "quarantined", "text_in_pixels"), (2, "pending", None), (3, "pending", None)):
        row = {"source_uri": f"x/{number}", "source_sha256": bytes(32), "status": status, "reason": reason,
               "study": "1.2.2" if number < 3 else "1.2.3", "instance": f"1.2.{number}"}
        tables.write(work, layout.outcomes("us", f"p-{number}"), tables.from_rows(OUTCOMES, [row]))
    assert assemble.survey(work, "us", [], ["p-1", "p-2", "p-3"])[1] == {"1.2.2": "study_quarantined"}


def test_the_code_of_clean_pixels_is_for_those_that_were_read(tmp_path: Path) -> None:
    from pipeline.deidentify.engine import always
    from pipeline.dicom.scan import LITTLE

    one = plan(tmp_path, *HEAD)
    assert one.codes
    said = b"".join(piece for _, piece in always(one, LITTLE, read=True))
    assert b"113101" in said and b"113100" in said
    assert b"113101" not in b"".join(piece for _, piece in always(one, LITTLE))
    weaker = one.__class__(**{**vars(one), "codes": ()})        # it claims nothing, and so no option either
    assert b"113101" not in b"".join(piece for _, piece in always(weaker, LITTLE, read=True))


def test_a_listed_device_passes_unread_but_for_the_sample(part: Callable[..., Any]) -> None:
    images = [image(rendered(300, 400, ""), f"1.2.{n}", f"1.3.{n}") for n in range(8)]
    listed = ((Device.of("MAKER", "One", "1"), False),)
    counts, looks, _ = part(images, policy=Policy(True, True, listed))
    assert counts == {"pending": 8} and looks == []
    _, looks, _ = part(images, policy=Policy(True, True, listed, sample=2))
    assert 0 < len(looks) < 8
    assert {(row["manufacturer"], row["model"], row["software"], row["pictures"]) for row in looks} == {
        ("maker", "one", "1", 1)}


def test_without_a_reader_nothing_passes(part: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    counts, looks, out = part([image(rendered(300, 400, ""))], policy=Policy(ocr=True))
    assert counts == {"quarantined/pixels_not_read": 1} and not looks and not out

    def broken() -> None:
        raise ImportError

    monkeypatch.setattr(reader, "_reader", broken)
    counts, _, out = part([image(rendered(300, 400, ""))])
    assert counts == {"quarantined/pixels_not_read": 1} and not out


def test_what_is_not_loaded_until_it_is_needed() -> None:
    import subprocess
    import sys

    code = ("import sys, pipeline.deidentify.shard, pipeline.deidentify.reader; "
            "assert not {'rapidocr_onnxruntime', 'onnxruntime', 'cv2'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)




def test_a_large_image_is_read_within_an_object_s_memory() -> None:
    """A mammogram's size, in a worker under the limits that a project has unless it says otherwise."""
    from pipeline.isolate import Limits, each

    frame = np.zeros((4096, 3072), np.uint16)
    frame[1000:1300, 500:900] = rendered(300, 400)

    def work(group: int, clock: Any, without: Any) -> int:
        clock.start(group, frame.nbytes)
        return len(list(reader.read(frame)))

    assert [answer > 0 for _, answer in each([0], work, limits=Limits())] == [True]
