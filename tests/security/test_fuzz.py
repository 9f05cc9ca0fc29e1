"""Files made to break the reader: each is refused by a reason or comes out whole, clean and as the plan says.

`fuzz_kit.examine` states what must hold. The mutants follow from their seed; a fault names the mutant's number.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import fuzz_kit as kit
import pytest

from pipeline import steps
from pipeline.deidentify import second_look
from pipeline.deidentify.plan import Act, Op
from pipeline.dicom.inspect import inspect
from pipeline.model import Reason
from pipeline.synthetic import files, hostile

needs_corpus = pytest.mark.skipif(not kit.FUZZED.is_dir(), reason="the corpus is not here: set TRE_CORPUS")


def check(tally: kit.Tally, at_least: dict[str, int]) -> None:
    assert not tally.faults, "\n".join([f"{len(tally.faults)} faults", *tally.faults[:20]])
    for fate, count in at_least.items():
        assert tally.fates[fate] >= count, tally.fates.most_common()


def test_mutants() -> None:
    check(kit.run(range(1_500)), {"passed": 150, "malformed": 300, "truncated": 60, "engine value_malformed": 20})


@pytest.mark.long
def test_mutants_by_the_thousand() -> None:
    tally = kit.run(range(1_500, 11_500), seed=2)
    print(tally.fates.most_common())
    check(tally, {"passed": 1_000, "malformed": 2_000})


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big"])
def test_truncation_at_every_offset(syntax: str, tmp_path: Path) -> None:
    """Cut anywhere, a file with pixels is refused; without pixels, only a cut between two elements is not seen."""
    whole = files.mammogram(rows=4, columns=4, planted=False, transfer_syntax=syntax)
    path = tmp_path / "cut.dcm"
    for end in range(0, len(whole), 1 if len(whole) < 4000 else 3):
        path.write_bytes(whole[:end])
        found = inspect(path, kit.MOST)
        assert found.refusal is not None or end in _boundaries(whole, tmp_path), end
        assert (found.size, found.sha256) == (end, hashlib.sha256(whole[:end]).digest())


def _boundaries(whole: bytes, folder: Path) -> frozenset[int]:
    (folder / "whole.dcm").write_bytes(whole)
    return frozenset(end for _, _, end in kit.marks(folder / "whole.dcm"))


def test_truncation_at_every_offset_of_a_file_without_pixels(tmp_path: Path) -> None:
    whole = hostile.raw(hostile.nested(3, defined=False))
    for end in range(len(whole)):
        kit.examine(whole[:end], frozenset(), tmp_path)


def test_every_bit_of_a_small_header(tmp_path: Path) -> None:
    """One byte in three, one bit of it: the elements that name the file and its encoding are all hit."""
    whole = hostile.raw(hostile.nested(2, defined=True))
    for at in range(128, len(whole), 3):
        broken = bytearray(whole)
        broken[at] ^= 1 << at % 8
        kit.examine(bytes(broken), files.sentinels(), tmp_path)


@needs_corpus
@pytest.mark.corpus
def test_the_fuzzed_files_of_the_corpus(tmp_path: Path) -> None:
    fates = Counter(kit.examine(path.read_bytes(), frozenset(), tmp_path) for path in kit.landed(kit.FUZZED))
    assert fates.total() == 179
    print(fates.most_common())


def test_the_examination_sees_what_a_weak_recipe_lets_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = kit.plans()["mammography"]
    weak = replace(plan, id="weak", acts={**plan.acts, 0x00100010: Act(Op.KEEP, frozenset({b"PN"}), b"PN")})
    monkeypatch.setattr(kit, "plans", lambda: {"mammography": weak})
    data = files.mammogram(rows=4, columns=4)
    assert kit.examine(data, files.sentinels(), tmp_path) == "search"
    monkeypatch.setattr(second_look, "search", lambda *_: [])
    with pytest.raises(AssertionError, match="sentinels stand in the output"):
        kit.examine(data, files.sentinels(), tmp_path)


def test_the_examination_sees_a_tag_without_a_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pydicom

    plan = kit.plans()["mammography"]
    data = files.mammogram(rows=4, columns=4, planted=False)
    (tmp_path / "x.dcm").write_bytes(data)
    with pytest.raises(AssertionError, match="has no rule"):
        kit.admitted(pydicom.dcmread(tmp_path / "x.dcm"), plan)


# ---- a whole landing --------------------------------------------------------------------------------------------
PROJECT = """
schema_version = 1
project = {{ name = "fuzz-audit", title = "Mutants", data_steward = "nobody", linked = false, demo = true }}

[zones]
landing = "file://{root}/landing"
work = "file://{root}/work"
candidate = "file://{root}/candidate"
release = "file://{root}/release"

[stage]
quiet_seconds = 0
issuer = "HOSP-A"

[eligibility]
sop_classes = ["Digital Mammography X-Ray Image Storage - For Presentation", "CT Image Storage"]
study_dates = {{ earliest = 1900-01-01, latest = 2030-12-31 }}
people = {{ not_required = "Synthetic people only: no legal basis is needed." }}

