import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import layout
from pipeline.deidentify import crosswalk, nhs
from pipeline.deidentify.keys import Key
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.errors import CrosswalkRefused
from pipeline.model import Reason
from pipeline.storage import open_store

HEADER = "issuer,local_id,nhs_number\n"
LONG = "issuer,local_id,nhs_number,superseded_nhs_number\n"


def number(n: int) -> str:
    """Return the nth valid NHS number from some start."""
    found = [f"{k:09d}{d}" for k in range(943_000_000 + 20 * n, 943_000_020 + 20 * n)
             if (d := nhs.check_digit(f"{k:09d}")) is not None]
    return found[0]


ONE, TWO, THREE = number(1), number(2), number(3)


def parse(text: str, header: str = HEADER) -> crosswalk.Crosswalk:
    return crosswalk.parse((header + text).encode())


def person(config, walk, issuer, local_id):
    return crosswalk.person_of({"issuer": issuer, "patient_id": local_id}, config, walk)


def test_one_person_at_two_hospitals_and_two_people_with_one_local_id(make_config, pseudonyms):
    walk = parse(f"RXX,1234,{ONE}\nRYY,A-77,{ONE[:3]} {ONE[3:6]} {ONE[6:]}\nRYY,1234,{TWO}\n")
    config = make_config()
    first, second = person(config, walk, "RXX", "1234"), person(config, walk, " RYY ", "A-77\0")
    other = person(config, walk, "RYY", "1234")
    assert first == second and first.key == (layout.NHS_ISSUER, ONE) and other.key == (layout.NHS_ISSUER, TWO)
    assert pseudonyms.person(*first.key) == pseudonyms.person(*second.key) != pseudonyms.person(*other.key)
    assert walk.identifiers(ONE) == {ONE, "1234", "A-77"}


@pytest.mark.parametrize(("issuer", "local_id", "reason"), [
    ("RXX", "empty", Reason.PERSON_NOT_LINKED), ("RXX", "invalid", Reason.PERSON_NOT_LINKED),
    ("RXX", "repeated", Reason.PERSON_NOT_LINKED), ("RXX", "nobody", Reason.PERSON_NOT_LINKED),
    ("RXX", "two", Reason.PERSON_AMBIGUOUS), ("RXX", "half", Reason.PERSON_AMBIGUOUS),
    ("RZZ", "two", Reason.PERSON_NOT_LINKED), (None, "two", Reason.ISSUER_UNKNOWN), (" ", "two", Reason.ISSUER_UNKNOWN),
    ("RXX", None, Reason.PERSON_ID_MISSING), ("RXX", " \0", Reason.PERSON_ID_MISSING),
    ("RXX", ONE, Reason.PERSON_NOT_LINKED),         # a local id is not an NHS number because it looks like one
    (layout.NHS_ISSUER, ONE, Reason.PERSON_NOT_LINKED),
])
def test_who_is_held(make_config, issuer, local_id, reason):
    bad = ONE[:9] + str((int(ONE[9]) + 1) % 10)
    walk = parse(f"RXX,empty,\nRXX,invalid,{bad}\nRXX,repeated,7777777777\nRXX,two,{ONE}\nRXX,two,{TWO}\n"
                 f"RXX,half,{ONE}\nRXX,half,12\n")
    held = person(make_config(), walk, issuer, local_id)
    assert held.key is None and held.id is None and held.reason is reason


def test_an_issuer_of_nhs_numbers_needs_rows_of_its_own(make_config):
    walk = parse(f"NHS,{ONE},{ONE}\n")
    assert person(make_config(), walk, "NHS", ONE).key == (layout.NHS_ISSUER, ONE)


def test_superseded_numbers_lead_to_the_newest_through_chains(make_config):
    walk = parse(f"RXX,old,{ONE},\nRXX,new,{THREE},{TWO}\n,,{TWO},{ONE}\nRXX,both,{ONE},\nRXX,both,{TWO},\n", LONG)
    config = make_config()
    assert {person(config, walk, "RXX", local).key for local in ("old", "new", "both")} == {(layout.NHS_ISSUER, THREE)}
    assert walk.current(ONE) == walk.current(TWO) == walk.current(THREE) == THREE
    assert walk.knows(THREE) and not walk.knows(ONE)
    assert walk.identifiers(THREE) == {ONE, TWO, THREE, "old", "new", "both"}


@pytest.mark.parametrize("text", [
    f",,{ONE},{TWO}\n,,{TWO},{ONE}\n", f",,{TWO},{ONE}\n,,{THREE},{TWO}\n,,{ONE},{THREE}\n", f",,{ONE},{ONE}\n",
    f",,{TWO},{ONE}\n,,{THREE},{ONE}\n", f",,12,{ONE}\n", f",,{ONE},12\n", f"RXX,1,,{ONE}\n", f",,{ONE},\n", ",,,\n",
])
def test_supersessions_that_cannot_be_understood_are_refused(text):
    with pytest.raises(CrosswalkRefused) as caught:
        parse(f"RXX,keep,{THREE},\n{text}", LONG)
    assert not {ONE, TWO, THREE} & set(str(caught.value).replace(".", " ").split())


