"""Mean glandular dose of each exposure, D = K g c s (t), or why there is none.

K, the incident air kerma at the upper surface of the breast without backscatter, is the x-ray set's local output times
the exposure's mAs, brought from the distance of measurement to the breast's surface by the inverse square. g, c and s
are the conversion factors of the UK, European and IAEA protocols (Dance 1990, Phys Med Biol 35:1211; Dance et al. 2000,
Phys Med Biol 45:3225; 2009, Phys Med Biol 54:4361), t that of tomosynthesis (2011, Phys Med Biol 56:453), which the
physicist supplies. Output and half-value layer are linear between two measured voltages. Nothing is extrapolated.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pipeline.curate.factors import Factors
from pipeline.schemas import GLANDULAR_DOSES, arrow_schema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from pipeline.curate.equipment import Known
    from pipeline.curate.spill import Tables

    Floats = np.ndarray[Any, np.dtype[np.float64]]


class NotComputed(StrEnum):
    """Why an exposure has no mean glandular dose: the first of these that holds."""

    NOT_MAMMOGRAPHY = "not_mammography"
    NO_FACTORS = "no_factors"
    SPECIMEN = "specimen"
    MAGNIFICATION = "magnification"
    NO_DEVICE = "no_device"
    NO_SPECTRUM = "no_spectrum"
    NO_KV = "no_kv"
    NO_MAS = "no_mas"
    NO_THICKNESS = "no_thickness"
    NO_OUTPUT = "no_output"
    AMBIGUOUS_OUTPUT = "ambiguous_output"
    OUTSIDE_OUTPUT = "outside_output"
    IMPOSSIBLE_THICKNESS = "impossible_thickness"
    NO_AGE = "no_age"
    NO_FACTOR = "no_factor"
    OUTSIDE_TABLE = "outside_table"


MEANINGS = {
    NotComputed.NOT_MAMMOGRAPHY: "Not a mammogram.",
    NotComputed.NO_FACTORS: "The project names no factor table.",
    NotComputed.SPECIMEN: "A specimen, not a breast.",
    NotComputed.MAGNIFICATION: "A magnification view: the breast does not lie on its support, so K is not known.",
    NotComputed.NO_DEVICE: "No serial number, so no x-ray set.",
    NotComputed.NO_SPECTRUM: "No anode or no filter.",
    NotComputed.NO_KV: "No tube voltage.",
    NotComputed.NO_MAS: "No tube current-time product.",
    NotComputed.NO_THICKNESS: "No compressed breast thickness.",
    NotComputed.NO_OUTPUT: "No output of this set for this spectrum was valid on the day of the study.",
    NotComputed.AMBIGUOUS_OUTPUT: "Two were, because the study's objects state different days.",
    NotComputed.OUTSIDE_OUTPUT: "The voltage lies outside those that were measured.",
    NotComputed.IMPOSSIBLE_THICKNESS: "Zero or less, or more than from the focus to the breast support.",
    NotComputed.NO_AGE: "The factor depends on an age that is not known.",
    NotComputed.NO_FACTOR: "The factor table has no g, c, s or (of a tomosynthesis) t for this model, spectrum or age.",
    NotComputed.OUTSIDE_TABLE: "Thickness or half-value layer lies outside the factor table, or beside a node that it "
                               "lacks.",
}

# One row per exposure (n: its row): the surveys that were valid, and the kerma and HVL at the voltages around its own.
# K at a voltage [mGy] = output [µGy/mAs] × mAs × (distance / (focus to support − thickness))² / 1000.
_KERMA = """
    WITH node AS (
        SELECT e.n, o.survey, o.kv AS node_kv, e.kv, o.hvl_mm AS hvl, o.focus_table_mm AS support,
               o.output_ugy_per_mas * e.mas
                   * pow(o.distance_mm / nullif(o.focus_table_mm - e.thickness, 0), 2) / 1000 AS kerma
        FROM exposure e
        JOIN surveys s ON s.study_uid = e.study_uid AND s.device_id = e.device_id
        JOIN output o ON o.device_id = e.device_id AND o.survey = s.survey AND o.anode = e.anode AND o.filter = e.filter
    )
    SELECT n, count(DISTINCT survey) AS surveys, min(support) AS support,
           max(node_kv) FILTER (node_kv <= kv) AS kv_below, min(node_kv) FILTER (node_kv >= kv) AS kv_above,
           arg_max(kerma, node_kv) FILTER (node_kv <= kv) AS kerma_below,
           arg_min(kerma, node_kv) FILTER (node_kv >= kv) AS kerma_above,
           arg_max(hvl, node_kv) FILTER (node_kv <= kv) AS hvl_below,
           arg_min(hvl, node_kv) FILTER (node_kv >= kv) AS hvl_above
    FROM node GROUP BY n ORDER BY n"""


USED = ("exposure_id", "patient_id", "study_uid", "device_id", "modality", "view", "view_modifiers", "is_tomosynthesis",
        "model", "anode", "filter_material", "kvp_kv", "exposure_mas", "body_part_thickness_mm")
_CHUNK = 131072


def batches(made: Tables, known: Known) -> Iterator[pa.RecordBatch]:
    """Yield the rows of `glandular_doses` for the exposures and studies that were made, in their order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(made.path("studies")) as file:
        studies = file.read(columns=["study_uid", "age_band_years"], use_threads=False)
    with pq.ParquetFile(made.path("exposures")) as file:
        for batch in file.iter_batches(_CHUNK, columns=list(USED), use_threads=False):
            some = doses(pa.Table.from_batches([batch]), studies, known.output, known.surveys, known.factors)
            yield from some.combine_chunks().to_batches()


