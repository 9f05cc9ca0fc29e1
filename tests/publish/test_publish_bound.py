"""The bound of a review: known values, and coverage computed exactly."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, hypergeom

from pipeline.publish.bound import finite, needed, upper


@pytest.mark.parametrize(("leaks", "drawn", "per_100000"), [
    (0, 300, 993.6), (0, 100, 2951.3), (0, 3000, 99.8), (0, 1, 95_000.0), (10, 10, 100_000.0)])
def test_known_values(leaks: int, drawn: int, per_100000: float) -> None:
    """Of no leak: 1 − 0.05^(1/n)."""
    assert 100_000 * upper(leaks, drawn) == pytest.approx(per_100000, abs=0.1)


@pytest.mark.parametrize(("leaks", "drawn"), [(0, 59), (1, 93), (2, 124), (3, 153), (4, 181)])
def test_the_samples_of_wilks(leaks: int, drawn: int) -> None:
    """The least samples that show 95 % with 95 % confidence, as quality engineers have them in tables (Wilks 1941)."""
    assert upper(leaks, drawn) <= 0.05 < upper(leaks, drawn - 1)


def test_the_rule_of_three() -> None:
    for n in (100, 1000, 10_000):
        assert 2.9 / n < upper(0, n) < 3 / n


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.data())
def test_it_is_the_quantile_of_a_beta(drawn: int, data: st.DataObject) -> None:
    leaks = data.draw(st.integers(0, drawn - 1))
    assert upper(leaks, drawn) == pytest.approx(beta.ppf(0.95, leaks + 1, drawn - leaks), rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.floats(0.001, 0.999))
def test_it_covers_the_truth(drawn: int, share: float) -> None:
    """Over all outcomes of a review the bound lies above the true share with 95 % probability at least."""
    covered = sum(binom.pmf(x, drawn, share) for x in range(drawn + 1) if upper(x, drawn) >= share)
    assert covered >= 0.95 - 1e-9


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 80), st.data())
def test_so_it_does_in_a_finite_release(population: int, data: st.DataObject) -> None:
    drawn, bad = data.draw(st.integers(1, population)), data.draw(st.integers(0, population))
    chances = {x: hypergeom.pmf(x, population, bad, drawn) for x in range(max(0, drawn + bad - population),
                                                                          min(drawn, bad) + 1)}
    assert sum(chance for x, chance in chances.items() if finite(x, drawn, population) >= bad) >= 0.95 - 1e-9
    # the binomial bound is on the safe side of a draw without replacement
    assert sum(chance for x, chance in chances.items() if upper(x, drawn) >= bad / population) >= 0.95 - 1e-9


def test_a_whole_release_is_known() -> None:
    assert [finite(x, 50, 50) for x in (0, 1, 50)] == [0, 1, 50]
    assert finite(0, 300, 1_000_000) == pytest.approx(9935, abs=5)
    assert finite(0, 300, 400) < 400 * upper(0, 300)


@settings(deadline=None, max_examples=60)
@given(st.floats(0.00001, 0.9))
def test_a_plan_is_the_least_that_will_do(share: float) -> None:
    n = needed(share)
    assert upper(0, n) < share
    assert n == 1 or upper(0, n - 1) >= share


def test_plans() -> None:
    assert [needed(x / 100_000) for x in (1000, 100, 10)] == [299, 2995, 29_956]


@pytest.mark.parametrize("bad", [lambda: upper(1, 0), lambda: upper(3, 2), lambda: upper(-1, 2), lambda: needed(0),
                                 lambda: needed(1), lambda: finite(0, 5, 4), lambda: finite(0, 0, 4)])
def test_what_is_no_review(bad) -> None:
    with pytest.raises(ValueError):
        bad()
