"""The language of a filter: what it reads, what it refuses and where, and that nothing gets past it into SQL."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.catalogue.ask import question
from pipeline.catalogue.filter import Both, FilterError, Literal, Not, parse
from pipeline.catalogue.filter import Test as One

KNOWN = {"Modality", "CompressionForce", "Manufacturer", "StudyDate", "PatientAge", "ViewCodeSequence.CodeValue",
         "(0045,GEMS_SENO_02,49)", "ImageType", "OrganDose"}


def test_the_issue_s_own_filter():
    tree = parse("Modality = 'MG' and CompressionForce > 150 and Manufacturer like 'HOLOGIC%'")
    assert tree == Both("and", (One("Modality", "=", (Literal("MG", False),)),
                                One("CompressionForce", ">", (Literal("150", True),)),
                                One("Manufacturer", "like", (Literal("HOLOGIC%", False),))))


@pytest.mark.parametrize(("text", "same"), [
    ("Modality = 'MG' AND not CompressionForce <= 1e2", "Modality='MG' and (not (CompressionForce<=1e2))"),
    ("Modality != 'MG'", "not Modality = 'MG'"),
    ("Modality not in ('MG', 'CT') or Modality is not null", "(not Modality in ('MG','CT')) or not Modality is null"),
    ("StudyDate not between '2019-01-01' and '2019-12-31'", "not (StudyDate between '2019-01-01' and '2019-12-31')"),
    ("Modality = 'a' or Modality = 'b' and Modality = 'c'", "Modality = 'a' or (Modality = 'b' and Modality = 'c')"),
    ("(0045,GEMS_SENO_02,49) > -5.5", '"(0045,GEMS_SENO_02,49)" > -5.5'),
    ("ViewCodeSequence.CodeValue = 'R-10242'", '"ViewCodeSequence.CodeValue" = \'R-10242\''),
])
def test_two_ways_to_say_it(text, same):
    assert parse(text) == parse(same)


_names = st.one_of(st.sampled_from(sorted(KNOWN)), st.text(min_size=1, max_size=12).filter(lambda s: "\0" not in s))
_strings = st.text(max_size=12).filter(lambda s: "\0" not in s).map(lambda s: Literal(s, False))
_numbers = st.one_of(st.integers().map(str), st.floats(allow_nan=False, allow_infinity=False).map(str)) \
    .map(lambda s: Literal(s, True))
_literals = _strings | _numbers
_tests = st.one_of(
    st.builds(lambda n, o, v: One(n, o, (v,)), _names, st.sampled_from(["=", "<", "<=", ">", ">="]), _literals),
    st.builds(lambda n, v: One(n, "in", tuple(v)), _names, st.lists(_literals, min_size=1, max_size=4)),
    st.builds(lambda n, a, b: One(n, "between", (a, b)), _names, _literals, _literals),
    st.builds(lambda n, o, v: One(n, o, (v,)), _names, st.sampled_from(["like", "ilike"]), _strings),
    st.builds(lambda n: One(n, "is null"), _names),
)


def _both(word, parts):
    flat = []
    for part in parts:
        flat += part.parts if isinstance(part, Both) and part.word == word else (part,)
    return Both(word, tuple(flat))


trees = st.recursive(_tests, lambda below: st.builds(Not, below) | st.builds(
    _both, st.sampled_from(["and", "or"]), st.lists(below, min_size=2, max_size=3)), max_leaves=8)


@given(trees)
@settings(max_examples=120, deadline=None)
def test_what_is_written_reads_as_the_same_tree(tree):
    assert parse(str(tree)) == tree
    assert str(parse(str(tree))) == str(tree)


@pytest.mark.parametrize(("text", "at", "says"), [
    ("", 0, "name of an element"),
    ("Modality", 8, "comparison"),
    ("Modality = MG", 11, "value is wanted"),
    ("Modality = 'MG", 11, "quote is not closed"),
    ("Modality = 'MG' CompressionForce > 1", 16, "one word too many"),
    ("Modality = 'MG' and", 19, "name of an element"),
    ("(Modality = 'MG'", 16, "`)`"),
    ("Modality in ()", 13, "value is wanted"),
    ("StudyDate between '2019-01-01'", 30, "`and`"),
    ("Modality like 5", 14, "in quotes"),
    ("Modality is 'MG'", 12, "`null`"),
    ("CompressionForce > 1;", 20, "no part"),
    ("CompressionForce > 12N", 19, "no part"),
    ("(" * 60 + "Modality is null" + ")" * 60, 51, "nested"),
    ("not " * 60 + "Modality is null", 204, "nested"),
    ("Modality = 'x\0y'", 11, "NUL"),
    ("Modality in (" + "1," * 1500 + "1)", 0, "more than"),
    ("x" * 30_000, 20_000, "longer"),
])
def test_what_is_no_filter_is_refused_where_it_fails(text, at, says):
    with pytest.raises(FilterError, match=re.escape(says)) as refused:
        parse(text)
    assert refused.value.at == at
    assert f"character {at + 1}:" in refused.value.message


@given(st.text(max_size=60) | st.lists(st.sampled_from(
    ["Modality", "and", "or", "not", "(", ")", "in", "=", "'x'", "5", ",", "like", "is", "null", "between", '"a"']),
    max_size=12).map(" ".join))
@settings(max_examples=120, deadline=None)
def test_any_text_is_a_filter_or_is_refused(text):
    try:
        parse(text)
    except FilterError as error:
        assert 0 <= error.at <= len(text)


@pytest.mark.parametrize(("text", "at", "says"), [
    ("CompresionForce > 1", 0, "Did you mean CompressionForce"),
    ("Modality = 'MG' and modality = 'MG'", 20, "Did you mean Modality"),
    ("CompressionForce > '150'", 19, "is a number (DS): write it like 150"),
    ("Modality = 5", 11, "is text (CS): write it like 'MG'"),
    ("Manufacturer > 'A'", 0, "has no order"),
    ("StudyDate > '2019-02-30'", 12, "is a date (DA): write it like '2019-01-31'"),
    ("PatientAge > 'old'", 13, "is an age"),
    ("CompressionForce > 1e999", 19, "is a number"),
])
def test_what_does_not_fit_the_columns_is_refused_where_it_stands(text, at, says):
    with pytest.raises(FilterError) as refused:
        question(parse(text), KNOWN)
    assert refused.value.at == at
    assert says in str(refused.value)


ATTACKS = [
    "1=1", "'a'='a'", "Modality = 'MG'; DROP TABLE catalogue", "Modality = 'MG' -- ", "Modality = 'MG' /* */ or 1=1",
    "Modality = 'MG' union select * from catalogue", "read_csv('x') = 'y'", "Modality = (select 1)",
    "Modality = 'MG' or c0 is null", "exists (select 1)", "Modality = $1", "Modality = ?", "Modality || 'x' = 'y'",
    "Modality[1] = 'MG'", "Modality = 'MG' limit 1", "\"patient_id\" = 'x'", "\"c0\"\" or true --\" = 'x'",
    "Modality::int = 1", "CASE WHEN true THEN 1 END = 1", "len(Modality) = 1", "Modality = 'MG' COLLATE NOCASE",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_sql_is_refused(text):
    with pytest.raises(FilterError):
        question(parse(text), KNOWN)


_SAFE = re.compile(r"\?|c\d+|v(\[1:3\])?|lambda|list_filter|list_transform|regexp_full_match|TRY_CAST|CAST|AS"
                   r"|DOUBLE|REAL|VARCHAR|DATE|TRY_STRPTIME|isfinite|len|coalesce|NOT|AND|OR|IN|BETWEEN|LIKE|ILIKE|CASE|WHEN|THEN"
                   r"|END|IS|NULL|false|[ (),:<>=]+|0|'[^']*'")


@given(st.text(max_size=30).filter(lambda s: "\0" not in s), st.sampled_from(["=", "like", "in"]))
@settings(max_examples=80, deadline=None)
def test_no_word_of_the_filter_is_in_the_expression(text, op):
    """The expression is of the product's own words; what was typed is a parameter."""
    literal = One("Modality", op, (Literal(text, False),))
    asked = question(parse(str(Both("or", (literal, One("CompressionForce", ">", (Literal("7", True),)))))), KNOWN)
    assert asked.values == (text, 7.0)
    assert asked.columns == ("Modality", "CompressionForce")
    assert not _SAFE.sub("", asked.sql)
    constants = set(re.findall(r"'[^']*'", asked.sql))
    assert constants <= {"''", "'[+-]?(\\d{1,32}(\\.\\d{0,32})?|\\.\\d{1,32})([eE][+-]?\\d{1,3})?'"}
