"""No number that is kept back can be worked out: by subtraction, by all sums together, or because none is below one."""

from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit.base import Asked, Outcome
from pipeline.audit.figures import TOGETHER, crossed, listed
from pipeline.audit.suppress import cells, groups, tree

SMALL = st.sampled_from([0, 0, 1, 2, 3, 5])


def solutions(unknown, sums, least):
    """Every way to fill `unknown` with whole numbers from `least` so that each sum (names, total) comes out."""
    most = {name: min(total for names, total in sums if name in names) for name in unknown}
    found = []

    def fill(at, values):
        if at == len(unknown):
            if all(sum(values[n] for n in names) == total for names, total in sums):
                found.append(dict(values))
            return
        for value in range(least, most[unknown[at]] + 1):
            values[unknown[at]] = value
            if all(sum(values.get(n, least) for n in names) <= total for names, total in sums):
                fill(at + 1, values)
        del values[unknown[at]]

    fill(0, {})
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(SMALL, min_size=1, max_size=5), st.integers(2, 4))
def test_no_group_of_a_list_can_be_worked_out(numbers, minimum):
    people = {str(n): value for n, value in enumerate(numbers)}
    total = sum(numbers)
    gone = groups(people, total, minimum)
    if gone is None:
        return
    assert {key for key, n in people.items() if 0 < n < minimum} <= gone
    rest = total - sum(n for key, n in people.items() if key not in gone)
    assert not gone or rest >= minimum
    found = solutions(sorted(gone), [(sorted(gone), rest)], 1) if gone else []
    for key in gone:
        assert len({one[key] for one in found}) > 1, (people, gone)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.data(), st.integers(2, 3))
def test_no_cell_of_a_table_can_be_worked_out_beside_all_its_totals(rows, columns, data, minimum):
    keys = [(f"r{r}", f"c{c}") for r, c in product(range(rows), range(columns))]
    people = {key: data.draw(SMALL) for key in keys}
    lines = [[key for key in keys if key[at] == name] for at in (0, 1) for name in {key[at] for key in keys}]
    totals = [sum(people[key] for key in line) for line in lines]
    if any(0 < total < minimum for total in totals):
        return      # a list has kept such a row or column back, and put it together with others
    gone = cells(people, minimum)
    small = {key for key, n in people.items() if 0 < n < minimum}
    assert small <= gone
    # Zeros are shown, so what is not is at least one; where no cell is shown, nobody knows which are none.
    least = 0 if gone == set(people) else 1
    sums = [([k for k in line if k in gone], sum(people[k] for k in line if k in gone)) for line in lines]
    assert least == 0 or all(left == 0 or left >= minimum for _, left in sums)
    found = solutions(sorted(gone), [one for one in sums if one[0]], least)
    for key in gone if least else small:
        assert len({one[key] for one in found}) > 1, (people, gone)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=2), min_size=1, max_size=3),
       st.integers(2, 5))
def test_no_group_of_a_hierarchy_can_be_worked_out(shape, minimum):
    people = {(): sum(map(sum, shape))}
    for n, parts in enumerate(shape):
        people[(f"d{n}",)] = sum(parts)
        people |= {(f"d{n}", f"v{m}"): part for m, part in enumerate(parts)}
    gone = tree(people, minimum)
    if gone is None:
        return
    assert {path for path, n in people.items() if 0 < n < minimum} <= gone
    leaves = sorted(path for path in people if len(path) == 2)

    def sum_of(path):
        return [leaf for leaf in leaves if leaf[: len(path)] == path]

    found = solutions(leaves, [(sum_of(path), n) for path, n in people.items() if path not in gone], 1)
    for path in gone:
        assert len({sum(one[leaf] for leaf in sum_of(path)) for one in found}) > 1, (people, gone)


@pytest.fixture(scope="module")
def asked():
    import duckdb

    with duckdb.connect(config={"threads": 1}) as db:
        yield lambda minimum: Asked(db, {}, minimum, "safe", Outcome("", "", "", 0, {}))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from([1, 2, 3, 11, 14])), min_size=1,
                max_size=7), st.sampled_from([3, 10]))
