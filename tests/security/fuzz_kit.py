"""Mutants of readable DICOM files, by seed; and what must hold of any file whatever it holds."""

from __future__ import annotations

import os
import random
import struct
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pydicom
from pydicom.datadict import tag_for_keyword

from pipeline.deidentify import concepts, content, second_look
from pipeline.deidentify.engine import Subject, rewrite
from pipeline.deidentify.keys import Key
from pipeline.deidentify.linter import read
from pipeline.deidentify.plan import RECIPES, REPORTS, Plan, compile_rules
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.deidentify.shard import collect
from pipeline.dicom.file import CHUNK, DEFLATED_LE, Scan, scan
from pipeline.dicom.inspect import inspect
from pipeline.isolate import each
from pipeline.model import Refusal
from pipeline.synthetic import files
from pipeline.synthetic.bundled import bundled

CORPUS = Path(os.environ.get("TRE_CORPUS") or Path(__file__).parents[2].parent / "shared" / "corpus")
FUZZED = CORPUS / "dicom" / "pwnlabmx__dicom-fuzzing-corpus"
MOST = 10**9
LARGEST = 60_000            # bytes of a file that is mutated: more of them in the same time
PSEUDONYMS = Pseudonyms(Key(b"f" * 32, "fuzz"))
SUBJECT = Subject(PSEUDONYMS.person("HOSP-A", "1"), PSEUDONYMS, -100, -3600, "HOSP-A")
STATED = frozenset({0x00120062, 0x00120063, 0x00120064, 0x00280303})      # by the engine, of what was done
IN_STATED = frozenset({0x00080100, 0x00080102, 0x00080104})
CT = "1.2.840.10008.5.1.4.1.1.2"
OF_REPORTS = frozenset(tag_for_keyword(name) for name in (
    "ValueType", "RelationshipType", "ConceptNameCodeSequence", "ConceptCodeSequence", "CodeValue", "LongCodeValue",
    "CodingSchemeDesignator", "CodeMeaning", "ContinuityOfContent", "ContentTemplateSequence", "TemplateIdentifier",
    "MappingResource", "ContentSequence", "VerificationFlag", "MeasuredValueSequence", "NumericValue",
    "MeasurementUnitsCodeSequence", "NumericValueQualifierCodeSequence", "TextValue", "PersonName", "UID", "DateTime",
    "ReferencedSOPSequence", "ReferencedSOPClassUID", "ReferencedSOPInstanceUID", "ReferencedFrameNumber",
    "ObservationDateTime", "ObservationUID", "ReferencedContentItemIdentifier", "SpecificCharacterSet",
    "CurrentRequestedProcedureEvidenceSequence", "ReferencedSeriesSequence", "StudyInstanceUID", "SeriesInstanceUID"))


@cache
def plans() -> dict[str, Plan]:
    rules = {"mammography": None, "ct": None, "report": concepts.read(RECIPES / "dose_report.toml")}
    return {kind: compile_rules(read([RECIPES / "base.dicom", RECIPES / f"{kind}.dicom"]), keep_times=False,
                                concepts=named) for kind, named in rules.items()}


@dataclass(frozen=True)
class Seedling:
    """A file that admission reads: what mutants are made of."""

    name: str
    data: bytes
    sentinels: frozenset[str] = frozenset()
    marks: tuple[tuple[int, int, int], ...] = ()        # of each element at the top: header, value, end


def marks(path: Path) -> tuple[tuple[int, int, int], ...]:
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        found = scan(fd, size, os.pread(fd, CHUNK, 0))
        if found.transfer_syntax == DEFLATED_LE:
            return ()
        pixel = [(found.pixel[2], found.pixel[3], found.pixel_end)] if found.pixel else []
        return tuple((start, value, end) for _, _, start, value, end in found.elements) + tuple(pixel)
    finally:
        os.close(fd)


