"""Measurements and findings of any structured report: its NUM and CODE items, a row each, with their place in it.

Columnar: paths, and what an item inherits, are worked out level by level over a whole part, as integers; a text is made
once for each distinct one. Reports of 160,000 items are met.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.schemas import CONTENT, FINDINGS, MEASUREMENTS, Table, arrow_schema

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa

    Ints = np.ndarray[Any, np.dtype[np.int64]]

# Decimal String (PS3.5 6.2), as curate.values reads it.
_NUMBER = r"^[+-]?([0-9]{1,32}(\.[0-9]{0,32})?|\.[0-9]{1,32})([eE][+-]?[0-9]{1,3})?$"
_PIECE = 1 << 17                # items that are worked on at once
_NAMELESS = "?"                 # in a path: an item without a concept name
_NONE, _MIXED = -1, -2          # nothing stated; several things stated
# PS3.16 CID 6022 Side and CID 244 Laterality, by pydicom's keywords.
_SIDES = {"cid244": {"Right": "R", "Left": "L", "Bilateral": "B"},
          "cid6022": {"RightBreast": "R", "LeftBreast": "L", "BothBreasts": "B"}}
_SRT = {"SNM3", "99SDM"}        # PS3.16 8.2, older designators of SRT


# Sorted by key, from the views that `write` makes.
SQL = {table.name: f"SELECT * FROM {table.name}_rows ORDER BY report_uid, node, path"  # noqa: S608
       for table in (MEASUREMENTS, FINDINGS)}


def write(db: duckdb.DuckDBPyConnection, contents: Iterable[Path], without: Collection[str], folder: Path
          ) -> Counter[str]:
    """Make the views `measurements_rows` and `findings_rows` of all parts, from files in `folder`, some reports at a
    time.

    `contents` are those of the parts (content.files); reports in `without` are left out. Return how many values of each
    column are malformed or contradict each other: they are null.
    """
    import pyarrow.parquet as pq

    malformed: Counter[str] = Counter()
    for number, content in enumerate(_pieces(contents)):
        for name, table in tabulate(content, without, malformed).items():
            pq.write_table(table, folder / f"{name}-{number:06d}.rows")
    for name in SQL:
        db.execute(f"CREATE VIEW {name}_rows AS SELECT * FROM read_parquet('{folder}/{name}-*.rows')")  # noqa: S608
    return +malformed


def _pieces(contents: Iterable[Path]) -> Iterator[pa.Table]:
    """Yield an empty table, so that there is one, then the content of the parts in pieces of whole reports, whose items
    stand together in their file. A report larger than a piece is a piece."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    schema = arrow_schema(CONTENT)
    yield schema.empty_table()
    for path in contents:
        with pq.ParquetFile(path) as file:
            held: list[pa.Table] = []
            for batch in file.iter_batches(_PIECE, columns=CONTENT.names(), use_threads=False):
                rows = pa.Table.from_batches([batch], schema=schema)
                last = pc.index(rows["instance"], rows["instance"][-1]).as_py()     # where its last report begins
                if last:
                    yield pa.concat_tables([*held, rows.slice(0, last)])
                    held = []
                held.append(rows.slice(last))
            if held:
                yield pa.concat_tables(held)


def tabulate(content: pa.Table, without: Collection[str], malformed: Counter[str]) -> dict[str, pa.Table]:
    """Return the two tables of one part's content (schemas.CONTENT); add to `malformed` what was."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    held = pa.array(sorted(without), pa.string())
    content = content.filter(pc.invert(pc.is_in(content["instance"], value_set=held)))
    content = content.sort_by([("instance", "ascending"), ("node", "ascending")]).combine_chunks()
    place = _place(content, malformed)
    made = {}
    for name, schema, kind in (("measurements", MEASUREMENTS, "NUM"), ("findings", FINDINGS, "CODE")):
        mask = pc.fill_null(pc.equal(content["value_type"], kind), False)
        chosen = np.flatnonzero(mask.to_numpy(zero_copy_only=False))
        columns = {column: take(chosen) for column, take in place.items()}
        rows = content.filter(mask)
        if kind == "NUM":
            columns["value"] = _numbers(rows["number"], malformed)
        made[name] = _as(schema, rows, columns)
    return made


def _as(schema: Table, rows: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    import pyarrow as pa

    there = {"report_uid": "instance", "study_uid": "study", "patient_id": "patient"}
    arrow = arrow_schema(schema)
    given = [columns[f.name] if f.name in columns else rows[there.get(f.name, f.name)] for f in arrow]
    return pa.Table.from_arrays([column.cast(f.type) for column, f in zip(given, arrow, strict=True)], schema=arrow)


def _numbers(texts: pa.ChunkedArray, malformed: Counter[str]) -> pa.ChunkedArray:
    """Return the texts as numbers; what is not one, or not finite, is null and counted. Empty is absent."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.utf8_trim(texts, " \0")
    stated = pc.fill_null(pc.greater(pc.utf8_length(texts), 0), False)
    sound = pc.fill_null(pc.match_substring_regex(texts, _NUMBER), False)
    plain = pc.replace_substring_regex(texts, r"^\+", "")
    numbers = pc.cast(pc.if_else(sound, plain, pa.scalar(None, pa.string())), pa.float64())
    numbers = pc.if_else(pc.fill_null(pc.is_finite(numbers), False), numbers, pa.scalar(None, pa.float64()))
    malformed["measurements.value"] += int(pc.sum(pc.and_(stated, pc.is_null(numbers))).as_py() or 0)
    return numbers


