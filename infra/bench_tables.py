"""`make bench-tables`: curate and validate a million instances, and the same checks by hand in DuckDB, in one run.

Synthetic facts of parts, with an exposure an instance, go through `curate`'s build and `validate`'s suites. Then every
expectation is asked again as plain SQL, one query a table: what somebody would write by hand for the same counts; the
counts must be the same. Each step runs in a process of its own: CPU is its user and system time, peak its VmHWM. Writes
docs/benchmarks/tables.md.

    python -m infra.bench_tables 1000000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAME = "tables"
ROWS, PART = 1_000_000, 20_000
IMAGES_A_STUDY, STUDIES_A_PERSON = 4, 2
MOST_MIB, MOST_RATIO = 1024, 2.0
PAGE = Path("docs/benchmarks/tables.md")
SUITES = Path("expectations")


# ---- facts -------------------------------------------------------------------------------------------------------
_UID = "'2.25.' || (((hash({0}) >> 1)::HUGEINT << 63) + (hash({0} || 'x') >> 1) + 10000000000)::VARCHAR"
_ID = "upper(left(md5({}), {}))"
# element path → SQL over n (the image), study and person
_ELEMENTS = {
    "PatientSex": "CASE WHEN hash('s' || person) % 100 > 0 THEN 'F' ELSE 'O' END",
    "StudyDate": "strftime(DATE '2008-01-01' + ((hash('d' || person) % 1095 + study % 2 * 1096)::INTEGER), '%Y%m%d')",
    "PatientAge": "format('{:03d}Y', 45 + hash('a' || person) % 6 * 5)",
    "Modality": "'MG'",
    "Manufacturer": "'Maker ' || study % 3",
    "ManufacturerModelName": "'Model ' || study % 6",
    "DeviceSerialNumber": f"'D' || {_ID.format('(study % 60)::VARCHAR', 12)}",
    "SoftwareVersions": "'4.' || study % 5",
    "SOPClassUID": "'1.2.840.10008.5.1.4.1.1.1.2'",
    "SOPInstanceUID": _UID.format("'i' || n"),
    "ImageType": "'DERIVED\\PRIMARY'",
    "PresentationIntentType": "'FOR PRESENTATION'",
    "ImageLaterality": "CASE WHEN n % 2 = 0 THEN 'L' ELSE 'R' END",
    "ViewPosition": "CASE WHEN n % 4 < 2 THEN 'CC' ELSE 'MLO' END",
    "Rows": "'3328'",
    "Columns": "'2560'",
    "TransferSyntaxUID": "'1.2.840.10008.1.2.1'",
    "IrradiationEventUID": _UID.format("'e' || n"),
    "KVP": "(26 + hash('k' || n) % 9)::VARCHAR",
    "ExposureInuAs": "(30000 + hash('m' || n) % 120000)::VARCHAR",
    "ExposureTime": "(300 + hash('t' || n) % 1500)::VARCHAR",
    "XRayTubeCurrent": "(60 + hash('c' || n) % 120)::VARCHAR",
    "AnodeTargetMaterial": "CASE WHEN study % 3 = 0 THEN 'TUNGSTEN' ELSE 'MOLYBDENUM' END",
    "FilterMaterial": "CASE WHEN study % 3 = 0 THEN 'RHODIUM' ELSE 'MOLYBDENUM' END",
    "BodyPartThickness": "(20 + hash('b' || n) % 75)::VARCHAR",
    "CompressionForce": "(50 + hash('f' || n) % 1400 / 10)::VARCHAR",
    "OrganDose": "(0.005 + (hash('o' || n) % 30000) / 1000000)::VARCHAR",
    "EntranceDoseInmGy": "(2 + (hash('y' || n) % 9000) / 1000)::VARCHAR",
    "HalfValueLayer": "(0.3 + (hash('h' || n) % 400) / 1000)::VARCHAR",
    "ExposureControlMode": "'AUTOMATIC'",
    "PositionerPrimaryAngle": "CASE WHEN n % 4 < 2 THEN '0' ELSE '45' END",
    "Grid": "'RECIPROCATING'",
    "OperatorsName": f"'O' || {_ID.format('(study % 80)::VARCHAR', 12)}",
}  # fmt: skip


def facts(folder: Path, instances: int) -> dict[str, Any]:
    """Write the facts of parts and the plan that names them."""
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline import layout
    from pipeline.schemas import FACTS, Column, arrow_schema

    extra = tuple(Column(path, "strings", "") for path in _ELEMENTS)
    schema = arrow_schema(FACTS, extra)
    own = {
        "patient": f"'P' || {_ID.format('person::VARCHAR', 20)}", "study": _UID.format("'s' || study"),
        "series": _UID.format("'r' || n // 2"), "instance": _UID.format("'i' || n"), "key": "'k/' || n",
        "sha256": "unhex(sha256(n::VARCHAR))", "bytes": "(3000 + n % 1000)::BIGINT",
        "acquisition_order": "(n % 4 + 1)::INTEGER",
    }  # fmt: skip
    picked = [f"{own.get(name, 'NULL')} AS {name}" for name in FACTS.names()]
    picked += [f"[{sql}] AS {path}" for path, sql in _ELEMENTS.items()]
    parts = []
    with duckdb.connect(config={"threads": 2}) as db:
        for number, start in enumerate(range(0, instances, PART)):
            part = f"q-{number:024x}"
            file = folder / NAME / "candidate" / layout.facts(NAME, part)
            file.parent.mkdir(parents=True)
            rows = db.sql(
                f"SELECT {', '.join(picked)} FROM (SELECT n, n // {IMAGES_A_STUDY} AS study, "
                f"n // {IMAGES_A_STUDY * STUDIES_A_PERSON} AS person "
                f"FROM range({start}, {min(start + PART, instances)}) t(n))").to_arrow_table()
            columns = [rows[field.name].cast(field.type) for field in schema]
            pq.write_table(pa.Table.from_arrays(columns, schema=schema), file, compression="zstd")
            parts.append(part)
    plan = {"parts": parts, "held": {}, "clinical": None}
    (folder / "plan.json").write_text(json.dumps(plan))
    return {"instances": instances}


# ---- the product -------------------------------------------------------------------------------------------------
def curate(folder: Path) -> dict[str, Any]:
    from pipeline.curate.build import build
    from pipeline.storage import open_store

    store = open_store((folder / NAME / "candidate").resolve().as_uri(), "candidate")
    made = build(store, NAME, json.loads((folder / "plan.json").read_text()))
    (folder / "curated").mkdir()
    for name in made:
        made.path(name).rename(folder / "curated" / f"{name}.parquet")
    return {name: made.rows(name) for name in made}


def validate(folder: Path) -> dict[str, Any]:
    from pipeline.validate.run import validate as run

    found = run({file.stem: file for file in sorted((folder / "curated").glob("*.parquet"))}, SUITES)
    return {"expectations": found.expectations, "withheld": len(found.withheld), "critical": found.critical,
            "counts": {name: [line["unexpected_count"] for line in doc["expectations"]]
                       for name, doc in found.results.items()}}  # fmt: skip


# ---- by hand -----------------------------------------------------------------------------------------------------
def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else "'" + str(value).replace("'", "''") + "'"


def _check(kind: str, kwargs: dict[str, Any]) -> str:
    """Return one expectation as SQL that counts what is not as expected."""
    if "(?" in kwargs.get("regex", "").replace("(?:", ""):
        return "NULL"       # DuckDB has no lookahead: not asked by hand
    regex = _literal(kwargs.get("regex", "").replace("\\Z", "\\z"))
    names = [f'"{kwargs[k]}"' for k in ("column", "column_A", "column_B") if k in kwargs]
    c, *other = names or [""]
    wrong = {
        "values_to_not_be_null": lambda: f"{c} IS NULL",
        "values_to_be_null": lambda: f"{c} IS NOT NULL",
        "values_to_be_in_set": lambda: f"{c} NOT IN ({', '.join(map(_literal, kwargs['value_set']))})",
        "values_to_match_regex": lambda: f"NOT regexp_matches({c}, {regex})",
        "values_to_not_match_regex": lambda: f"regexp_matches({c}, {regex})",
        "values_to_be_between": lambda: " OR ".join(
            f"{c} {sign}{'=' if kwargs['strict_' + end] else ''} {_literal(kwargs[end + '_value'])}"
            for end, sign in (("min", "<"), ("max", ">")) if kwargs[end + "_value"] is not None),
        "pair_values_to_be_equal": lambda: f"{c} IS DISTINCT FROM {other[0]}",
        "pair_values_a_to_be_greater_than_b": lambda: f"{c} {'<' if kwargs['or_equal'] else '<='} {other[0]}",
    }.get(kind.removeprefix("expect_column_"))
    if wrong:
        return f"count(*) FILTER ({wrong()})"
    if kind == "expect_column_values_to_be_unique":
        return f"count({c}) - count(DISTINCT {c})"
    if kind == "expect_compound_columns_to_be_unique":
        return "count(*) - count(DISTINCT (" + ", ".join(f'"{c}"' for c in kwargs["column_list"]) + "))"
    return "NULL"      # of the table, not of its rows


def by_hand(folder: Path) -> dict[str, Any]:
    """One query a table, with the joins for what spans tables, at DuckDB's own settings."""
    import duckdb

    from pipeline.validate.measure import needed
    from pipeline.validate.relations import ROW, Relations

    files = {file.stem: file for file in sorted((folder / "curated").glob("*.parquet"))}
    queries = {}
    with Relations(files) as tables:        # for its joins alone
        for name in files:
            items = json.loads((SUITES / f"{name}.json").read_text())["expectations"]
            asked = list(dict.fromkeys(c for item in items for c in needed(item) if c in tables.columns(name)))
            checks = ", ".join(_check(item["type"], item["kwargs"]) for item in items)
            queries[name] = f"SELECT {checks} FROM ({tables.sql(name, asked)})"
    begin = _cpu()
    counts = {}
    with duckdb.connect(config={"threads": os.cpu_count() or 1, "temp_directory": str(folder / "spill")}) as db:
        for name, file in files.items():
            db.execute(f"CREATE VIEW {name} AS SELECT * EXCLUDE file_row_number, file_row_number AS {ROW} "
                       f"FROM read_parquet('{file}', file_row_number = true)").fetchall()
        for name, query in queries.items():
            counts[name] = list(db.execute(query).fetchall()[0])
    return {"counts": counts, "cpu_s": round(_cpu() - begin, 2)}


