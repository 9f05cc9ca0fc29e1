"""`make bench-scale`: what state costs. The whole way at three sizes of landing, staging a million objects, and the
ledger of millions.

Synthetic mammograms of 3 kB, four a study, two studies a person, linked, with a clinical row a study, go from landing
to a verified release on file:// zones. Each step runs in a process of its own. CPU is its user and system time, its
children's too; peak is the largest process's (VmHWM). Appends JSON lines to .bench/scale.jsonl. Without a word more it
does everything and writes docs/benchmarks/scale.md and its plots; with one it does that part alone:

    python -m infra.bench_scale 1000 10000 100000
    python -m infra.bench_scale --stage 1000000
    python -m infra.bench_scale --ledger 5000000
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from infra import bench_pages as pages

NAME = "scale"
SIZES = (1_000, 10_000, 100_000)
IMAGES_A_STUDY, STUDIES_A_PERSON = 4, 2
STEPS = ("stage", "pending shards", "deidentify", "assemble", "curate", "validate", "publish", "verify", "ledger")
LANDED_AT = 1_700_000_000
STAGED, RECORDED = 1_000_000, 5_000_000
MOST_MIB, MOST_GROWTH = 1024, 1.05


# ---- a landing ---------------------------------------------------------------------------------------------------
def _template() -> tuple[bytes, dict[str, str]]:
    """Return a mammogram, and the texts in it that are replaced: what → text, of the length of what replaces it."""
    from pipeline.synthetic import files

    marks = {"instance": "2.25.1" + "1" * 20, "series": "2.25.2" + "1" * 20, "study": "2.25.3" + "1" * 20,
             "date": "20010203", "person": "LOCAL000000001", "laterality": "\x20\x00\x62\x00CS\x02\x00L "}
    data = files.mammogram(
        rows=16, columns=16, private=False, sop_instance_uid=marks["instance"], series_uid=marks["series"],
        study_uid=marks["study"], study_date=marks["date"], patient_id=marks["person"], SourceImageSequence=None)
    return data, marks


def landing(folder: Path, instances: int) -> None:
    """Write landing/, the tables beside it, the key and the project file."""
    from pipeline.synthetic import people
    from pipeline.synthetic.project import project_text

    template, marks = _template()
    pattern = re.compile(b"|".join(re.escape(mark.encode("latin-1")) for mark in marks.values()))
    kinds = {mark.encode("latin-1"): kind for kind, mark in marks.items()}
    pieces, found, end = [], [], 0
    for match in pattern.finditer(template):
        pieces.append(template[end:match.start()])
        found.append(kinds[match[0]])
        end = match.end()
    tail = template[end:]
    studies = -(-instances // IMAGES_A_STUDY)
    n_people = -(-studies // STUDIES_A_PERSON)
    numbers = people.nhs_numbers(people.generator(NAME), n_people)
    day = datetime.date(2010, 1, 1)
    crosswalk, episodes = [], []
    for study in range(studies):
        person, visit = divmod(study, STUDIES_A_PERSON)
        when = day + datetime.timedelta(days=person % 1000 + 1096 * visit)
        values = {"series": f"2.25.2{study:020d}", "study": f"2.25.3{study:020d}", "date": f"{when:%Y%m%d}",
                  "person": f"LOCAL{person:09d}"}
        if not visit:
            crosswalk.append(f"HOSP-A,LOCAL{person:09d},{numbers[person]}")
        episodes.append(f"{numbers[person]},{600000 + study},C,{when},True,{when},,SC,ZZA,ZZA1Q,RR,{when}")
        directory = folder / "landing" / f"{study // 250:05d}"
        if not study % 250:
            directory.mkdir(parents=True)
        for image in range(min(IMAGES_A_STUDY, instances - study * IMAGES_A_STUDY)):
            values["instance"] = f"2.25.1{study * IMAGES_A_STUDY + image:020d}"
            values["laterality"] = "\x20\x00\x62\x00CS\x02\x00" + "LR"[image % 2] + " "
            out = bytearray()
            for piece, kind in zip(pieces, found, strict=True):
                out += piece + values[kind].encode("latin-1")
            path = directory / f"{study:07d}.{image}.dcm"
            path.write_bytes(out + tail)
            os.utime(path, (LANDED_AT, LANDED_AT))
    (folder / "crosswalk.csv").write_text("\n".join(["issuer,local_id,nhs_number", *crosswalk, ""]))
    (folder / "permitted.csv").write_text("\n".join(
        [f"# as-of: {datetime.date.today()}", "person", *numbers, f"# end: {n_people}", ""]))
    head = ("nhs_number,episode_id,episode_type,episode_date,appointment_made,date_of_foa,date_of_as,end_code,"
            "bso_organisation_code,bso_batch_id,final_action_code,change_db_date_time")
    (folder / "episodes.csv").write_text("\n".join([head, *episodes, ""]))
    zones = (f"file://{folder.resolve()}/{zone}" for zone in ("landing", "work", "candidate", "release"))
    (folder / "project.toml").write_text(project_text(*zones, name=NAME))
    key = folder / f"{NAME}.key"
    key.touch(mode=0o600)
    key.write_text(hashlib.sha256(NAME.encode()).hexdigest() + "\n")


# ---- one step, in a process of its own ---------------------------------------------------------------------------
def step(name: str, folder: Path, given: dict[str, Any]) -> Any:
    """Run one step; `given` is what the steps before it returned."""
    from pipeline import steps

    project = folder / "project.toml"
    if name == "deidentify":
        return steps.deidentify(project, given["batch"], given["shard"])
    if name == "verify":
        from pipeline.publish.verify import verify

        found = verify(f"file://{folder.resolve()}/release/{NAME}")
        return {"images": found.images, "files": found.files}
    if name == "ledger":
        found = steps.ledger_summary(project)
        return {"objects": found["objects"], "holds": found["holds"], "counts": found["counts"]}
    if name in ("curate", "validate"):
        return getattr(steps, name)(project, given["candidate"])
    if name == "publish":
        steps.approve(project, given["candidate"], given["digest"], "officer", "engineer", "approve")
        return steps.publish(project, given["candidate"])
    return getattr(steps, name.replace(" ", "_"))(project)


def measured(*words: str) -> dict[str, Any]:
    """Run this module with these words; return its answer, CPU seconds, wall seconds and peak MiB of any process."""
    begin = time.perf_counter()
    child = subprocess.run([sys.executable, "-m", "infra.bench_scale", *words], stdout=subprocess.PIPE, text=True,
                           check=False)
    if child.returncode:
        raise SystemExit(f"{words[0]} failed")
    return {"wall_s": round(time.perf_counter() - begin, 2), **json.loads(child.stdout.splitlines()[-1])}


def _answer(result: Any) -> str:
    """Return what a measured process prints. A child's ru_maxrss counts its parent's size at its start: never less."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    status = Path("/proc/self/status").read_text()
    peak = max(int(status.partition("VmHWM:")[2].split()[0]), children.ru_maxrss)
    cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return json.dumps({"cpu_s": round(cpu, 2), "peak_mib": round(peak / 1024, 1), "result": result})


