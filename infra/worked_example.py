"""Run a very small project through two releases and write docs/worked-example.md with the files that it really made.

Two batches, one series that comes late, one study that is withheld. Its key is fixed, so the names are the same each
time, but for batch ids: those follow from the landing's URL. `make docs` runs it.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from infra.generate_docs import DOCS, NOTE
from pipeline import config, steps
from pipeline.synthetic import files
from pipeline.synthetic.project import project_text

PROJECT = "worked-example"
QUIET = 1_700_000_000  # when it all landed: long ago, so nothing counts as still arriving
NHS = "9990000018"  # of the range that is for tests
ANN = {
    "patient_id": "A1000001", "issuer": "HOSP-A", "patient_name": "EXAMPLE^ANN", "birth_date": "19610317",
    "study_date": "20180614", "accession": "ACC1",
}
BEA = {
    "patient_id": "B2000002", "issuer": "HOSP-B", "patient_name": "EXAMPLE^BEA", "birth_date": "19580902",
    "study_date": "20190122", "accession": "ACC2",
}


def study(**who: str) -> str:
    return files.uid("worked example", who["patient_id"])


def image(who: dict[str, str], view: str, laterality: str) -> bytes:
    series = files.uid("worked example", who["patient_id"], view)
    options: dict[str, Any] = {"study_uid": study(**who), "series_uid": series, "view": view, "laterality": laterality}
    return files.mammogram(**who, **options)


FIRST = {
    "day1/ann-cc-left.dcm": (ANN, "CC", "L"),
    "day1/ann-cc-right.dcm": (ANN, "CC", "R"),
    "day1/bea-cc-left.dcm": (BEA, "CC", "L"),
}
LATE = {"day2/ann-mlo-left.dcm": (ANN, "MLO", "L")}


class Example:
    """A project in a directory of its own; `told` collects the page."""

    def __init__(self, root: Path) -> None:
        self.root, self.told, self.seen = root, [], set[str]()
        (root / "project.toml").write_text(
            project_text(*(f"file://{root}/{zone}" for zone in config.Zones.model_fields), name=PROJECT)
        )
        (root / "crosswalk.csv").write_text(
            f"issuer,local_id,nhs_number,superseded_nhs_number\nHOSP-A,A1000001,{NHS},\n"
        )
        (root / "permitted.csv").write_text(f"# as-of: {date.today()}\nperson\n{NHS}\n# end: 1\n")
        header = (Path(root) / "project.toml").read_text().partition("[clinical.columns]")[2]
        columns = [line.split(" = ")[0] for line in header.splitlines() if " = {" in line]
        row = {
            "nhs_number": NHS, "episode_id": "500001", "episode_type": "R", "episode_date": "2018-06-01",
            "appointment_made": "True", "date_of_foa": "2018-06-14", "end_code": "SC", "final_action_code": "RR",
        }
        (root / "episodes.csv").write_text(
            ",".join(columns) + "\n" + ",".join(row.get(column, "") for column in columns) + "\n"
        )
        self.config = config.load(root / "project.toml")

    def land(self, landed: dict[str, tuple[dict[str, str], str, str]]) -> None:
        for name, what in landed.items():
            path = self.root / "landing" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image(*what))
            os.utime(path, (QUIET, QUIET))

    def say(self, *lines: str) -> None:
        self.told += [*lines, ""]

    def show_new(self) -> None:
        """Tell which files are new since last time."""
        now = {
            str(path.relative_to(self.root))
            for zone in config.Zones.model_fields
            for path in (self.root / zone).rglob("*")
            if path.is_file()
        }
        new = sorted(name for name in now - self.seen if "/leases/" not in name and "/seen/" not in name)
        self.seen = now
        self.say("```", *(folded(new) or ["(no new file)"]), "```")

    def build(self) -> dict[str, Any]:
        for one in steps.pending_shards(self.config):
            steps.deidentify(self.config, one["batch"], one["shard"])
        self.say("**De-identify.** Each shard without a part under today's plan gets one.")
        self.show_new()
        candidate = steps.assemble(self.config)["candidate"]
        self.say("**Assemble.** The parts and the clinical snapshot, put together: what the candidate is made of.")
        self.show_new()
        steps.curate(self.config, candidate)
        sealed = steps.validate(self.config, candidate)
        self.say(
            f"**Curate and validate.** Tables from facts; {sealed['expectations']} expectations; `candidate.json` is "
            "written last, and its digest is what will be approved."
        )
        self.show_new()
        return sealed

    def release(self, sealed: dict[str, Any]) -> None:
        steps.approve(self.config, sealed["candidate"], sealed["digest"], "officer", "engineer", "approve")
        steps.publish(self.config, sealed["candidate"])
        self.say("**Approve and publish.** The officer's answer, then images, tables, manifest, and `current.json`.")
        self.show_new()

    def ledger(self) -> None:
        from pipeline.cli.project import reading
        from pipeline.ledger.ledger import build

        out = self.root / "ledger.parquet"
        build(self.config, *reading(self.config), out)
        self.say("**The ledger** now says:")
        lines = ["| landed | status | reason | released as |", "| --- | --- | --- | --- |"]
        for row in pq.read_table(out).to_pylist():
            landed = row["source_uri"].rpartition("/landing/")[2]
            released = f"`{row['released_key']}`" if row["released_key"] else ""
            lines.append(f"| `{landed}` | {row['status']} | {row['reason'] or ''} | {released} |")
        self.say(*lines)


def folded(names: list[str]) -> list[str]:
    """Return the names, those that differ only in their last part before the dot as one line with braces."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in names:
        folder, _, last = name.rpartition("/")
        stem, _, suffix = last.rpartition(".")
        groups.setdefault((folder, suffix), []).append(stem)
    return [
        f"{folder}/{{{','.join(stems)}}}.{suffix}" if len(stems) > 2 else f"{folder}/{stem}.{suffix}"
        for (folder, suffix), stems in groups.items()
        for stem in (stems if len(stems) <= 2 else stems[:1])
    ]


