"""A zone in an S3 bucket: s3://bucket/prefix. The only place that knows boto3.

Path-style requests and no checksum that was not asked for, so that Ceph and Swift understand them. Every object is sent
with its SHA-256, as a checksum and as metadata (`x-amz-meta-sha256`). A store is asked once whether it refuses a wrong
checksum; one that does not has every file read back and compared after it was put.

`create` is `If-None-Match: *` and nothing else: a store that ignores it overwrites, and is refused by the probe, not
patched here with a question before the write that two writers would both pass.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import boto3  # noqa: TID253  (this module is imported on use)
from botocore.config import Config  # noqa: TID253
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError  # noqa: TID253
from botocore.parsers import ResponseParserError  # noqa: TID253

from pipeline.errors import EnvironmentUnfit, NotFound, StoreDenied, StoreRefused, StoreUnreachable, TreError
from pipeline.storage.base import Entry, check_key, check_prefix, is_temporary, no_room, temporary

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_LOCK = Lock()
CHUNK = 1 << 20
ONE_PUT = 64 << 20  # larger files go in parts
PART = 16 << 20  # held in memory; S3 takes 5 MiB to 5 GiB, 10,000 of them
PAGE = 1000  # of a listing
TRIES = 4  # of each request, and of a download that broke off
CONNECT_SECONDS, READ_SECONDS = 5, 60


class S3Store:
    """The ObjectStore of a bucket and prefix; `zone` names the environment variables of its credentials."""

    def __init__(self, url: str, zone: str) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        prefix = prefix.rstrip("/")
        if not url.startswith("s3://") or not bucket:
            raise ValueError("an S3 zone's URL is s3://bucket/prefix")
        self.url = f"s3://{bucket}/{check_key(prefix)}" if prefix else f"s3://{bucket}"
        self._bucket, self._prefix = bucket, prefix + "/" if prefix else ""
        self._client = _client(zone)
        self._checks: bool | None = None

    # ---- reading ---------------------------------------------------------------------------------------------
    def list(self, prefix: str = "") -> Iterator[Entry]:
        """As the protocol says. An empty object whose name ends in a slash is a console's folder: left out."""
        pages = self._client.get_paginator("list_objects_v2")
        last = ""
        with _errors():
            below = self._prefix + check_prefix(prefix)
            for page in pages.paginate(Bucket=self._bucket, Prefix=below, PaginationConfig={"PageSize": PAGE}):
                for found in page.get("Contents", ()):
                    key = found["Key"][len(self._prefix) :]
                    if key <= last and last:
                        raise StoreRefused("An S3 store does not list objects in key order.")
                    last = key
                    if is_temporary(key) or (not found["Size"] and (not key or key.endswith("/"))):
                        continue
                    yield Entry(key, found["Size"], _utc(found["LastModified"]), _tag(found["ETag"]), _is_key(key))

    def stat(self, key: str) -> Entry | None:
        head = self._head(key)
        return head and Entry(key, head["ContentLength"], _utc(head["LastModified"]), _tag(head["ETag"]))

    def read(self, key: str) -> bytes:
        copy = io.BytesIO()
        self._download(key, copy)
        return copy.getvalue()

    @contextmanager
    def fetch(self, key: str) -> Iterator[Path]:
        with self.scratch() as directory:
            path = directory / "object"  # never the object's own name
            with path.open("wb") as copy:
                self._download(key, copy)
            yield path

    def _download(self, key: str, copy: BinaryIO) -> None:
        """Copy the object's bytes; start again where the answer broke off (boto tries only the request again)."""
        for left in reversed(range(TRIES)):
            copy.seek(0)
            copy.truncate()
            with self.open(key) as stream:
                try:
                    shutil.copyfileobj(stream, copy, CHUNK)
                    return
                except StoreUnreachable:
                    if not left:
                        raise

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        with _errors():
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key(key))
            body, _ = answer["Body"], answer["ContentLength"]  # without its length, an end too early would not be seen
        with io.BufferedReader(_Stream(body), CHUNK) as stream:
            yield stream

    # ---- writing ---------------------------------------------------------------------------------------------
    def write(self, key: str, data: bytes) -> None:
        self._put(key, data, hashlib.sha256(data).digest())

    def create(self, key: str, data: bytes) -> bool:
        """As the protocol says; a request whose answer was lost and was sent again may return False for our own object.

        So a caller that must know reads the object back (a lease holds a token for that).
        """
        try:
            self._put(key, data, hashlib.sha256(data).digest(), IfNoneMatch="*")
        except _Exists:
            return False
        return True

    def put_file(self, key: str, path: Path, sha256: bytes) -> None:
        size = _size(path)
        head = self._head(key)
        by_store = self.digest_checked() == "store"
        claimed = head and head["ContentLength"] == size and head["Metadata"].get("sha256") == sha256.hex()
        if claimed and (by_store or self._same(key, head, path, sha256)):
            return
        if not by_store and _digest(path) != sha256:
            raise _mismatch()
        if size > ONE_PUT:
            self._put_parts(key, path, size, sha256)
        else:
            with path.open("rb") as stream:
                self._put(key, stream, sha256)
        if not by_store and self._digest_there(key) != sha256:
            self.delete(key)
            raise StoreRefused("An S3 store holds other bytes than were put: the object was removed.")

    def adopt(self, key: str, path: Path, sha256: bytes) -> None:
        self.put_file(key, path, sha256)
        path.unlink()

    def settle(self) -> None:
        """Nothing is left to do: an answer of S3 means durable."""

    def delete(self, key: str) -> None:
        with suppress(NotFound), _errors():
            self._client.delete_object(Bucket=self._bucket, Key=self._key(key))

    def purge(self, prefix: str) -> int:
        if not prefix:
            raise ValueError("a whole zone is not purged")
        below, removed = self._prefix + check_prefix(prefix), 0
        with _errors():
            for uploads in self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=below
            ):
                for upload in uploads.get("Uploads", ()):
                    with suppress(self._client.exceptions.NoSuchUpload):
                        self._client.abort_multipart_upload(
                            Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
                    removed += 1
            for page in self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=below):
                for version in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                    # One by one, not in bulk: bulk needs checksums that some stores do not take.
                    self._client.delete_object(
                        Bucket=self._bucket, Key=version["Key"], VersionId=version["VersionId"]
                    )
                    removed += 1
        return removed

    def now(self) -> datetime:
        """Return the time of an answer's Date header: to the second."""
        try:
            headers = self._client.head_bucket(Bucket=self._bucket)["ResponseMetadata"]["HTTPHeaders"]
        except ClientError as error:  # a refusal is dated as well, unless something before the store gave it
            headers = error.response["ResponseMetadata"]["HTTPHeaders"]
            if "date" not in headers:
                raise _error(error) from None
        except BotoCoreError as error:
            raise _error(error) from None
        if "date" not in headers:       # every server dates its answers (RFC 9110 6.6.1): this one broke off
            raise StoreUnreachable("An S3 store's answer broke off: it has no date.")
        return _utc(parsedate_to_datetime(headers["date"]))

    def digest_checked(self) -> Literal["store", "read-back"]:
        """As the protocol says; the first call tries a wrong checksum on a temporary object, whole and in a part."""
        if self._checks is None:
            self._checks = self._refuses_wrong_put() and self._refuses_wrong_part()
        return "store" if self._checks else "read-back"

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="tre-", ignore_cleanup_errors=True) as directory, no_room("temporary"):
            yield Path(directory)

    # ---- requests --------------------------------------------------------------------------------------------
    def _key(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _head(self, key: str) -> Any:
        try:
            with _errors():
                head = self._client.head_object(Bucket=self._bucket, Key=self._key(key))
                _ = head["ContentLength"], head["LastModified"], head["ETag"]
                return head
        except NotFound:
            return None

    def _put(self, key: str, body: Any, sha256: bytes, **more: Any) -> None:
        checks: Any = {"ChecksumSHA256": _base64(sha256), "Metadata": {"sha256": sha256.hex()}, **more}
        with _errors():
            self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=body, **checks)

    def _put_parts(self, key: str, path: Path, size: int, sha256: bytes) -> None:
        where: Any = {"Bucket": self._bucket, "Key": self._key(key)}
        part_size = max(PART, -(-size // 10_000))
        with _errors():
            start = self._client.create_multipart_upload(
                **where, ChecksumAlgorithm="SHA256", Metadata={"sha256": sha256.hex()}
            )
            where["UploadId"] = start["UploadId"]
            try:
                whole = hashlib.sha256()
                parts: list[Any] = []
                with path.open("rb") as stream:
                    while part := stream.read(part_size):
                        whole.update(part)
                        checksum = _base64(hashlib.sha256(part).digest())
                        number = len(parts) + 1
                        sent = self._client.upload_part(**where, PartNumber=number, Body=part, ChecksumSHA256=checksum)
                        parts.append({"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": checksum})
                if whole.digest() != sha256:
                    raise _mismatch()
                self._client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
            except BaseException:
                with suppress(ClientError, BotoCoreError):
                    self._client.abort_multipart_upload(**where)
                raise

    def _same(self, key: str, head: Any, path: Path, sha256: bytes) -> bool:
        """Tell whether the object that is there is the file, in a store whose word on SHA-256 is not enough.

        The ETag of an object put whole is the MD5 that the store computed; where it is not, the object is read back.
        """
        with path.open("rb") as stream:
            if (
                _tag(head["ETag"])
                == hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            ):
                return _digest(path) == sha256
        return self._digest_there(key) == sha256

    def _digest_there(self, key: str) -> bytes:
        digest = hashlib.sha256()
        with self.open(key) as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
        return digest.digest()

    def _refuses_wrong_put(self) -> bool:
        key = temporary()
        try:
            self._put(key, b"probe", hashlib.sha256(b"probe").digest())  # what it refuses next is the digest alone
            return _refused(lambda: self._put(key, b"probe", bytes(32)))
        finally:
            self.delete(key)

    def _refuses_wrong_part(self) -> bool:
        where: Any = {"Bucket": self._bucket, "Key": self._key(temporary())}

        def send(digest: bytes) -> None:
            with _errors():
                self._client.upload_part(**where, PartNumber=1, Body=b"probe", ChecksumSHA256=_base64(digest))

        with _errors():
            where["UploadId"] = self._client.create_multipart_upload(**where, ChecksumAlgorithm="SHA256")["UploadId"]
        try:
            send(hashlib.sha256(b"probe").digest())
            return _refused(lambda: send(bytes(32)))
        finally:
            with suppress(ClientError, BotoCoreError):
                self._client.abort_multipart_upload(**where)


class _Stream(io.RawIOBase):
    """An answer's body; what breaks on the way is the tree's error."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _errors():
            data = self._body.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._body.close()
        super().close()


class _Exists(StoreUnreachable):
    """A condition was not met: to a create, something is there; to a request that set none, an answer to try again."""


def _client(zone: str) -> S3Client:
    name = f"TRE_{zone.upper()}_"
    key, secret = (os.environ.get(name + n) or None for n in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
    if bool(key) != bool(secret):
        raise StoreDenied(f"Of {name}ACCESS_KEY_ID and {name}SECRET_ACCESS_KEY only one is set.")
    seconds = _seconds(name + "TIMEOUT_SECONDS")
    config = Config(
        s3={"addressing_style": "path"},
        connect_timeout=min(CONNECT_SECONDS, seconds),
        read_timeout=seconds,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        max_pool_connections=32,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    with _errors(), _LOCK:
        return _session().client(
            "s3",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            aws_session_token=os.environ.get(name + "SESSION_TOKEN") or None,
            endpoint_url=os.environ.get(name + "ENDPOINT_URL") or None,
            region_name=os.environ.get(name + "REGION") or None,
            config=config,
        )


def _seconds(name: str) -> float:
    """Return how long a store may be silent."""
    try:
        seconds = float(os.environ.get(name) or READ_SECONDS)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 86_400:
        raise EnvironmentUnfit(f"{name} is not a number of seconds.")
    return seconds


@cache
def _session() -> boto3.session.Session:
    """One for the process: it reads boto's description of S3 once. Making clients of it takes the lock."""
    return boto3.session.Session()


@contextmanager
def _errors() -> Iterator[None]:
    """Turn boto's errors into the tree's, without what they quote."""
    try:
        yield
    except (ClientError, BotoCoreError, ResponseParserError) as error:
        raise _error(error) from None
    except KeyError:
        raise StoreUnreachable("An S3 store's answer broke off: it lacks a field.") from None


def _error(error: ClientError | BotoCoreError | ResponseParserError) -> TreError:
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return StoreDenied("No credentials for an S3 store.", hint="Set TRE_<ZONE>_ACCESS_KEY_ID and its kin.")
    if not isinstance(error, ClientError):  # no connection, no answer in time, an answer that broke off
        return StoreUnreachable(f"An S3 store did not answer ({type(error).__name__}).",
                                hint="tre doctor PROJECT.toml tells which zone's. Look at endpoint and network.")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(error.response.get("Error", {}).get("Code", ""))
    code = code if code.isalnum() and len(code) < 50 else "unknown"
    said = f"{status} {code}"
    if code in ("BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"):
        return _mismatch()
    if status == 412 or code == "PreconditionFailed":
        return _Exists(f"An S3 store could not do this now ({said}).")
    if code == "NoSuchBucket":
        return StoreRefused("An S3 store has no such bucket.", hint="Create the bucket of the zone's URL.")
    if status == 404:
        return NotFound("No object is there.")
    if status in (401, 403):
        return StoreDenied(f"An S3 store does not allow this ({said}).", hint="Check the zone's credentials.")
    if status in (408, 409, 429) or (status >= 500 and status != 501) or code in ("RequestTimeout", "SlowDown"):
        return StoreUnreachable(f"An S3 store could not do this now ({said}).")
    return StoreRefused(f"An S3 store refused a request ({said}).")


def _mismatch() -> TreError:
    return StoreRefused("The bytes of a file are not those its SHA-256 speaks of: it was not stored.")


def _refused(request: Callable[[], None]) -> bool:
    try:
        request()
    except StoreRefused:
        return True
    return False


def _size(path: Path) -> int:
    with suppress(OSError):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            return status.st_size
    raise NotFound("A file to be stored is not there.")


def _is_key(key: str) -> bool:
    try:
        return bool(check_key(key))
    except ValueError:
        return False


def _tag(etag: str) -> str:
    return etag.strip('"')


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _digest(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