[[deidentify.recipes]]
files = ["base.dicom", "mammography.dicom"]
sop_classes = ["Digital Mammography X-Ray Image Storage - For Presentation"]

[[deidentify.recipes]]
files = ["base.dicom", "ct.dicom"]
sop_classes = ["CT Image Storage"]
"""


def lay(root: Path, landed: dict[str, bytes]) -> Path:
    (root / "landing").mkdir(parents=True)
    (root / "keys").mkdir(mode=0o700)
    key = root / "keys" / "fuzz-audit.key"
    key.write_text(bytes(range(32)).hex() + "\n")
    key.chmod(0o600)
    for name, data in landed.items():
        (root / "landing" / name).write_bytes(data)
    (root / "project.toml").write_text(PROJECT.format(root=root))
    return root / "project.toml"


def neighbours() -> dict[str, bytes]:
    """Good images of two people whom no mutant is made of."""
    return {f"good{n}.dcm": files.mammogram(rows=8, columns=8, seed=f"good {n}", patient_id=f"GOOD{n % 2}",
                                            patient_name=f"GOODFELLOW{n % 2}^ROBIN", accession=f"GOOD{n}")
            for n in range(6)}


def mutants(count: int) -> dict[str, bytes]:
    """Mutants of images, each with UIDs of its own, so that it conflicts with no other; fuzzed files where they are."""
    out = {}
    for n in range(count):
        rng = kit.Mutant(n, seed=3).rng
        make, syntax = rng.choice(((files.mammogram, "explicit"), (files.mammogram, "implicit"), (files.ct, "explicit"),
                                   (files.mammogram, "jpeg"), (files.mammogram, "rle"), (files.mammogram, "deflated")))
        data = make(rows=8, columns=8, seed=f"mutant {n}", transfer_syntax=syntax, accession=f"M{n}",
                    patient_id=f"MUTANT{n}")
        path = Path(os.environ["FUZZ_FOLDER"]) / "seedling"
        path.write_bytes(data)
        one = kit.Seedling(syntax, data, frozenset(), kit.marks(path))
        out[f"mutant{n:04}.dcm"] = rng.choice(kit.WAYS)(rng, one)
    if kit.FUZZED.is_dir():
        out |= {f"fuzzed{n:03}.dcm": path.read_bytes() for n, path in enumerate(kit.landed(kit.FUZZED))}
    return out


def walk(root: Path, landed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, *,
         seal: bool = False) -> tuple[dict[str, str], Counter[str]]:
    """Stage, de-identify, assemble and read the ledger. Return image → digest by the name it would be published under,
    and the number of objects by status and reason."""
    from pipeline import config
    from pipeline.ledger.ledger import build
    from pipeline.storage import open_store
    from pipeline.storage.tables import read

    project = lay(root, landed)
    monkeypatch.setenv("TRE_KEY_DIR", str(root / "keys"))
    steps.stage(project)
    for pending in steps.pending_shards(project):
        steps.deidentify(project, pending["batch"], pending["shard"])
    candidate = steps.assemble(project)["candidate"]
    if seal:
        steps.curate(project, candidate)
        assert steps.validate(project, candidate)["digest"], "no critical expectation fails, whatever mutants say"
    made = config.load(project)
    zones = [open_store(getattr(made.zones, zone), zone) for zone in ("work", "candidate", "release")]
    summary = build(made, *zones, root / "ledger.parquet")
    assert summary.holds, summary.findings
    ledger = read(open_store(root.as_uri(), "work"), "ledger.parquet").to_pylist()
    prefix = made.zones.landing + "/"
    assert sorted(row["source_uri"].removeprefix(prefix) for row in ledger) == sorted(landed), "one row each"
    fates = Counter(f"{row['status']}/{row['reason'] or ''}" for row in ledger)
    good = {row["status"] for row in ledger if row["source_uri"].removeprefix(prefix).startswith("good")}
    assert good == {"pending"}, "a neighbour is held back"
    images = {str(path.relative_to(root / "candidate")).split("/dicom/")[1]:
              hashlib.sha256(path.read_bytes()).hexdigest() for path in (root / "candidate").rglob("*.dcm")}
    return images, fates


def landing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> Counter[str]:
    monkeypatch.setenv("FUZZ_FOLDER", str(tmp_path))
    expected, _ = walk(tmp_path / "alone", neighbours(), monkeypatch)
    found, fates = walk(tmp_path / "among", neighbours() | mutants(count), monkeypatch, seal=True)
    assert len(expected) == 6
    assert expected.items() < found.items(), "the neighbours' images are the same bytes as without the mutants"
    assert not set(fates) & {f"quarantined/{Reason.ENGINE_FAILED}", f"quarantined/{Reason.LIMIT_EXCEEDED}",
                             f"rejected/{Reason.READING_LIMIT_EXCEEDED}"}, fates
    print(fates.most_common())
    return fates


def test_a_landing_of_mutants_and_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    landing(tmp_path, monkeypatch, 300)


@pytest.mark.long
def test_a_landing_of_thousands_of_mutants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    landing(tmp_path, monkeypatch, 3_000)
