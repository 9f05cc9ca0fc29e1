"""Groups of at least k persons: whom a small group takes along, and that what is left has none."""

import itertools
import json
import random
from collections import defaultdict
from datetime import date

import pandas as pd
import pyarrow as pa
import pytest
import whole

from pipeline.errors import SuiteRefused
from pipeline.sections import SmallGroups
from pipeline.validate import groups, measure, relations
from pipeline.validate.custom import TYPE
from pipeline.validate.gx import COUNTS, Asker
from pipeline.validate.relations import Relations
from pipeline.validate.run import settle, validate
from pipeline.validate.suites import load

QUASI = ("patients.sex", "studies.age_band_years", "studies.study_date")


def section(k=2, columns=QUASI, **bands):
    return SmallGroups(k=k, columns=columns, bands={f"studies.{name}": band for name, band in bands.items()})


def made(people, clinical=None):
    """`people`: {person: (sex, {study: (age, date)})}; two images a study."""
    studies = [(f"s{study}", person, *what) for person, (_, some) in people.items() for study, what in some.items()]
    images = [(f"i{study[1:]}.{n}", study, person) for study, person, *_ in studies for n in (1, 2)]

    def columns(names, rows):
        return dict(zip(names, zip(*rows, strict=True), strict=True))

    out = {
        "patients": pa.table(columns(("patient_id", "sex"), [(p, sex) for p, (sex, _) in people.items()])),
        "studies": pa.table(columns(("study_uid", "patient_id", "age_band_years", "study_date"), studies)),
        "instances": pa.table(columns(("sop_instance_uid", "study_uid", "patient_id"), images)),
    }
    return out | ({"episodes": pa.table(columns(("patient_id", "end_code"), clinical))} if clinical else {})


def judged(tables, given, withheld=()):
    with Relations(tables) as relations_:
        return groups.judge(Asker(), relations_, given, withheld)


DAY = date(2012, 3, 1)


def test_a_small_group_takes_its_studies_and_their_images_along():
    people = {"A": ("F", {1: (50, DAY), 2: (55, DAY)}), "B": ("F", {3: (50, DAY)}), "C": ("O", {4: (50, DAY)})}
    found = judged(made(people), section(2))
    assert found.instances == {"i2.1", "i2.2", "i4.1", "i4.2"}         # 55 is A's alone, and C is the only O
    assert (found.rows, found.answer.element_count, found.answer.unexpected_count) == (4, 4, 2)
    assert judged(made(people), section(3)).instances == {f"i{s}.{n}" for s in (1, 2, 3, 4) for n in (1, 2)}


def test_persons_count_and_not_their_studies():
    people = {"A": ("F", dict.fromkeys(range(5), (50, DAY))), "B": ("F", {9: (50, DAY)})}
    assert judged(made(people), section(2)).instances == set()
    assert len(judged(made(people), section(3)).instances) == 12


def test_null_is_a_value_like_another():
    people = {"A": (None, {1: (50, None)}), "B": (None, {2: (50, None)}), "C": ("F", {3: (50, None)})}
    assert judged(made(people), section(2)).instances == {"i3.1", "i3.2"}


def test_a_wider_band_keeps_more():
    people = {"A": ("F", {1: (50, DAY)}), "B": ("F", {2: (50, date(2012, 2, 1))}),
              "C": ("F", {3: (50, date(2012, 9, 1))}), "D": ("F", {4: (50, date(2013, 9, 1))})}  # fmt: skip
    lost = [len(judged(made(people), section(2, **bands)).instances) // 2
            for bands in ({}, {"study_date": "month"}, {"study_date": "quarter"}, {"study_date": "year"})]
    assert lost == [4, 4, 2, 1]


def test_without_a_column_of_studies_a_person_goes_whole():
    people = {"A": ("F", {1: (50, DAY), 2: (70, DAY)}), "B": ("F", {3: (50, DAY)}), "C": ("O", {4: (50, DAY)})}
    assert judged(made(people), section(2, ("patients.sex",))).instances == {"i4.1", "i4.2"}