# ---- measuring ---------------------------------------------------------------------------------------------------
def _cpu() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime


def measured(step: str, folder: Path, *more: str) -> dict[str, Any]:
    """Run one step in a process of its own; return its answer, CPU seconds, wall seconds, peak MiB."""
    begin = time.perf_counter()
    child = subprocess.run([sys.executable, "-m", "infra.bench_tables", "--step", step, str(folder), *more],
                           stdout=subprocess.PIPE, text=True, check=False)
    if child.returncode:
        raise SystemExit(f"{step} failed")
    return {"wall_s": round(time.perf_counter() - begin, 1), **json.loads(child.stdout.splitlines()[-1])}


def _step(step: str, folder: Path, instances: int) -> dict[str, Any]:
    from pipeline.observe import quiet

    quiet()
    result = facts(folder, instances) if step == "facts" else {"curate": curate, "validate": validate,
                                                               "by hand": by_hand, "start": _start}[step](folder)
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    return {"cpu_s": round(_cpu(), 2), "peak_mib": round(peak / 1024), "result": result}


def _start(folder: Path) -> dict[str, Any]:
    """What starting Great Expectations costs, whatever the tables."""
    from pipeline.validate.gx import Asker
    from pipeline.validate.suites import load

    Asker()
    load(SUITES, [file.stem for file in (folder / "curated").glob("*.parquet")])
    return {}


