"""`make bench-retrieve`: images received by `tre listen`, DCMTK's storescp and Orthanc, from the same senders.

Four storescu processes (DCMTK) each send their own folder of 0.5 MB instances over one association; wall time is from
the start of the first to the end of the last, the starting of the receiver left out. CPU and memory are the receiver's,
its children included. Every receiver stores every instance, or the run fails. Writes docs/benchmarks/retrieve.md and
.svg, and appends to .bench/retrieve.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra import bench_pages as pages

ASSOCIATIONS, EACH = 4, 300
LIMIT = 300         # MB of memory
TICK = os.sysconf("SC_CLK_TCK")
LISTEN = """
[listen]
ae_titles = ["TRE"]
callers = ["STORESCU"]
addresses = ["127.0.0.0/8"]
port = {port}
health = ""
"""
ORTHANC = {
    "Name": "bench", "RemoteAccessAllowed": False, "HttpServerEnabled": False, "DicomServerEnabled": True,
    "DicomAet": "TRE", "DicomCheckCalledAet": False, "DicomAlwaysAllowStore": True, "Plugins": [], "ConcurrentJobs": 1,
    "StorageCompression": False, "DicomThreadsCount": ASSOCIATIONS,
}
STOCK = """
import hashlib, os, sys
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, evt
_config.LOG_HANDLER_LEVEL = "none"
def store(event):
    data = event.encoded_dataset()
    with open(os.path.join(sys.argv[2], hashlib.sha256(data).hexdigest() + ".dcm"), "wb") as out:
        out.write(data)
    return 0
ae = AE("TRE")
ae.maximum_pdu_size, ae.maximum_associations = 131072, 25
for context in AllStoragePresentationContexts:
    ae.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