@cache
def seedlings() -> tuple[Seedling, ...]:
    """Synthetic files in every encoding, pydicom's own, and the corpus's where it is here."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seedling"
        out = []

        def add(name: str, data: bytes, sentinels: frozenset[str] = frozenset()) -> None:
            path.write_bytes(data)
            if inspect(path, MOST).refusal is None:
                out.append(Seedling(name, data, sentinels, marks(path)))

        small = {"rows": 16, "columns": 16}
        for syntax in ("explicit", "implicit", "big", "deflated", "rle", "jpeg", "jpeg2000"):
            data = files.mammogram(**small, transfer_syntax=syntax, nhs_number="9990000018", overlay=True)
            add(f"mammogram {syntax}", data, files.sentinels() | {"9990000018"})
        add("ct", files.ct(**small), files.sentinels(serial="SN-73002"))
        add("tomosynthesis", files.tomosynthesis(**small), files.sentinels())
        add("dose report", files.dose_report(), files.sentinels())
        wanted = [path for _, path in bundled() if path.stat().st_size <= LARGEST]
        if CORPUS.is_dir():
            wanted += sorted(p for p in (CORPUS / "dicom").rglob("*.dcm")
                             if p.stat().st_size <= LARGEST and FUZZED not in p.parents)
        seen = set()
        for source in wanted:
            data = source.read_bytes()
            if data not in seen:
                seen.add(data)
                add(source.name, data)
        return tuple(out)


def flip(rng: random.Random, one: Seedling) -> bytes:
    data = bytearray(one.data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        data[where(rng, one)] ^= 1 << rng.randrange(8)
    return bytes(data)


def overwrite(rng: random.Random, one: Seedling) -> bytes:
    at = where(rng, one)
    word = rng.choice((b"\xff" * 4, bytes(4), b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0", b"\\", b"\x1b$B", b"UN", b"SQ",
                       rng.randbytes(rng.randrange(1, 16))))
    return one.data[:at] + word + one.data[at + len(word):]


def truncate(rng: random.Random, one: Seedling) -> bytes:
    return one.data[:where(rng, one)]


def length(rng: random.Random, one: Seedling) -> bytes:
    """Another length in the header of one element at the top (or of what stands there in a deflated stream)."""
    if not one.marks:
        return flip(rng, one)
    start, value, end = rng.choice(one.marks)
    size = end - value
    claimed = rng.choice((0, 1, 2, 0xFFFE, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFF0, 1 << 31, size + 1, size + 2, size * 2,
                          max(size - 1, 0), max(size - 2, 0), rng.randrange(1 << 16)))
    width = 4 if value - start == 12 or not one.data[start + 4:start + 6].isalpha() else 2
    order = ">" if one.name.endswith("big") else "<"
    field_ = struct.pack(f"{order}{'I' if width == 4 else 'H'}", claimed & (0xFFFFFFFF if width == 4 else 0xFFFF))
    return one.data[:value - width] + field_ + one.data[value:]


def splice(rng: random.Random, one: Seedling) -> bytes:
    other = rng.choice(seedlings())
    return one.data[:where(rng, one)] + other.data[where(rng, other):]


def duplicate(rng: random.Random, one: Seedling) -> bytes:
    if not one.marks:
        return flip(rng, one)
    start, _, end = rng.choice(one.marks)
    at = rng.choice(one.marks)[0] if rng.random() < 0.3 else end
    return one.data[:at] + one.data[start:end] + one.data[at:]


def swap(rng: random.Random, one: Seedling) -> bytes:
    if len(one.marks) < 2:
        return flip(rng, one)
    n = rng.randrange(len(one.marks) - 1)
    (a, _, b), (c, _, d) = one.marks[n], one.marks[n + 1]
    return one.data[:a] + one.data[c:d] + one.data[b:c] + one.data[a:b] + one.data[d:]


def leave_out(rng: random.Random, one: Seedling) -> bytes:
    if not one.marks:
        return flip(rng, one)
    start, _, end = rng.choice(one.marks)
    return one.data[:start] + one.data[end:]


def value(rng: random.Random, one: Seedling) -> bytes:
    """Another value of the same length: hostile text, or bytes."""
    if not one.marks:
        return flip(rng, one)
    _, begin, end = rng.choice(one.marks)
    size = min(end - begin, 64)
    new = rng.choice((rng.randbytes(64), b"\\" * 64, b"9" * 64, b"1." * 32, b" \0" * 32, b"-" * 64, b"\xff" * 64,
                      b"19000229" * 8, b"\x1b$B$$\x1b(B" * 8, b"../" * 22, b"NaN" * 22, b"1e9" * 22))[:size]
    return one.data[:begin] + new + one.data[begin + size:]


WAYS = (value, value, value, flip, flip, overwrite, truncate, length, length, splice, duplicate, swap, leave_out)


def where(rng: random.Random, one: Seedling) -> int:
    """An offset: half of them at an element's header or value, few in pixels."""
    if one.marks and rng.random() < 0.5:
        start, value, end = rng.choice(one.marks)
        return rng.choice((rng.randrange(start, value), rng.randrange(value, max(end, value + 1)))) % len(one.data)
    return rng.randrange(min(len(one.data), one.marks[-1][1] + 64 if one.marks else len(one.data)))


