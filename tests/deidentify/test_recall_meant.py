"""Whom and what a recall means: ids through the crosswalk, superseded numbers, people whom nobody can tell."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline import layout
from pipeline.deidentify import crosswalk, nhs, recall
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.errors import NotFound, UsageError
from pipeline.schemas import INVENTORY, OUTCOMES
from pipeline.storage import ObjectStore, open_store, tables

HEADER = "issuer,local_id,nhs_number,superseded_nhs_number\n"
ONE, TWO, THREE = [f"{k:09d}{d}" for k in range(943_000_000, 943_000_020)
                   if (d := nhs.check_digit(f"{k:09d}")) is not None][:3]
KEY, OUT = "p/batches/b/inventory.parquet", "p/parts/x/outcomes.parquet"


def sha(n: int) -> bytes:
    return hashlib.sha256(bytes([n])).digest()


@dataclass
class World:
    config: Any
    walk: crosswalk.Crosswalk
    pseudonyms: Pseudonyms
    work: ObjectStore

    def people(self, *lines: str) -> recall.Meant:
        return recall.people(self.config, self.walk, self.pseudonyms, self.work, [KEY], lines)

    def instances(self, *lines: str) -> recall.Meant:
        return recall.instances(self.config, self.walk, self.pseudonyms, self.work, [KEY], [OUT], lines)


@pytest.fixture
def world(make_config: Any, pseudonyms: Pseudonyms, tmp_path: Any) -> World:
    """One person at two hospitals, whose number replaced another; a second person; one whom the crosswalk lacks."""
    work = open_store((tmp_path / "work").as_uri(), "work")
    rows = [("RXX", "1", "pending"), ("RYY", "A-7", "pending"), ("RXX", "2", "pending"), ("RXX", "9", "pending"),
            ("RXX", "1", "rejected")]
    tables.write(work, KEY, tables.from_rows(INVENTORY, [
        {"source_uri": str(n), "bytes": 1, "source_sha256": sha(n), "status": status, "issuer": issuer,
         "patient_id": local, "sop_instance_uid": f"1.2.{n}"} for n, (issuer, local, status) in enumerate(rows)]))
    tables.write(work, OUT, tables.from_rows(OUTCOMES, [
        {"source_uri": "2", "source_sha256": sha(2), "status": "pending", "instance": pseudonyms.uid("1.2.2")}]))
    walk = crosswalk.parse((HEADER + f"RXX,1,{ONE},\nRYY,A-7,{TWO},\n,,{TWO},{ONE}\nRXX,2,{THREE},\n").encode())
    return World(make_config(), walk, pseudonyms, work)


def pseudonym(world: World, number: str) -> str:
    return world.pseudonyms.person(layout.NHS_ISSUER, number)


@pytest.mark.parametrize("line", ["RXX:1", " RYY : A-7 ", ONE, TWO, f"{TWO[:3]} {TWO[3:6]} {TWO[6:]}",
                                  f"{layout.NHS_ISSUER}:{ONE}"])
def test_any_id_of_a_person_means_all_of_theirs_under_every_number(world: World, line: str) -> None:
    meant = world.people(line)
    assert meant.people == {pseudonym(world, ONE), pseudonym(world, TWO)}
    assert meant.objects == {sha(0).hex(), sha(1).hex()}       # what was rejected was never made anything of
    assert meant.instances == {world.pseudonyms.uid("1.2.0"), world.pseudonyms.uid("1.2.1")}
    assert meant.locals == set()


def test_a_local_id_that_leads_to_nobody_is_taken_back_by_itself(world: World) -> None:
    meant = world.people("RXX:9")
    assert (meant.people, meant.objects) == (set(), {sha(3).hex()})
    assert meant.locals == {recall.local_digest(world.pseudonyms, "RXX", "9")}


def test_a_number_that_replaces_a_recalled_person_s_leads_to_the_same(world: World) -> None:
    before = world.people("RXX:2").people
    later = crosswalk.parse((HEADER + f"RXX,2,{ONE},{THREE}\n").encode())
    assert recall.pseudonyms_of((layout.NHS_ISSUER, ONE), world.config, later, world.pseudonyms) & before


@pytest.mark.parametrize("line", ["1.2.2", sha(2).hex(), sha(2).hex().upper(), "released"])
def test_an_instance_by_any_of_its_names(world: World, line: str) -> None:
    meant = world.instances(world.pseudonyms.uid("1.2.2") if line == "released" else line)
    assert meant.objects == {sha(2).hex()}
    assert meant.uids == {layout.uid_digest("1.2.2")}
    assert meant.people == set()


@pytest.mark.parametrize(("kind", "lines", "error"), [
    ("people", ("RXX:1", "RXX:404"), NotFound), ("people", ("Jane Doe",), UsageError), ("people", (":77",), UsageError),
    ("people", ("RXX:",), UsageError), ("instances", ("1.2.0", "1.2.404"), NotFound),
    ("instances", ("Jane",), UsageError), ("instances", ("abc" * 10,), UsageError)])
def test_what_is_not_known_is_refused_by_line_number_alone(world: World, kind: str, lines: tuple[str, ...],
                                                           error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^Line {len(lines)}") as refused:
        getattr(world, kind)(*lines)
    assert not any(line.split(":")[-1] in str(refused.value) for line in lines if line.split(":")[-1])
