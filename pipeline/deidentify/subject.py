"""The person behind a file, as the engine needs them."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.deidentify.pseudonyms import Pseudonyms


@dataclass(slots=True)
class Subject:
    """The person's pseudonym, and what is needed to rename and move what is theirs."""

    patient: str
    pseudonyms: Pseudonyms
    days: int               # negative
    seconds: int
    site: str               # issuer: the domain of operators