def test_what_is_withheld_already_makes_no_group_larger():
    people = {"A": ("F", {1: (50, DAY)}), "B": ("F", {2: (50, DAY)}), "C": ("F", {3: (50, DAY)})}
    assert judged(made(people), section(3)).instances == set()
    assert judged(made(people), section(3), {"i3.1"}).instances == set()        # an image of C is left
    assert judged(made(people), section(3), {"i3.1", "i3.2"}).instances == {"i1.1", "i1.2", "i2.1", "i2.2"}


def test_a_clinical_column_takes_rows_too_and_groups_that_shrink_for_it_follow():
    people = {"A": ("F", {1: (50, DAY)}), "B": ("F", {2: (50, DAY)}), "C": ("O", {3: (50, DAY)}),
              "D": ("O", {4: (50, DAY)})}  # fmt: skip
    # A and B share SC; C and D share sex but neither code; E and F have no image.
    rows = [("A", "SC"), ("B", "SC"), ("C", "SC"), ("D", "DNA"), ("E", "SC"), ("F", "SC"), ("F", "DNA")]
    found = judged(made(people, rows), section(2, ("patients.sex", "episodes.end_code")))
    assert found.instances == {"i3.1", "i3.2", "i4.1", "i4.2"}
    assert found.dropped == {"episodes": {2, 3, 6}}


def test_what_is_left_has_no_small_group(monkeypatch):
    """Random people against plain Python: the largest set of studies and rows in which every group has k persons."""
    monkeypatch.setattr(relations, "DEAL", 40)
    rng = random.Random(7)
    for k in (2, 3, 6):
        number = itertools.count()
        visits = [{next(number): (rng.choice((50, 55)), date(2012, rng.randrange(1, 3), 1))
                   for _ in range(rng.randrange(1, 4))} for _ in range(60)]  # fmt: skip
        people = {f"P{n}": (rng.choice("FFFO"), some) for n, some in enumerate(visits)}
        rows = [(f"P{rng.randrange(70)}", rng.choice(["a", "b", "c", None])) for _ in range(60)]
        found = judged(made(people, rows), section(k, (*QUASI, "episodes.end_code"), study_date="quarter"))
        studies = {s for _, some in people.values() for s in some}
        clinical = set(range(len(rows)))
        while True:
            sizes, members = defaultdict(set), defaultdict(list)
            for person in {*people, *(p for p, _ in rows)}:
                sex, some = people.get(person, (None, {}))
                live = [s for s in some if s in studies]
                for study in live or [None]:
                    for row in [n for n in clinical if rows[n][0] == person] or [None]:
                        if study is None and row is None:
                            continue
                        what = some.get(study, (None, None))
                        key = (sex if live else None, what[0], what[1] and (what[1].month + 2) // 3,
                               None if row is None else rows[row][1])
                        sizes[key].add(person)
                        members[key].append((study, row))
            small = [unit for key, units in members.items() if len(sizes[key]) < k for unit in units]
            if not small:
                break
            studies -= {study for study, _ in small}
            clinical -= {row for _, row in small}
        kept = {f"i{s}.{n}" for s in studies for n in (1, 2)}
        everything = {f"i{s}.{n}" for _, some in people.values() for s in some for n in (1, 2)}
        assert found.instances == everything - kept
        assert found.dropped["episodes"] == set(range(len(rows))) - clinical
        assert (kept and found.instances) or k == 6