def _place(content: pa.Table, malformed: Counter[str]) -> dict[str, Callable[[Ints], pa.Array]]:
    """Return, by column, what gives its values at some rows: the path, and all that an item inherits."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    up, levels, find = _tree(content)
    concepts, pairs = _codes(content, "concept", "concept_scheme")
    kinds = np.array([_kind(*pair) for pair in pairs] + [""])[concepts]        # code −1 (no concept) is the last
    coded, values = _codes(content, "code", "code_scheme")
    is_place, is_code = (pc.is_in(content["value_type"], value_set=pa.array(kinds_of)).to_numpy()
                         for kinds_of in (["SCOORD", "SCOORD3D"], ["CODE"]))

    def stated(rows: Ints, targets: Ints, codes: Ints, column: str) -> Ints:
        """What is stated of each item: a code, _NONE, or _MIXED where two rows contradict each other."""
        out = np.full(len(up), _NONE, np.int64)
        out[targets] = codes[rows]
        mixed = np.unique(targets[out[targets] != codes[rows]])
        out[mixed] = _MIXED
        malformed[f"findings.{column}"] += len(mixed)
        return out

    def children(kind: str, codes: Ints) -> Ints:
        return np.flatnonzero((kinds == kind) & is_code & (up >= 0) & (codes >= 0))

    def column(codes: Ints, words: list[str]) -> Callable[[Ints], pa.Array]:
        def take(rows: Ints) -> pa.Array:
            chosen = codes[rows]
            return pa.array(words, pa.string()).take(pa.array(chosen, mask=chosen < 0))
        return take

    sides = np.array(["RLB".find(_side(*pair) or "?") for pair in values] + [_NONE])[coded]
    meanings, words = _words(content["code_meaning"])
    templates, named = _words(content["template"])
    sided, sites, intents = children("laterality", sides), children("site", meanings), children("intent", meanings)
    # A side may also modify the site, or be part of it: (Anatomical structure, Breast) with (Laterality, Left).
    lifted = sided[(kinds[up[sided]] == "site") & (up[up[sided]] >= 0)]
    inner = children("site", sides)
    rows, targets = (np.concatenate(both) for both in ((sided, lifted, inner), (up[sided], up[up[lifted]], up[inner])))
    side = stated(rows, targets, sides, "laterality")
    # What was found in an image, at a place or in all of it, and says no side has the image's (TID 4006, 4020).
    seen = _inherit(side, up, levels)
    refers, images = _references(content, up, is_place, side >= 0, find)
    refers, images = refers[seen[images] >= 0], images[seen[images] >= 0]
    places = up[refers]
    findings = np.where(is_place[places], up[places], places)
    found = np.full(len(up), _NONE, np.int64)
    found[refers] = seen[images]
    image_side = stated(refers[findings >= 0], findings[findings >= 0], found, "laterality")
    side = np.where(side == _NONE, image_side, side)
    site, intent = (stated(rows, up[rows], meanings, name)
                    for rows, name in ((sites, "site"), (intents, "rendering_intent")))
    return {"path": column(*_paths(content, up, levels)), "template": column(_inherit(templates, up, levels), named),
            "laterality": column(_inherit(side, up, levels), ["R", "L", "B"]),
            "site": column(_inherit(site, up, levels), words),
            "rendering_intent": column(_inherit(intent, up, levels), words)}


def _tree(content: pa.Table) -> tuple[Ints, list[Ints], Callable[[Ints, Ints], Ints]]:
    """Return the row of each row's parent (−1: none is there); the rows that have one, level by level; and what finds
    the row of a node in the report of another row (−1 likewise)."""
    import numpy as np
    import pyarrow.compute as pc

    reports = pc.rank(content["instance"], tiebreaker="dense").to_numpy().astype(np.int64) << 32
    keys = reports + content["node"].to_numpy()

    def find(rows: Ints, nodes: Ints) -> Ints:
        wanted = reports[rows] + nodes
        at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0)).astype(np.int64)
        return np.where(keys[at] == wanted, at, -1) if len(keys) else at

    every = np.arange(len(keys))
    up = find(every, content["parent"].to_numpy())
    up[up == every] = -1
    depth = np.where(up >= 0, content["depth"].to_numpy(), 0)
    order = np.argsort(depth, kind="stable")
    levels = np.split(order, np.flatnonzero(np.diff(depth[order])) + 1)
    return up, [level for level in levels if level.size and depth[level[0]] > 0], find


def _references(content: pa.Table, up: Ints, is_place: Any, sided: Any, find: Callable[[Ints, Ints], Ints]
                ) -> tuple[Ints, Ints]:
    """Return the rows that refer to an item of their report, and the rows of those items: by its place in the report,
    or, below a place in an image, by the image's UID, which an image with a side (`sided`) has too."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    numbered = pc.match_substring_regex(content["text"], "^[0-9]{1,9}$")
    mask = pc.and_(pc.equal(content["value_type"], "REFERENCE"), numbered)
    rows = np.flatnonzero(pc.fill_null(mask, False).to_numpy())
    there = find(rows, content["text"].take(pa.array(rows)).cast(pa.int64()).to_numpy())
    (reports, _), (images, uids) = _words(content["instance"]), _words(content["reference"])
    keys = reports * (len(uids) + 1) + images
    library = np.flatnonzero(sided & (images >= 0))
    library = library[np.argsort(keys[library], kind="stable")]
    again = np.flatnonzero((images >= 0) & (up >= 0) & is_place[up] & bool(len(library)))
    at = np.minimum(np.searchsorted(keys[library], keys[again]), max(len(library) - 1, 0))
    same = library[at] if len(library) else again
    rows, there = np.concatenate((rows, again)), np.concatenate((there, np.where(keys[same] == keys[again], same, -1)))
    sound = (there >= 0) & (up[rows] >= 0)
    return rows[sound], there[sound]