def whole_way(folder: Path, instances: int) -> Iterator[dict[str, Any]]:
    """Yield a line per step, a step done several times (one process a shard) added up."""
    given: dict[str, Any] = {}
    for name in STEPS:
        turns = given["pending shards"] if name == "deidentify" else [given]
        lines = [measured("--step", name, str(folder), json.dumps(turn)) for turn in turns]
        for line in lines:
            result = line.pop("result")
            given |= {name: result} if isinstance(result, list) else {k: result[k] for k in ("candidate", "digest")
                                                                      if k in result}
        _expect(name, result, instances)
        yield {"bench": "scale", "instances": instances, "step": name, "processes": len(lines),
               "cpu_s": round(sum(line["cpu_s"] for line in lines), 2),
               "wall_s": round(sum(line["wall_s"] for line in lines), 2),
               "peak_mib": max(line["peak_mib"] for line in lines)}


def _expect(name: str, result: Any, instances: int) -> None:
    """A bench that does not do the work would measure nothing."""
    wrong = {
        "stage": lambda: result["instances"] != instances,
        "deidentify": lambda: set(result["counts"]) != {"pending"},
        "publish": lambda: result["images"] != instances,
        "verify": lambda: result["images"] != instances,
        "ledger": lambda: result["counts"] != {"published": {"": instances}} or not result["holds"],
    }.get(name, lambda: False)
    if wrong():
        raise SystemExit(f"{name} did not treat {instances} instances")


