"""`make bench-peers`: CPU of other de-identifiers over the same files, in one run.

deid, dicom-anonymizer and dicognito (PyPI), gdcmanon and dcmodify (Debian's libgdcm-tools and dcmtk; left out where
they are not installed), each at its own defaults, in a process of its own over a folder of copies of one object. Two
sizes of folder, and their difference, so that nobody's start counts. What each of them leaves in the file is not
compared here: see docs/recipes.md and `tre recipe test` for what ours does. Writes docs/benchmarks/peers.md.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from infra import bench, bench_pages

FEW = {"ct": (20, 620), "mg": (2, 12)}      # objects of the small folder and of the large one: starts differ by 50 ms
ENV = Path(".venv-peers/bin")
DUMB = ("10,10", "10,20", "10,30", "8,80", "8,90", "8,1070", "20,10", "8,50")     # what two are told to empty
ROUNDS = 3


def commands(case: str, source: Path, target: Path) -> dict[str, list[str]]:
    """Return by subject what to run over the folder `source`, into `target`."""
    own = [sys.executable, "-m", "infra.bench_peers", "--child"]
    every = [str(path) for path in sorted(source.iterdir())]
    found = {
        "engine": [*own, "engine", case, str(source), str(target)],
        "all in": [*own, "all in", case, str(source), str(target)],
        "deid": [*own, "deid", case, str(source), str(target)],
        "dicom-anonymizer": [str(ENV / "dicom-anonymizer"), str(source), str(target)],
        "dicognito": [str(ENV / "python"), "-m", "dicognito", "-q", "-o", str(target), *every],
    }
    if shutil.which("gdcmanon"):
        found["gdcmanon"] = ["gdcmanon", "-e", "-c", str(source.parent / "certificate.pem"), "-r",
                             "-i", str(source), "-o", str(target)]
        found["gdcmanon --dumb"] = ["gdcmanon", "--dumb", "-r", *(w for tag in DUMB for w in ("--empty", tag)),
                                    "-i", str(source), "-o", str(target)]
    if shutil.which("dcmodify"):
        tags = (tag.split(",") for tag in DUMB)
        found["dcmodify"] = ["dcmodify", "-nb", "-imt", *(
            w for group, element in tags for w in ("-ma", f"({group:0>4},{element:0>4})=")), *every]
    return found


def child(name: str, case: str, source: Path, target: Path) -> None:
    """Treat as many objects as the folder holds by one of our own subjects, or by deid."""
    paths = sorted(source.iterdir())
    once = bench.subject(name, case, paths[0], target)
    for number in range(len(paths)):
        once(number)


def measured(case: str, below: Path) -> dict[str, list[float]]:
    """Return by subject the CPU milliseconds an object of each round."""
    found: dict[str, list[float]] = {}
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=bench", "-keyout",
                    str(below / "key.pem"), "-out", str(below / "certificate.pem")], check=True, capture_output=True)
    one = below / f"{case}.dcm"
    bench.make(case, one)
    for _ in range(ROUNDS):
        spent: dict[str, list[float]] = {}
        for many in FEW[case]:
            for name in commands(case, below, below):
                with tempfile.TemporaryDirectory(dir=below) as folder:
                    source, target = Path(folder, "in"), Path(folder, "out")
                    source.mkdir()
                    target.mkdir()
                    shutil.copyfile(below / "certificate.pem", Path(folder, "certificate.pem"))
                    for number in range(many):
                        shutil.copyfile(one, source / f"{number:04}.dcm")
                    spent.setdefault(name, []).append(_cpu(commands(case, source, target)[name]))
        for name, (small, large) in spent.items():
            found.setdefault(name, []).append((large - small) / (FEW[case][1] - FEW[case][0]) * 1000)
    return found


def _cpu(command: list[str]) -> float:
    """Return the CPU seconds of a command and all that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{Path(command[0]).name} ended with {done.returncode}: {done.stderr[-300:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def page(found: dict[str, dict[str, list[float]]]) -> str:
    machine = bench_pages.machine()
    names = list(dict.fromkeys(name for case in found.values() for name in case))
    cells = {(case, name): sorted(rounds)[len(rounds) // 2]
             for case, by in found.items() for name, rounds in by.items()}
    lines = [
        "# Beside others", "",
        "`make bench-peers`: CPU milliseconds an object, user and system, of the same files; each subject at its own "
        f"defaults, its start taken off. {ROUNDS} rounds (the median; least and most in brackets). "
        f"{bench_pages.of(machine)}", "",
        "| | " + " | ".join(bench.ABOUT[case] for case in found) + " |", "| --- |" + " ---: |" * len(found)]
    for name in names:
        row = [f"{cells[case, name]:,.2f} ({min(found[case][name]):,.2f}–{max(found[case][name]):,.2f})"
               if (case, name) in cells else "–" for case in found]
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    versions = ", ".join(_version(command) for command in (["gdcmanon", "--version"], ["dcmodify", "--version"])
                         if shutil.which(command[0]))
    return "\n".join([*lines, "", "![CPU milliseconds an object](peers.svg)", "",
                      "What is done differs. `engine` reads, hashes and rewrites, `all in` is the product's whole way "
                      "(see engine.md). `gdcmanon` replaces what its profile names and encrypts what it took; "
                      "`gdcmanon --dumb` and `dcmodify` (in place) empty eight elements and copy the rest. The engine "
                      "keeps only what a recipe names, at every depth, and hashes what it reads. Text in "
                      f"pixels is looked for by none here; what that costs stands in ../pixels.md. {versions}", ""])


def _version(command: list[str]) -> str:
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    return (said.stdout or said.stderr).splitlines()[0].strip("$ ")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-peers", description=__doc__.split("\n\n")[0])
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        from pipeline.observe import quiet

        quiet()
        name, case, source, target = given.child
        child(name, case, Path(source), Path(target))
        return 0
    Path(".bench").mkdir(exist_ok=True)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(dir=".bench") as below:
        found = {case: measured(case, Path(below).resolve()) for case in FEW}
    text = page(found)
    bench_pages.write("peers.md", text)
    bench_pages.write("peers.svg", bench_pages.grouped(
        "peers", [name.replace(" ", "\n").replace("-anon", "-\nanon") for name in found["ct"]],
        {bench.ABOUT[case]: [sorted(rounds)[ROUNDS // 2] for rounds in by.values()] for case, by in found.items()},
        "CPU milliseconds an object, logarithmic", log=True, form="{:,.3g}"))
    sys.stdout.write(f"{text}\n{time.monotonic() - begin:.0f} seconds\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
