"""The DICOM files inside the installed pydicom package: real scanners, odd and broken ones. Never the network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom

# Patient IDs of three CTs in it: they get entries in the demo's crosswalk, so that real files go all the way.
LINKED = ("1CT1", "98890234", "JXD191021006")
# What tells of those people in the files.
SENTINELS = frozenset({"CompressedSamples", "98890234", "JXD191021006"})


def bundled() -> Iterator[tuple[str, Path]]:
    """Yield (name, path) of each, by name; names are relative to pydicom's test_files, DICOMDIR sets among them."""
    root = Path(pydicom.__file__).parent / "data" / "test_files"
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix.lower() not in (".txt", ".dump", ".json", ".icc", ".gz", ".py", ".pyc"):
            yield path.relative_to(root).as_posix(), path
