"""A review of a release: instances drawn at random, a page to read them on, a sheet for the verdicts, and its check.

The draw is a simple random sample without replacement: of every published instance the digest of (seed, manifest, its
UID) is taken, and the smallest are drawn. Seed and release give the same sample on every machine.
"""

from __future__ import annotations

import csv
import hashlib
import heapq
import io
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import layout
from pipeline.errors import UsageError, VerifyFailed
from pipeline.publish import bound
from pipeline.publish.files import canonical, hex_of, read_json, sha256
from pipeline.publish.verify import locate
from pipeline.storage import ObjectStore, tables

SHEET, SAMPLE, PROPOSAL = "verdicts.csv", "sample.json", "recall-proposal.txt"
COLUMNS = ("instance", "page", "verdict", "what", "reviewer")
VERDICTS = ("clean", "leak")
PER_PAGE = 20
LARGEST = 1 << 26       # bytes of a sheet


@dataclass(frozen=True, slots=True)
class Drawn:
    """A sample. `rows`: of the instances table, in the order drawn. `recalled`: published and taken back since."""

    project: str
    release: str
    manifest_sha256: str
    seed: str
    population: int
    recalled: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]

    @property
    def said(self) -> dict[str, Any]:
        """What sample.json says."""
        return {"schema_version": layout.SCHEMA_VERSION, "project": self.project, "release": self.release,
                "manifest_sha256": self.manifest_sha256, "seed": self.seed, "sample": len(self.rows),
                "population": self.population, "recalled": list(self.recalled)}


@dataclass(frozen=True, slots=True)
class Verdicts:
    """A sheet that was checked. `leaks`: instances. `proposed`: all instances of the studies that they are of."""

    drawn: Drawn
    sheet: bytes
    leaks: tuple[str, ...]
    reviewers: tuple[str, ...]
    proposed: tuple[str, ...]

    @property
    def sha256(self) -> str:
        return sha256(self.sheet)

    @property
    def found(self) -> dict[str, Any]:
        """The estimate and its bounds, per 100,000 instances."""
        leaks, drawn, there = len(self.leaks), len(self.drawn.rows), self.drawn.population
        most = bound.finite(leaks, drawn, there)
        return {"population": there, "drawn": drawn, "leaks": leaks, "per_100000": round(100_000 * leaks / drawn, 1),
                "upper_per_100000": round(100_000 * bound.upper(leaks, drawn), 1), "at_most": most,
                "at_most_per_100000": round(100_000 * most / there, 1), "confidence": bound.CONFIDENCE}


def draw(url: str, n: int, seed: str | None = None, recalled: tuple[str, ...] | None = None) -> Drawn:
    """Draw `n` instances of the release at `url`. `recalled`: what was taken back when a sample was drawn first.

    Raises UsageError where there are not so many, VerifyFailed where the release is not whole.
    """
    store, project, release = locate(url)
    try:
        data, manifest = read_json(store, layout.release_manifest(project, release), "The release's manifest")
        name = manifest["images"]["table"]
        listed = {file["name"]: file["sha256"] for file in manifest["files"]}[name]
    except (ValueError, LookupError, TypeError):
        raise VerifyFailed("The release's manifest cannot be understood.") from None
    key = layout.in_release(project, release, name)
    if sha256(store.read(key)) != listed:
        raise VerifyFailed("The release's instances table is not what its manifest says.", hint="tre release verify")
    gone = {entry.key.rpartition("/")[2].removesuffix(".json") for entry in store.list(layout.tombstones(project))}
    rows = tables.read(store, key, ["sop_instance_uid", "study_uid", "path", "sha256"])
    lost = set(_among(rows, gone)["sop_instance_uid"].to_pylist())
    taken = tuple(sorted(lost)) if recalled is None else recalled
    if not set(taken) <= lost:
        raise UsageError("The sample names instances as recalled that are not.", hint="Draw a new sample.")
    there = rows.num_rows - len(taken)
    if not 1 <= n <= there:
        raise UsageError(f"The release has {there:,} instances to draw from.", hint="Give --sample no larger number.")
    seed, digest, out = seed or secrets.token_hex(8), sha256(data), set(taken)
    uids = (uid for chunk in rows["sop_instance_uid"].chunks for uid in chunk.to_pylist())
    ranked = ((hashlib.sha256(layout.encode(["draw", seed, digest, uid])).digest(), number)
              for number, uid in enumerate(uids) if uid not in out)
    numbers = [number for _, number in heapq.nsmallest(n, ranked)]
    return Drawn(project, release, digest, seed, there, taken, tuple(rows.take(numbers).to_pylist()))


