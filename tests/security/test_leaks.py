"""Marks in every place, six character sets, the whole way by `tre`: no byte of them beyond the identifiable zone.

The scanner and the kit share no code with the scanner of elements, the engine and the second look. The first test shows
that it finds every mark where it was planted; the last ones, that it finds what a weakened engine lets through.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import leak_kit as kit
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from leak_kit import NAME, PLACES, SCRIPTS, WHOLE, Site
from leak_scanner import Scanner, views

from pipeline import config, observe, steps
from pipeline.errors import TreError
from pipeline.ledger.ledger import build
from pipeline.storage import open_store

pytestmark = pytest.mark.xdist_group("leaks")
TRE = Path(sys.executable).with_name("tre")
BEYOND = ("candidate", "release")
Hits = dict[str, set[tuple[str, str]]]      # label → (object, view)


@dataclass
class Watch:
    """Reads whatever stands in a folder, again and again, while something runs."""

    folder: Path
    seen: dict[tuple[str, int, int], bytes] = field(default_factory=dict)

    def __enter__(self) -> Watch:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.01):
            for folder, _, names in os.walk(self.folder):
                for name in names:
                    path = Path(folder) / name
                    try:
                        status = path.stat()
                        key = (str(path.relative_to(self.folder)), status.st_size, status.st_mtime_ns)
                        if key not in self.seen:
                            self.seen[key] = path.read_bytes()
                    except OSError:
                        continue


@dataclass
class Ran:
    site: Site
    scanner: Scanner
    said: dict[str, tuple[int, str]]
    watched: Watch
    hits: Hits
    objects: int

    def of(self, names: list[str]) -> Hits:
        labels = {f"{name}, {script.name}" for name in names for script in SCRIPTS}
        return {label: found for label, found in self.hits.items() if label in labels}


def search(scanner: Scanner, objects: Iterator[tuple[str, bytes]]) -> tuple[Hits, int]:
    hits: Hits = defaultdict(set)
    count = 0
    for name, data in objects:
        count += 1
        for label, view in scanner.search(name, data):
            hits[label].add((name, view))
    return dict(hits), count


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("leaks")).write()


@pytest.fixture(scope="module")
def scanner(site: Site) -> Scanner:
    return Scanner(site.texts, site.raws)


@pytest.fixture(scope="module")
def ran(site: Site, scanner: Scanner) -> Ran:
    """The whole way by the command line, TRE_DEBUG unset, everything it says and leaves kept."""
    temporary = site.root / "temporary"
    temporary.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TRE_", "AWS_"))}
    environment |= {**site.env, "TMPDIR": str(temporary), "MPLCONFIGDIR": str(site.root / "mpl")}
    said: dict[str, tuple[int, str]] = {}

    def tre(*words: object) -> str:
        done = subprocess.run([TRE, *map(str, words)], capture_output=True, env=environment, cwd=site.root, check=False)
        text = (done.stdout + done.stderr).decode("utf-8", "surrogateescape")
        said[" ".join(str(w) for w in words if not str(w).startswith("/"))] = done.returncode, text
        return text

    with Watch(temporary) as watched:
        tre("-v", "run", site.project, "--approve-as", "officer")
        listed = tre("quarantine", "list", site.project)
        (first, *_) = re.findall(r"\b[0-9a-f]{12}\b", listed)
        tre("-v", "quarantine", "show", site.project, first)
        tre("-v", "ledger", site.project, "summary")
        rows = site.clinical_rows()
        extra = kit.mark("clinical: undeclared column", SCRIPTS[0]).text, kit.mark(
            "clinical: undeclared column's name", SCRIPTS[0]).text
        site.csv("visits.csv", [(*row, extra[n > 0]) for n, row in enumerate(rows)])
        tre("-v", "build", site.project)
        site.csv("visits.csv", rows)
    assert said["-v run --approve-as officer"][0] == 0, said["-v run --approve-as officer"][1][-2000:]
    hits, count = search(scanner, site.files(*BEYOND))
    return Ran(site, scanner, said, watched, hits, count)


@pytest.fixture(scope="module")
def fates(ran: Ran) -> dict[str, dict[str, tuple[str, str | None]]]:
    """File → character set → (status, reason), by the ledger."""
    made = config.load(ran.site.project)
    out = ran.site.root / "ledger.parquet"
    summary = build(made, *(open_store(getattr(made.zones, zone), zone) for zone in ("work", *BEYOND)), out)
    assert summary.holds, summary.findings
    found: dict[str, dict[str, tuple[str, str | None]]] = defaultdict(dict)
    for uri, status, reason in duckdb.sql(f"select source_uri, status, reason from '{out}'").fetchall():
        script, file = ran.site.landed[uri.removeprefix(made.zones.landing + "/")]
        found[file][script.name] = status, reason
    return dict(found)


# ---- the test's own power ------------------------------------------------------------------------------------------
def test_the_scanner_finds_each_mark_where_it_was_planted(site: Site, scanner: Scanner) -> None:
    assert len({place.name for place in PLACES}) > 200
    missed = []
    for name, data in site.files("landing"):
        key = name.removeprefix("landing/")
        if key not in site.landed:
            continue
        script, file = site.landed[key]
        found = {label for label, _ in scanner.search("", data)}
        missed += [label for place in PLACES if place.file == file and not {
            label := f"{place.shows or place.name}, {script.name}", place.shows} & found]
        assert {f"{where}, {script.name}" for where in ("file name", "folder name")} <= scanner.bytes(name.encode())
    assert missed == []
    assert {label for label in site.texts if label.startswith("clinical: ") and "undeclared" not in label} <= {
        label for name, data in site.files(".") if name == "visits.csv" for label, _ in scanner.search(name, data)}


def test_the_packed_files_are_published_and_the_others_go_where_they_may(
    fates: dict[str, dict[str, tuple[str, str | None]]]
) -> None:
    wrong = []
    for file, by_script in fates.items():
        may = next(place.published for place in PLACES if place.file == file)
        for script, (status, reason) in by_script.items():
            if status != "published" if file in WHOLE else (status == "published" and not may):
                wrong.append((file, script, status, reason))
            assert status in ("published", "quarantined", "rejected", "withheld"), (file, script, status)
    assert wrong == []


# ---- none found ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.xfail(strict=True, reason=why)] if why else [])
    for name, why in {**dict.fromkeys(kit.ORDER, ""), **{p.name: p.known for p in PLACES}}.items()])
def test_no_mark_of_this_place_is_in_any_object_or_key_beyond(ran: Ran, name: str) -> None:
    assert ran.of([name]) == {}


def test_nothing_else_of_what_was_planted_is_beyond(ran: Ran) -> None:
    """Stems, words, dates, times, NHS numbers, digests of sources, the key: where no place's own mark explains them."""
    assert ran.objects > 200
    explained = {name for found in ran.of([p.name for p in PLACES if p.known]).values() for name, _ in found}
    assert {label: found for label, all_found in ran.hits.items()
            if label not in {f"{n}, {s.name}" for n in kit.ORDER for s in SCRIPTS}
            and (found := {one for one in all_found if one[0] not in explained})} == {}


