"""The golden set: what the shipped recipes make of fixed objects under a fixed key, element by element.

`make golden` tells by attribute what an upgrade of pydicom, deid or the engine, or a changed recipe, would change in
the bytes that come out; `make golden ACCEPT=1` makes today's output the one to compare with. Nobody in the objects
exists.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline import trial
from pipeline.deidentify import concepts as concept_rules
from pipeline.deidentify import pixel_rules
from pipeline.deidentify.linter import confidentiality_profile, read
from pipeline.deidentify.plan import ENGINE_VERSION, Plan, compile_rules
from pipeline.model import Refusal
from pipeline.observe import quiet
from pipeline.synthetic import answer_key, files
from pipeline.synthetic.asked import Planted
from pipeline.synthetic.read_back import dataset

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden.json"
RENEW = "If that is what you meant, run `make golden ACCEPT=1` and commit tests/golden.json."
# Whole objects beside the answer key's, in the syntaxes that hospitals send: by the recipe that they go with.
OBJECTS = {
    "ct.dicom": {"ct": files.ct()},
    "mammography.dicom": {"mammogram": files.mammogram(), "mammogram, implicit": files.mammogram(
        transfer_syntax="implicit"), "mammogram, big endian": files.mammogram(transfer_syntax="big"),
        "mammogram, deflated": files.mammogram(transfer_syntax="deflated"), "mammogram, RLE": files.mammogram(
        transfer_syntax="rle"), "tomosynthesis": files.tomosynthesis()},
    "sc.dicom": {"secondary capture": files.secondary_capture()},
    "dose_report.toml": {"dose report": files.dose_report()}, "mammography_cad.toml": {"CAD report": files.cad()},
}


def versions() -> dict[str, str]:
    """Return what the bytes depend on beside the recipes."""
    return {"engine": ENGINE_VERSION, "pydicom": version("pydicom"), "deid": version("deid"),
            "python": f"{sys.version_info.major}.{sys.version_info.minor}"}


def make() -> dict[str, Any]:
    """Return the golden set as of now: {"versions": …, "sets": {set: {object: {tag: digest}}}}."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    with tempfile.TemporaryDirectory(prefix="tre-golden-") as folder:
        for paths in trial.shipped():
            texts, tomls = concept_rules.split([str(path) for path in paths])
            concepts = concept_rules.read(tomls[0]) if tomls else None
            plan = compile_rules(read(texts), keep_times=False, concepts=concepts, pixels=pixel_rules.read(texts),
                                 policy=trial.READER)
            bench = trial.Bench(Path(folder), plan)
            found[" + ".join(path.name for path in paths)] = {
                one.name: _digests(bench.rewrite(one, plan)) for one in _objects(plan, paths[-1].name)}
    return {"versions": versions(), "sets": found}


def _objects(plan: Plan, name: str) -> Iterator[Planted]:
    """The answer key of one person, of a report in parts; then whole objects."""
    yield from answer_key.make(trial.claims_of(plan), sorted(confidentiality_profile()), 1)
    for what, data in OBJECTS.get(name, {}).items():
        yield Planted(what, 0, data)


def _digests(out: bytes | Refusal) -> dict[str, str]:
    """Return tag → eight hexadecimal digits of the element's SHA-256, of the top level's elements and of the meta
    information, and of all of the file under "file"."""
    if isinstance(out, Refusal):
        return {"refused": out.reason.value}
    ds = dataset(out)
    found = {"file": hashlib.sha256(out).hexdigest()[:16]}
    for level in (ds.file_meta, ds):
        for tag in level.keys():  # noqa: SIM118 - it iterates over converted elements
            element = level.get_item(tag)
            if element.VR == "SQ" or not isinstance(element.value, bytes):
                element = level[tag]
            text = element.value if isinstance(element.value, bytes) else repr(element).encode()
            found[f"{int(tag):08X}"] = hashlib.sha256(f"{element.VR}".encode() + text).hexdigest()[:8]
    return found


def differences(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what changed, a line each: versions, sets, objects, attributes."""
    lines = [f"{name}: accepted under {was['versions'].get(name, 'none')}, now {found}"
             for name, found in now["versions"].items() if was["versions"].get(name) != found]
    before, after = was["sets"], now["sets"]
    for name in sorted({*before, *after}):
        if name not in before or name not in after:
            lines.append(f"{name}: {'new' if name in after else 'gone'}")
            continue
        for what in sorted({*before[name], *after[name]}):
            one, other = before[name].get(what), after[name].get(what)
            if one is None or other is None:
                lines.append(f"{name}, {what}: {'new' if one is None else 'gone'}")
            elif one != other:
                tags = sorted(tag for tag in {*one, *other} if one.get(tag) != other.get(tag) and tag != "file")
                said = [_said(tag, one, other) for tag in tags] or ["bytes outside any element"]
                lines.append(f"{name}, {what}: {', '.join(said)}")
    return lines


def _said(tag: str, was: dict[str, str], now: dict[str, str]) -> str:
    what = "changed" if tag in was and tag in now else "added" if tag in now else "gone"
    return f"{answer_key.name_of(int(tag, 16)) if tag != 'refused' else now.get(tag, 'no longer refused')} {what}"


def load() -> dict[str, Any]:
    """Return the accepted set; an empty one where there is none yet."""
    if not GOLDEN.is_file():
        return {"versions": {}, "sets": {}}
    doc: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="ascii"))
    doc["sets"] = {name: {what: dict(pair.split(":") for pair in text.split()) for what, text in objects.items()}
                   for name, objects in doc["sets"].items()}
    return doc


def save(golden: dict[str, Any]) -> None:
    """Write the set, an object a line, so that a diff names it."""
    sets = {name: {what: " ".join(map(":".join, found.items())) for what, found in objects.items()}
            for name, objects in golden["sets"].items()}
    GOLDEN.write_text(json.dumps({**golden, "sets": sets}, indent=1) + "\n", encoding="ascii")


def main() -> int:
    quiet()
    now = make()
    lines = differences(load(), now)
    for line in lines:
        print(line)
    objects = sum(map(len, now["sets"].values()))
    if os.environ.get("ACCEPT") == "1":
        save(now)
        print(f"accepted: {objects} objects under {len(now['sets'])} recipe sets, {GOLDEN.stat().st_size:,} bytes")
        return 0
    print(RENEW if lines else f"{objects} objects under {len(now['sets'])} recipe sets: nothing changed")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