# ---- the ledger alone --------------------------------------------------------------------------------------------
def ledger_zones(folder: Path, objects: int, batch: int = 500_000) -> None:
    """Write the zones' tables as staging, building and publishing leave them: half a million objects a batch, of a
    hundred three rejected, one a duplicate, one quarantined, one withheld, the rest published."""
    import pyarrow as pa

    from pipeline import layout
    from pipeline.schemas import INSTANCES, INVENTORY, OUTCOMES, arrow_schema
    from pipeline.storage import open_store, tables

    root = folder.resolve().as_uri()
    work, candidate, release = (open_store(f"{root}/{zone}", zone) for zone in ("work", "candidate", "release"))
    identity, parts, released = "c-" + "5" * 24, [], []
    withheld: list[str] = []

    def table(schema: Any, rows: int, **columns: Any) -> pa.Table:
        arrow = arrow_schema(schema)
        blank = {f.name: pa.nulls(rows, f.type) if f.nullable else pa.array([b"" if "binary" in str(f.type) else 0 if
                 "int" in str(f.type) else ""], f.type).take(pa.array([0]).take(pa.array([0] * rows))) for f in arrow
                 if f.name not in columns}
        return pa.Table.from_arrays([pa.array(columns[f.name], f.type) if f.name in columns else blank[f.name]
                                     for f in arrow], schema=arrow)

    for start in range(0, objects, batch):
        numbers = range(start, min(start + batch, objects))
        uris = [f"s3://landing-of-a-hospital/2024/{n // 1000:07d}/1.2.826.0.1.3680043.{n:012d}.dcm" for n in numbers]
        digests = [hashlib.sha256(uri.encode()).digest() for uri in uris]
        statuses = ["rejected" if n % 100 < 3 else "duplicate" if n % 100 == 3 else "pending" for n in numbers]
        reasons = ["not_dicom" if s == "rejected" else "same_bytes" if s == "duplicate" else None for s in statuses]
        name = f"{start // batch:024x}"
        tables.write(work, layout.inventory(NAME, f"b-{name}"), table(
            INVENTORY, len(uris), source_uri=uris, source_sha256=digests, status=statuses, reason=reasons))
        some = [n - start for n in numbers if statuses[n - start] == "pending"]
        instances = {i: f"2.25.{(start + i) * 7919 + 10**37}" for i in some}
        quarantined = {i for i in some if (start + i) % 100 == 4}
        tables.write(work, layout.outcomes(NAME, f"p-{name}"), table(
            OUTCOMES, len(some), source_uri=[uris[i] for i in some], source_sha256=[digests[i] for i in some],
            status=["quarantined" if i in quarantined else "pending" for i in some],
            reason=["pixel_geometry" if i in quarantined else None for i in some], instance=list(instances.values())))
        parts.append(f"p-{name}")
        withheld += [instances[i] for i in some if (start + i) % 100 == 5]
        out = [instances[i] for i in some if (start + i) % 100 > 5]
        released.append(pa.table({"sop_instance_uid": out, "path": [f"P0123456789ABCDEF01/2.25.1/2.25.2/{o}.dcm"
                                                                    for o in out]}))
    rows = pa.concat_tables(released)
    whole = table(INSTANCES, rows.num_rows)
    for column in rows.column_names:
        at = whole.schema.get_field_index(column)
        whole = whole.set_column(at, whole.schema.field(at), rows[column])
    release_id = layout.release_id(1, identity)
    tables.write(release, layout.in_release(NAME, release_id, "tables/instances.parquet"), whole)
    tables.write(candidate, layout.withheld(NAME, identity), pa.table(
        {"instance": withheld, "reason": ["expectation_failed"] * len(withheld)}))
    for store, key, doc in (
        (work, layout.candidate_inputs(NAME, identity), {"candidate": identity, "parts": parts, "held": {}}),
        (candidate, layout.latest_candidate(NAME), {"candidate": identity}),
        (release, layout.release_manifest(NAME, release_id), {
            "release": release_id, "sequence": 1, "candidate": identity, "images": {
                "table": "tables/instances.parquet", "count": rows.num_rows}}),
        (release, layout.current(NAME), {"release": release_id, "sequence": 1}),
    ):
        store.write(key, json.dumps({"schema_version": 1, **doc}).encode())