def _differences(product: dict[str, list[Any]], hand: dict[str, list[Any]]) -> Iterator[str]:
    for name, counts in product.items():
        for number, (one, other) in enumerate(zip(counts, hand[name], strict=True), 1):
            if other is not None and (one or 0) != other:
                yield f"{name}, expectation {number}: {one} and {other}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.bench_tables", description=__doc__.split("\n\n")[0])
    parser.add_argument("instances", nargs="?", type=int, default=ROWS)
    parser.add_argument("--below", type=Path, default=Path(".bench"), metavar="DIR", help="where the tables stand")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--no-page", action="store_true", help="print only")
    given = parser.parse_args()
    if given.step:
        step, folder, *more = given.step
        sys.stdout.write(json.dumps(_step(step, Path(folder), int(more[0]) if more else 0)) + "\n")
        return 0
    given.below.mkdir(exist_ok=True)
    found = {}
    with tempfile.TemporaryDirectory(dir=given.below) as folder:
        for step in ("facts", "curate", "start", "validate", "by hand"):
            found[step] = measured(step, Path(folder), *([str(given.instances)] if step == "facts" else []))
            print(f"  {step}: {found[step]['cpu_s']} CPU s, {found[step]['peak_mib']} MiB", file=sys.stderr, flush=True)
    wrong = list(_differences(found["validate"]["result"]["counts"], found["by hand"]["result"]["counts"]))
    for line in wrong:
        print(f"counts differ: {line}", file=sys.stderr)
    page = _page(given.instances, found)
    print(page)
    if not given.no_page:
        PAGE.write_text(page)
    ratio = found["validate"]["cpu_s"] / found["by hand"]["result"]["cpu_s"]
    peak = max(found[step]["peak_mib"] for step in ("curate", "validate"))
    return 0 if not wrong and ratio <= MOST_RATIO and peak <= MOST_MIB else 1


def _page(instances: int, found: dict[str, Any]) -> str:
    hand, start, validated = found["by hand"]["result"]["cpu_s"], found["start"]["cpu_s"], found["validate"]["cpu_s"]
    rows = found["curate"]["result"]
    lines = [
        "# Tables of a million instances", "",
        "`make bench-tables` writes this page: it makes the facts of parts, builds the tables, runs every suite, and "
        "asks the same of the same tables in plain SQL, one query a table, at DuckDB's own settings. Both counts "
        "are compared. Each step is a process of its own. CPU is user and system time.", "",
        f"{instances:,} instances, {rows['exposures']:,} exposures, {rows['studies']:,} studies, {rows['patients']:,} "
        f"people; {found['validate']['result']['expectations']} expectations over {len(rows)} tables.", "",
        "| step | CPU s | peak MiB |", "| --- | ---: | ---: |",
        f"| curate: facts to tables | {found['curate']['cpu_s']:.1f} | {found['curate']['peak_mib']} |",
        f"| validate: every suite, with Great Expectations | {validated:.1f} | {found['validate']['peak_mib']} |",
        f"| of which starting Great Expectations | {start:.1f} | {found['start']['peak_mib']} |",
        f"| the same checks by hand in DuckDB | {hand:.1f} | {found['by hand']['peak_mib']} |", "",
        f"Validate takes {validated / hand:.2f} × the CPU of the checks by hand (at most {MOST_RATIO:g}); without its "
        f"start {(validated - start) / hand:.2f} ×. No process may take more than {MOST_MIB} MiB.", "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
