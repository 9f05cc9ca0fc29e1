"""Searches bytes for planted marks, whatever they are wrapped in. Shares no code with the product.

A needle is looked for as it stands and in capitals and small letters, in every encoding that DICOM, JSON, HTML and URLs
have, as hex and as base64 at each alignment; and each object is looked at as raw bytes, decoded in every character set,
unpacked (gzip, zlib, raw deflate, zip), element by element (DICOM), cell by cell with dictionaries, schema, statistics
and key-value metadata (Parquet), and with its runs of hex and base64 decoded.
"""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import re
import sqlite3
import unicodedata
import urllib.parse
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date
from typing import Any

import numpy as np

CODECS = ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "latin_1", "cp1252", "iso8859_5", "koi8_r", "cp1251",
          "shift_jis", "iso2022_jp", "iso2022_jp_2", "euc_jp", "gb18030", "gbk", "big5", "euc_kr", "iso2022_kr",
          "cp949")
DECODED = ("latin_1", "iso8859_5", "utf-8", "shift_jis", "iso2022_jp_2", "euc_jp", "gb18030", "euc_kr", "utf-16-le",
           "utf-16-be")
ESCAPE = re.compile(rb"\x1b[\x20-\x2f]*[\x30-\x7e]|[\x0e\x0f]")
DEEPEST = 3             # wrappings within wrappings
MOST = 64 << 20         # bytes of one unpacking
HEX = re.compile(rb"(?:[0-9a-fA-F]{2}){12,}")
BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{20,}")


def spellings(text: str) -> set[str]:
    """Return a text as programs write it: cases, normal forms, without accents, escaped (JSON, HTML, URLs, Python)."""
    found = {text, text.lower(), text.upper(), text.casefold()}
    found |= {unicodedata.normalize(form, one) for one in tuple(found) for form in ("NFC", "NFD", "NFKD")}
    bare = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    if bare.isascii():
        found.add(bare)
    for one in tuple(found):
        if not one.isascii():
            raw = one.encode()
            found |= {json.dumps(one)[1:-1], urllib.parse.quote(one), repr(raw)[2:-1], ascii(one)[1:-1],
                      "".join(f"&#{ord(c)};" for c in one), "".join(f"&#x{ord(c):x};" for c in one)}
    return found


def encoded(text: str) -> set[bytes]:
    found: set[bytes] = set()
    for one in spellings(text):
        for codec in CODECS:
            with suppress(UnicodeError):
                raw = one.encode(codec)
                found |= {raw, ESCAPE.sub(b"", raw)}
    return found