def ledger_step(folder: Path) -> dict[str, Any]:
    """Write the ledger of these zones to disk and check its identity."""
    from pipeline import config
    from pipeline.ledger.ledger import build
    from pipeline.storage import open_store
    from pipeline.synthetic.project import project_text

    zones = [f"file://{folder.resolve()}/{zone}" for zone in ("landing", "work", "candidate", "release")]
    (folder / "project.toml").write_text(project_text(*zones, name=NAME))
    stores = [open_store(url, "work") for url in zones[1:]]
    found = build(config.load(folder / "project.toml"), *stores, folder / "ledger.parquet")
    return {"objects": found.objects, "holds": found.holds, "counts": found.counts}


# ---- staging alone -----------------------------------------------------------------------------------------------
def stage_step(folder: Path, objects: int) -> dict[str, Any]:
    """Stage this many new objects, all in one batch, of which only listing and headers are there: what rows cost."""
    from pipeline import config
    from pipeline.dicom.inspect import Inspected
    from pipeline.stage import run
    from pipeline.storage import Entry, open_store
    from pipeline.synthetic.project import project_text

    uid = "1.2.826.0.1.3680043.8.498."

    class Landing:
        url = "s3://landing-of-a-hospital"

        def now(self) -> datetime.datetime:
            return datetime.datetime.fromtimestamp(LANDED_AT + objects + 3600, datetime.UTC)

        def list(self, _: str = "") -> Iterator[Entry]:
            for n in range(objects):
                when = datetime.datetime.fromtimestamp(LANDED_AT + n, datetime.UTC)
                yield Entry(f"2024/{n // 1000:06d}/{uid}{n:020d}.dcm", 30_000_000, when, f"{n * 7919 + 10**31:032x}")

    def read(_: Any, entries: Iterator[Entry], *__: Any, **___: Any) -> Iterator[tuple[Entry, Inspected]]:
        for n, entry in enumerate(entries):
            yield entry, Inspected(
                entry.size, hashlib.sha256(entry.key.encode()).digest(), None, "1.2.840.10008.5.1.4.1.1.1.2",
                f"{uid}1{n:030d}", f"{uid}2{n // 4:030d}", f"{uid}3{n // 4:030d}", "1.2.840.10008.1.2.1", "MG",
                "20150101", f"LOCAL{n // 8:09d}", "HOSP-A", 160)

    run.read_all = read  # type: ignore[assignment]
    zones = [f"file://{folder.resolve()}/{zone}" for zone in ("landing", "work", "candidate", "release")]
    (folder / "project.toml").write_text(project_text(*zones, name=NAME))
    done = run.stage(config.load(folder / "project.toml"), Landing(), open_store(zones[1], "work"),  # type: ignore[arg-type]
                     eligible=lambda row: None)
    return {"objects": done.instances, "shards": done.shards}


