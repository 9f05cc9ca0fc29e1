"""`make demo`: from a landing full of files to a published release, by Airflow, on this machine alone.

DEMO_STORE=s3|file  what the zones stand on (default s3: Swift on 127.0.0.1)     KEEP=1  leave Airflow up afterwards
SIZE=n|large        women in the population (default 48; large: 2,000          DEMO_DIR  where to work (default .demo)
                    over three years, a quarter of an hour)
ACCEPT=1            after a change that is meant to move the totals: write them to expected.json, for the review to see

Everything stands below .demo/, which each run makes anew. The totals must be those of expected.json.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from infra.demo.local_airflow import ENGINEER, OFFICER, ROOT, Airflow, DemoFailed, airflow
from pipeline import config, observe
from pipeline.errors import TreError
from pipeline.model import Status

PROJECT = "demo-screening"
WOMEN = 48
LARGE = 2000
LARGE_SHARD = 1000      # instances: tasks of about half a minute
STEPS = ("stage", "build_candidate", "release")
ZONES = ("landing", "work", "candidate", "release")
COUNTED = frozenset(map(str, Status))
EXPECTED = Path(__file__).with_name("expected.json")
READING_SECONDS = 4.0
STARTED = time.monotonic()


def say(text: str = "") -> None:
    print(f"{time.monotonic() - STARTED:6.1f} s  {text}" if text else "", flush=True)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    observe.quiet()
    root = Path(os.environ.get("DEMO_DIR") or ROOT / ".demo").resolve()
    store = os.environ.get("DEMO_STORE") or "s3"
    try:
        with ExitStack() as up:
            return demo(up, root, store, size(os.environ.get("SIZE") or str(WOMEN)))
    except KeyboardInterrupt:
        say("Stopped. Everything that was started has been ended.")
        return 130
    except (DemoFailed, TreError) as error:
        say(f"The demo stopped: {error}")
        return error.exit_code if isinstance(error, TreError) else 1


def size(text: str) -> int:
    """Return the number of women. Raises DemoFailed."""
    if text == "large":
        return LARGE
    if not text.isdecimal() or not int(text):
        raise DemoFailed("SIZE is a number of women, or large.")
    return int(text)


def demo(up: ExitStack, root: Path, store: str, women: int) -> int:
    if store not in ("s3", "file"):
        raise DemoFailed("DEMO_STORE is s3 or file.")
    up.enter_context(alone(root))
    doctor(root, store)
    zones, variables = open_zones(up, root, store)
    project = root / "project" / f"{PROJECT}.toml"
    paths = {"TRE_PROJECTS_DIR": str(project.parent), "TRE_KEY_DIR": str(root / "keys"),
             "TRE_OFFICERS": str(root / "officers" / "officers.toml")}
    variables |= {**paths, **{f"TRE_DEMO_{zone.upper()}": url for zone, url in zones.items()}}
    os.environ |= variables
    flow = up.enter_context(airflow(root / "airflow", root / "logs", variables))
    say("Airflow: its database is being made")
    landed = make_landing(root, project, zones["landing"], women)
    sign(root, project)
    flow.up()
    say(f"Airflow answers at {flow.url}")
    release_run = follow(flow, landed)
    release = result(flow, release_run, "publish")["release"]
    url = f"{zones['release']}/{PROJECT}/releases/{release}"
    verify(url)
    found = totals(project, release)
    (root / "totals.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    if women == WOMEN and os.environ.get("ACCEPT"):
        expected = {**json.loads(EXPECTED.read_text()), store: found}
        EXPECTED.write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")
    problems = compare(found, store) if women == WOMEN else []
    screen(root, url, found, problems, women)
    if os.environ.get("KEEP") and not problems:
        keep(flow)
    return 1 if problems else 0


# ---- before --------------------------------------------------------------------------------------------------------
def alone(root: Path) -> Any:
    """Empty `root` and hold it. Raises DemoFailed where another demo is at work in it."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = root / "lock"
    handle = lock.open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DemoFailed(f"Another demo is at work in {root}. Wait for it, or stop it.") from None
    for path in root.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != lock:
            path.unlink()
    return handle


def doctor(root: Path, store: str) -> None:
    from pipeline.cli.doctor import machine

    checks = list(machine(root, store))
    for check in checks:
        if check.result != "pass":
            say(f"tre doctor: {check.result}: {check.name}: {check.found}. {check.mend}")
    if any(check.result == "fail" for check in checks):
        raise DemoFailed("This machine cannot run the demo as it is. `tre doctor` shows every check.")
    say(f"tre doctor: {len(checks)} checks of this machine, none failed")