@dataclass(frozen=True)
class Mutant:
    """A mutant by number: its bytes follow from it."""

    number: int
    seed: int = 1

    @property
    def rng(self) -> random.Random:
        return random.Random(f"{self.seed} {self.number}")

    def parts(self) -> tuple[Seedling, bytes, str]:
        rng = self.rng
        ours = [one for one in seedlings() if one.sentinels]
        one = rng.choice(ours) if rng.random() < 0.6 else rng.choice(seedlings())
        way = rng.choice(WAYS)
        return one, way(rng, one), way.__name__


@dataclass
class Tally:
    """What came of the files, and what must not have."""

    fates: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def examine(data: bytes, sentinels: frozenset[str], folder: Path, sibling: bytes | None = None) -> str:
    """Return the fate of a file: `reason` of admission, `engine reason`, `search`, `passed`. AssertionError where
    something does not hold that must."""
    source, target = folder / "in.dcm", folder / "out.dcm"
    source.write_bytes(data)
    found = inspect(source, MOST)
    if found.refusal is None:
        uids = (found.sop_class_uid, found.sop_instance_uid, found.study_uid, found.series_uid)
        assert all(uids) and found.transfer_syntax_uid and found.n_elements > 3, "admitted without an identity"
    assert found.size == len(data), "another size"
    sop_class = found.sop_class_uid or ""
    kinds = ("ct",) if sop_class == CT else ("report",) if sop_class.startswith(REPORTS) else ("mammography", "ct")
    fates = [_rewritten(kind, plans()[kind], source, target, sentinels, sibling) for kind in kinds if kind in plans()]
    return str(found.refusal.reason) if found.refusal is not None else fates[0]


def _rewritten(kind: str, plan: Plan, source: Path, target: Path, sentinels: frozenset[str],
               sibling: bytes | None) -> str:
    target.unlink(missing_ok=True)
    try:
        result = rewrite(source, target, plan, SUBJECT)
    except Refusal as refusal:
        assert not target.exists(), "a refused file has an output"
        return f"engine {refusal.reason}"
    again = inspect(target, MOST)
    assert again.refusal is None, f"the output is {again.refusal} at admission"
    assert again.sha256 == result.sha256, "another digest"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = pydicom.dcmread(target)
        admitted(out, plan)
        for element in out.iterall():       # decoded, every one
            assert element is not None
    written = target.read_bytes()
    left = [word for word in sorted(sentinels) if word.encode().lower() in written.lower()]
    if not left:
        return "passed"
    collected = second_look.Collected()
    _collect(result.source, plan, collected)
    if sibling is not None:
        source.write_bytes(sibling)
        target.unlink()
        _collect(rewrite(source, target, plan, SUBJECT).source, plan, collected)
    hits = second_look.search(written[:result.header_size], collected.tokens(), {})
    assert hits, f"{len(left)} sentinels stand in the output under {kind}"
    return "search"


def _collect(source: Scan, plan: Plan, collected: second_look.Collected) -> None:
    collect(source, collected)
    if plan.concepts:
        content.collect(source, collected)


def admitted(dataset: pydicom.Dataset, plan: Plan, inside: bool = False) -> None:
    """Raise AssertionError where an element stands that the plan has no rule for."""
    for element in dataset:
        tag = int(element.tag)
        if element.tag.is_private:
            block = element.tag.element >> 8 or element.tag.element
            creator = str(dataset[element.tag.group, block].value)
            assert (element.tag.group, creator) in plan.private, f"private {tag:08X}"
        else:
            assert (tag in plan.acts or tag in STATED or (inside and tag in IN_STATED)
                    or (plan.concepts and tag in OF_REPORTS)), f"{tag:08X} has no rule"
            if element.VR == "SQ":
                for item in element.value:
                    admitted(item, plan, inside=tag == 0x00120064)


def run(numbers: range, seed: int = 1) -> Tally:
    """Examine mutants in a worker under the limits of the product, so that a hang or a bomb counts as a fault."""
    tally = Tally()

    def work(group, clock, without):
        out = []
        with tempfile.TemporaryDirectory() as folder:
            for number in group:
                if number in without:
                    out.append((None, "over its limits"))
                    continue
                clock.start(number, 0)
                one, data, way = Mutant(number, seed).parts()
                try:
                    out.append((examine(data, one.sentinels, Path(folder), one.data if one.sentinels else None), None))
                except BaseException as error:
                    out.append((None, f"{way} of {one.name}: {type(error).__name__} {error}"[:300]))
        return out

    seedlings()
    groups = [numbers[i:i + 50] for i in range(0, len(numbers), 50)]
    with closing(each(groups, work)) as done:
        for group, found in done:
            for number, (fate, fault) in zip(group, found, strict=True):
                if fault:
                    tally.faults.append(f"mutant {number}: {fault}")
                else:
                    tally.fates[fate] += 1
    return tally


def landed(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())

