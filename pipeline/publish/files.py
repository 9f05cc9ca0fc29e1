"""Small files of this room: canonical JSON, read and written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import NotFound, SchemaTooNew
from pipeline.storage import ObjectStore

SCHEMA_VERSION = 1


def canonical(doc: object) -> bytes:
    """Return JSON whose bytes depend on nothing but the content; one item a line, so that people can read it."""
    return json.dumps(doc, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def pointer(manifest: Mapping[str, Any], digest: str) -> bytes:
    """Return current.json as it points at the release with this manifest; `digest` is the manifest's, in hex."""
    said = ("schema_version", "project", "release", "sequence", "candidate", "candidate_sha256", "predecessor")
    return canonical({"manifest_sha256": digest, **{k: manifest[k] for k in said}})


def read_json(store: ObjectStore, key: str, what: str) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes and the document at `key`, `what` in errors. Raises NotFound, SchemaTooNew, ValueError."""
    data = stored(store, key)
    if data is None:
        raise NotFound(f"{what} is not there.")
    doc = json.loads(data)
    if not isinstance(doc, dict):
        raise ValueError(f"{what} is not a JSON object")
    if doc.get("schema_version", 0) > SCHEMA_VERSION:
        raise SchemaTooNew(f"{what} was written by a newer version.", hint="Upgrade tre-ingest.")
    return data, doc


def stored(store: ObjectStore, key: str) -> bytes | None:
    """Return a small object's bytes, or None where it is not there."""
    try:
        return store.read(key)
    except NotFound:
        return None


def put_same(store: ObjectStore, key: str, data: bytes) -> bool:
    """Write `data` unless exactly these bytes are there. Return whether anything was written."""
    if stored(store, key) == data:
        return False
    store.write(key, data)
    return True


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_at(store: ObjectStore, key: str) -> str | None:
    """Return the digest of the object's bytes, streamed; None where it is not there."""
    try:
        with store.open(key) as stream:
            total = hashlib.sha256()
            while chunk := stream.read(1 << 20):
                total.update(chunk)
            return total.hexdigest()
    except NotFound:
        return None


def hex_of(digest: bytes | str) -> str:
    """Return a digest from a table as hex, whichever way the table holds it."""
    return digest.hex() if isinstance(digest, bytes) else digest