@pytest.mark.parametrize(("data", "says"), [
    (b"", "header"), (HEADER.encode(), "nobody"), (b"issuer,id,nhs_number\nR,1,2\n", "header"),
    (b"issuer,nhs_number,local_id\n", "header"), ((HEADER + "RXX,1,x,y\n").encode(), "line 2"),
    ((HEADER + f"RXX,1,{ONE}\nRXX,2\n").encode(), "line 3"), ((HEADER + f"RXX,,{ONE}\n").encode(), "line 2"),
    ((HEADER + f",SECRET,{ONE}\n").encode(), "line 2"), ((HEADER + '"RXX,1,\n').encode(), "not CSV"),
    ((HEADER + "RXX,\u00e9,1\n").encode("latin-1"), "UTF-8"), ((HEADER + "RXX,1,2\n").encode("utf-16"), "UTF-8"),
    ((LONG + f",,{TWO},{ONE}\n").encode(), "nobody"),
])
def test_a_malformed_file_is_refused_by_line(data, says):
    with pytest.raises(CrosswalkRefused, match=says) as caught:
        crosswalk.parse(data)
    assert "SECRET" not in str(caught.value) and ONE not in str(caught.value)


def test_a_byte_order_mark_blank_lines_and_quotes_are_read():
    walk = crosswalk.parse(b"\xef\xbb\xbf" + (HEADER + f'"RXX","1, bis",{ONE}\r\n\r\n').encode())
    assert walk.resolve("RXX", "1, bis").nhs == ONE


digits = st.integers(1, 9)
rows = st.lists(st.tuples(st.sampled_from(["RXX", "RYY"]), digits, digits), min_size=1, max_size=20)


@given(rows, st.randoms(use_true_random=False))
def test_the_digest_is_of_what_is_said_not_of_how(some, random):
    lines = [f"{issuer},{local},{number(n)}\n" for issuer, local, n in some]
    shuffled = [line.replace(",", " ,", 1) for line in [*lines, lines[0]]]
    random.shuffle(shuffled)
    assert parse("".join(lines)).digest == parse("".join(shuffled)).digest
    assert parse("".join(lines) + f"RZZ,1,{ONE}\n").digest != parse("".join(lines)).digest


def test_load_says_what_is_missing(make_config, tmp_path):
    config = make_config()
    with pytest.raises(CrosswalkRefused, match="cannot be read"):
        crosswalk.load(config)
    (tmp_path / "crosswalk.csv").write_text(f"{HEADER}RXX,1,{ONE}\n")
    assert crosswalk.load(config).resolve("RXX", "1").nhs == ONE
    with pytest.raises(CrosswalkRefused, match="needs a crosswalk"):
        crosswalk.load(make_config(deidentify={"crosswalk": None}))


def test_a_project_that_is_not_linked_goes_by_issuer_and_local_id(make_config):
    config = make_config(project={"linked": False})
    walk = crosswalk.load(config)
    assert person(config, walk, "RXX", " 1  2 ").key == ("RXX", "1 2")
    assert person(config, walk, None, "1").reason is Reason.ISSUER_UNKNOWN
    assert person(config, walk, "RXX", "1").id == layout.person("RXX", "1") != layout.person("RXX1", "")


@pytest.fixture
def work(tmp_path):
    return open_store((tmp_path / "work").as_uri(), "work")


def test_a_changed_crosswalk_is_refused_until_told(make_config, pseudonyms, work):
    images = [{"issuer": "RXX", "patient_id": p} for p in ("1", "1 ", "2", "3", "nobody")]
    config, told = make_config(), make_config(deidentify={"accept_crosswalk_changes": True})

    def build(walk, config=config):
        return crosswalk.guard(work, config, crosswalk.pairs(images, config, walk, pseudonyms))

    before = parse(f"RXX,1,{ONE}\nRXX,2,{TWO}\nRXX,3,{THREE}\n")
    swapped = parse(f"RXX,1,{TWO}\nRXX,2,{ONE}\nRXX,3,{THREE}\n")
    gone = parse(f"RXX,2,{TWO}\n")
    assert build(before) == 0
    stored = work.read(layout.known_people(config.name))
    assert b"RXX" not in stored and ONE.encode() not in stored
    assert build(before) == 0 and work.read(layout.known_people(config.name)) == stored
    with pytest.raises(CrosswalkRefused, match="give 2 local ids"):
        build(swapped)
    assert work.read(layout.known_people(config.name)) == stored
    assert build(gone) == 0                     # nobody is not somebody else,
    with pytest.raises(CrosswalkRefused):       # and is not forgotten
        build(swapped)
    assert build(swapped, told) == 2
    assert build(swapped) == 0
    with pytest.raises(CrosswalkRefused, match="give 2 local ids"):
        build(before)


def test_a_new_supersession_counts_as_a_change(make_config, pseudonyms, work):
    config = make_config()
    images = [{"issuer": "RXX", "patient_id": "1"}]
    crosswalk.guard(work, config, crosswalk.pairs(images, config, parse(f"RXX,1,{ONE}\n"), pseudonyms))
    after = parse(f"RXX,1,{ONE},\n,,{TWO},{ONE}\n", LONG)
    with pytest.raises(CrosswalkRefused, match="give 1 local ids"):
        crosswalk.guard(work, config, crosswalk.pairs(images, config, after, pseudonyms))


def test_another_key_knows_nobody(make_config, pseudonyms):
    images, walk = [{"issuer": "RXX", "patient_id": "1"}], parse(f"RXX,1,{ONE}\n")
    other = Pseudonyms(Key(bytes(32), "other"))
    ours, theirs = (crosswalk.pairs(images, make_config(), walk, p) for p in (pseudonyms, other))
    assert not set(ours) & set(theirs) and not set(ours.values()) & set(theirs.values())