def open_zones(up: ExitStack, root: Path, store: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the zones' URLs, and the variables that reach them."""
    if store == "file":
        zones = {zone: root / "zones" / zone for zone in ZONES}
        for path in zones.values():
            path.mkdir(parents=True)
        return {zone: f"file://{path}" for zone, path in zones.items()}, {}
    from infra.demo.swift import swift

    server = up.enter_context(swift(root / "swift", ROOT / ".venv-s3"))
    say(f"S3 (OpenStack Swift) answers at {server.endpoint}")
    variables = {
        f"TRE_{zone.upper()}_{name}": value
        for zone in ZONES
        for name, value in (
            ("ENDPOINT_URL", server.endpoint),
            ("ACCESS_KEY_ID", server.access_key),
            ("SECRET_ACCESS_KEY", server.secret_key),
            ("REGION", server.region),
        )
    }
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
    )
    for zone in ZONES:
        client.create_bucket(Bucket=zone)
    return {zone: f"s3://{zone}" for zone in ZONES}, variables


def make_landing(root: Path, project: Path, landing: str, women: int) -> int:
    """Make the population, what lands, the tables beside the project file, and a key. Return the objects landed."""
    from pipeline.deidentify.keys import create_key
    from pipeline.storage import open_store
    from pipeline.synthetic.demo import lay_out_demo
    from pipeline.synthetic.population import THREE_YEARS, population

    large = women >= LARGE
    pop = population(women, **THREE_YEARS) if large else population(women)
    if large:
        say(f"{women:,} synthetic women, invited twice in three years: {len(pop.landed):,} files to make")
    workers = min(8, os.cpu_count() or 1) if large else 1
    lay_out_demo(project.parent, pop, workers=workers, tell=steps_of(len(pop.landed), "made"))
    text = (ROOT / "infra" / "projects" / project.name).read_text()
    if large:  # a task an image or two would be a day of Airflow
        text = re.sub(r"(?m)^shard_instances = .*", f"shard_instances = {LARGE_SHARD}", text)
    project.write_text(text)
    create_key(root / "keys", PROJECT)
    made = project.parent / "landing"
    if landing.startswith("file://"):
        target = Path(landing.removeprefix("file://"))
        target.rmdir()
        made.rename(target)
        landed = sum(not path.is_dir() or path.is_symlink() for path in target.rglob("*"))
    else:
        store = open_store(landing, "landing")
        files = [path for path in sorted(made.rglob("*")) if path.is_file() and not path.is_symlink()]
        tell = steps_of(len(files), "sent to S3")
        with ThreadPoolExecutor(4) as pool:
            for done, _ in enumerate(pool.map(
                lambda path: store.write(path.relative_to(made).as_posix(), path.read_bytes()), files), 1):  # fmt: skip
                tell(done)
        shutil.rmtree(made)
        landed = len(files)
    say(f"{landed:,} files have landed: {women:,} synthetic women, pydicom's real files, some hostile ones")
    return landed


def sign(root: Path, project: Path) -> None:
    """List the demo's officer and have them sign what the project runs, with a key that is then forgotten."""
    from pipeline import steps
    from pipeline.govern import approved, signatures

    cfg = config.load(project)
    with tempfile.TemporaryDirectory(prefix="tre-demo-officer-") as folder:
        key = Path(folder) / f"{OFFICER}.key"
        public = base64.b64encode(signatures.new_key(key)).decode()
        listed = f'[[officer]]\nname = "{OFFICER}"\nkey = "{public}"\nprojects = ["{PROJECT}"]\n'
        path = root / "officers" / "officers.toml"
        path.parent.mkdir(mode=0o755)
        path.write_text(f"schema_version = 1\n{listed}")
        path.chmod(0o644)
        done = steps.approve_files(cfg, OFFICER, signatures.load_key(key, str), date.today() + timedelta(30),
                                   approved.chosen(cfg, ()))  # fmt: skip
    say(f"{OFFICER} has signed the {done['files']} files that run: recipes, suites, the project file (tre approve)")


