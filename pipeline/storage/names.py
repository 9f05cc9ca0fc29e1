"""File names as keys, and back.

File names are bytes, keys are text. A byte of a name that is not UTF-8, and a backslash, stands in the key as U+F700
plus the byte (`\\xe9` as U+F7E9); a name that holds such a character itself has it written byte by byte. So each name
has one key, each key that is not written this way is refused (`ValueError`), and keys fit UTF-8, Parquet and S3.
"""

from __future__ import annotations

from pipeline.storage.base import check_key


def to_key(name: bytes) -> str:
    """Return a file's name (a whole path, or one part of it) as a key."""
    if name.isascii() and b"\\" not in name:
        return name.decode()
    out = []
    for character in name.decode("utf-8", "surrogateescape"):
        if "\udc80" <= character <= "\udcff":
            out.append(chr(ord(character) - 0xDC00 + 0xF700))
        elif character == "\\" or "\uf700" <= character <= "\uf7ff":
            out += [chr(0xF700 + byte) for byte in character.encode()]
        else:
            out.append(character)
    return "".join(out)


def names_of(key: str) -> list[bytes]:
    """Return the names of a key's directories and file. Raises ValueError where `to_key` would not write it so."""
    names = []
    for segment in check_key(key).split("/"):
        escaped = (bytes([ord(c) - 0xF700]) if "\uf700" <= c <= "\uf7ff" else c.encode() for c in segment)
        names.append(name := b"".join(escaped))
        if to_key(name) != segment:
            raise ValueError("not a key of this zone")
    return names
