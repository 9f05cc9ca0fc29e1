"""A process that has loaded everything once and forks a child for each run of steps: a kill costs no import.

Requests come as lines of JSON on standard input: {"start": {…}} answers {"pid"}; {"wait": pid} answers {"code"} (minus
the signal, as subprocess says it). A child takes: `project`, `steps` (each a list: name, arguments), `env`, `fault`
(below), `out` (where its result goes, as JSON), `known` (a file that holds the validation of a candidate once found).
No line of the product knows of this: a child wraps its own store.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import pickle
import re
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

CHANGES = ("write", "create", "put_file", "adopt", "delete", "purge")
MOVES = ("write", "rename", "link", "unlink", "mkdir", "fsync")


def run(project: str, steps: list[list[Any]], known: str | None) -> list[Any]:
    from pipeline import steps as verbs

    if known:
        remember(Path(known))
    results: list[Any] = []
    for name, *given in steps:
        at.step = name
        if name == "deidentify" and not given:
            found: Any = [verbs.deidentify(project, s["batch"], s["shard"]) for s in verbs.pending_shards(project)]
        elif name == "approve":
            newest = verbs.newest_candidate(project)
            found = verbs.approve(project, newest["candidate"], newest["digest"], "officer", "engineer", "approve")
        elif name == "order_recall":
            found = verbs.order_recall(project, "withdrawn", "officer", "engineer", people=given)
        elif name == "tre":
            found = tre(given)
        else:
            found = getattr(verbs, name)(project, *given)
        results.append(found)
    return results


def tre(words: list[str]) -> int:
    """The command line, in this process; return its exit code."""
    from pipeline.cli import main

    sys.argv = ["tre", *words]
    try:
        main.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def remember(path: Path) -> None:
    """Let validation of the same tables be found once: Great Expectations is not what is killed here."""
    from pipeline.validate import run as room

    whole = room.validate

    def validate(*args: Any) -> Any:
        if not path.exists():
            path.write_bytes(pickle.dumps(whole(*args)))
        return pickle.loads(path.read_bytes())

    room.validate = validate


# ---- what a child does to itself -----------------------------------------------------------------------------------
at = SimpleNamespace(step="")
lock = threading.Lock()


def zone_of(store: Any) -> str:
    return str(store.url).rpartition("/")[2]


def wrap(around: Callable[[str, str, str, Callable[[], Any]], Any]) -> None:
    """Call `around(zone, method, key, act)` in place of every change of every file store."""
    from pipeline.storage.local import LocalStore

    for method in CHANGES:
        whole = getattr(LocalStore, method)

        def changed(self: Any, key: str, *args: Any, whole: Any = whole, method: str = method) -> Any:
            return around(zone_of(self), method, key, lambda: whole(self, key, *args))

        setattr(LocalStore, method, changed)


def recording(fault: dict[str, Any]) -> None:
    """Write each change as a line of JSON to `fault["to"]`."""
    def around(zone: str, method: str, key: str, act: Callable[[], Any]) -> Any:
        with lock, Path(fault["to"]).open("a") as out:
            out.write(json.dumps([at.step, zone, method, key]) + "\n")
        return act()

    wrap(around)


def dying(fault: dict[str, Any]) -> None:
    """Send this process `signal` before or after the nth change that fits: zone, method, key (a pattern)."""
    left = [fault.get("nth", 1)]

    def around(zone: str, method: str, key: str, act: Callable[[], Any]) -> Any:
        fits = (zone, method) == (fault["zone"], fault["method"]) and re.fullmatch(fault["key"], key)
        with lock:
            left[0] -= bool(fits)
            now = bool(fits) and left[0] == 0
        if now and fault["when"] == "before":
            end(fault)
        result = act()
        if now and fault["when"] == "after":
            end(fault)
        return result

    wrap(around)


def end(fault: dict[str, Any]) -> None:
    os.kill(os.getpid(), getattr(signal, fault.get("signal", "SIGKILL")))
    if fault.get("signal", "SIGKILL") == "SIGKILL":
        signal.pause()


class System:
    """The os module as the file store sees it, with some calls counted."""

    def __init__(self, change: Callable[[str, Callable[..., Any], tuple[Any, ...]], None]) -> None:
        self._change = change

    def __getattr__(self, name: str) -> Any:
        call = getattr(os, name)
        if name not in MOVES:
            return call

        def moved(*args: Any, **more: Any) -> Any:
            self._change(name, call, args)
            return call(*args, **more)

        return moved


def dying_anywhere(fault: dict[str, Any]) -> None:
    """Kill this process in place of its nth call that changes the disk; a write has half of its bytes written."""
    from pipeline.storage import local

    left = [fault["nth"]]

    def change(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> None:
        with lock:
            left[0] -= 1
            if left[0] == 0:
                if name == "write":
                    call(args[0], args[1][: len(args[1]) // 2])
                end(fault)

    local.os = System(change)  # type: ignore[assignment]
    if "count" in fault:
        at.count = lambda: fault["nth"] - left[0]


def full(fault: dict[str, Any]) -> None:
    """Let the disk of `zone` be full after `bytes` more bytes that the store writes."""
    from pipeline.storage import local

    root, left = Path(fault["root"]).resolve(), [fault["bytes"]]

    def change(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if name == "write" and root in Path(f"/proc/self/fd/{args[0]}").readlink().parents:
            with lock:
                if len(args[1]) > left[0]:
                    call(args[0], args[1][: left[0]])
                    left[0] = 0
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                left[0] -= len(args[1])

    local.os = System(change)  # type: ignore[assignment]


def small_files(fault: dict[str, Any]) -> None:
    """Let the kernel refuse what makes any file longer than `bytes`."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (fault["bytes"], resource.RLIM_INFINITY))