def wrapped(raw: bytes) -> set[bytes]:
    """Return hex and the inner letters of base64 at each alignment: forms whose letters' case counts."""
    found = {raw.hex().encode(), raw.hex().upper().encode()}
    for skip in range(3):
        whole = base64.b64encode(b"\0" * skip + raw)
        start, end = -(-8 * skip // 6), (skip + len(raw)) * 8 // 6
        core = whole[start:end]
        found |= {core, core.translate(bytes.maketrans(b"+/", b"-_"))}
    return {form for form in found if len(form) >= 8}


def dates(day: date) -> set[str]:
    y, m, d = f"{day:%Y}", f"{day:%m}", f"{day:%d}"
    said = {f"{y}{m}{d}", f"{y}-{m}-{d}", f"{y}.{m}.{d}", f"{y}/{m}/{d}", f"{d} {day:%b %Y}",
            f"{day:%B} {day.day}, {y}"}
    return said | {sep.join((d, m, y)) for sep in "/-."} | {sep.join((m, d, y)) for sep in "/-."}


class Scanner:
    """Knows what to look for: label → texts (looked for in every form), label → bytes (as such, in hex, in base64)."""

    def __init__(self, texts: Mapping[str, Iterable[str]], raws: Mapping[str, Iterable[bytes]] | None = None) -> None:
        any_case: dict[bytes, str] = {}
        exact: dict[bytes, str] = {}
        self.plain: dict[str, str] = {}
        for label, group in texts.items():
            for text in group:
                self.plain[fold(text)] = label
                for raw in encoded(text):
                    any_case[raw.lower()] = label
                    exact.update(dict.fromkeys(wrapped(raw), label))
        for label, blobs in (raws or {}).items():
            for raw in blobs:
                exact[raw] = label
                exact.update(dict.fromkeys(wrapped(raw), label))
        self._any_case, self._exact = _Table(any_case), _Table(exact)

    def search(self, name: str, data: bytes) -> set[tuple[str, str]]:
        """Return (label, in which view of the object) of all that is found in its name or bytes."""
        found = {(label, "name") for label in self.bytes(name.encode("utf-8", "surrogateescape"))}
        for view, piece in views(data):
            found |= {(label, view) for label in self.bytes(piece)}
        return found

    def bytes(self, data: bytes) -> set[str]:
        return self._any_case.search(data.lower()) | self._exact.search(data)

    def text(self, text: str) -> set[str]:
        folded = fold(text)
        return {label for plain, label in self.plain.items() if plain in folded}


def fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


class _Table:
    """Many needles in one pass: a flag by a hash of each four bytes, then the needles that begin so."""

    def __init__(self, needles: Mapping[bytes, str]) -> None:
        assert all(len(needle) >= 5 for needle in needles), "too short to mean anything"
        self.flags = np.zeros(1 << 20, dtype=bool)
        self.needles = needles
        self.lengths: dict[bytes, set[int]] = {}        # by the first four bytes: marks share them
        for needle in needles:
            self.lengths.setdefault(needle[:4], set()).add(len(needle))
        if needles:
            self.flags[self._hash(np.frombuffer(b"".join(self.lengths), dtype="<u4"))] = True

    @staticmethod
    def _hash(words: Any) -> Any:
        return (words.astype(np.uint32) * np.uint32(2654435761)) >> np.uint32(12)

    def search(self, data: bytes) -> set[str]:
        found: set[str] = set()
        for offset in range(4):
            count = (len(data) - offset) // 4
            if count <= 0:
                continue
            words = np.frombuffer(data, dtype="<u4", count=count, offset=offset)
            for index in np.flatnonzero(self.flags[self._hash(words)]).tolist():
                at = 4 * index + offset
                for length in self.lengths.get(data[at:at + 4], ()):
                    label = self.needles.get(data[at:at + length])
                    if label:
                        found.add(label)
        return found


# ---- views -------------------------------------------------------------------------------------------------------
def views(data: bytes, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield (what it is, bytes) of an object and of all that is wrapped in it."""
    yield "raw", data
    yield "decoded", "\n".join(data.decode(codec, "replace") for codec in DECODED).encode("utf-8", "replace")
    if b"&" in data or b"%" in data:
        text = data.decode("utf-8", "replace")
        yield "unescaped", (html.unescape(text) + urllib.parse.unquote(text)).encode("utf-8", "replace")
    if len(data) > 12 and data[:4] == data[-4:] == b"PAR1":
        yield "cells", parquet(data).encode("utf-8", "surrogatepass")
    if data[128:132] == b"DICM":
        yield "elements", dicom(data).encode("utf-8", "surrogatepass")
    if data[:16] == b"SQLite format 3\0":
        yield "database", sqlite(data).encode("utf-8", "surrogatepass")
    if depth < DEEPEST:
        for kind, inner in unpacked(data):
            for view, piece in views(inner, depth + 1):
                yield f"{kind} {view}", piece


def unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    if data[:2] == b"\x1f\x8b":
        with suppress(OSError, EOFError, zlib.error):
            yield "gzip", gzip.decompress(data)[:MOST]
    for match in re.finditer(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08", data):
        with suppress(zlib.error):
            inner = zlib.decompressobj(47).decompress(data[match.start():], MOST)
            if len(inner) > 8:
                yield "zlib", inner
    if data[128:132] == b"DICM" and b"1.2.840.10008.1.2.1.99" in data[:2048]:
        start = 144 + int.from_bytes(data[140:144], "little")
        with suppress(zlib.error):
            yield "deflate", zlib.decompressobj(-15).decompress(data[start:], MOST)
    if data[:4] == b"PK\3\4":
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                yield "zip", info.filename.encode() + b"\n" + archive.read(info)
    hexed = [bytes.fromhex(run[shift:len(run) - (len(run) - shift) % 2].decode())
             for run in HEX.findall(data) for shift in (0, 1)]
    based = []
    for run in BASE64.findall(data):
        run = run.translate(bytes.maketrans(b"-_", b"+/"))
        for shift in range(4):
            piece = run[shift:]
            based.append(base64.b64decode(piece[:len(piece) // 4 * 4]))
    for kind, pieces in (("hex", hexed), ("base64", based)):
        if pieces:
            # one object for all: a mark in two pieces is no mark
            yield kind, b"\n\0\n".join(pieces)


def parquet(data: bytes) -> str:
    """Return everything a Parquet file says: cells of each column, dictionaries, schema, metadata, statistics."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    said: list[str] = []
    file = pq.ParquetFile(io.BytesIO(data))
    flat = [file.schema.column(i).path for i in range(len(file.schema))]
    table = file.read(use_threads=False)
    for name, column in zip(table.column_names, table.columns, strict=True):
        said += [name, *_cells(column.to_pylist())]
    strings = [f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_binary(f.type)]
    stored = pq.ParquetFile(io.BytesIO(data), read_dictionary=strings).read(use_threads=False)
    for name in strings:
        for chunk in stored[name].chunks:
            if pa.types.is_dictionary(chunk.type):
                said += _cells(chunk.dictionary.to_pylist())
    for metadata in (table.schema.metadata, file.metadata.metadata, *(f.metadata for f in table.schema)):
        for key, value in (metadata or {}).items():
            said += _cells([key, value])
    said += [str(file.schema), str(table.schema), str(file.metadata.created_by), *flat]
    for group in range(file.metadata.num_row_groups):
        for index in range(file.metadata.num_columns):
            chunk = file.metadata.row_group(group).column(index)
            statistics = chunk.statistics
            if statistics is not None and statistics.has_min_max:
                said += _cells([statistics.min, statistics.max])
    return "\n".join(said)


def _cells(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _cells(value)
        elif isinstance(value, dict):
            yield from _cells(value.keys())
            yield from _cells(value.values())
        elif isinstance(value, bytes):
            yield value.hex()
            yield value.decode("utf-8", "replace")
        elif value is not None:
            yield str(value)


def dicom(data: bytes) -> str:
    """Return the text of every element at every depth, as pydicom decodes it and in every character set."""
    from pydicom import dcmread
    from pydicom.dataset import Dataset

    said: list[str] = []

    def tell(ds: Dataset) -> None:
        for tag in sorted(ds.keys()):
            try:
                element = ds[tag]
            except Exception:       # what stands behind a file's end may look like anything; raw bytes are searched too
                continue
            said.append(f"{element.tag} {element.VR}")
            if element.VR == "SQ":
                for item in element.value:
                    tell(item)
            elif isinstance(element.value, bytes):
                said.extend(fold(element.value.decode(codec, "replace")) for codec in DECODED)
            else:
                said.append(fold(str(element.value)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = dcmread(io.BytesIO(data), force=True)
        tell(whole.file_meta)
        tell(whole)
    return "\n".join(said)


def sqlite(data: bytes) -> str:
    """Return every cell of every table of a database."""
    base = sqlite3.connect(":memory:")
    base.deserialize(data[:18] + b"\1\1" + data[20:])      # of a base with a write-ahead log (searched raw, beside it)
    said = []
    for (name,) in base.execute("select name from sqlite_master where type = 'table'").fetchall():
        said += [name, *_cells(base.execute(f'select * from "{name}"').fetchall())]
    return "\n".join(said)
