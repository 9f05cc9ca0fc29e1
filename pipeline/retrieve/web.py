"""A PACS by DICOMweb: QIDO-RS (PS3.18 10.6) and WADO-RS (PS3.18 10.4), an instance a request, bytes as they are sent.

TRE_PACS_AUTHORIZATION in the environment, where it is set, is sent as the Authorization header. Nothing else of the
environment counts (proxies, certificates, .netrc): the project file says whom we speak to, and who vouches for it.
"""

from __future__ import annotations

import mmap
import os
import ssl
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.config import ProjectConfig
from pipeline.errors import PacsRefused
from pipeline.retrieve import statuses
from pipeline.retrieve.dimse import tls
from pipeline.retrieve.peer import OWN, Failed, Found, Level, Taker, Wanted, all_asked, returned

PAGE = 200
MOST = 64 << 20         # bytes of a page of answers, unpacked; 200 answers are some hundred thousand
PIECE = 1 << 20
ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
UNREADABLE = "An answer of the PACS could not be read"


@contextmanager
def opened(config: ProjectConfig, scratch: Path) -> Iterator[Web]:
    """Yield the DICOMweb service of a project file; files come in below `scratch`. Raises PacsRefused."""
    import requests
    from dicomweb_client.web import DICOMwebClient

    asked = config.retrieve
    assert asked
    tls(config, ssl.Purpose.SERVER_AUTH)        # raises where a file cannot be used, in words of our own
    url, token = asked.url.rstrip("/"), os.environ.get("TRE_PACS_AUTHORIZATION")
    if token and not _private(url):
        raise PacsRefused("The token for the PACS is not sent without TLS.", hint="Give an https url in [retrieve].")
    with requests.Session() as session:
        session.trust_env = False
        session.max_redirects = 0       # a key is for the service that was named, and for nobody it names
        session.hooks["response"].append(_bounded)
        if asked.ca:
            session.verify = str(config.beside(asked.ca))
        if asked.certificate and asked.key:
            session.cert = (str(config.beside(asked.certificate)), str(config.beside(asked.key)))
        if token:
            session.headers["Authorization"] = token
        client = DICOMwebClient(url, session=session, timeout=asked.timeout_seconds)
        client.set_http_retry_params(retry=False)       # who backs off is kind.py
        yield Web(url, session, client, asked.timeout_seconds, scratch, config.stage.max_object_bytes)


class Web:
    """The service. Requests go over one connection, one at a time. `most`: bytes of an instance."""

    by_study = False

    def __init__(self, url: str, session: Any, client: Any, seconds: float, scratch: Path, most: int) -> None:
        self._url, self._session, self._client, self._seconds = url, session, client, seconds
        self._scratch, self._most = scratch, most

    def find(self, level: Level, keys: Mapping[str, str]) -> Iterator[Found]:
        """Yield what QIDO-RS answers, a page at a time, until a page has nothing new: a service may give fewer at
        a time than it was asked for (PS3.18 8.3.4.4). Raises Failed."""
        filters = dict(keys)        # what stands in the resource's own path is no filter
        study = filters.pop("StudyInstanceUID", None) if level != "STUDY" else None
        series = filters.pop("SeriesInstanceUID", None) if level == "IMAGE" else None
        seen: set[str | None] = set()
        while True:
            asked: dict[str, Any] = {"fields": list(returned(level)), "search_filters": filters, "limit": PAGE,
                                     "offset": len(seen)}
            with _failures():
                if level == "STUDY":
                    page = self._client.search_for_studies(**asked)
                elif level == "SERIES":
                    page = self._client.search_for_series(study, **asked)
                else:
                    page = self._client.search_for_instances(study, series, **asked)
                found = [_plain(item) for item in page]
            fresh = {one.get(OWN[level]): one for one in found if one.get(OWN[level]) not in seen}
            if not fresh:           # the end; or a service that ignores `offset` and gives the same again
                return
            seen |= fresh.keys()
            yield from fresh.values()

    def retrieve(self, wanted: Wanted, classes: Collection[str], taker: Taker) -> str:
        """Fetch each instance that is owed, as it is stored (PS3.18 10.4.1), as `all_asked` does."""
        series = f"{self._url}/studies/{wanted.study}/series/{wanted.series}"
        return all_asked(lambda uid: self._instance(f"{series}/instances/{uid}", taker), wanted.instances)

    def _instance(self, url: str, taker: Taker) -> str:
        with tempfile.TemporaryFile(dir=self._scratch) as body:
            with _failures(), self._session.get(url, headers={"Accept": ACCEPT}, timeout=self._seconds,
                                                stream=True) as answer:
                said, kind = f"HTTP {answer.status_code}", answer.headers.get("Content-Type", "")
                answer.raise_for_status()
                for piece in answer.iter_content(PIECE):
                    body.write(piece)
                    if body.tell() > self._most + PIECE:
                        raise Failed("The PACS sent more than an object may have")
            body.flush()
            if not body.tell():
                raise Failed(f"{said}, and nothing came")
            with mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ) as held:
                for first, last in list(_parts(kind, held)):
                    self._take(held, first, last, taker)
        return said

    def _take(self, body: mmap.mmap, first: int, last: int, taker: Taker) -> None:
        descriptor, name = tempfile.mkstemp(dir=self._scratch)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for at in range(first, last, PIECE):
                    file.write(body[at:min(at + PIECE, last)])
            taker.take(Path(name), None)
        finally:
            Path(name).unlink(missing_ok=True)

    def rest(self) -> None:
        """Nothing is held between two requests that would weigh on a service."""

    def resource(self, path: str, accept: str) -> int:
        """Return how many bytes a resource below the service's URL has. Raises Failed."""
        with _failures(), self._session.get(f"{self._url}{path}", headers={"Accept": accept},
                                            timeout=self._seconds) as answer:
            answer.raise_for_status()
            return len(answer.content)


