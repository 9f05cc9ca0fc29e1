"""One process that forks, and one undisturbed run, for all tests of faults."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import faults_kit
import pytest


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[faults_kit.Zygote]:
    with faults_kit.zygote(tmp_path_factory.mktemp("children")) as made:
        yield made


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where there is one: thousands of files are flushed here, and no test pulls the plug."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 1 << 29:
        yield tmp_path_factory.mktemp("faults")
        return
    with tempfile.TemporaryDirectory(prefix="tre-faults-", dir=memory) as made:
        yield Path(made)


@pytest.fixture(scope="session")
def bench(zygote: faults_kit.Zygote, folder: Path) -> faults_kit.Bench:
    """Every test puts it back first (`restore`, `before`); they run one after another."""
    return faults_kit.undisturbed(faults_kit.make(folder / "site", zygote))
