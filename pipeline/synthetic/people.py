"""Women who do not exist: NHS numbers of the test range, invented names, local ids at two hospitals.

NHS numbers are 999 000 0000 to 999 999 9999, which are never issued to real people; the check digit is valid (mod 11).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import date, timedelta

WEIGHTS = range(10, 1, -1)
ISSUERS = ("HOSP-A", "HOSP-B")

_SURNAMES = (
    ("Bracken", "Osmo", "Penha", "Thistle", "Wether", "Larken", "Hollin", "Garri", "Tamber",
     "Ulver", "Nether", "Sallow"),
    ("thwaite", "therley", "ligonby", "worthy", "combeley", "sgill", "shawe", "bottomly", "felling", "maugham", "rigg"),
)
_FORENAMES = ("Eleanora", "Gwendolyne", "Philippa", "Marigold", "Rosalinde", "Theodora", "Winifrede", "Cordelia",
              "Josephina", "Henrietta", "Annabella", "Clementine", "Ottoline", "Persephone", "Isadora", "Beatrixe")

# What is special about a woman, by her number; those without a role are ordinary. The fate of her images follows.
ROLES = ("", "two_hospitals", "superseded", "not_permitted", "unlinked", "ambiguous", "", "numeric_id", "old_study",
         "undated", "short_name", "latin", "japanese", "cyrillic", "same_local_id")
_NAMED = {"short_name": ("LI^BO", None), "latin": ("SØRENSDØTTER^BRÍDÍN", None),
          "japanese": ("YAMAZAKURA^HANAMICHI=山田^花子", ["", "ISO 2022 IR 87"]),
          "cyrillic": ("ЛЮКСЕМБУРГОВА^АЛЕВТИНА", "ISO_IR 144")}


@dataclass(frozen=True)
class Woman:
    """One person. `locals` maps issuer to local id; `charset` is Specific Character Set where not ISO_IR 100."""

    number: int
    role: str
    nhs: str
    name: str                           # PN, as in Patient's Name
    birth: date
    locals: dict[str, str]
    former_nhs: str | None = None       # a superseded number, which the crosswalk and a clinical row still use
    charset: str | list[str] | None = field(default=None, compare=False)


def generator(*seed: object) -> random.Random:
    """Return a generator that is to be repeated, not to be secret."""
    return random.Random(" ".join(map(str, seed)))  # noqa: S311


def check_digit(nine: str) -> int | None:
    """Return the tenth digit of an NHS number, or None where these nine can have none."""
    check = 11 - sum(w * int(d) for w, d in zip(WEIGHTS, nine, strict=True)) % 11
    return {10: None, 11: 0}.get(check, check)


def nhs_numbers(rng: random.Random, n: int) -> list[str]:
    """Return `n` different valid numbers of the test range. There are about 900,000."""
    found: dict[str, None] = {}
    while len(found) < n:
        nine = f"999{rng.randrange(10**6):06d}"
        check = check_digit(nine)
        if check is not None and nine + str(check) != "9" * 10:
            found[nine + str(check)] = None
    return list(found)


def name(number: int, rng: random.Random) -> str:
    first, last = _SURNAMES
    surname = first[number % len(first)] + last[number % len(last)]
    return f"{surname.upper()}^{rng.choice(_FORENAMES).upper()}^{rng.choice(_FORENAMES).upper()}"


def women(n: int, seed: object, born_from: int = 1946) -> list[Woman]:
    """Return `n` women; the first fifteen have the roles of `ROLES`. Same seed, same women."""
    rng = generator("women", seed)
    numbers = nhs_numbers(rng, 2 * n + 1)
    ids = rng.sample(range(1_000_000, 10_000_000), 2 * n)
    found: list[Woman] = []
    for number in range(n):
        role = ROLES[number] if number < len(ROLES) else ""
        called, charset = _NAMED.get(role, (name(number, rng), None))
        local = {"HOSP-A": f"A{ids[2 * number]}"} if number % 3 else {"HOSP-B": f"{ids[2 * number]}"}
        if role == "two_hospitals":
            local = {"HOSP-A": f"A{ids[2 * number]}", "HOSP-B": f"{ids[2 * number + 1]}"}
        elif role == "numeric_id":          # a local id in the shape of an NHS number that is nobody's
            local = {"HOSP-B": numbers[2 * n]}
        elif role == "same_local_id":       # the id that the first woman has, at the other hospital
            local = {"HOSP-A": found[0].locals["HOSP-B"]}
        found.append(Woman(
            number=number, role=role, nhs=numbers[2 * number], name=called,
            birth=date(born_from, 1, 1) + timedelta(days=rng.randrange(20 * 365)), locals=local,
            former_nhs=numbers[2 * number + 1] if role in ("superseded", "ambiguous") else None, charset=charset))
    return found


def crosswalk(people: list[Woman]) -> list[tuple[str, str, str, str]]:
    """Return rows (issuer, local_id, nhs_number, superseded_nhs_number).

    A local id may still lead to a superseded number, which a row without a local id resolves to the present one. An
    ambiguous local id has two rows with numbers of two people. Who is not linked has no row.
    """
    rows: list[tuple[str, str, str, str]] = []
    for woman in people:
        for issuer, local in sorted(woman.locals.items()):
            if woman.role == "unlinked":
                continue
            if woman.role == "superseded" and woman.former_nhs:
                rows += [(issuer, local, woman.former_nhs, ""), ("", "", woman.nhs, woman.former_nhs)]
            else:
                spaced = f"{woman.nhs[:3]} {woman.nhs[3:6]} {woman.nhs[6:]}" if woman.number % 4 == 0 else woman.nhs
                rows.append((issuer, local, spaced, ""))
            if woman.role == "ambiguous" and woman.former_nhs:
                rows.append((issuer, local, woman.former_nhs, ""))
    return rows