def _private(url: str) -> bool:
    return url.startswith("https://") or urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")


def _bounded(answer: Any, **how: Any) -> None:
    """Read an answer that is held in memory, up to MOST bytes as unpacked: a small one may unpack to any size."""
    from requests import RequestException

    if not how.get("stream"):
        data = bytearray()
        for piece in answer.iter_content(PIECE):
            data += piece
            if len(data) > MOST:
                raise RequestException
        answer._content = bytes(data)       # what `content` returns once it was read


@contextmanager
def _failures() -> Iterator[None]:
    """Turn what the HTTP library raises, which may quote a URL with a value in it, into Failed."""
    import requests

    try:
        yield
    except requests.HTTPError as error:
        code = error.response.status_code if error.response is not None else 0
        raise Failed(f"HTTP {code}", code, busy=code in (429, 503)) from None
    except requests.Timeout:
        raise Failed(statuses.NOT_ANSWERED, reached=False) from None
    except requests.exceptions.SSLError:
        raise Failed(statuses.NOT_TRUSTED, reached=False) from None
    except requests.ConnectionError:
        raise Failed(statuses.NOT_OPENED, reached=False) from None
    except requests.TooManyRedirects:
        raise Failed("The PACS sends us on to another address, where nothing is asked") from None
    except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError):
        raise Failed(UNREADABLE) from None


def _parts(content_type: str, body: bytes | mmap.mmap) -> Iterator[tuple[int, int]]:
    """Yield first and last of each part of a multipart/related body (RFC 2046 5.1), or of the body itself where it is
    one part alone. Raises Failed."""
    header = Message()
    header["Content-Type"] = content_type
    kind, boundary = header.get_content_type(), header.get_boundary("")
    if kind == "application/dicom":
        yield 0, len(body)
        return
    if kind != "multipart/related" or not boundary:
        raise Failed("The PACS answered with something that is not DICOM")
    mark = b"--" + boundary.encode("ascii", "replace")
    at = body.find(mark)
    while at >= 0:
        at += len(mark)
        if body[at:at + 2] == b"--":
            return
        first, last = body.find(b"\r\n\r\n", at) + 4, body.find(b"\r\n" + mark, at)
        if 4 <= first <= last:
            yield first, last
        at = last + 2 if last >= 0 else last
    raise Failed("The answer of the PACS ended too early")


def _plain(item: Mapping[str, Any]) -> Found:
    """Return a QIDO answer (PS3.18 F.2) as plain texts by keyword."""
    from pydicom.datadict import keyword_for_tag

    found = {}
    for tag, element in item.items():
        keyword = keyword_for_tag(tag)
        values = element.get("Value") or []
        if keyword and element.get("vr") not in ("SQ", "PN"):
            found[keyword] = "\\".join(str(value) for value in values if value is not None).strip(" \0")
    return found