def steps_of(total: int, what: str) -> Callable[[int], None]:
    """Return what says, a few times on the way, how many of a great number are done."""
    every = max(2500, total // 8)
    told = 0

    def tell(done: int) -> None:
        nonlocal told
        if done - told >= every and done < total:
            told = done
            say(f"{done:,} of {total:,} files {what}")

    return tell


# ---- the DAGs ------------------------------------------------------------------------------------------------------
def follow(flow: Airflow, landed: int) -> str:
    """Start the stage DAG, tell what each task does, answer the approval. Return the id of the release run."""
    first, longest = f"{PROJECT}__stage", 900 + landed / 5
    flow.wait("the project's DAGs", lambda: flow.ask("GET", f"/api/v2/dags/{PROJECT}__release"))
    run = flow.ask("POST", f"/api/v2/dags/{first}/dagRuns", {"logical_date": None})["dag_run_id"]
    say(f"{ENGINEER} starts {first}; what follows is woken by it")
    for step in STEPS:
        dag = f"{PROJECT}__{step}"
        run = flow.wait(f"a run of {dag}", lambda dag=dag: newest_run(flow, dag))
        told: set[tuple[object, ...]] = set()
        flow.wait(f"{dag} to end", lambda dag=dag, run=run, told=told: watch(flow, dag, run, told), seconds=longest)
    return str(run)


def newest_run(flow: Airflow, dag: str) -> str | None:
    runs = flow.ask("GET", f"/api/v2/dags/{dag}/dagRuns")["dag_runs"]
    return runs[0]["dag_run_id"] if runs else None


def watch(flow: Airflow, dag: str, run: str, told: set[tuple[object, ...]]) -> bool:
    """Tell what is new of a run. Return True once it has succeeded. Raises DemoFailed where it has failed."""
    state = flow.ask("GET", f"/api/v2/dags/{dag}/dagRuns/{run}")["state"]
    for ti in flow.ask("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances?limit=600")["task_instances"]:
        one = (ti["task_id"], ti["map_index"])
        if ti["state"] == "awaiting_input" and (*one, ti["try_number"]) not in told:
            told.add((*one, ti["try_number"]))
            approve(flow, dag, run, ti["task_id"])
        elif ti["state"] in ("success", "failed", "skipped") and (*one, "ended") not in told:
            told.add((*one, "ended"))
            name = ti["task_id"] + (f" {ti['rendered_map_index']}" if ti["map_index"] >= 0 else "")
            what = counts(flow, dag, run, *one) if ti["state"] == "success" else ti["state"]
            say(f"{dag.removeprefix(PROJECT + '__'):<16} {name:<28} {what}".rstrip())
    if state == "failed":
        logs = flow.logs / "tasks" / f"dag_id={dag}"
        raise DemoFailed(f"the run of {dag} failed: {'; '.join(reasons(logs)) or 'no reason found'}. Logs: {logs}")
    return bool(state == "success")


def reasons(logs: Path) -> list[str]:
    """Return what the failed tasks' logs say: errors of the product hold no value of any patient."""
    found = []
    for path in sorted(logs.rglob("*.log")):
        for line in path.read_text().splitlines():
            record = json.loads(line) if line.startswith("{") else {}
            for error in record.get("error_detail") or []:
                found.append(f"{error['exc_type']}: {error['exc_value']}")
    return list(dict.fromkeys(found))


def counts(flow: Airflow, dag: str, run: str, task: str, map_index: int) -> str:
    """Return the numbers of a task's result as one line."""
    value = result(flow, run, task, dag=dag, map_index=map_index)
    if task == "ask":
        return f"{value['chosen_options'][0]}, by {value['responded_by_user']['name']}"
    if task == "pending_shards":
        return f"{sum(map(len, value))} to do"
    flat: dict[str, int] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                # counts are told by status; their reasons stand in the last table
                add(name if name in COUNTED else key.split("/")[0], inner)
        elif isinstance(value, list):
            for inner in value:
                add(name, inner)
        elif isinstance(value, int) and not isinstance(value, bool):
            flat[name] = flat.get(name, 0) + value

    add("", value)
    return ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in flat.items() if n)


def result(flow: Airflow, run: str, task: str, dag: str = f"{PROJECT}__release", map_index: int = -1) -> Any:
    path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/return_value?map_index={map_index}"
    try:
        return flow.ask("GET", path)["value"]
    except OSError:
        return {}