def doses(exposures: pa.Table, studies: pa.Table, output: pa.Table, surveys: pa.Table, factors: Factors | None
          ) -> pa.Table:
    """Return `glandular_doses`: a row per exposure (the columns of schemas.EXPOSURES in USED), sorted by exposure_id.

    `studies` gives the age bands; `output` and `surveys` are schemas.OUTPUT and SURVEYS.
    """
    import numpy as np
    import pyarrow as pa

    exposures = exposures.sort_by("exposure_id").combine_chunks()
    size = exposures.num_rows
    reason = np.full(size, "", object)

    def rule(failing: Any, why: NotComputed) -> None:
        reason[(reason == "") & failing] = why.value

    kv, mas, thickness = (_numbers(exposures, name) for name in ("kvp_kv", "exposure_mas", "body_part_thickness_mm"))
    rule(~_is(exposures, "modality", "MG"), NotComputed.NOT_MAMMOGRAPHY)
    rule(factors is None, NotComputed.NO_FACTORS)
    rule(_is(exposures, "view", "SPECIMEN"), NotComputed.SPECIMEN)
    rule(_magnified(exposures), NotComputed.MAGNIFICATION)
    rule(_null(exposures, "device_id"), NotComputed.NO_DEVICE)
    rule(_null(exposures, "anode") | _null(exposures, "filter_material"), NotComputed.NO_SPECTRUM)
    rule(~(kv > 0), NotComputed.NO_KV)
    rule(~(mas > 0), NotComputed.NO_MAS)
    rule(np.isnan(thickness), NotComputed.NO_THICKNESS)
    found = _kerma(exposures, output, surveys, np.flatnonzero(reason == ""))
    rule(found["surveys"] == 0, NotComputed.NO_OUTPUT)
    rule(found["surveys"] > 1, NotComputed.AMBIGUOUS_OUTPUT)
    rule(np.isnan(found["kv_below"]) | np.isnan(found["kv_above"]), NotComputed.OUTSIDE_OUTPUT)
    rule(~((thickness > 0) & (thickness < found["support"])), NotComputed.IMPOSSIBLE_THICKNESS)
    span = found["kv_above"] - found["kv_below"]
    share = np.where(span > 0, (kv - found["kv_below"]) / np.where(span > 0, span, 1.0), 0.0)
    kerma, hvl = (found[f"{name}_below"] + share * (found[f"{name}_above"] - found[f"{name}_below"])
                  for name in ("kerma", "hvl"))
    kinds = {kind: np.full(size, np.nan) for kind in "gcst"}
    tomosynthesis = _is(exposures, "is_tomosynthesis", True)
    if factors is not None:
        _factors(exposures, studies, factors, thickness, hvl, tomosynthesis, kinds, rule, reason)
    product = kerma * kinds["g"] * kinds["c"] * kinds["s"] * np.where(tomosynthesis, kinds["t"], 1.0)
    known = reason == ""
    columns: dict[str, Any] = {
        "mean_glandular_dose_mgy": _column(product, known), "incident_air_kerma_mgy": _column(kerma, known),
        "hvl_mm": _column(hvl, known), **{kind: _column(values, known) for kind, values in kinds.items()},
        "factors": pa.array([factors.name if factors else None] * size, pa.string()),
        "synthetic": pa.array(np.full(size, factors is not None and factors.synthetic)),
        "not_computed": pa.array(reason, pa.string(), mask=known)}
    schema = arrow_schema(GLANDULAR_DOSES)
    arrays = [columns[f.name] if f.name in columns else exposures[f.name].combine_chunks() for f in schema]
    return pa.Table.from_arrays([array.cast(f.type) for array, f in zip(arrays, schema, strict=True)], schema=schema)