ae.start_server(("127.0.0.1", int(sys.argv[1])), block=True, evt_handlers=[(evt.EVT_C_STORE, store)])
"""


# ---- receivers: (folder, port) → command, environment ------------------------------------------------------------
Command = tuple[list[str], dict[str, str]]


def _listen(folder: Path, port: int) -> Command:
    from pipeline.synthetic.project import project_text

    zones = (f"file://{folder / zone}" for zone in ("landing", "work", "candidate", "release"))
    project = folder / "project.toml"
    project.write_text(project_text(*zones) + LISTEN.format(port=port))
    return [sys.executable, "-c", "from pipeline.cli.main import main; main()", "listen", str(project)], {}


def _unflushed(folder: Path, port: int) -> Command:
    command = _listen(folder, port)[0]
    command[2] = "import os; os.fsync = lambda descriptor: None; " + command[2]
    return command, {}


def _storescp(folder: Path, port: int) -> Command:
    (folder / "landing").mkdir()
    return ["storescp", "--fork", "+B", "-od", str(folder / "landing"), "-aet", "TRE", str(port)], {}


def _storescp_tuned(folder: Path, port: int) -> Command:
    return _storescp(folder, port)[0], {"TCP_NODELAY": "1"}


def _storescp_nothing(folder: Path, port: int) -> Command:
    return ["storescp", "--fork", "--ignore", "-aet", "TRE", str(port)], {"TCP_NODELAY": "1"}


def _orthanc(folder: Path, port: int) -> Command:
    made = folder / "orthanc.json"
    store = str(folder / "landing")
    made.write_text(json.dumps({**ORTHANC, "DicomPort": port, "StorageDirectory": store, "IndexDirectory": store}))
    return [shutil.which("Orthanc") or "/usr/sbin/Orthanc", str(made)], {"TCP_NODELAY": "1"}


def _pynetdicom(folder: Path, port: int) -> Command:
    (folder / "landing").mkdir()
    return [sys.executable, "-c", STOCK, str(port), str(folder / "landing")], {}


RECEIVERS: dict[str, tuple[Callable[[Path, int], Command], str]] = {
    "tre listen": (_listen, "file and name flushed before each yes; named by SHA-256"),
    "tre listen, unflushed": (_unflushed, "nothing flushed: not to be had, only to compare"),
    "storescp": (_storescp_tuned, "nothing flushed; `--fork +B`, `TCP_NODELAY=1` in its environment"),
    "storescp as installed": (_storescp, "nothing flushed; `--fork +B`: each answer waits for a late acknowledgement"),
    "Orthanc": (_orthanc, "file flushed (its default), index in SQLite"),
    "pynetdicom's own server": (_pynetdicom, "nothing flushed; the handler hashes and writes"),
    "storescp --ignore": (_storescp_nothing, "keeps nothing: what these senders can do at most"),
}


# ---- one run -----------------------------------------------------------------------------------------------------
def make(folder: Path, each: int) -> int:
    """Write `each` instances of 0.5 MB for each association; return the size of one."""
    from pipeline.synthetic import files

    first = f"2.25.{10**20}"
    whole = files.mammogram(rows=512, columns=512, planted=False, sop_instance_uid=first)
    for a in range(ASSOCIATIONS):
        (folder / str(a)).mkdir()
        for n in range(each):
            name = f"2.25.{10**20 + a * each + n}"
            (folder / str(a) / f"{n:05d}.dcm").write_bytes(whole.replace(first.encode(), name.encode()))
    return len(whole)


def run(name: str, sent: Path, each: int, below: Path) -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(dir=below) as scratch:
        folder = Path(scratch).resolve()
        command, environment = RECEIVERS[name][0](folder, port)
        receiver = subprocess.Popen(command, env={**os.environ, **environment}, start_new_session=True,
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _ready(port)
            os.sync()
            peak, done = [0.0], threading.Event()
            watch = threading.Thread(target=_watch, args=(receiver.pid, peak, done))
            watch.start()
            cpu, begin = _cpu(receiver.pid), time.perf_counter()
            senders = [subprocess.Popen(["storescu", "-aec", "TRE", "127.0.0.1", str(port), "+sd", str(sent / str(a))],
                                        stdout=subprocess.DEVNULL) for a in range(ASSOCIATIONS)]
            failed = [sender.wait() for sender in senders]
            wall = time.perf_counter() - begin
            time.sleep(1.2)     # children end, and are counted
            cpu = _cpu(receiver.pid) - cpu
            done.set()
            watch.join()
            if any(failed):
                raise SystemExit(f"{name}: storescu ended with {failed}")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(receiver.pid, signal.SIGTERM)
            receiver.wait()
        instances = ASSOCIATIONS * each
        _all_stored(name, folder / "landing", instances)
    return {"bench": "retrieve", "subject": name, "instances": instances, "wall_s": round(wall, 3),
            "per_s": round(instances / wall, 1), "cpu_ms": round(cpu / instances * 1000, 3), "peak_mb": round(peak[0])}


def _all_stored(name: str, landing: Path, instances: int) -> None:
    if name == "storescp --ignore":
        return
    found = sum(1 for p in landing.rglob("*") if p.is_file() and p.stat().st_size > 100_000 and "index" not in p.name)
    if found != instances:
        raise SystemExit(f"{name} stored {found} of {instances} instances")


def _ready(port: int) -> None:
    for _ in range(300):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            time.sleep(1)
            return
        time.sleep(0.1)
    raise SystemExit("A receiver did not start.")


def _cpu(pid: int) -> float:
    """Return seconds of user and system time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICK


def _watch(pid: int, peak: list[float], done: threading.Event) -> None:
    """Keep the most memory, in MB, that the receiver and its children hold together; shared pages are shared out."""
    while not done.wait(0.1):
        total = 0
        for group in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ValueError):
                if os.getpgid(int(group.name)) == pid:
                    total += int((group / "smaps_rollup").read_text().partition("\nPss:")[2].split()[0])
        peak[0] = max(peak[0], total * 1024 / 1e6)


