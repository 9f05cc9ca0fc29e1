"""Text of DICOM elements to typed values. Pure. What is malformed is refused, never guessed.

A cell of the facts is a list of strings (PS3.5 6.4: values of one element), or None where the element is absent. An
empty value (type 2) is the same as an absent one. Each reader returns None for absent and raises Malformed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from decimal import Decimal

Cell = Sequence[str | None] | None

# Decimal String and Integer String (PS3.5 6.2), longer than 16 characters allowed: binary VRs arrive as text too.
_NUMBER = re.compile(r"[+-]?(\d{1,32}(\.\d{0,32})?|\.\d{1,32})([eE][+-]?\d{1,3})?")
_INTEGER = re.compile(r"[+-]?\d{1,12}")
_DAY = re.compile(r"\d{8}")
_AGE = re.compile(r"(\d{3})Y")
_INT32 = 2**31 - 1


class Malformed(ValueError):
    """The value cannot be read as what its column is. Holds no value."""


def present(cell: Cell) -> list[str]:
    """Return the values without their padding, empty ones left in place; nothing at all where every one is empty."""
    values = [(value or "").strip(" \0") for value in cell or ()]
    return values if any(values) else []


def text(cell: Cell) -> str | None:
    """Return the values joined with a backslash, as the file has them."""
    return "\\".join(present(cell)) or None


def _one(cell: Cell) -> str | None:
    values = present(cell)
    if len(values) > 1:
        raise Malformed
    return values[0] if values else None


def number(cell: Cell, factor: Decimal = Decimal(1)) -> float | None:
    """Return one number times `factor`, multiplied in decimal so that 0.01373 dGy is 1.373 mGy."""
    value = _one(cell)
    if value is None:
        return None
    if not _NUMBER.fullmatch(value):
        raise Malformed
    result = float(Decimal(value) * factor)
    if result in (float("inf"), float("-inf")):
        raise Malformed
    return result


def integer(cell: Cell) -> int | None:
    value = _one(cell)
    if value is None:
        return None
    if not _INTEGER.fullmatch(value) or abs(int(value)) > _INT32:
        raise Malformed
    return int(value)


def day(cell: Cell) -> date | None:
    """Return a date written YYYYMMDD (PS3.5 6.2, DA); the retired YYYY.MM.DD is malformed."""
    value = _one(cell)
    if value is None:
        return None
    if not _DAY.fullmatch(value):
        raise Malformed
    try:
        return date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError:
        raise Malformed from None


def years(cell: Cell) -> int | None:
    """Return an Age String in years (PS3.5 6.2, AS); days, weeks and months are malformed here: bands are years."""
    value = _one(cell)
    if value is None:
        return None
    match = _AGE.fullmatch(value)
    if not match:
        raise Malformed
    return int(match[1])


def positive(value: float | None) -> float | None:
    """Return None for zero: a file that writes 0 kV or 0 mAs beside an image states neither."""
    return value or None
