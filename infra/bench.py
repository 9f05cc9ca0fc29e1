"""`make bench`: what de-identifying one object costs, beside a plain copy and beside deid, on this machine.

Each subject runs in a process of its own: CPU is its user and system time over its objects, memory its peak.
`raw copy + sha256` reads, hashes and writes in 1 MiB pieces: the least that could be done. `engine` reads, hashes and
rewrites; `all in` is admission, engine, digest of the output, facts, search of what comes out, and storing.
Prints a table and appends JSON lines to .bench/engine.jsonl; all cases together write docs/benchmarks/engine.md.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra import bench_pages as pages

CASES = {"ct": 400, "mg": 12, "dbt": 2}         # objects a run
SUBJECTS = ("raw copy + sha256", "deid", "engine", "all in")
RECIPES = {"ct": ("base.dicom", "ct.dicom"), "mg": ("base.dicom", "mammography.dicom"),
           "dbt": ("base.dicom", "mammography.dicom")}
ABOUT = {"ct": "ct: 0.5 MB, 200 elements", "mg": "mg: 24 MB", "dbt": "dbt: 400 MB, 40 frames"}
AIMS = {("ct", "engine"): 1.3, ("mg", "engine"): 1.1, ("ct", "all in"): 2.5}      # × raw copy
PIECE = 1 << 20


def make(case: str, path: Path) -> None:
    """Write the case's object: ct 0.5 MB with about 200 elements, mg 24 MB, dbt 400 MB multi-frame."""
    import pydicom

    from pipeline.synthetic import files

    if case == "ct":
        dataset = pydicom.dcmread(io.BytesIO(files.ct(rows=512, columns=512)))
        block = dataset.private_block(0x0043, "BENCH", create=True)
        for number in range(200 - len(dataset)):
            block.add_new(number, "LO", f"value {number}")
        dataset.save_as(path)
    elif case == "mg":
        path.write_bytes(files.mammogram(rows=4096, columns=3072))
    else:
        # one frame is made and repeated: 400 MB of noise would take longer to make than to measure
        whole = files.tomosynthesis(rows=2560, columns=2048, frames=1, NumberOfFrames="40")
        frame = whole[-2560 * 2048 * 2:]
        head = whole[:-len(frame)]
        at = head.rindex(b"\xe0\x7f\x10\x00OW\0\0")
        with path.open("wb") as file:
            file.write(head[:at + 8] + (40 * len(frame)).to_bytes(4, "little"))
            for _ in range(40):
                file.write(frame)


def subject(name: str, case: str, source: Path, folder: Path) -> Callable[[int], None]:
    """Return a function that treats the object once."""
    if name == "raw copy + sha256":
        return lambda n: _copy(source, folder / f"{n}.dcm")
    if name == "deid":
        return _deid(case, source, folder)
    return _engine(case, source, folder, whole=name == "all in")


def _copy(source: Path, target: Path) -> None:
    digest, buffer = hashlib.sha256(), bytearray(PIECE)
    view = memoryview(buffer)
    with source.open("rb", buffering=0) as read, target.open("wb", buffering=0) as write:
        while n := read.readinto(buffer):
            digest.update(view[:n])
            write.write(view[:n])
    digest.hexdigest()


def _deid(case: str, source: Path, folder: Path) -> Callable[[int], None]:
    from deid.config import DeidRecipe
    from deid.dicom import get_identifiers, replace_identifiers
    from deid.logger import bot

    from pipeline.deidentify.plan import RECIPES as SHIPPED

    bot.level = -10
    recipe = DeidRecipe(deid=[str(SHIPPED / name) for name in RECIPES[case]])

    def new_uid(item: Any, value: Any, field: Any, dicom: Any) -> str:
        return "2.25." + str(int(hashlib.sha256(str(field.element.value).encode()).hexdigest()[:30], 16))

    def name(item: Any, value: Any, field: Any, dicom: Any) -> str:
        return "D" + hashlib.sha256(str(field.element.value).encode()).hexdigest()[:12]

    def once(n: int) -> None:
        found = get_identifiers([str(source)])
        found[str(source)].update(
            patient="P1", empty="", days=-100, age_band="050Y", uid=new_uid, device=name, operator=name
        )
        replace_identifiers(dicom_files=[str(source)], deid=recipe, ids=found, save=True, output_folder=str(folder),
                            overwrite=True)
    return once


def _engine(case: str, source: Path, folder: Path, *, whole: bool) -> Callable[[int], None]:
    from pipeline.deidentify import facts, second_look
    from pipeline.deidentify.engine import Subject, rewrite
    from pipeline.deidentify.keys import Key
    from pipeline.deidentify.linter import read
    from pipeline.deidentify.plan import RECIPES as SHIPPED
    from pipeline.deidentify.plan import compile_rules
    from pipeline.deidentify.pseudonyms import Pseudonyms
    from pipeline.deidentify.shard import collect
    from pipeline.dicom.inspect import inspect
    from pipeline.storage import open_store

    pseudonyms = Pseudonyms(Key(b"b" * 32, "bench"))
    plan = compile_rules(read([SHIPPED / name for name in RECIPES[case]]), keep_times=False)
    person = Subject(pseudonyms.person("HOSP-A", "1"), pseudonyms, -100, 0, "HOSP-A")
    store = open_store(folder.as_uri(), "candidate")
    collected = second_look.Collected()
    collected.add_ids(["9990000018"])

    def once(n: int) -> None:
        target = folder / f"{n}.part"
        if not whole:
            rewrite(source, target, plan, person, digest=False)
            return
        admitted = inspect(source, 1 << 40)
        assert admitted.refusal is None
        result = rewrite(source, target, plan, person, expect=admitted.sha256)
        collect(result.source, collected)
        with target.open("rb") as file:
            header = file.read(result.header_size)
        facts.extract(header, result.encoding)
        if not n:       # the tokens of a person are made once for all their images
            once.tokens = collected.tokens()        # type: ignore[attr-defined]
        assert not second_look.search(header, once.tokens, collected.take_dates())      # type: ignore[attr-defined]
        store.adopt(f"{n}/{result.instance}.dcm", target, result.sha256)
    return once