def no_lease(_: dict[str, Any]) -> None:
    """As when two publishers both believe that they hold it."""
    from pipeline.storage import lease

    lease.hold = lambda *_, **__: contextlib.nullcontext()


FAULTS = {f.__name__: f for f in (recording, dying, dying_anywhere, full, small_files, no_lease)}


# ---- a child -------------------------------------------------------------------------------------------------------
class Inline:
    """A publisher in this process, in place of one of its own, so that it is this process that dies."""

    def __init__(self, command: list[str], *, env: dict[str, str], **_: Any) -> None:
        from pipeline import publisher

        said, before = io.StringIO(), dict(os.environ)
        os.environ.clear()
        os.environ.update(env)
        try:
            with contextlib.redirect_stdout(said):
                self.returncode = publisher.main(command[3:])
        finally:
            os.environ.clear()
            os.environ.update(before)
        self._said = said.getvalue()

    def communicate(self) -> tuple[str, None]:
        return self._said, None


def alone() -> None:
    """Publish in this process, not in a child: it is this one that is broken."""
    from pipeline.publish import process

    process.subprocess = SimpleNamespace(Popen=Inline, DEVNULL=None, PIPE=None)  # type: ignore[assignment]


def impatient() -> None:
    """Try a request again at once."""
    import botocore.endpoint

    botocore.endpoint.time = SimpleNamespace(sleep=lambda _: None)


def child(order: dict[str, Any]) -> None:
    os.setpgid(0, 0)
    log = os.open(f"{order['out']}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    os.environ.update(order.get("env", {}))
    alone()
    impatient()
    if fault := order.get("fault"):
        FAULTS[fault["kind"]](fault)
    answer: dict[str, Any]
    try:
        answer = {"results": run(order["project"], order["steps"], order.get("known"))}
        code = 0
    except Exception as error:
        traceback.print_exc()
        answer = {"error": type(error).__name__, "said": str(error), "exit": getattr(error, "exit_code", None)}
        code = 1
    if hasattr(at, "count"):
        answer["count"] = at.count()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    Path(order["out"]).write_text(json.dumps(answer, default=str))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    import gc

    import boto3  # noqa: F401
    import deid.config  # noqa: F401
    import duckdb  # noqa: F401
    import great_expectations  # noqa: F401
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.dataset
    import pyarrow.pandas_compat  # noqa: F401

    import pipeline.cli.main
    import pipeline.curate.build
    import pipeline.deidentify.assemble
    import pipeline.deidentify.clinical
    import pipeline.deidentify.shard
    import pipeline.ledger.ledger
    import pipeline.publish.process
    import pipeline.publish.release
    import pipeline.publisher
    import pipeline.stage.run
    import pipeline.steps
    import pipeline.storage.local
    import pipeline.storage.s3
    import pipeline.validate.run  # noqa: F401

    gc.freeze()  # or each child's collector would copy all that is shared
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            if not (pid := os.fork()):
                try:
                    child(order["start"])
                finally:
                    os._exit(99)
            answer = {"pid": pid}
        else:
            answer = {"code": os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
