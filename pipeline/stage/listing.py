"""Which landed objects are new: those that no committed batch's listing has under this name and version.

The store's version of an object says only that its bytes may have changed. A name that is known under another version
is read again, and is new only if its bytes are. An object that could not be read (its digest is of nothing) is looked
at again each time, so that it comes in once it can be read, and adds no second row until then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import pyarrow as pa

from pipeline import layout
from pipeline.dicom.inspect import NOTHING
from pipeline.storage import Entry, ObjectStore, tables


def _short(*fields: bytes | str) -> bytes:
    return hashlib.blake2b(layout.encode(fields), digest_size=16).digest()


class Known:
    """What committed batches have listed: 32 bytes an object, not its name."""

    def __init__(self) -> None:
        self._versions: set[bytes] = set()
        self._contents: set[bytes] = set()

    @classmethod
    def of(cls, work: ObjectStore, project: str, batches: Iterable[str]) -> Known:
        known = cls()
        for batch in batches:
            table = tables.read(work, layout.listing(project, batch), ["source_uri", "version", "source_sha256"])
            for chunk in table.to_batches(max_chunksize=65_536):
                for uri, version, sha256 in zip(*(column.to_pylist() for column in chunk.columns), strict=True):
                    known._contents.add(_short(uri, sha256))
                    if sha256 != NOTHING:
                        known._versions.add(_short(uri, version))
        return known

    def has_version(self, uri: str, version: str) -> bool:
        return _short(uri, version) in self._versions

    def is_new(self, rows: pa.Table) -> pa.ChunkedArray:
        """Return of which rows no committed batch has these bytes under this name."""
        columns = rows.select(["source_uri", "source_sha256"]).to_batches(max_chunksize=4096)
        return pa.chunked_array([pa.array([
            _short(uri, sha256) not in self._contents
            for uri, sha256 in zip(*(column.to_pylist() for column in batch.columns), strict=True)])
            for batch in columns], pa.bool_())

    def unknown(self, landing: ObjectStore) -> Iterator[Entry]:
        """List landing once; yield what must be read."""
        for entry in landing.list():
            if not self.has_version(f"{landing.url}/{entry.key}", entry.version):
                yield entry