# ---- the whole ---------------------------------------------------------------------------------------------------
def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.bench_scale", description=__doc__.split("\n\n")[0])
    parser.add_argument("sizes", nargs="*", type=int, help="instances in landing")
    parser.add_argument("--ledger", type=int, metavar="N", help="the ledger of N synthetic objects")
    parser.add_argument("--stage", type=int, metavar="N", help="staging N objects that are told of and not there")
    parser.add_argument("--below", type=Path, default=Path(".bench"), metavar="DIR",
                        help="where the zones stand; on tmpfs nothing waits for a disk")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step or given.make:
        return _child(given)
    given.below.mkdir(exist_ok=True)
    every = not (given.sizes or given.stage or given.ledger)
    machine = pages.machine()
    lines = [{**machine, **line} for line in _sizes(given.sizes or (SIZES if every else ()), given.below)]
    if every or given.stage:
        lines.append({**machine, **_alone("stage", given.stage or STAGED, given.below)})
    if every or given.ledger:
        lines.append({**machine, **_alone("ledger", given.ledger or RECORDED, given.below)})
    pages.keep("scale", lines)
    if every:
        pages.write("scale.md", page(lines))
        for name, svg in plots(lines).items():
            pages.write(name, svg)
    good = max(line["peak_mib"] for line in lines) <= MOST_MIB
    sizes = sorted({line["instances"] for line in lines if line["bench"] == "scale"})
    if len(sizes) > 1:
        good &= _growth(_totals(lines), sizes[0], sizes[-1]) <= MOST_GROWTH
    return 0 if good else 1


def _child(given: Any) -> int:
    from pipeline.observe import quiet

    quiet()
    result: Any = None
    if given.step:
        name, folder, answers = given.step
        os.environ["TRE_KEY_DIR"] = folder
        if name == "ledger alone":
            result = ledger_step(Path(folder))
        elif name == "stage alone":
            result = stage_step(Path(folder), json.loads(answers))
        else:
            result = step(name, Path(folder), json.loads(answers))
    else:
        what, folder, number = given.make
        (ledger_zones if what == "ledger" else landing)(Path(folder), int(number))
    sys.stdout.write(_answer(result) + "\n")
    return 0


def _sizes(sizes: Sequence[int], below: Path) -> Iterator[dict[str, Any]]:
    for instances in sizes:
        with tempfile.TemporaryDirectory(dir=below) as folder:
            measured("--make", "landing", folder, str(instances))
            for line in whole_way(Path(folder), instances):
                _say(f"{instances:,}", line)
                yield line


def _alone(what: str, objects: int, below: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=below) as folder:
        if what == "ledger":
            measured("--make", "ledger", folder, str(objects))
        found = measured("--step", f"{what} alone", folder, json.dumps(objects))
    result = found.pop("result")
    if result["objects"] != objects or not result.get("holds", True):
        raise SystemExit(f"{what} did not treat {objects} objects")
    line = {"bench": what, "step": f"{what} alone", "objects": objects, **found}
    _say(f"{objects:,}", line)
    return line


def _say(size: str, line: dict[str, Any]) -> None:
    print(f"{size:>9}  {line['step']:<15} {line['cpu_s']:8.1f} CPU s {line['wall_s']:8.1f} s "
          f"{line['peak_mib']:7.0f} MiB", flush=True)


def _totals(lines: list[dict[str, Any]]) -> dict[int, float]:
    sizes = {line["instances"] for line in lines if line["bench"] == "scale"}
    return {n: sum(x["cpu_s"] for x in lines if x.get("instances") == n) for n in sorted(sizes)}


def _growth(totals: dict[int, float], small: int, large: int) -> float:
    return totals[large] / totals[small] / (large / small)