def test_nothing_is_said_by_any_command(ran: Ran) -> None:
    codes = {name: code for name, (code, _) in ran.said.items()}
    assert [name for name, code in codes.items() if code] == ["-v build"], ran.said
    found = {name: {label for label, _ in ran.scanner.search("", text.encode("utf-8", "replace"))}
             for name, (_, text) in ran.said.items()}
    known = {"a source's digest"}       # `quarantine show` names an object by it, on the identifiable side
    assert {name: labels - known for name, labels in found.items() if labels - known} == {}
    assert all("withheld: it may quote" not in text for _, text in ran.said.values())


def test_nothing_is_left_in_the_temporary_folder_or_was_there(ran: Ran) -> None:
    assert [p for p in (ran.site.root / "temporary").rglob("*") if p.is_file()] == []
    assert search(ran.scanner, ((key[0], as_caught(data)) for key, data in ran.watched.seen.items()))[0] == {}


def as_caught(data: bytes) -> bytes:
    """A table caught while it was written is read as bytes: its last ones may look like a footer and are none."""
    if data[:4] == data[-4:] == b"PAR1":
        try:
            pq.ParquetFile(io.BytesIO(data)).read(use_threads=False)
        except (OSError, pa.ArrowInvalid):
            return data[:-1]
    return data


LEDGER = """
import os, signal, sys
from pipeline import steps
from pipeline.ledger.view import View
View.findings = lambda self: os.kill(os.getpid(), signal.SIGKILL)
steps.ledger_summary(sys.argv[1])
"""


