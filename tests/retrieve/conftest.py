from __future__ import annotations

from collections.abc import Iterator

import pytest
import retrieve_kit as kit


@pytest.fixture(scope="session")
def shelf() -> kit.Shelf:
    return kit.Shelf.made()


@pytest.fixture(scope="session")
def orthanc(shelf: kit.Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[kit.Orthanc]:
    if why := kit.orthanc_missing():
        pytest.skip(why)
    with kit.orthanc(tmp_path_factory.mktemp("orthanc"), shelf.images) as running:
        yield running
