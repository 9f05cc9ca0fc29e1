"""`make bench-airflow`: what Airflow costs beside the steps that it runs.

One landing of small synthetic images is staged, built and published three times: by `tre run`, by a real Airflow
(LocalExecutor, SQLite) whose DAGs call the same steps, and by `tre run` again. CPU is user and system time of every
process of either, those that have ended too. What Airflow takes to start and what it takes while it waits are measured
apart from the run. All releases must be the same bytes. Writes docs/benchmarks/airflow.md and its plot; JSON lines in
.bench/.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra import bench_pages as pages

NAME, INSTANCES, MOST_SHARE = "scale", 20_000, 0.10
DAGS = ("stage", "build_candidate", "release")
IDLE_SECONDS, LOOK_SECONDS = 30.0, 5.0
# Where the demo is set to look busy more often, so that nobody waits, Airflow's own defaults.
AS_SHIPPED = {"AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "1", "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5"}
TICK = os.sysconf("SC_CLK_TCK")


# ---- what processes take -----------------------------------------------------------------------------------------
def tree(root: int) -> dict[int, list[str]]:
    """Return pid → fields of /proc/PID/stat from the state on, of a process and all that come from it."""
    stats: dict[int, list[str]] = {}
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                stats[int(entry.name)] = fields
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: dict[int, list[str]] = {}
    left = [root]
    while left:
        pid = left.pop()
        if pid in stats:
            found[pid] = stats[pid]
            left += children.get(pid, [])
    return found


def cpu(root: int) -> float:
    """CPU seconds of a process and of all that come from it, those that were waited for too."""
    return sum(sum(map(int, fields[11:15])) for fields in tree(root).values()) / TICK


def own_cpu(pid: int) -> float:
    return sum(map(int, tree(pid)[pid][11:13])) / TICK


class Memory:
    """Looks every second at what a tree of processes holds: the most of one, and of all together (PSS), in MiB."""

    def __init__(self, root: int) -> None:
        self.one = self.all = 0.0
        self._root, self._end = root, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._end.wait(1):
            together = 0.0
            for pid in tree(self._root):
                with suppress(OSError, ValueError, IndexError):
                    status = Path(f"/proc/{pid}/status").read_text()
                    self.one = max(self.one, int(status.partition("VmHWM:")[2].split()[0]) / 1024)
                    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                    together += int(rollup.partition("\nPss:")[2].split()[0]) / 1024
            self.all = max(self.all, together)

    def end(self) -> dict[str, float]:
        self._end.set()
        self._thread.join()
        return {"one_mib": round(self.one, 1), "all_mib": round(self.all, 1)}


# ---- the two ways, each in a process of its own ------------------------------------------------------------------
def by_steps(project: Path) -> dict[str, Any]:
    """`tre run`, as it is typed."""
    tre = Path(sys.executable).with_name("tre")
    subprocess.run([tre, "run", project, "--approve-as", "officer"], check=True, stdout=subprocess.DEVNULL)
    return {}


def by_airflow(project: Path, below: Path) -> dict[str, Any]:
    """The DAGs of an Airflow of its own. Returns CPU seconds by phase, and of the run by process."""
    from infra.demo.local_airflow import airflow

    env = {"TRE_PROJECTS_DIR": str(project.parent), **AS_SHIPPED}
    with airflow(below / "airflow", below / "logs", env) as flow:
        flow.up()
        flow.wait("the DAGs", lambda: flow.ask("GET", f"/api/v2/dags/{NAME}__release"))
        # What is done once in the life of an Airflow: the first requests build its API, the first tasks its workers.
        _ended(flow, f"/api/v2/dags/{NAME}__stage/dagRuns/{_start(flow, dry_run=True)}")
        marks = [_by_process(flow)]
        time.sleep(IDLE_SECONDS)
        marks.append(_by_process(flow))
        begin = time.monotonic()
        tasks = _run(flow)
        wall = time.monotonic() - begin
        marks.append(_by_process(flow))
    started, idle, ended = marks
    by_process = {name: round(ended[name] - idle[name], 2) for name in ended if name != "migrate"}
    return {"start_s": sum(started.values()), "idle_s": sum(idle.values()) - sum(started.values()),
            "idle_wall_s": IDLE_SECONDS, "run_s": sum(by_process.values()), "run_wall_s": wall, "tasks": tasks,
            "by_process": by_process}


def _by_process(flow: Any) -> dict[str, float]:
    """CPU seconds so far of each of Airflow's processes with what comes from it; tasks apart from their scheduler."""
    found = {name: cpu(process.pid) for name, process in flow.running.items()}
    scheduler = own_cpu(flow.running["scheduler"].pid)
    found["tasks"] = found["scheduler"] - scheduler
    found["scheduler"] = scheduler
    # What made the database has ended, and this process has waited for it.
    found["migrate"] = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    return found