def test_a_kill_while_the_ledger_is_read_leaves_nothing_in_the_temporary_folder(ran: Ran, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LEDGER, ran.site.project], capture_output=True, check=False,
                          env={**os.environ, **ran.site.env, "TMPDIR": str(tmp_path)})
    assert done.returncode == -9, done.stderr
    assert search(ran.scanner, Site(tmp_path).files("."))[0] == {}


# ---- exceptions ----------------------------------------------------------------------------------------------------
BROKEN = ("project file: a wrong value", "permitted people: a malformed row", "crosswalk: a malformed row",
          "recipe: a refused line", "clinical: undeclared column")


def break_(site: Site, name: str) -> None:
    """Put the place's mark where it makes a step raise."""
    text, word = site.project.read_text(), kit.mark(name, SCRIPTS[3]).text
    if name == "project file: a wrong value":
        site.project.write_text(text.replace("date_shift_days = 365", f'date_shift_days = "{word}"'))
    elif name == "permitted people: a malformed row":
        people = (site.root / "permitted.csv").read_text()
        (site.root / "permitted.csv").write_text(people.replace("# end", f"{word}\n# end"))
    elif name == "crosswalk: a malformed row":
        with (site.root / "crosswalk.csv").open("a") as file:
            file.write(",".join([word] * 5) + "\n")
    elif name == "recipe: a refused line":
        (site.root / "bad.dicom").write_text(f"FORMAT dicom\n\n%header\n\nREMOVE ALL\nKEEP PatientName {word}\n")
        site.project.write_text(text.replace('"base.dicom", "mammography.dicom"', '"./bad.dicom"'))
    else:
        site.csv("visits.csv", [(*row, word) for row in site.clinical_rows()])


