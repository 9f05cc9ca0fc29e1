"""The house keeps its rules: what an import loads, what every code means, what no file of the repository may hold."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import errors
from pipeline.model import REASONS, TRANSITIONS, Reason, Status

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("airflow", "great_expectations", "pandas", "matplotlib", "pynetdicom", "rapidocr", "rapidocr_onnxruntime")


def modules_after(statement: str) -> set[str]:
    """Return the top-level modules a fresh interpreter holds after the statement."""
    script = f"{statement}\nimport sys\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def errors_below(kind: type[errors.TreError]) -> list[type[errors.TreError]]:
    """The tree of pipeline/errors.py; a store may have a private case of one of them, under its code."""
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [kind, *(below for child in children for below in errors_below(child))]


def test_steps_and_cli_load_no_room():
    loaded = modules_after("import pipeline.steps, pipeline.cli.main")
    assert not loaded & set(HEAVY)
    assert "pipeline" in loaded


def test_the_cli_alone_loads_nothing_heavy():
    loaded = modules_after("import pipeline.cli.main")
    assert not loaded & {*HEAVY, "pyarrow", "duckdb", "boto3", "botocore", "pydicom", "deid", "numpy"}


def test_every_reason_has_a_status_and_a_meaning():
    assert set(REASONS) == set(Reason)
    for reason, (status, meaning) in REASONS.items():
        assert isinstance(status, Status), reason
        assert meaning.endswith(".") and len(meaning) > 20, reason


def test_every_status_has_its_transitions_and_can_be_reached():
    assert set(TRANSITIONS) == {None, *Status}
    assert set().union(*TRANSITIONS.values()) == set(Status)


def test_a_fate_of_staging_is_reached_from_the_listing():
    """What a reason of admission leads to must be a first state, or one that pending leads to."""
    for reason, (status, _) in REASONS.items():
        assert any(status in TRANSITIONS[start] for start in (None, Status.PENDING, Status.PUBLISHED)), reason


def test_error_codes_and_exit_codes_are_unique():
    kinds = errors_below(errors.TreError)
    assert len({k.code for k in kinds}) == len(kinds)
    assert len({k.exit_code for k in kinds}) == len(kinds)
    assert all(0 < k.exit_code < 126 for k in kinds)
    assert all((k.__doc__ or "").strip() for k in kinds)


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.split("\0") if name]


# Put together here, so that this file does not hold what it looks for.
FORBIDDEN = {
    "a package registry": r"(pypi\.|files\.python" + r"hosted|index" + r"-url\s*[=:]\s*\S|://[^\s\"']*/simple\b)",
    "a path of somebody's machine": r"(?<![\w$}.])/(" + "|".join(("work", "home", "Users", "root")) + r")/[A-Za-z.]",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE" + r" KEY-----",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_tracked_file_names(what):
    found = []
    for path in tracked():
        if not path.is_file() or path.suffix in (".dcm", ".parquet", ".png"):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for match in re.finditer(FORBIDDEN[what], text):
            found.append(f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}")
    assert not found
