"""NHS numbers: ten digits, the last a check digit (NHS Data Dictionary, NHS NUMBER: modulus 11)."""

from __future__ import annotations

import re

_TEN = re.compile(r"[0-9]{10}")
_SEPARATORS = str.maketrans("", "", " -\u00a0\u2010\u2011\u2013\t")


def normalise(text: str | None) -> str | None:
    """Return the ten digits of a valid NHS number written with or without separators, else None.

    The check digit must be right and the digits must not be all equal. Nine in a hundred random numbers pass: what
    passes is well-formed, not somebody's.
    """
    digits = (text or "").translate(_SEPARATORS)
    if not _TEN.fullmatch(digits) or len(set(digits)) == 1:
        return None
    return digits if check_digit(digits[:9]) == int(digits[9]) else None


def check_digit(nine: str) -> int | None:
    """Return the tenth digit for the first nine, or None where no number begins with them."""
    left = 11 - sum(int(d) * w for d, w in zip(nine, range(10, 1, -1), strict=True)) % 11
    return {11: 0, 10: None}.get(left, left)