def test_nothing_small_follows_from_all_that_is_shown_of_a_table(asked, rows, minimum):
    """Every number shown is a sum of the first table's cells. What is small is in the span of none of them together."""
    ask = asked(minimum)
    flat = [(r, c) for r, c, n in rows for _ in range(n)]
    people = pa.table({"person": range(len(flat)), "r": [f"r{r}" for r, _ in flat], "c": [f"c{c}" for _, c in flat]})
    ask.db.register("v", people)
    found = crossed(ask, "v", "r", "c")
    inner = sorted(set(product({f"r{r}" for r, _ in flat}, {f"c{c}" for _, c in flat})))
    count = {key: sum((f"r{r}", f"c{c}") == key for r, c in flat) for key in inner}

    def row_of(rs, cs):
        return [float(r in rs and c in cs) for r, c in inner]

    every = ({r for r, _ in inner}, {c for _, c in inner})

    def names(found_in, label):
        return set(found_in.held) if label == TOGETHER else {label}

    shown = []
    if found.rows.total.shown:
        shown.append((row_of(*every), found.rows.total))
    shown += [(row_of(names(found.rows, r), every[1]), n) for r, n in found.rows.groups.items()]
    shown += [(row_of(every[0], names(found.columns, c)), n) for c, n in found.columns.groups.items()]
    shown += [(row_of(names(found.rows, r), names(found.columns, c)), n)
              for (r, c), n in found.cells.items() if n.shown]
    vector = np.array([count[key] for key in inner], dtype=float)
    for row, n in shown:
        assert np.dot(row, vector) == n.n
        assert n.people == 0 or n.people >= minimum
    known = np.array([row for row, _ in shown] or [[0.0] * len(inner)])
    rank = np.linalg.matrix_rank(known)
    small = [row_of({r}, {c}) for r, c in inner if 0 < count[r, c] < minimum]
    small += [row_of({r}, every[1]) for r in every[0]] + [row_of(every[0], {c}) for c in every[1]]
    for row in small:
        if 0 < np.dot(row, vector) < minimum:
            assert np.linalg.matrix_rank(np.vstack([known, row])) > rank, (count, found)


def test_people_of_several_small_groups_are_counted_once(asked):
    """Six groups of the same four people are four people, whatever the sum says."""
    ask = asked(10)
    rows = [(p, f"g{g}") for g in range(6) for p in range(4)] + [(100 + p, "big") for p in range(30)] + [
        (200 + p, "middle") for p in range(12)]
    ask.db.register("v", pa.table({"person": [p for p, _ in rows], "g": [g for _, g in rows]}))
    found = listed(ask, "v", "g")
    assert "middle" in found.held
    assert found.groups[TOGETHER].people == 16
    assert found.groups["big"].people == 30


def test_a_small_total_is_not_shown_at_all(asked):
    ask = asked(10)
    ask.db.register("v", pa.table({"person": range(9), "g": ["a"] * 5 + ["b"] * 4}))
    found = listed(ask, "v", "g")
    assert not found.groups and not found.total.shown and found.total.n == 0


def test_a_group_that_is_kept_back_is_not_empty_in_a_table(asked):
    """Its cells have no numbers: a zero would be one."""
    ask = asked(10)
    rows = [("a", "x")] * 30 + [("a", "y")] * 25 + [("a", "z")] * 4 + [("b", "x")] * 20
    ask.db.register("v", pa.table({"person": range(len(rows)), "r": [r for r, _ in rows], "c": [c for _, c in rows]}))
    found = crossed(ask, "v", "r", "c")
    assert set(found.columns.held) == {"y", "z"}
    assert not found.cell("a", "z").shown and not found.cell("b", "y").shown
    assert found.cell("b", TOGETHER).shown and found.cell("b", TOGETHER).n == 0