# ---- the page ----------------------------------------------------------------------------------------------------
def page(lines: list[dict[str, Any]]) -> str:
    found = {(x["step"], x["instances"]): x for x in lines if x["bench"] == "scale"}
    totals = _totals(lines)
    sizes = list(totals)
    peaks = {n: max(x["peak_mib"] for (_, size), x in found.items() if size == n) for n in sizes}
    body = ["| " + " | ".join([name, *(f"{found[name, n]['cpu_s']:.1f} | {found[name, n]['peak_mib']:.0f}"
                                       for n in sizes)]) + " |" for name in STEPS]
    body.append("| " + " | ".join(["all", *(f"{totals[n]:.1f} | {peaks[n]:.0f}" for n in sizes)]) + " |")
    alone = {x["bench"]: x for x in lines if x["bench"] != "scale"}
    stage, ledger = alone["stage"], alone["ledger"]
    steps = ", ".join(f"{_growth(totals, a, b):.2f} from {a:,} to {b:,}" for a, b in pairwise(sizes))
    most = max(x["peak_mib"] for x in lines)
    return "\n".join([
        "# Scale of state", "",
        "`make bench-scale` takes synthetic mammograms of 3 kB (four a study, two studies a person, linked, a clinical "
        "row a study) from landing to a verified release. Small files on purpose: this measures what state costs, not "
        "pixels. Each step runs in a process of its own (`deidentify`: one a shard of 20,000); peak is the largest "
        f"process's, its children's too. {pages.of(lines[0])}", "",
        "CPU seconds, and the largest process in MiB:", "",
        "| step | " + " | ".join(f"{n:,} |" for n in sizes) + " |", "| --- |" + " ---: | ---: |" * len(sizes), *body,
        "",
        f"Against linear growth in CPU: {steps}, {_growth(totals, sizes[0], sizes[-1]):.2f} over all (at most "
        f"{MOST_GROWTH}; the start of {len(STEPS)} processes weighs on the small sizes).", "",
        "![CPU milliseconds an image](scale-growth.svg)", "", "![The largest process](scale-memory.svg)", "",
        f"Staging {stage['objects']:,} new objects in one batch, which are listed and not read (names and UIDs as long "
        f"as a hospital's): {stage['cpu_s']:.0f} CPU seconds, {stage['peak_mib']:.0f} MiB.", "",
        f"The ledger of {ledger['objects']:,} objects (ten batches; published, rejected, duplicate, quarantined, "
        f"withheld), written to Parquet and checked as a set: {ledger['cpu_s']:.0f} CPU seconds, "
        f"{ledger['peak_mib']:.0f} MiB, and the identity holds.", "",
        f"The largest process of all takes {most:,.0f} MiB; at most {MOST_MIB:,} is the aim.", ""])


def plots(lines: list[dict[str, Any]]) -> dict[str, str]:
    found = {(x["step"], x["instances"]): x for x in lines if x["bench"] == "scale"}
    sizes = sorted({n for _, n in found})
    heavy = sorted(STEPS, key=lambda name: -found[name, sizes[-1]]["cpu_s"])[:4]
    large = sorted(STEPS, key=lambda name: -found[name, sizes[-1]]["peak_mib"])[:5]
    each = {"all": [_totals(lines)[n] / n * 1000 for n in sizes]}
    each |= {name: [found[name, n]["cpu_s"] / n * 1000 for n in sizes] for name in heavy}
    memory = {name: [found[name, n]["peak_mib"] for n in sizes] for name in large}
    return {"scale-growth.svg": pages.lines("scale-growth", sizes, each, "images", "CPU milliseconds an image"),
            "scale-memory.svg": pages.lines("scale-memory", sizes, memory, "images", "largest process, MiB",
                                            most=(MOST_MIB, "1 GiB"))}


if __name__ == "__main__":
    sys.exit(main())