@pytest.mark.parametrize("name", BROKEN)
def test_what_a_step_raises_quotes_nothing(
    ran: Ran, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRE_KEY_DIR", ran.site.env["TRE_KEY_DIR"])
    site = Site(tmp_path / "site")
    site.root.mkdir()
    for file in ("project.toml", "crosswalk.csv", "permitted.csv", "visits.csv"):
        shutil.copy(ran.site.root / file, site.root)
    shutil.copytree(ran.site.root / "suites", site.root / "suites")
    break_(site, name)
    with pytest.raises(TreError) as raised:
        steps.pending_shards(site.project)
        steps.clinical(site.project)
    chain: list[BaseException | None] = [raised.value]
    while chain[-1] is not None and len(chain) < 9:
        chain.append(chain[-1].__cause__ or (None if chain[-1].__suppress_context__ else chain[-1].__context__))
    said = [str(error) + repr(error.args) + str(vars(error)) for error in chain if error is not None]
    said += [observe.describe(raised.value), *capfd.readouterr()]
    assert ran.scanner.bytes("\n".join(said).encode()) == set()


# ---- killed --------------------------------------------------------------------------------------------------------
KILLED = """
import os, signal, sys
from pipeline import steps
from pipeline.deidentify import second_look
def dying(*_):      # in the worker, with the person's outputs written and not yet searched
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
second_look.search = dying
for one in steps.pending_shards(sys.argv[1]):
    steps.deidentify(sys.argv[1], one["batch"], one["shard"])
"""


@dataclass
class Small:
    """The packed files and one with a name in a kept text, staged; each use has zones of its own."""

    site: Site
    scanner: Scanner
    folder: Path

    def config(self) -> config.ProjectConfig:
        self.folder.mkdir()
        shutil.copytree(self.site.root / "work", self.folder / "work")
        zones = {zone: f"file://{self.folder / zone}" for zone in ("work", *BEYOND)}
        return config.load(self.site.project, **zones)

    def through(self, made: config.ProjectConfig) -> tuple[dict[str, int], Hits]:
        """De-identify and make the tables; return the part's counts, and what is found in the candidate zone."""
        (one,) = steps.pending_shards(made)
        counts = steps.deidentify(made, one["batch"], one["shard"])["counts"]
        candidate = steps.assemble(made)["candidate"]
        steps.curate(made, candidate)
        return counts, self.search()

    def search(self) -> Hits:
        return search(self.scanner, Site(self.folder).files("candidate"))[0]


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Of each character set `main`, and the name where it is dropped and where it is kept."""
    site = Site(tmp_path_factory.mktemp("small"), only=(
        "main", "the_name_in_comments", "the_name_in_a_kept_code's_meaning")).write()
    before = os.environ.get("TRE_KEY_DIR")
    os.environ["TRE_KEY_DIR"] = site.env["TRE_KEY_DIR"]
    try:
        steps.stage(site.project)
    finally:
        os.environ.pop("TRE_KEY_DIR") if before is None else os.environ.update(TRE_KEY_DIR=before)
    return site


@pytest.fixture
def small(staged: Site, scanner: Scanner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    monkeypatch.setenv("TRE_KEY_DIR", staged.env["TRE_KEY_DIR"])
    return Small(staged, scanner, tmp_path / "zones")


def test_a_kill_before_the_second_look_s_verdict_leaves_no_identifier_in_the_candidate_zone(small: Small) -> None:
    _kill(small)
    left, _ = search(small.scanner, Site(small.folder).files("work"))
    name = "the name in a kept code's meaning"
    assert {view for label in left if label.startswith(name) for _, view in left[label]} >= {"elements"}, "was there"
    assert small.search() == {}


def test_what_a_kill_left_is_gone_when_the_step_is_run_again(small: Small) -> None:
    made = _kill(small)
    counts, found = small.through(made)
    assert counts == {"pending": 12, "quarantined/residual_identifier": 6}
    assert found == {}
    assert [*(small.folder / "work").rglob("*.dcm")] == []


def _kill(small: Small) -> config.ProjectConfig:
    made = small.config()
    text = small.site.project.read_text()
    for zone in ("work", *BEYOND):
        text = text.replace(f"file://{small.site.root / zone}", f"file://{small.folder / zone}")
    killed = small.site.root / "killed.toml"
    killed.write_text(text)
    temporary = small.folder / "temporary"
    temporary.mkdir()
    done = subprocess.run([sys.executable, "-c", KILLED, killed], capture_output=True, check=False,
                          env={**os.environ, "TMPDIR": str(temporary)})
    assert done.returncode == -9, done.stderr
    assert small.scanner.bytes(done.stdout + done.stderr) == set()
    assert [*temporary.rglob("*")] == []
    return made


# ---- weakened: the second look finds it, and without the second look this test does ----------------------------------
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.deidentify import second_look

    monkeypatch.setattr(second_look, "search", lambda *_: [])
    cage(monkeypatch)


def cage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send no canary."""
    from pipeline.deidentify import canary

    monkeypatch.setattr(canary, "flock", lambda *_: ())


def kept_comments(small: Small) -> config.ProjectConfig:
    """A recipe that keeps PatientComments, with a reason, as the linter wants."""
    made = small.config()
    (small.folder / "weak.dicom").write_text(
        "FORMAT dicom\n\n%header\n\n# weaker: this test\nKEEP PatientComments\n")
    first, *others = made.deidentify.recipes
    weak = first.model_copy(update={"files": (*first.files, str(small.folder / "weak.dicom"))})
    return made.model_copy(update={"deidentify": made.deidentify.model_copy(update={"recipes": (weak, *others)})})


def no_remapping(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.deidentify.pseudonyms import Pseudonyms

    monkeypatch.setattr(Pseudonyms, "_uid", lambda _, uid: uid)


def test_the_engine_as_it_is_lets_nothing_through(small: Small) -> None:
    counts, found = small.through(small.config())
    assert counts == {"pending": 12, "quarantined/residual_identifier": 6}
    assert found == {}


def test_a_canary_stops_what_is_broken_below(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is stored. The tests below cage it, to see what stands behind it."""
    from pipeline.deidentify.pseudonyms import Pseudonyms
    from pipeline.errors import CanarySurfaced

    def keeps_comments(_: pytest.MonkeyPatch) -> config.ProjectConfig:
        return kept_comments(small)

    def remaps_nothing(patch: pytest.MonkeyPatch) -> config.ProjectConfig:
        no_remapping(patch)
        return small.config()

    def moves_nothing(patch: pytest.MonkeyPatch) -> config.ProjectConfig:
        patch.setattr(Pseudonyms, "_shift_days", lambda *_: 0)
        return small.config()

    for broken in (keeps_comments, remaps_nothing, moves_nothing):
        with monkeypatch.context() as patch:
            made = broken(patch)
            (one,) = steps.pending_shards(made)
            with pytest.raises(CanarySurfaced):
                steps.deidentify(made, one["batch"], one["shard"])
        assert not [path for path in (small.folder / "candidate").rglob("*") if path.is_file()]
        shutil.rmtree(small.folder)


def test_a_recipe_that_keeps_comments_is_caught_where_they_name_the_person_and_else_makes_this_test_fail(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    cage(monkeypatch)
    counts, found = small.through(kept_comments(small))
    assert counts == {"pending": 6, "quarantined/residual_identifier": 12}
    assert {f"text: PatientComments, {script.name}" for script in SCRIPTS} <= found.keys()
    assert not {f"the name in comments, {script.name}" for script in SCRIPTS} & found.keys()


def test_without_the_second_look_comments_that_name_the_person_make_this_test_fail(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind(monkeypatch)
    _, found = small.through(kept_comments(small))
    assert {f"the name in comments, {script.name}" for script in SCRIPTS} <= found.keys()


def test_without_the_second_look_a_name_in_a_kept_text_makes_this_test_fail(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind(monkeypatch)
    _, found = small.through(small.config())
    name = "the name in a kept code's meaning"
    assert {f"{name}, {script.name}" for script in SCRIPTS} <= found.keys()
    assert {label.partition(",")[0] for label in found} <= {
        name, "any mark's stem", *(f"a word in {script.name}" for script in SCRIPTS)}


def _of_reports(rules: Path, folder: Path, scanner: Scanner) -> set[str]:
    """Return what is found in the reports of every character set, de-identified by these concept rules."""
    from pydicom.config import disable_value_validation

    from pipeline.deidentify import concepts
    from pipeline.deidentify.engine import Subject, rewrite
    from pipeline.deidentify.keys import Key
    from pipeline.deidentify.linter import read
    from pipeline.deidentify.plan import RECIPES, compile_rules
    from pipeline.deidentify.pseudonyms import Pseudonyms

    plan = compile_rules(read([RECIPES / "base.dicom", RECIPES / "report.dicom"]), keep_times=False,
                         concepts=concepts.read(rules))
    subject = Subject("P1", Pseudonyms(Key(bytes(range(32)), "k")), -400, -60, "SITE")
    found: set[str] = set()
    folder.mkdir()
    for script in SCRIPTS:
        source, target = folder / f"{script.name}.in", folder / f"{script.name}.out"
        with disable_value_validation():
            source.write_bytes(kit.build_file(script, "report", [p for p in PLACES if p.file == "report"]))
        rewrite(source, target, plan, subject)
        found |= {label for label, _ in scanner.search("", target.read_bytes())}
    return found


PROTOCOLS = 'values = [\n    "ROUTINE", "Topogram", "PreMonitoring", "Monitoring", "Thorax"]'


@pytest.mark.parametrize("old, new, place", [
    ('[keep.TEXT]\n', '[keep.TEXT]\n"121111 DCM" = { meaning = "Summary", why = "this test" }\n', "an unlisted text"),
    (PROTOCOLS, 'why = "this test"', "a text of which some values are listed"),
])
def test_a_weakened_concept_rule_makes_this_test_fail(
    scanner: Scanner, tmp_path: Path, old: str, new: str, place: str
) -> None:
    from pipeline.deidentify.plan import RECIPES

    assert _of_reports(RECIPES / "dose_report.toml", tmp_path / "shipped", scanner) == set()
    text = (RECIPES / "dose_report.toml").read_text()
    assert old in text
    (tmp_path / "weak.toml").write_text(text.replace(old, new))
    found = _of_reports(tmp_path / "weak.toml", tmp_path / "weak", scanner)
    assert {f"report: {place}, {script.name}" for script in SCRIPTS} <= found


def test_uids_that_are_not_remapped_are_quarantined_by_the_second_look(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    cage(monkeypatch)
    no_remapping(monkeypatch)
    (one,) = steps.pending_shards(made := small.config())
    counts = steps.deidentify(made, one["batch"], one["shard"])["counts"]
    assert counts == {"quarantined/residual_identifier": 18}
    assert small.search() == {}


def test_without_the_second_look_uids_that_are_not_remapped_make_this_test_fail(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_remapping(monkeypatch)
    blind(monkeypatch)
    _, found = small.through(small.config())
    for uid in ("StudyInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        assert {f"UID: {uid}, {script.name}" for script in SCRIPTS} <= found.keys()


def test_dates_that_are_not_moved_are_quarantined_and_without_the_second_look_found(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.deidentify.pseudonyms import Pseudonyms

    monkeypatch.setattr(Pseudonyms, "_shift_days", lambda *_: 0)
    cage(monkeypatch)
    (one,) = steps.pending_shards(made := small.config())
    counts = steps.deidentify(made, one["batch"], one["shard"])["counts"]
    assert counts == {"quarantined/residual_identifier": 18}
    shutil.rmtree(small.folder)
    blind(monkeypatch)
    _, found = small.through(small.config())
    assert {f"date: StudyDate, {script.name}" for script in SCRIPTS} <= found.keys()
    assert {f"date: clinical event, {script.name}" for script in SCRIPTS} <= found.keys()


# ---- Airflow -------------------------------------------------------------------------------------------------------
def _settings(inside: Path, home: Path) -> dict[str, str]:
    """The settings of the Airflow in `home`, as the tests of the DAGs make them."""
    import runpy

    settings: dict[str, str] = runpy.run_path(str(inside), run_name="inside")["settings"](home)
    return settings


@pytest.mark.long
def test_nothing_is_in_airflow_s_logs_or_database_or_in_what_its_runs_made(
    tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Real Airflow, dag.test(): a build that a table fails, then the whole way; beside them a project file refused."""
    site = Site(tmp_path_factory.mktemp("dags")).write()
    site.project.write_text(site.project.read_text() + '\n[approve]\nofficers = ["officer"]\n')
    refused = Site(site.root / "refused")
    refused.root.mkdir()
    refused.project.write_text(site.project.read_text().replace(NAME, "refused"))
    break_(refused, "project file: a wrong value")
    refused.project.rename(site.root / "refused.toml")
    shutil.copy(site.root / "visits.csv", site.root / "right.csv")
    break_(site, "clinical: undeclared column")
    home = tmp_path_factory.mktemp("airflow")
    dag = {name: f"{NAME}__{name}" for name in ("stage", "build_candidate", "release")}
    (home / "arguments.json").write_text(json.dumps({"steps": [
        {"dag": dag["stage"]}, {"dag": dag["build_candidate"]},
        {"dag": dag["build_candidate"], "land": [str(site.root / "right.csv"), str(site.root / "visits.csv")]},
        {"dag": dag["release"], "answers": [{"user": "officer", "choice": "Approve"}]}]}))
    temporary = home / "temporary"
    temporary.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "TRE_"))}
    environment |= {**site.env, "TRE_PROJECTS_DIR": str(site.root), "TMPDIR": str(temporary)}
    inside = Path(__file__).parents[1] / "dags" / "inside.py"
    with Watch(temporary) as watched:
        done = subprocess.run([sys.executable, inside, "runs", home / "arguments.json", home / "result.json"],
                              env=environment, cwd=home, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        airflow = Path(sys.executable).with_name("airflow")     # what the DAG processor does: import errors, DAGs' code
        parsed = subprocess.run([airflow, "dags", "reserialize"], env={**environment, **_settings(inside, home)},
                                cwd=home, capture_output=True, check=False)
        assert parsed.returncode == 0, parsed.stderr[-3000:]
    (home / "said.txt").write_bytes(done.stdout + done.stderr + parsed.stdout + parsed.stderr)
    states = [run["state"] for run in json.loads((home / "result.json").read_text())]
    assert states == ["success", "failed", "success", "success"]
    scanner = Scanner(site.texts, site.raws)
    everything = [*Site(home).files("."), *site.files(*BEYOND)]
    (base,) = (data for name, data in everything if name == "airflow.db")
    dumped = next(piece for view, piece in views(base) if view == "database")
    assert all(word in dumped for word in (b"xcom", b"rendered_task_instance_fields", b"hitl_detail"))
    assert b"refused.toml" in dumped and b"date_shift_days" in dumped, "the import error is there, without its value"
    known = {label for place in PLACES if place.known for script in SCRIPTS for label in (
        f"{place.name}, {script.name}",)}
    hits, _ = search(scanner, iter(everything))
    explained = {name for label in known & hits.keys() for name, _ in hits[label]}
    assert {label: found for label, all_found in hits.items()
            if (found := {one for one in all_found if one[0] not in explained})} == {}
    seen, _ = search(scanner, ((key[0], data) for key, data in watched.seen.items()))
    assert {label for label, found in seen.items() if not all(n.startswith("tre-ledger-") for n, _ in found)} == set()
