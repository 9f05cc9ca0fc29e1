"""A PACS by DICOMweb: QIDO-RS (PS3.18 10.6) and WADO-RS (PS3.18 10.4), an instance a request, bytes as they are sent.

TRE_PACS_AUTHORIZATION in the environment, where it is set, is sent as the Authorization header.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config import ProjectConfig
from pipeline.retrieve import statuses
from pipeline.retrieve.peer import RETURNED, Failed, Found, Level, Taker, Wanted

PAGE = 200
ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'


@contextmanager
def opened(config: ProjectConfig, scratch: Path) -> Iterator[Web]:
    """Yield the DICOMweb service of a project file; files come in below `scratch`."""
    import requests
    from dicomweb_client.web import DICOMwebClient

    asked = config.retrieve
    assert asked
    with requests.Session() as session:
        if asked.ca:
            session.verify = str(config.beside(asked.ca))
        if asked.certificate and asked.key:
            session.cert = (str(config.beside(asked.certificate)), str(config.beside(asked.key)))
        if token := os.environ.get("TRE_PACS_AUTHORIZATION"):
            session.headers["Authorization"] = token
        client = DICOMwebClient(asked.url.rstrip("/"), session=session, timeout=asked.timeout_seconds)
        client.set_http_retry_params(retry=False)       # who backs off is kind.py
        yield Web(asked.url.rstrip("/"), session, client, asked.timeout_seconds, scratch)


class Web:
    """The service. Requests go over one connection, one at a time."""

    by_study = False

    def __init__(self, url: str, session: Any, client: Any, seconds: float, scratch: Path) -> None:
        self._url, self._session, self._client, self._seconds, self._scratch = url, session, client, seconds, scratch

    def find(self, level: Level, keys: Mapping[str, str]) -> Iterator[Found]:
        """Yield what QIDO-RS answers, a page at a time. Raises Failed."""
        filters = dict(keys)        # what stands in the resource's own path is no filter
        study = filters.pop("StudyInstanceUID", None) if level != "STUDY" else None
        series = filters.pop("SeriesInstanceUID", None) if level == "IMAGE" else None
        seen: set[str] = set()
        own = RETURNED[level][{"STUDY": 0, "SERIES": 1, "IMAGE": 2}[level]]
        while True:
            asked: dict[str, Any] = {"fields": list(RETURNED[level]), "search_filters": filters, "limit": PAGE,
                                     "offset": len(seen)}
            with _failures():
                if level == "STUDY":
                    page = self._client.search_for_studies(**asked)
                elif level == "SERIES":
                    page = self._client.search_for_series(study, **asked)
                else:
                    page = self._client.search_for_instances(study, series, **asked)
            found = [_plain(item) for item in page]
            fresh = [one for one in found if one.get(own) not in seen]
            seen |= {one.get(own, "") for one in fresh}
            yield from fresh
            if len(page) < PAGE or not fresh:      # a service that ignores `offset` gives the same again
                return

    def retrieve(self, wanted: Wanted, classes: Collection[str], taker: Taker) -> str:
        """Fetch each instance that is owed, as it is stored (PS3.18 10.4.1); return the last status in words."""
        said = ""
        for uid in wanted.instances:
            url = f"{self._url}/studies/{wanted.study}/series/{wanted.series}/instances/{uid}"
            with _failures(), self._session.get(url, headers={"Accept": ACCEPT}, timeout=self._seconds) as answer:
                said = f"HTTP {answer.status_code}"
                answer.raise_for_status()
                parts = list(_parts(answer.headers.get("Content-Type", ""), answer.content))
            for part in parts:
                descriptor, name = tempfile.mkstemp(dir=self._scratch)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(part)
                try:
                    taker.take(Path(name), None)
                finally:
                    Path(name).unlink(missing_ok=True)
        return said


    def rest(self) -> None:
        """Nothing is held between two requests that would weigh on a service."""

    def resource(self, path: str, accept: str) -> int:
        """Return how many bytes a resource below the service's URL has. Raises Failed."""
        with _failures(), self._session.get(f"{self._url}{path}", headers={"Accept": accept},
                                            timeout=self._seconds) as answer:
            answer.raise_for_status()
            return len(answer.content)


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
    except requests.ConnectionError:
        raise Failed(statuses.NOT_OPENED, reached=False) from None
    except (requests.RequestException, ValueError, KeyError):
        raise Failed("An answer of the PACS could not be read") from None


def _parts(content_type: str, body: bytes) -> Iterator[bytes]:
    """Yield the parts of a multipart/related body (RFC 2046 5.1), or the body itself where it is one part alone."""
    kind, *parameters = (part.strip() for part in content_type.split(";"))
    if kind.lower() == "application/dicom":
        yield body
        return
    boundary = next((p.partition("=")[2].strip('"') for p in parameters if p.lower().startswith("boundary=")), "")
    if kind.lower() != "multipart/related" or not boundary:
        raise Failed("The PACS answered with something that is not DICOM")
    mark = b"\r\n--" + boundary.encode("ascii", "replace")
    for piece in (b"\r\n" + body).split(mark)[1:]:
        if piece.startswith(b"--"):
            return
        _, found, content = piece.partition(b"\r\n\r\n")
        if found:
            yield content
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