def _among(rows: Any, values: set[str], column: str = "sop_instance_uid") -> Any:
    """Return the rows of a table whose column holds one of these."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return rows.filter(pc.is_in(rows[column], value_set=pa.array(sorted(values), pa.string())))


def write(url: str, drawn: Drawn, folder: Path) -> list[Path]:
    """Write review pages, the sheet to fill in and sample.json into a new or empty folder. Raises UsageError,
    VerifyFailed where an image is not what the release says."""
    from pipeline.observe import track
    from pipeline.publish.review import Shown, page, show

    store, _, _ = locate(url)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UsageError("The folder of the review is not empty.", hint="A review never replaces another's files.")
    pages = -(-len(drawn.rows) // PER_PAGE)
    sheet = io.StringIO()
    lines = csv.writer(sheet, lineterminator="\n")
    lines.writerow(COLUMNS)
    shown: list[Shown] = []
    written = []
    for number, row in enumerate(track(drawn.rows, "instances", len(drawn.rows))):
        at = number // PER_PAGE + 1
        lines.writerow([row["sop_instance_uid"], at, "", "", ""])
        shown.append(show(number + 1, row["sop_instance_uid"], _image(store, drawn, row)))
        if len(shown) == PER_PAGE or number + 1 == len(drawn.rows):
            path = folder / f"review-{at:03}.html"
            path.write_bytes(page(drawn.said, shown, at, pages))
            written.append(path)
            shown = []
    (folder / SAMPLE).write_bytes(canonical(drawn.said))
    (folder / SHEET).write_text(sheet.getvalue(), encoding="utf-8")
    return written


def _image(store: ObjectStore, drawn: Drawn, row: Mapping[str, Any]) -> bytes:
    data = store.read(layout.image(drawn.project, row["path"]))
    if sha256(data) != hex_of(row["sha256"]):
        raise VerifyFailed("An image is not what the release says.", hint="tre release verify names it.")
    return data


def check(url: str, sheet: Path) -> Verdicts:
    """Return the verdicts of a sheet that is whole: every drawn instance once, no other; each clean or leak, by
    somebody; a leak with what it is. The sample is drawn again, so that nobody can have chosen another.

    Raises UsageError naming the line.
    """
    try:
        data = sheet.read_bytes()
        said = json.loads((sheet.parent / SAMPLE).read_bytes())
        n, seed, recalled = int(said["sample"]), str(said["seed"]), tuple(map(str, said["recalled"]))
        text = data.decode("utf-8-sig")
    except (OSError, ValueError, LookupError, TypeError):
        raise UsageError(f"The sheet, or {SAMPLE} beside it, cannot be read.",
                         hint="Keep the files of a review together as written; the sheet in UTF-8.") from None
    if len(data) > LARGEST:
        raise UsageError("The sheet is larger than 64 MiB.")
    drawn = draw(url, n, seed, recalled)
    if drawn.said != said:
        raise UsageError(f"{SAMPLE} is not of this release, or was changed.", hint="Give the release that it is of.")
    verdicts, reviewers = _verdicts(sheet.name, text, {row["sop_instance_uid"] for row in drawn.rows})
    leaks = tuple(sorted(uid for uid, verdict in verdicts.items() if verdict == "leak"))
    return Verdicts(drawn, data, leaks, tuple(sorted(reviewers)), _proposed(url, drawn, leaks))


def _verdicts(name: str, text: str, sample: set[str]) -> tuple[dict[str, str], set[str]]:
    lines = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    found: dict[str, str] = {}
    reviewers: set[str] = set()
    try:
        if tuple(lines.fieldnames or ()) != COLUMNS:
            raise UsageError(f"{name}:1: the columns are not {', '.join(COLUMNS)}.")
        for row in lines:
            where = f"{name}:{lines.line_num}"
            if None in row or None in row.values():
                raise UsageError(f"{where}: not as many cells as the header has.")
            uid, verdict = row["instance"].strip(), row["verdict"].strip().lower()
            if uid not in sample:
                raise UsageError(f"{where}: this instance was not drawn.")
            if uid in found:
                raise UsageError(f"{where}: this instance has a verdict already.")
            if verdict not in VERDICTS:
                raise UsageError(f"{where}: no verdict.", hint="Write clean or leak for every instance.")
            if not row["reviewer"].strip():
                raise UsageError(f"{where}: nobody stands behind the verdict.", hint="Fill in reviewer.")
            if verdict == "leak" and not row["what"].strip():
                raise UsageError(f"{where}: a leak without what it is.",
                                 hint="Name the attribute or the place in the picture, not the value.")
            found[uid] = verdict
            reviewers.add(row["reviewer"].strip())
    except csv.Error:
        raise UsageError(f"{name}:{lines.line_num}: not CSV.") from None
    if lacking := len(sample - set(found)):
        raise UsageError(f"{name}: {lacking} drawn instances have no line.", hint="A review is of all that was drawn.")
    return found, reviewers


def _proposed(url: str, drawn: Drawn, leaks: tuple[str, ...]) -> tuple[str, ...]:
    """Return every published instance of the studies that leak."""
    if not leaks:
        return ()
    store, _, _ = locate(url)
    _, manifest = read_json(store, layout.release_manifest(drawn.project, drawn.release), "The release's manifest")
    studies = {row["study_uid"] for row in drawn.rows if row["sop_instance_uid"] in leaks}
    rows = tables.read(store, layout.in_release(drawn.project, drawn.release, manifest["images"]["table"]),
                       ["sop_instance_uid", "study_uid"])
    return tuple(sorted(set(_among(rows, studies, "study_uid")["sop_instance_uid"].to_pylist()) - set(drawn.recalled)))


def _recorded_leaks(work: ObjectStore, prefix: str) -> set[str]:
    """Return every instance that an earlier review of the release says leaks."""
    found: set[str] = set()
    for entry in list(work.list(prefix)):
        if entry.key.endswith("/record.json"):
            sheet = work.read(f"{entry.key.rpartition('/')[0]}/{SHEET}").decode("utf-8-sig")
            found |= {row["instance"].strip() for row in csv.DictReader(io.StringIO(sheet, newline=""))
                      if row["verdict"].strip().lower() == "leak"}
    return found


def proposal(verdicts: Verdicts) -> bytes:
    """Return a recall proposal: a list that `tre recall --instances` takes, for an officer to decide on."""
    head = (f"# Proposal: recall the studies in which a review of release {verdicts.drawn.release} found a leak.\n"
            f"# Verdicts {verdicts.sha256}. An officer decides; studies whose other images are safe may be taken off.\n"
            "# tre recall PROJECT.toml --instances THIS_FILE --reason identifier_found --approver NAME\n")
    return (head + "".join(f"{uid}\n" for uid in verdicts.proposed)).encode()


def record(work: ObjectStore, verdicts: Verdicts, at: str, by: str) -> str:
    """Write the sheet, what it shows and, where there is a leak, the recall proposal into the work zone. Return where.

    The identifiable zone and not the release's: which image leaks what is nothing that those who read the release are
    told. The same sheet again is the record that stands; another one may find more, and take no leak back that is
    recorded. Raises UsageError where it would.
    """
    drawn = verdicts.drawn
    base = layout.assurance(drawn.project, drawn.release, verdicts.sha256)
    if work.stat(f"{base}/record.json") is None:
        known = _recorded_leaks(work, f"{base.rpartition('/')[0]}/") & {row["sop_instance_uid"] for row in drawn.rows}
        if taken_back := known - set(verdicts.leaks):
            raise UsageError(f"{len(taken_back)} instances that are recorded as leaks are clean in this sheet.",
                             hint="A recorded leak stands. Tell the data steward and the IG officer what has changed.")
        work.write(f"{base}/{SHEET}", verdicts.sheet)
        if verdicts.leaks:
            work.write(f"{base}/{PROPOSAL}", proposal(verdicts))
        work.write(f"{base}/record.json", canonical({
            **{k: v for k, v in drawn.said.items() if k != "recalled"}, "recalled_before": len(drawn.recalled),
            "verdicts_sha256": verdicts.sha256, "reviewers": list(verdicts.reviewers), "recorded_by": by,
            "recorded_at": at, **verdicts.found, "proposed_for_recall": len(verdicts.proposed)}))
    return base
