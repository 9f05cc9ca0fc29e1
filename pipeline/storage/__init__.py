"""Zones: `open_store(url, zone)` gives the ObjectStore behind a file:// or s3:// URL."""

from __future__ import annotations

from pipeline.storage.base import Entry, ObjectStore

__all__ = ["Entry", "ObjectStore", "open_store"]


def open_store(url: str, zone: str, *, create: bool = True) -> ObjectStore:
    """Return the store behind `url`.

    `zone` (landing, work, candidate, release) picks the credentials: TRE_<ZONE>_ACCESS_KEY_ID, _SECRET_ACCESS_KEY,
    _SESSION_TOKEN, _ENDPOINT_URL, _REGION; where none is set, boto3's own chain. TRE_<ZONE>_TIMEOUT_SECONDS is how
    long S3 may be silent before a request is tried again (60). Heavy imports happen here, on use.
    """
    if url.startswith("file://"):
        from pipeline.storage.local import LocalStore

        return LocalStore(url, create=create, zone=zone)
    if url.startswith("s3://"):
        from pipeline.storage.s3 import S3Store

        return S3Store(url, zone)
    raise ValueError("a zone's URL starts with file:// or s3://")
