"""The factor table: interpolation against values worked out by hand, properties, and files that are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.curate.factors import COLUMNS, Grid, Group, of, read
from pipeline.errors import DosimetryRefused
from pipeline.synthetic import dosimetry

GRID = Grid(np.array([20.0, 30.0, 50.0]), np.array([0.3, 0.4]), np.array([[0.50, 0.60], [0.30, 0.40], [0.10, 0.20]]))


def at(grid, thickness, hvl):
    return grid.at(np.array([thickness], float), np.array([hvl], float))[0]


@pytest.mark.parametrize(("thickness", "hvl", "expected"), [
    (20, 0.3, 0.50), (50, 0.4, 0.20), (30, 0.3, 0.30),      # nodes
    (25, 0.3, 0.40),                                        # half way in thickness
    (20, 0.35, 0.55),                                       # half way in HVL
    (25, 0.35, 0.45),                                       # the mean of 0.50 0.60 0.30 0.40
    (45, 0.325, 0.175),                                     # 1/4 (3/4 0.30 + 1/4 0.40) + 3/4 (3/4 0.10 + 1/4 0.20)
])  # fmt: skip
def test_bilinear_by_hand(thickness, hvl, expected):
    assert at(GRID, thickness, hvl) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("thickness", "hvl"), [(19.999, 0.3), (50.001, 0.3), (30, 0.299), (30, 0.401), (np.nan, 0.3)])
def test_nothing_is_extrapolated(thickness, hvl):
    assert np.isnan(at(GRID, thickness, hvl))


def test_a_missing_node_matters_only_where_it_counts():
    holed = Grid(GRID.thickness, GRID.hvl, np.where(GRID.values == 0.40, np.nan, GRID.values))
    assert np.isnan(at(holed, 40, 0.35)) and np.isnan(at(holed, 30, 0.4))
    assert at(holed, 30, 0.3) == 0.30                       # its own node
    assert at(holed, 40, 0.3) == pytest.approx(0.20)        # the edge opposite


def test_an_axis_on_which_nothing_depends():
    assert at(Grid(None, None, np.array([[1.05]])), 999, 9) == 1.05
    assert at(Grid(np.array([20.0, 40.0]), None, np.array([[1.0], [0.9]])), 30, 9) == pytest.approx(0.95)
    assert np.isnan(at(Grid(np.array([20.0]), None, np.array([[1.0]])), 21, 9))


AXIS = st.lists(st.integers(10, 300), min_size=1, max_size=6, unique=True).map(sorted).map(np.array)
STEP = st.floats(0, 1, allow_subnormal=False)


@st.composite
def grids(draw):
    rows, cols = draw(AXIS), draw(AXIS)
    size = (len(rows), len(cols))
    steps = np.array(draw(st.lists(STEP, min_size=size[0] * size[1], max_size=size[0] * size[1]))).reshape(size)
    return Grid(rows, cols, steps.cumsum(0).cumsum(1))      # rises along both axes


@settings(max_examples=150, deadline=None)
@given(grids(), st.floats(0, 1), st.floats(0, 1))
def test_between_the_corners_and_exact_at_nodes(grid, down, along):
    rows, cols = grid.thickness, grid.hvl
    thickness = rows[0] + down * (rows[-1] - rows[0])
    hvl = cols[0] + along * (cols[-1] - cols[0])
    r, c = np.searchsorted(rows, thickness), np.searchsorted(cols, hvl)
    low = grid.values[r if rows[r] == thickness else r - 1, c if cols[c] == hvl else c - 1]
    assert low - 1e-9 <= at(grid, thickness, hvl) <= grid.values[r, c] + 1e-9
    for i, one in enumerate(rows):
        for j, other in enumerate(cols):
            assert at(grid, one, other) == grid.values[i, j]


@settings(max_examples=100, deadline=None)
@given(grids(), st.floats(0, 500), st.floats(0, 500))
def test_outside_is_nothing_and_inside_is_something(grid, thickness, hvl):
    inside = grid.thickness[0] <= thickness <= grid.thickness[-1] and grid.hvl[0] <= hvl <= grid.hvl[-1]
    assert np.isnan(at(grid, thickness, hvl)) == (not inside)


# ---- the file ----------------------------------------------------------------------------------------------------
def row(factor="g", value="0.4", thickness="", hvl="", source="a paper, table 1", **more):
    cells = dict.fromkeys(COLUMNS, "") | {"factor": factor, "value": value, "thickness_mm": thickness, "hvl_mm": hvl,
                                          "source": source} | more  # fmt: skip
    return ",".join(f'"{cells[name]}"' for name in COLUMNS)


LEAST = (row("g", "0.4", "30", "0.3"), row("c", "1"), row("s", "1", anode="W", filter="Rh"))


def written(tmp_path, *rows, name="factors.csv"):
    path = tmp_path / name
    path.write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    return path


def test_a_file_is_read_with_its_name_and_sources(tmp_path):
    factors = read(written(tmp_path, *LEAST))
    assert (factors.name, factors.synthetic) == ("factors.csv", False)
    assert set(factors.table["source"].to_pylist()) == {"a paper, table 1"}
    assert factors.choose("s", model="Selenia", anode="TUNGSTEN", filter_="RHODIUM") == Group(
        "s", None, "TUNGSTEN", "RHODIUM", None, None)
    assert factors.choose("s", model=None, anode="TUNGSTEN", filter_="SILVER") is None


def test_the_digest_is_that_of_name_and_numbers_and_not_of_the_spelling(tmp_path):
    one = read(written(tmp_path, *LEAST)).digest
    assert read(written(tmp_path, *reversed(LEAST))).digest == one
    assert read(written(tmp_path, *LEAST, name="other.csv")).digest != one
    assert read(written(tmp_path, *LEAST[1:], row("g", "0.41", "30", "0.3"))).digest != one


@pytest.mark.parametrize(("name", "source", "synthetic"), [
    ("SYNTHETIC-factors.csv", "x", True), ("synthetic.csv", "x", True), ("f.csv", "Synthetic: made up", True),
    ("f.csv", "x", False),
])  # fmt: skip
def test_what_is_synthetic_stays_so(tmp_path, name, source, synthetic):
    rows = [*LEAST, row("t", "0.9", source=source)]
    assert read(written(tmp_path, *rows, name=name)).synthetic is synthetic


def test_the_bundled_table_is_synthetic_and_complete(tmp_path):
    path = tmp_path / dosimetry.FACTORS_NAME
    path.write_text(dosimetry.factors_csv())
    factors = read(path)
    assert factors.synthetic
    assert all(not np.isnan(grid.values).any() for grid in factors.grids.values())
    assert at(factors.grids[factors.choose("g", model=None, anode="W", filter_="Al")], 50, 0.4) == dosimetry.g(50, 0.4)


@pytest.mark.parametrize(("age", "expected"), [
    (40, (40, 49)), (45, (40, 49)), (50, (50, 64)), (60, (50, 64)), (35, None), (65, None), (None, None),
])  # fmt: skip
def test_an_age_band_lies_wholly_in_the_rows_ages(tmp_path, age, expected):
    ages = [row("c", "1", age_from=str(a), age_to=str(b)) for a, b in ((40, 49), (50, 64))]
    factors = read(written(tmp_path, LEAST[0], LEAST[2], *ages))
    group = factors.choose("c", model=None, anode="W", filter_="RHODIUM", age=age)
    assert (group and (group.age_from, group.age_to)) == expected


def test_a_band_of_five_years_does_not_fit_into_four(tmp_path):
    for end, fits in (("53", False), ("54", True)):
        factors = read(written(tmp_path, LEAST[0], LEAST[2], row("c", "1", age_from="50", age_to=end)))
        assert bool(factors.choose("c", model=None, anode="x", filter_="y", age=50)) is fits


def test_a_wider_band_has_to_lie_in_the_rows_ages_too(tmp_path):
    """Somebody of the band 60 to 69 may be 68: a row for ages 50 to 64 would be a guess."""
    ages = [row("c", "1", age_from=str(a), age_to=str(b)) for a, b in ((40, 49), (50, 64))]
    found = read(written(tmp_path, LEAST[0], LEAST[2], *ages))
    wide = of(found.name, found.table, 10)
    assert [bool(wide.choose("c", model=None, anode="W", filter_="RHODIUM", age=age)) for age in (40, 50, 60)] == [
        True, True, False]
    assert found.choose("c", model=None, anode="W", filter_="RHODIUM", age=60)


def test_ninety_and_over_needs_ages_without_an_end(tmp_path):
    for end, fits in (("99", False), ("", True)):
        factors = read(written(tmp_path, LEAST[0], LEAST[2], row("c", "1", age_from="65", age_to=end)))
        assert bool(factors.choose("c", model=None, anode="x", filter_="y", age=90)) is fits


def test_the_row_that_names_the_model_goes_before_one_for_any(tmp_path):
    factors = read(written(tmp_path, *LEAST, row("t", "0.9"), row("t", "0.8", model="Selenia  DIMENSIONS")))
    assert factors.choose("t", model="Selenia Dimensions", anode="W", filter_="AL").model == "selenia dimensions"
    assert factors.choose("t", model="Mammomat", anode="W", filter_="AL").model is None


@pytest.mark.parametrize(("bad", "why"), [
    (row("x"), "factor is one of"), (row("g", ""), "no value"), (row("g", "0,4"), "value is not a number"),
    (row("g", "-0.4"), "value is not a number"), (row("g", "0"), "value is not a number"),
    (row("g", "40"), "value is not a number"), (row("g", "0.4", "3"), "thickness_mm is not a number"),     # in cm
    (row("g", "nan"), "value is not a number"), (row("g", source=""), "no source"),
    (row("c", age_from="40.5"), "whole years"), (row("c", age_from="60", age_to="50"), "above age_to"),
    ("g,1", "wrong number of cells"), (row("g", "0.5", "30", "0.3"), "given before"),
    (row("g", "0.5", "30"), "another set of axes"), (row("c", "1", age_from="50"), "overlap"),
])  # fmt: skip
def test_a_bad_row_refuses_the_file_and_names_its_line(tmp_path, bad, why):
    with pytest.raises(DosimetryRefused, match=rf"1 bad rows: line 5: .*{why}"):
        read(written(tmp_path, *LEAST, bad))


@pytest.mark.parametrize("text", ["", "factor,value\ng,1\n", "\0", "\xff", 'factor,"'])
def test_what_is_no_such_table_is_refused(tmp_path, text):
    path = tmp_path / "factors.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DosimetryRefused):
        read(path)
    with pytest.raises(DosimetryRefused, match="cannot be read"):
        read(tmp_path / "none.csv")


def test_a_table_without_one_of_the_factors_is_refused(tmp_path):
    with pytest.raises(DosimetryRefused, match="no rows for: c"):
        read(written(tmp_path, LEAST[0], LEAST[2]))