@pytest.mark.parametrize(("columns", "bands"), [
    (("exposures.kvp_kv",), {}), (("patients.colour",), {}), (("patients.patient_id",), {}), (("clinic.sex",), {}),
    (("patients.sex",), {"patients.sex": "year"}),
])  # fmt: skip
def test_a_column_that_cannot_be_judged_is_refused(columns, bands):
    tables = made({"A": ("F", {1: (50, DAY)})}) | {"exposures": pa.table({"kvp_kv": [1.0]})}
    with pytest.raises(SuiteRefused, match="small_groups"):
        judged(tables, SmallGroups(k=2, columns=columns, bands=bands))


def test_the_expectation_counts_distinct_persons_by_itself_and_in_a_suite_file(tmp_path):
    data = pd.DataFrame({"who": ["a", "b", "a", "a", None], "x": [1, 1, 2, 2, 1], "y": [None] * 5})
    item = {"type": TYPE, "kwargs": {"column_list": ["who", "x", "y"], "k": 2, "ignore_row_if": "never", "mostly": 1.0},
            "severity": "warning", "meta": {"why": "x", "source": "x"}}  # fmt: skip
    (answer,) = Asker().ask("t", data, [item], COUNTS)
    assert (answer.success, answer.result["unexpected_count"]) == (False, 3)
    assert whole.ask(data, [item])[0][5] == [2, 3, 4]
    (tmp_path / "t.json").write_text(json.dumps({"name": "t", "meta": {"schema_version": 1}, "expectations": [item]}))
    assert validate({"t": pa.Table.from_pandas(data)}, tmp_path).dropped == {"t": [2, 3, 4]}
    item["type"] = "expect_rows_to_be_in_groups_of_at_most_k_persons"
    (tmp_path / "t.json").write_text(json.dumps({"name": "t", "meta": {"schema_version": 1}, "expectations": [item]}))
    with pytest.raises(SuiteRefused, match="no expectation of this type"):
        load(tmp_path, ["t"])


def test_validation_is_repeated_until_nothing_more_is_withheld(tmp_path):
    """An expectation withholds a row; without it a group is too small; positions are those of the first table."""
    item = {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "end_code", "value_set": ["SC"],
            "mostly": 1.0}, "severity": "warning", "meta": {"why": "x", "source": "x"}}  # fmt: skip
    for name, items in {"episodes": [item], "patients": [], "studies": [], "instances": []}.items():
        some = items or [{**item, "type": "expect_table_row_count_to_be_between", "severity": "info", "kwargs": {
            "min_value": 0, "max_value": 9, "strict_min": False, "strict_max": False}}]
        doc = {"name": name, "meta": {"schema_version": 1}, "expectations": some}
        (tmp_path / f"{name}.json").write_text(json.dumps(doc))
    first = made({"A": ("F", {1: (50, DAY)}), "B": ("F", {2: (50, DAY)}), "C": ("O", {3: (50, DAY)})},
                 [("A", "odd"), ("A", "SC"), ("B", "SC"), ("C", "SC")])
    asked = []

    def rebuild(withheld, dropped):
        asked.append((dict(withheld), {name: list(rows) for name, rows in dropped.items()}))
        keep = [n for n in range(4) if n not in dropped.get("episodes", ())]
        out = made({"A": ("F", {1: (50, DAY)}), "B": ("F", {2: (50, DAY)})})
        out["episodes"] = first["episodes"].take(keep)
        if len(asked) == 1:     # something that only shows in the second look
            out["episodes"] = out["episodes"].set_column(1, "end_code", pa.array(["SC", "odd", "SC"]))
        return out

    found = settle(first, tmp_path, section(2, ("patients.sex",)), rebuild)
    assert asked[0] == ({"i3.1": "group_too_small", "i3.2": "group_too_small"}, {"episodes": [0]})
    assert asked[1][1] == {"episodes": [0, 2]} and len(asked) == 2
    assert found.withheld == asked[1][0] and found.dropped == {"episodes": [0, 2]}
    assert found.results["episodes"]["dropped_rows"] == 2
    assert found.results["small_groups"]["withheld_instances"] == 2
    assert measure.needed(item) == ["end_code"]