def _inherit(stated: Ints, up: Ints, levels: list[Ints]) -> Ints:
    """Return for each item what it states, else what the nearest item above it states."""
    out = stated.copy()
    for level in levels:
        lacking = level[out[level] == _NONE]
        out[lacking] = out[up[lacking]]
    return out


def _paths(content: pa.Table, up: Ints, levels: list[Ints]) -> tuple[Ints, list[str]]:
    """Return each row's path by number, and the paths: concept meanings from the root, joined with ` / `."""
    import numpy as np

    names, words = _words(content["concept_meaning"])
    words = [*words, _NAMELESS]
    names = np.where(names < 0, len(words) - 1, names)
    out, paths = names.copy(), list(words)      # a path of one name is that name
    for level in levels:
        pairs, inverse = np.unique(out[up[level]] * len(words) + names[level], return_inverse=True)
        out[level] = len(paths) + inverse
        paths += [f"{paths[pair // len(words)]} / {words[pair % len(words)]}" for pair in pairs.tolist()]
    return out, paths


def _words(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """Return a text column as numbers (−1: null) and the texts they stand for."""
    import numpy as np
    import pyarrow.compute as pc

    encoded = column.combine_chunks().dictionary_encode()
    codes = pc.fill_null(encoded.indices, _NONE).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, encoded.dictionary.to_pylist()


def _codes(content: pa.Table, value: str, scheme: str) -> tuple[Ints, list[tuple[str, str]]]:
    """Return a coded column as numbers (−1: no code) and the (value, scheme) they stand for."""
    import pyarrow.compute as pc

    joined = pc.binary_join_element_wise(content[value], pc.fill_null(content[scheme], ""), "\x1f")
    codes, texts = _words(joined)
    return codes, [(text.partition("\x1f")[0], text.partition("\x1f")[2]) for text in texts]


def _code(value: str, scheme: str) -> Any:
    from pydicom.sr.coding import Code

    return Code(value, "SRT" if scheme in _SRT else scheme, "")     # equal to its SCT code, by pydicom's map


def _kind(value: str, scheme: str) -> str:
    """Say whether a concept names a laterality, a site or a rendering intent; else nothing."""
    from pydicom.sr.codedict import codes

    code = _code(value, scheme)
    if code in (codes.SCT.Laterality, codes.DCM.ImageLaterality):
        return "laterality"
    if code in (codes.SCT.FindingSite, codes.SCT.AnatomicalStructure):
        return "site"
    return "intent" if code == codes.DCM.RenderingIntent else ""


def _side(value: str, scheme: str) -> str | None:
    """Return R, L or B for a code of CID 244 or CID 6022; None for any other."""
    from pydicom.sr.codedict import codes

    code = _code(value, scheme)
    found = (side for cid, names in _SIDES.items() for name, side in names.items()
             if getattr(getattr(codes, cid), name) == code)
    return next(found, None)