def approve(flow: Airflow, dag: str, run: str, task: str) -> None:
    """Answer as the demo officer, who is not the user that started the run."""
    path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/-1/hitlDetails"
    asked = flow.ask("GET", path, user=OFFICER)
    print()
    say(asked["subject"])
    for line in asked["body"].splitlines():
        print(f"          {line}")
    # An answer given while the asking process is still on its way out makes Airflow ask again. Nobody reads so fast.
    time.sleep(READING_SECONDS)
    digest = asked["params"]["digest"]["value"]
    answer = {"chosen_options": ["Approve"], "params_input": {"digest": digest}}
    flow.ask("PATCH", path, answer, user=OFFICER)
    say(f"The demo officer ({OFFICER}) approves exactly this, over Airflow's REST API. In a real project an officer")
    say("reads it and signs it with a key, tre approve --candidate; silence rejects.")
    print()


# ---- after ---------------------------------------------------------------------------------------------------------
def verify(url: str) -> None:
    tre = Path(sys.executable).with_name("tre")
    done = subprocess.run([tre, "release", "verify", url], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DemoFailed(f"tre release verify ended with {done.returncode}: {done.stderr.strip()}")
    say("tre release verify: every digest of the release is what its manifest says")


def totals(project: Path, release: str) -> dict[str, Any]:
    """Return what came of every object, by status and reason, and the rows of every table of the release."""
    from pipeline import layout
    from pipeline.ledger.ledger import summary
    from pipeline.storage import open_store

    cfg = config.load(project)
    stores = {zone: open_store(getattr(cfg.zones, zone), zone) for zone in ZONES[1:]}
    ledger = summary(cfg, **stores)
    if not ledger.holds:
        raise DemoFailed(f"the ledger's identity does not hold: {ledger.findings}")
    manifest = json.loads(stores["release"].read(layout.release_manifest(PROJECT, release)))
    return {"objects": ledger.objects, "ledger": ledger.counts, "tables": manifest["totals"]}


def compare(found: dict[str, Any], store: str) -> list[str]:
    """Return how the totals differ from those of expected.json."""
    want, have = flatten(json.loads(EXPECTED.read_text())[store]), flatten(found)
    return [f"{key}: expected {want.get(key, 0)}, found {have.get(key, 0)}"
            for key in sorted({*want, *have}) if want.get(key, 0) != have.get(key, 0)]  # fmt: skip


def flatten(value: Any, prefix: str = "") -> dict[str, int]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {key: n for name, inner in value.items() for key, n in flatten(inner, f"{prefix}/{name}".strip("/")).items()}


def screen(root: Path, url: str, found: dict[str, Any], problems: list[str], women: int) -> None:
    from pipeline.cli.show import table
    from pipeline.cli.show import totals as show_totals

    print()
    show_totals("What became of every object that landed", found["ledger"])
    print()
    table("The release's tables", ("table", "rows"), [(name, f"{n:,}") for name, n in found["tables"].items()],
          right=("rows",))  # fmt: skip
    print(f"\nRelease   {url}")
    if url.startswith("s3://"):
        url = copy(url, root / "release")
        print(f"Copy      {url} (it stays when S3 has stopped)")
    print(f"Report    {url}/report.html (its audits are linked from it)\nData      .venv/bin/tre release open {url}")
    print(f"Ask       .venv/bin/tre find \"Modality = 'MG' and CompressionForce > 120\" --release {url}")
    print(f"Audit     .venv/bin/tre audit dose-survey {url}")
    if problems:
        print("\nThe totals are not those of infra/demo/expected.json:", *problems, sep="\n  ")
    elif women == WOMEN:
        print(f"\nThe totals are those of infra/demo/expected.json. {time.monotonic() - STARTED:.0f} seconds.")
    else:
        print(f"\n{women:,} women: totals are not checked. {time.monotonic() - STARTED:.0f} seconds.")


def copy(url: str, folder: Path) -> str:
    """Copy the release zone of `url` to disk; return the URL of the release there."""
    from pipeline.storage import open_store

    zone, name = url.split(f"/{PROJECT}/")
    source, target = open_store(zone, "release", create=False), open_store(f"file://{folder}", "release")
    for entry in source.list():
        target.write(entry.key, source.read(entry.key))
    return f"file://{folder}/{PROJECT}/{name}"


def keep(flow: Airflow) -> None:
    """Leave everything up until Ctrl-C."""
    print(f"\nAirflow   {flow.url}")
    for user, password in flow.passwords.items():
        print(f"          user {user}, password {password}")
    print("Ctrl-C stops Airflow and the store. The files stay in .demo/ until the next demo.", flush=True)
    while not threading.Event().wait(2):
        flow.check()


if __name__ == "__main__":
    sys.exit(main())