def _run(flow: Any) -> int:
    """Start the stage DAG, answer the approval, wait for the release. Returns how many tasks succeeded."""
    run = _start(flow, dry_run=False)
    tasks = 0
    for step in DAGS:
        runs = f"/api/v2/dags/{NAME}__{step}/dagRuns"
        while not run:
            flow.check()
            run = next((one["dag_run_id"] for one in flow.ask("GET", runs)["dag_runs"]), "")
            time.sleep(0 if run else LOOK_SECONDS)
        tasks += _ended(flow, f"{runs}/{run}", asks=step == "release")
        run = ""
    return tasks


def _start(flow: Any, *, dry_run: bool) -> str:
    order = {"logical_date": None, "conf": {"dry_run": dry_run}}
    return str(flow.ask("POST", f"/api/v2/dags/{NAME}__stage/dagRuns", order)["dag_run_id"])


def _ended(flow: Any, run: str, *, asks: bool = False) -> int:
    """Wait for a run to succeed, approving what it asks. Returns how many of its tasks succeeded."""
    asked: set[int] = set()
    while (state := flow.ask("GET", run)["state"]) != "success":
        flow.check()
        if state == "failed":
            raise SystemExit("a run failed")
        waiting = flow.ask("GET", f"{run}/taskInstances?state=awaiting_input")["task_instances"] if asks else []
        for ti in waiting:
            if ti["try_number"] not in asked:
                asked.add(ti["try_number"])
                _approve(flow, f"{run}/taskInstances/{ti['task_id']}/-1/hitlDetails")
        time.sleep(LOOK_SECONDS)
    done = flow.ask("GET", f"{run}/taskInstances?limit=600")["task_instances"]
    return sum(ti["state"] == "success" for ti in done)


def _approve(flow: Any, path: str) -> None:
    from infra.demo.local_airflow import OFFICER

    time.sleep(4)       # an answer given while the asking process ends makes Airflow ask again
    digest = flow.ask("GET", path, user=OFFICER)["params"]["digest"]["value"]
    flow.ask("PATCH", path, {"chosen_options": ["Approve"], "params_input": {"digest": digest}}, user=OFFICER)


def child(way: str, project: Path, below: Path) -> dict[str, Any]:
    """Go one way and reap all that came of it, so that nothing that ran goes uncounted."""
    kernel = ctypes.CDLL(None)
    kernel.prctl(36, 1)                 # PR_SET_CHILD_SUBREAPER
    kernel.prctl(1, signal.SIGTERM)     # PR_SET_PDEATHSIG: nothing outlives the bench
    begin = time.monotonic()
    found = by_steps(project) if way == "steps" else by_airflow(project, below)
    with suppress(ChildProcessError):
        while True:
            os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {**found, "cpu_s": used.ru_utime + used.ru_stime, "wall_s": time.monotonic() - begin}


