"""What David Clunie's dciodvfy (Debian: dicom3tools) says of real files before and after: no new class of error, but
for those that follow from what a recipe takes away on purpose. pydicom and DCMTK's dcmdump read every one."""

import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import pydicom
import pytest
from test_recipes import CORPUS, SETS, SUBJECT, real

from pipeline.deidentify import engine
from pipeline.deidentify.linter import read
from pipeline.deidentify.plan import compile_rules
from pipeline.dicom.file import CHUNK, scan
from pipeline.model import Refusal

ON_PURPOSE = {
    "ContentDate": "a date that is nobody's, such as 1900-01-01, goes: moved, it would tell a person's days",
    "ContentTime": "times go unless the project keeps them",
    "ExposureControlModeDescription": "free text",
    "MultiCoilDefinitionSequence": "its elements have names that people give",
    "Laterality": "the header says none, and dciodvfy asks for it only once it reads that far",
}
LARGEST = 20 << 20


def errors(path: str | Path) -> set[str]:
    """Return classes of error: without values, numbers of items and UIDs."""
    said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", check=False).stderr
    lines = (re.sub(r"\s+", " ", line) for line in said.splitlines() if line.startswith("Error"))
    return {re.sub(r"<[\d.]+>|(Value|value|is) ?= ?<[^>]*>|\[\d+\]|\"[^\"]*\"|\d{3,}", "#", line) for line in lines}


@pytest.mark.corpus
def test_real_files_show_no_new_class_of_error(monkeypatch: pytest.MonkeyPatch) -> None:
    if not CORPUS.is_dir():
        pytest.skip("the corpus is not here: set TRE_CORPUS")
    if not shutil.which("dciodvfy"):
        pytest.skip("dciodvfy is not here: apt install dicom3tools")
    monkeypatch.setattr(engine, "treat", lambda *_: None)       # pixels aside
    plans = {name: compile_rules(read(one), keep_times=False) for name, one in SETS.items()}
    looked, new, unread = 0, Counter[str](), list[str]()
    dcmdump = shutil.which("dcmdump")
    for path, recipe, reason in real(CORPUS):
        # a segmented palette, which rules for pixels refuse
        if reason is not None or path.stat().st_size > LARGEST or path.name == "gdcm-US-ALOKA-16.dcm":
            continue
        data = path.read_bytes()
        fd = os.open(path, os.O_RDONLY)
        try:
            source = scan(fd, len(data), data[:CHUNK])
            out = engine.transform(source, plans[recipe], SUBJECT)[0]
        except Refusal:
            continue
        finally:
            os.close(fd)
        if source.pixel is not None:
            out += (source.head if source.inflated else data)[source.pixel[3]:source.pixel_end]
        with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
            file.write(out)
            file.flush()
            new.update(errors(file.name) - errors(path))
            assert str(pydicom.dcmread(file.name)), "pydicom decodes every element"
            if dcmdump and subprocess.run([dcmdump, "-q", file.name], capture_output=True, check=False).returncode:
                unread.append(path.name)
        looked += 1
    print(f"\n{looked} files; new classes of error: {dict(new)}")
    assert looked > 200 and unread == []
    named = {error: re.search(r"Element=<(\w+)>", error) for error in new}
    assert {match[1] if match else error for error, match in named.items()} <= set(ON_PURPOSE)
