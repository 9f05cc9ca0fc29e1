"""Locking again gives the same requirements: pyproject.toml and the lock agree, and the lock is complete."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).parent / "uv"
OPTIONS = ("--quiet", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url", "--no-header")
RUNS = (
    ("pyproject.toml", "--output-file", "requirements/run.txt"),
    (
        "pyproject.toml", "--extra", "dev", "--constraint", "requirements/run.txt",
        "--output-file", "requirements/dev.txt",
    ),
    ("requirements/demo-s3.in", "--output-file", "requirements/demo-s3.txt"),
)


@pytest.mark.integration
def test_locking_again_gives_no_difference(tmp_path):
    """Pins stay because uv prefers those of the output file; so only a changed pyproject.toml can move them."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for run in RUNS:
        done = subprocess.run(
            [UV, "pip", "compile", *OPTIONS, *run], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        if done.returncode and any(word in done.stderr for word in ("dns", "connect", "network", "Failed to fetch")):
            pytest.skip("the package index cannot be reached from here")
        assert done.returncode == 0, done.stderr
    for path in sorted((ROOT / "requirements").iterdir()):
        again = (tmp_path / "requirements" / path.name).read_text()
        assert again == path.read_text(), f"requirements/{path.name} differs: run make lock and commit"


def test_every_pin_has_a_hash():
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        text = path.read_text().replace("\\\n", "")
        for line in filter(None, text.splitlines()):
            if not line.lstrip().startswith("#"):
                assert "==" in line and "--hash=sha256:" in line, f"{path.name}: {line[:60]}"


def test_the_makefile_locks_as_this_test_does():
    makefile = (ROOT / "Makefile").read_text()
    assert all(option in makefile for option in OPTIONS)
    for source, *options in RUNS:
        assert f"$(LOCK) {source} {' '.join(options)}" in makefile
