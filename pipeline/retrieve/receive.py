"""What comes in of one study goes into landing: whole, named by digest, and only what was asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from pipeline import layout
from pipeline.dicom.inspect import Inspected, inspect
from pipeline.storage import ObjectStore


class Receiver:
    """Takes the instances of one study. `landed`: SOP Instance UID → digests of what came under it, hex.

    Counted and not kept: `not_asked` (another UID, or of another study: one archive may have one UID twice), `repeated`
    (the same bytes again). Of one UID with other bytes both are kept, so that staging calls them a conflict
    (`conflicting`). Messages come in threads.
    """

    def __init__(self, landing: ObjectStore, retrieval: str, study: str, uid: str, wanted: Iterable[str],
                 max_bytes: int) -> None:
        self._landing, self._retrieval, self._study, self._max = landing, retrieval, study, max_bytes
        self._uid = uid
        self.wanted = frozenset(wanted)
        self.landed: dict[str, set[str]] = {}
        self.not_asked = self.repeated = self.conflicting = self.bytes = self._came = 0
        self._lock = threading.Lock()

    def recover(self) -> None:
        """Count what an earlier run landed: each object is read again, and counts only if it is what its name says."""
        for entry in self._landing.list(layout.retrieved(self._retrieval, self._study)):
            with self._landing.fetch(entry.key) as path:
                found = inspect(path, self._max)
            if found.sop_instance_uid in self.wanted and entry.key.endswith(f"/{found.sha256.hex()}.dcm"):
                self.landed.setdefault(str(found.sop_instance_uid), set()).add(found.sha256.hex())
                self.bytes += found.size

    def take(self, path: Path, claimed: str | None) -> bool:
        """Land one file that came, or leave it and return False where it was not asked for.

        What cannot be read as DICOM goes by the UID that its message named: staging refuses it by reason. Raises
        StoreUnreachable where landing has no room.
        """
        found = inspect(path, self._max)
        uid = found.sop_instance_uid or (claimed if found.refusal else None)
        with self._lock:
            self._came += 1
            strange = found.study_uid not in (None, self._uid) or (claimed is not None and claimed != uid)
            if strange or uid not in self.wanted:
                self.not_asked += 1
                return False
            before = self.landed.get(str(uid), set())
            if found.sha256.hex() in before:
                self.repeated += 1
                return True
            self._keep(path, found)
            self.conflicting += bool(before)
            self.landed.setdefault(str(uid), set()).add(found.sha256.hex())
            self.bytes += found.size
        return True

    def _keep(self, path: Path, found: Inspected) -> None:
        path.chmod(0o640)
        self._landing.adopt(layout.retrieved(self._retrieval, self._study, found.sha256.hex()), path, found.sha256)

    def asked_for(self, uid: str) -> bool:
        return uid in self.wanted

    def missing(self) -> frozenset[str]:
        """Return what was asked for and is not there: by set."""
        return self.wanted - self.landed.keys()

    def lacking(self) -> bool:
        return bool(self.missing())

    def came(self) -> int:
        return self._came
