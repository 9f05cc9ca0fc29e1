"""A file read back by pydicom, element by element: path → VR and raw value. Not by the product's own scanner.

A path is the element's tag; of a nested one the tags down to it with the items' numbers between: (tag, item, tag).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

Path = tuple[int, ...]


class Found(NamedTuple):
    vr: str
    raw: bytes


def dataset(data: bytes) -> Dataset:
    """Return the data set. Raises what pydicom raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")         # they quote values
        return dcmread(io.BytesIO(data), force=False)


def elements(data: bytes, *, skip: frozenset[int] = frozenset()) -> dict[Path, Found]:
    """Return every element at every depth, sequences too (their raw value is empty); `skip`: sequences not entered."""
    return dict(_walk(dataset(data), (), skip))


def item(ds: Dataset) -> Iterator[tuple[Path, Found]]:
    """Yield the elements of one item, its content items left out."""
    yield from _walk(ds, (), frozenset({0x0040A730}))


def plain(raw: bytes) -> bytes:
    """Return a value without its padding."""
    return raw.rstrip(b" \0")


def _walk(ds: Dataset, prefix: Path, skip: frozenset[int]) -> Iterator[tuple[Path, Found]]:
    # Raw elements are taken first: going into a sequence makes pydicom decode some beside it.
    for tag, element in [(tag, ds.get_item(tag)) for tag in ds.keys()]:  # noqa: SIM118 - it iterates over converted ones
        vr = element.VR
        if vr is None:
            try:
                vr = dictionary_VR(tag)[:2]
            except KeyError:
                vr = "UN"
        path = (*prefix, int(tag))
        if vr == "SQ":
            yield path, Found("SQ", b"")
            if int(tag) not in skip:
                for number, item in enumerate(ds[tag].value or ()):
                    yield from _walk(item, (*path, number), skip)
        else:
            value = element.value
            if not isinstance(element, RawDataElement) and not isinstance(value, bytes):    # pydicom read it already
                value = str(value).encode()
            yield path, Found(vr, value if isinstance(value, bytes) else b"")
