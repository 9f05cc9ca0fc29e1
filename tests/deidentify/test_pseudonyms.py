import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deidentify.keys import Key
from pipeline.deidentify.pseudonyms import Pseudonyms

A, B = Pseudonyms(Key(bytes(range(32)), "a")), Pseudonyms(Key(bytes(range(1, 33)), "b"))
texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=20)
uids = st.lists(st.integers(0, 10**9), min_size=3, max_size=8).map(lambda parts: "1." + ".".join(map(str, parts)))


@given(texts, texts)
def test_the_same_person_has_one_pseudonym_however_it_is_spaced(issuer, local_id):
    fresh = Pseudonyms(Key(bytes(range(32)), "a"))
    spaced = fresh.person(f"  {issuer}\0", f" {local_id}  ")
    assert spaced == A.person(issuer, local_id)
    assert re.fullmatch("P[0-9A-F]{20}", spaced)


@given(texts, texts, texts)
def test_field_boundaries_do_not_collide(one, two, three):
    assert A.person(one + two, three) != A.person(one, two + three)
    assert A.device(one + two, three, "1") != A.device(one, two + three, "1")


@given(texts, texts, uids)
def test_another_key_shares_nothing(one, two, uid):
    assert A.person(one, two) != B.person(one, two)
    assert A.uid(uid) != B.uid(uid)
    assert A.device(one, None, two) != B.device(one, None, two)
    assert A.operator(one, "n" + two) != B.operator(one, "n" + two)
    assert A.identifier(one, two) != B.identifier(one, two)


def test_domains_are_apart():
    made = {A.person("x", "y")[1:13], A.operator("x", "y")[1:], A.identifier("x", "y")[1:13]}
    assert len(made) == 3


def test_the_same_local_id_at_two_issuers_is_two_people():
    assert A.person("RXX", "1234") != A.person("RYY", "1234")
    assert A.person("RXX", "1234") != A.person("RXX", "1234A") != A.person("RXX", "1234a")


@given(uids)
def test_uids_are_version_8_uuids_under_2_25(uid):
    new = A.uid(uid)
    assert new == A.uid(uid + "\0") and len(new) <= 64
    bits = int(new.removeprefix("2.25."))
    assert bits < 1 << 128 and bits >> 76 & 0xF == 8 and bits >> 62 & 3 == 2


@given(texts, st.integers(1, 3650))
def test_days_are_always_into_the_past_and_within_reach(local_id, largest):
    person = A.person("i", local_id)
    assert -largest <= A.shift_days(person, largest) <= -1
    assert A.shift_days(person, largest) == A.shift_days(person, largest)


def test_days_and_seconds_differ_between_people_and_keys():
    people = [A.person("i", str(n)) for n in range(400)]
    days = [A.shift_days(p, 365) for p in people]
    assert len(set(days)) > 150 and min(days) < -300 and max(days) > -60
    assert sum(A.shift_days(p, 365) == B.shift_days(p, 365) for p in people) < 20
    assert all(-21_600 <= A.shift_seconds(p) <= -1 for p in people)
    assert len({A.shift_seconds(p) for p in people}) > 350


@pytest.mark.parametrize("absent", [None, "", "  ", "\0"])
def test_what_is_absent_stays_absent(absent):
    assert A.device("GE", "Senographe", absent) is None
    assert A.operator("RXX", absent) is None
    assert A.operator(absent, "Smith^Jane") is None
    assert A.identifier("episode_id", absent) is None
    with pytest.raises(ValueError):
        A.person("RXX", absent or "")
    with pytest.raises(ValueError):
        A.person(absent or "", "1")


def test_devices_and_operators_are_folded():
    assert A.device("GE  MEDICAL", "Senographe", "MG01 ") == A.device("ge medical", "SENOGRAPHE", "mg01")
    assert A.device("GE", None, "MG01") == A.device("GE", "", "MG01") != A.device("GE", "X", "MG01")
    assert A.operator("RXX", "SMITH^JANE^^") == A.operator(" rxx", "Smith ^ Jane")
    assert A.operator("RXX", "SMITH^JANE") != A.operator("RYY", "SMITH^JANE")
    assert A.operator("RXX", "^^") is None
    assert A.operator("RXX", "ＳＭＩＴＨ") == A.operator("RXX", "smith")      # full-width letters


def test_ids_of_people_are_not_folded_but_composed():
    assert A.person("RXX", "é1") == A.person("RXX", "e\u03011")
    assert A.person("RXX", "１２") != A.person("RXX", "12")


def test_they_may_be_sent_to_another_process():
    assert pickle.loads(pickle.dumps(A)).person("i", "1") == A.person("i", "1")