def run(name: str, case: str, source: Path, folder: Path) -> dict[str, Any]:
    """Measure in this process; called in a child."""
    once = subject(name, case, source, folder)
    once(0)         # imports, caches, the recipe: paid once a process
    gc.freeze()     # as the product's workers do
    count = max(1, CASES[case] // (20 if name == "deid" and case == "ct" else 4 if name == "deid" else 1))
    cpu = wall = 0.0
    for n in range(1, count + 1):
        before, begin = time.process_time(), time.perf_counter()
        once(n)
        cpu, wall = cpu + time.process_time() - before, wall + time.perf_counter() - begin
        for file in folder.rglob("*.dcm"):
            file.unlink()
        (folder / f"{n}.part").unlink(missing_ok=True)
    return {"bench": "engine", "case": case, "subject": name, "cpu_ms_per_instance": round(cpu / count * 1000, 3),
            "mb_per_s": round(source.stat().st_size * count / wall / 1e6, 1),
            "peak_rss_mib": round(_peak() / 1024, 1), "instances": count}


def _peak() -> int:
    """Return this process's own peak in KiB (ru_maxrss would count the parent's from before exec)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="each subject this often, in turn; the median counts")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--child", nargs=4, metavar=("SUBJECT", "CASE", "SOURCE", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        from pipeline.observe import quiet

        quiet()
        name, case, source, folder = given.child
        sys.stdout.write(json.dumps(run(name, case, Path(source), Path(folder))) + "\n")
        return 0
    return _parent(given.rounds, given.cases)


def _parent(rounds: int, cases: list[str]) -> int:
    out, machine = pages.ROOT / ".bench", pages.machine()
    out.mkdir(exist_ok=True)
    lines: dict[str, dict[str, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(dir=out) as folder:
        for case in cases:
            source = Path(folder, f"{case}.dcm").resolve()
            make(case, source)
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in SUBJECTS}
            for _ in range(rounds):
                for name in SUBJECTS:
                    with tempfile.TemporaryDirectory(dir=folder) as scratch:
                        command = [sys.executable, "-m", "infra.bench", "--child", name, case, str(source),
                                   str(Path(scratch).resolve())]
                        found[name].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
            lines[case] = {name: {**sorted(every, key=lambda one: one["cpu_ms_per_instance"])[rounds // 2], **machine,
                                  "peak_rss_mib": max(one["peak_rss_mib"] for one in every)}
                           for name, every in found.items()}
            pages.keep("engine", lines[case].values())
            source.unlink()
    text = page(lines, rounds)
    if set(cases) == set(CASES):
        pages.write("engine.md", text)
        pages.write("engine.svg", pages.grouped(
            "engine", [ABOUT[case] for case in lines],
            {name: [lines[case][name]["cpu_ms_per_instance"] for case in lines] for name in SUBJECTS},
            "CPU milliseconds an object, logarithmic", log=True, form="{:,.4g}"))
    sys.stdout.write(text + "\n")
    return 0


def page(lines: dict[str, dict[str, dict[str, Any]]], rounds: int) -> str:
    machine = next(iter(lines.values()))["deid"]
    body, times = [], {}
    for case, subjects in lines.items():
        base = subjects[SUBJECTS[0]]["cpu_ms_per_instance"]
        for name, one in subjects.items():
            times[case, name] = one["cpu_ms_per_instance"] / base
            about = ABOUT[case] if name == SUBJECTS[0] else ""
            body.append(f"| {about} | {name} | {one['cpu_ms_per_instance']:,.2f} | {times[case, name]:.2f} | "
                        f"{one['mb_per_s']:,.0f} | {one['peak_rss_mib']:.0f} |")
    aims = [f"{name} on {case} {times[case, name]:.2f} (at most {most})" for (case, name), most in AIMS.items()
            if case in lines]
    return "\n".join([
        "# What one object costs", "",
        "`make bench`: each subject in a process of its own over the same files, in turn; CPU is user and system time "
        f"around one object. {rounds} rounds (the median). {pages.of(machine)}", "",
        "| case | subject | CPU ms | × raw copy | MB/s | peak MiB |", "| --- | --- | ---: | ---: | ---: | ---: |",
        *body, "", "![CPU milliseconds an object](engine.svg)", "",
        "- `raw copy + sha256` reads, hashes and writes in pieces of 1 MiB: the least that could be done.",
        "- `deid` is deid's own way over the same recipe, without admission, hashing or search.",
        "- `engine` reads, hashes and rewrites. `all in` is admission, engine, the output's digest, facts, the second "
        "look and storing.",
        f"- Aims, as × raw copy: {'; '.join(aims)}.", ""])


if __name__ == "__main__":
    sys.exit(main())