# ---- the whole ---------------------------------------------------------------------------------------------------
def measured(way: str, project: Path, below: Path) -> dict[str, Any]:
    env = {**os.environ, "TRE_KEY_DIR": str(project.parent)}
    command = [sys.executable, "-m", "infra.bench_airflow", "--child", way, str(project), str(below)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    memory = Memory(process.pid)
    assert process.stdout
    said = process.stdout.read()
    if process.wait():
        raise SystemExit(f"{way} failed")
    return {**json.loads(said.splitlines()[-1]), **memory.end()}


def bench(instances: int, below: Path) -> dict[str, Any]:
    from infra.bench_scale import landing

    with tempfile.TemporaryDirectory(dir=below) as made:
        folder = Path(made).resolve()
        landing(folder, instances)
        text = (folder / "project.toml").read_text()
        (folder / "project.toml").unlink()
        found, manifests = {}, {}
        for way in ("steps", "airflow", "again"):       # `tre run` before and after: a machine has its moods
            project = folder / way / "project.toml"
            project.parent.mkdir()
            for beside in ("crosswalk.csv", "permitted.csv", "episodes.csv", f"{NAME}.key"):
                os.link(folder / beside, project.parent / beside)
            project.write_text(re.sub(r'/(work|candidate|release)"$', rf'/{way}/\1"', text, flags=re.M))
            found[way] = measured("steps" if way == "again" else way, project, folder / way)
            print(f"  {way}: {found[way]['cpu_s']:.1f} CPU s", file=sys.stderr, flush=True)
            manifests[way] = [p.read_bytes() for p in (folder / way / "release").glob("*/releases/*/manifest.json")]
        if any(made != manifests["steps"] for made in manifests.values()) or len(manifests["steps"]) != 1:
            raise SystemExit("not every way ended with the same release")
        images = json.loads(manifests["steps"][0])["images"]["count"]
        if images != instances:
            raise SystemExit(f"{images} images of {instances} were published")
    return {"bench": "airflow", "instances": instances, **pages.machine(), **found}


# ---- the page ----------------------------------------------------------------------------------------------------
def page(line: dict[str, Any]) -> str:
    steps, again, air = line["steps"], line["again"], line["airflow"]
    alone = (steps["cpu_s"] + again["cpu_s"]) / 2
    more = air["run_s"] - alone
    share = more / air["run_s"]
    idle = air["idle_s"] / air["idle_wall_s"]
    each = alone / line["instances"]
    rows = [("`tre run`", steps["cpu_s"], steps["wall_s"], steps["one_mib"], steps["all_mib"]),
            ("the same by Airflow", air["run_s"], air["run_wall_s"], air["one_mib"], air["all_mib"]),
            ("`tre run` again", again["cpu_s"], again["wall_s"], again["one_mib"], again["all_mib"])]
    body = [f"| {name} | {used:.1f} | {wall:.0f} | {one:.0f} | {every:.0f} |" for name, used, wall, one, every in rows]
    split = [f"| {name} | {seconds:.1f} |" for name, seconds in
             sorted(air["by_process"].items(), key=lambda pair: -pair[1])]
    return "\n".join([
        "# What Airflow costs", "",
        f"`make bench-airflow`: {line['instances']:,} synthetic mammograms of 3 kB, staged, built, approved and "
        "published by `tre run`, and from the same landing by a real Airflow (LocalExecutor, SQLite) into zones of its "
        f"own; then by `tre run` again. All releases are the same bytes. {pages.of(line)}", "",
        "| | CPU s | wall s | largest process, MiB | all processes, MiB |", "| --- | ---: | ---: | ---: | ---: |",
        *body, "",
        f"**Airflow's share of the run is {share:.0%}** (over the mean of both runs without it); the aim is at most "
        f"{MOST_SHARE:.0%}. It is {more:.1f} CPU "
        f"seconds over {air['tasks']} tasks, {more / air['tasks']:.2f} a task, whatever the tasks do: a shard is one "
        f"task, whether it holds ten images or 20,000. At {each * 1000:.1f} ms an image, small as these are, the aim "
        f"is met from {round(more * (1 / MOST_SHARE - 1) / each, -3):,.0f} images a run.", "",
        "![CPU seconds with Airflow and without](airflow.svg)", "",
        "CPU seconds of the run by process; `tasks` are the workers of LocalExecutor with the steps that run in them. "
        "The scheduler's and the API server's grow with the time a run takes, too: both look around all the time.", "",
        "| process | CPU s |", "| --- | ---: |", *split, "",
        f"Apart from the run: Airflow takes {air['start_s']:.1f} CPU seconds to make its database, start, and run a "
        f"first DAG (a dry run), and {idle:.1%} of one core while it waits for something to do. `all processes` is the "
        "most at one moment, shared pages counted once (PSS).", ""])


def plot(line: dict[str, Any]) -> str:
    steps = (line["steps"]["cpu_s"] + line["again"]["cpu_s"]) / 2
    by = line["airflow"]["by_process"]
    parts = {"the steps": [steps, min(steps, by["tasks"])], "around the tasks": [0, max(0.0, by["tasks"] - steps)],
             "scheduler": [0, by["scheduler"]], "API server": [0, by["api-server"]],
             "DAG processor": [0, by["dag-processor"]]}
    return pages.stacked("airflow", ["tre run", "by Airflow"], parts, "CPU seconds")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-airflow", description=__doc__.split("\n\n")[0])
    parser.add_argument("--instances", type=int, default=INSTANCES, help="the page is written for the default alone")
    parser.add_argument("--below", type=Path, default=Path(".bench"), metavar="DIR",
                        help="where the zones stand; on tmpfs nothing waits for a disk")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        way, project, below = given.child
        sys.stdout.write(json.dumps(child(way, Path(project), Path(below))) + "\n")
        return 0
    given.below.mkdir(exist_ok=True)
    line = bench(given.instances, given.below)
    pages.keep("airflow", [line])
    text = page(line)
    if given.instances == INSTANCES:
        pages.write("airflow.md", text)
        pages.write("airflow.svg", plot(line))
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