def _factors(exposures: pa.Table, studies: pa.Table, factors: Factors, thickness: Floats, hvl: Floats,
             tomosynthesis: Any, kinds: dict[str, Floats], rule: Any, reason: Any) -> None:
    """Fill in g, c, s and t, combination by combination of model, spectrum and age: there are few."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = np.flatnonzero(reason == "")
    taken = exposures.take(pa.array(rows))
    place = pc.index_in(taken["study_uid"], value_set=studies["study_uid"].combine_chunks())
    ages = studies["age_band_years"].take(place)
    alike = pa.table({"model": taken["model"], "anode": taken["anode"], "filter": taken["filter_material"], "age": ages,
                      "tomosynthesis": pa.array(tomosynthesis[rows]), "row": pa.array(rows, pa.int64())})
    alike = alike.group_by(alike.column_names[:-1], use_threads=False).aggregate([("row", "list")])
    for one in alike.to_batches(max_chunksize=1):
        model, anode, filter_, age, swept = (one.column(n)[0].as_py() for n in range(5))
        at = one.column(5).flatten().to_numpy()
        chosen = np.zeros(len(reason), bool)
        chosen[at] = True
        for kind in "gcst" if swept else "gcs":
            group = factors.choose(kind, model=model, anode=anode, filter_=filter_, age=age)
            if group is None:
                aged = age is None and factors.choose(kind, model=model, anode=anode, filter_=filter_, any_age=True)
                rule(chosen, NotComputed.NO_AGE if aged else NotComputed.NO_FACTOR)
            else:
                kinds[kind][at] = factors.grids[group].at(thickness[at], hvl[at])
                rule(chosen & np.isnan(kinds[kind]), NotComputed.OUTSIDE_TABLE)


def _kerma(exposures: pa.Table, output: pa.Table, surveys: pa.Table, rows: Any) -> dict[str, Floats]:
    """Return, by column of the query, an array over all exposures: NaN, and 0 surveys, where nothing was found."""
    import duckdb
    import numpy as np
    import pyarrow as pa

    taken = exposures.take(pa.array(rows))
    asked = pa.table({"n": pa.array(rows, pa.int64()), "study_uid": taken["study_uid"],
                      "device_id": taken["device_id"], "anode": taken["anode"], "filter": taken["filter_material"],
                      "kv": taken["kvp_kv"], "mas": taken["exposure_mas"],
                      "thickness": taken["body_part_thickness_mm"]})
    with tempfile.TemporaryDirectory() as spill, duckdb.connect(
        config={"memory_limit": "500MB", "threads": 1, "temp_directory": spill}
    ) as db:
        for name, table in (("exposure", asked), ("surveys", surveys), ("output", output)):
            db.register(name, table)
        got = db.sql(_KERMA).to_arrow_table()
    found = {}
    for name in got.column_names[1:]:
        found[name] = np.full(exposures.num_rows, 0.0 if name == "surveys" else np.nan)
        found[name][got["n"].to_numpy()] = _numbers(got, name)
    return found


def _numbers(table: pa.Table, name: str) -> Floats:
    import numpy as np
    import pyarrow as pa

    return np.asarray(table[name].cast(pa.float64()).to_numpy(), np.float64)


def _column(values: Floats, known: Any) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    return pa.array(values, pa.float64(), mask=~known | np.isnan(values))


def _is(table: pa.Table, name: str, value: Any) -> Any:
    """Whether a column equals a value; where there is no such column, and where it is null, it does not."""
    import numpy as np
    import pyarrow.compute as pc

    if name not in table.column_names:
        return np.zeros(table.num_rows, bool)
    return pc.fill_null(pc.equal(table[name], value), False).to_numpy()


def _null(table: pa.Table, name: str) -> Any:
    import pyarrow.compute as pc

    return pc.is_null(table[name]).to_numpy()


def _magnified(table: pa.Table) -> Any:
    import pyarrow.compute as pc

    there = pc.match_substring(table["view_modifiers"], "Magnification")
    return pc.fill_null(there, False).to_numpy()