@contextmanager
def key() -> Any:
    """Put the example's key where the steps look. Anybody can read it here, so it protects nobody."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"{PROJECT}.key"
        path.write_text("".join(f"{(37 * n + 11) % 256:02x}" for n in range(32)) + "\n")
        path.chmod(0o600)
        before = os.environ.get("TRE_KEY_DIR")
        os.environ["TRE_KEY_DIR"] = directory
        try:
            yield
        finally:
            os.environ.pop("TRE_KEY_DIR")
            if before is not None:
                os.environ["TRE_KEY_DIR"] = before


def page() -> str:
    """Run the example and return docs/worked-example.md."""
    with tempfile.TemporaryDirectory() as directory, key():
        example = Example(Path(directory).resolve())
        example.say(
            NOTE.strip(),
            "",
            "# A worked example",
            "",
            "A very small project, run by the steps that Airflow runs; what stands here is what it made. The people",
            "are invented. Ann has two mammograms on the first day; a second series of the same study comes a day",
            "late. Bea has one mammogram, and the crosswalk does not know who she is. Leases and the index of digests",
            "already seen are left out. `{a,b}` stands for several files. Each act leaves two entries in `audit/`, one",
            "before it and one after.",
        )
        example.say("## Day 1")
        example.land(FIRST)
        example.say("**Landed.** A file's name may say anything here. It goes no further than this zone.")
        example.show_new()
        staged = steps.stage(example.config)
        landed, eligible = sum(staged["counts"].values()), staged["instances"]
        example.say(
            f"**Stage.** {landed} objects are listed once and read: the inventory has a row for each. {eligible} are",
            "eligible today. The inventory is written last.",
        )
        example.show_new()
        first = example.build()
        example.release(first)
        example.ledger()
        example.say("Bea's study is withheld, not lost: if a later crosswalk knows her, the next build takes it in.")
        example.say("## Day 2")
        example.land(LATE)
        example.say("**Landed.** The late series of Ann's study.")
        example.show_new()
        steps.stage(example.config)
        example.say("**Stage.** Only what no batch has yet: one object, a second batch.")
        example.show_new()
        second = example.build()
        example.say(
            "The first day's part is used again as it is. The late image has the study's new UID and Ann's pseudonym:",
            "both follow from the key.",
        )
        example.release(second)
        example.ledger()
        example.say(
            "The second release shares the first one's images and adds one. The first still verifies:",
            "`tre release verify` asks for nothing but the release.",
        )
        return "\n".join(example.told).rstrip() + "\n"


if __name__ == "__main__":
    (DOCS / "worked-example.md").write_text(page(), encoding="utf-8")
    print("docs/worked-example.md")