# ---- the page ----------------------------------------------------------------------------------------------------
def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-retrieve", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="each receiver this often, in turn; the median counts")
    parser.add_argument("--each", type=int, default=EACH, help="instances an association")
    parser.add_argument("--below", type=Path, default=pages.ROOT / ".bench", help="where the receivers store")
    parser.add_argument("--receivers", nargs="*", default=list(RECEIVERS), choices=list(RECEIVERS))
    given = parser.parse_args()
    if missing := [tool for tool in ("storescu", "storescp") if not shutil.which(tool)]:
        raise SystemExit(f"{missing[0]} is not at hand: apt install dcmtk orthanc")
    orthanc = shutil.which("Orthanc") or Path("/usr/sbin/Orthanc").exists()
    names = [name for name in given.receivers if name != "Orthanc" or orthanc]
    given.below.mkdir(exist_ok=True)
    machine = pages.machine()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(dir=given.below) as scratch:
        sent = Path(scratch)
        size = make(sent, given.each)
        for _ in range(given.rounds):
            for name in names:
                found[name].append(one := run(name, sent, given.each, given.below))
                print(f"{name:<26} {one['per_s']:>7.1f}/s  {one['cpu_ms']:.2f} ms CPU  {one['peak_mb']} MB", flush=True)
    lines = {name: {**machine, **sorted(every, key=lambda one: one["per_s"])[len(every) // 2],
                    "slowest": min(one["per_s"] for one in every), "fastest": max(one["per_s"] for one in every),
                    "peak_mb": max(one["peak_mb"] for one in every),
                    "cpu_ms": statistics.median(one["cpu_ms"] for one in every), "size": size}
             for name, every in found.items()}
    pages.keep("retrieve", lines.values())
    text = page(lines, given.rounds)
    if names == list(RECEIVERS):
        pages.write("retrieve.md", text)
        pages.write("retrieve.svg", pages.grouped(
            "retrieve", list(lines), {"instances a second": [one["per_s"] for one in lines.values()]},
            "instances of 0.5 MB a second, four associations", form="{:,.0f}"))
    print(text)
    return 0


def page(lines: dict[str, dict[str, Any]], rounds: int) -> str:
    some = next(iter(lines.values()))
    body = [f"| {name} | {one['per_s']:,.0f} | {one['slowest']:,.0f}–{one['fastest']:,.0f} | "
            f"{one['per_s'] * one['size'] / 1e6:,.0f} | {one['cpu_ms']:.2f} | {one['peak_mb']:,} | "
            f"{RECEIVERS[name][1]} |"
            for name, one in lines.items()]
    ours = lines.get("tre listen")
    aim = []
    if ours and {"storescp", "storescp as installed", "tre listen, unflushed"} <= lines.keys():
        rate = {name: one["per_s"] for name, one in lines.items()}
        aim = [f"- Aims: at least storescp's rate, within {LIMIT} MB ({ours['peak_mb']} MB). `tre listen` is "
               f"{rate['tre listen'] / rate['storescp as installed']:.1f} × storescp as Debian installs it, and "
               f"{rate['tre listen'] / rate['storescp']:.2f} × storescp with its delay taken away, which flushes "
               f"nothing; without its own flushes it is {rate['tre listen, unflushed'] / rate['storescp']:.2f} × that. "
               "Two flushes an image, and whoever else writes to the disk, are the difference."]
    return "\n".join([
        "# Being sent images", "",
        f"`make bench-retrieve`: {some['instances']:,} instances of {some['size'] / 1e6:.2f} MB over {ASSOCIATIONS} "
        f"associations, from as many storescu processes on the same machine; {rounds} rounds in turn (the median; the "
        f"slowest and the fastest). CPU and memory are the receiver's. {pages.of(some)}", "",
        "| receiver | instances/s | range | MB/s | CPU ms an instance | peak MB | before it says yes |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |", *body, "",
        "![Instances a second](retrieve.svg)", "",
        "- The senders share the cores with the receiver. `storescp --ignore` tells what they can do at most: no "
        "receiver's figure means more than that one.", *aim, ""])


if __name__ == "__main__":
    sys.exit(main())
