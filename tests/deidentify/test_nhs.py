import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deidentify import nhs

nines = st.text("0123456789", min_size=9, max_size=9)


@given(nines)
def test_a_right_check_digit_passes_and_every_other_does_not(nine):
    right = nhs.check_digit(nine)
    for digit in range(10):
        number = f"{nine}{digit}"
        expected = number if digit == right and len(set(number)) > 1 else None
        assert nhs.normalise(number) == expected


@given(nines, st.integers(0, 8), st.integers(1, 9))
def test_one_wrong_digit_is_found(nine, place, more):
    check = nhs.check_digit(nine)
    if check is not None:
        wrong = nine[:place] + str((int(nine[place]) + more) % 10) + nine[place + 1:]
        assert nhs.normalise(f"{wrong}{check}") is None


@pytest.mark.parametrize("text", [
    "943 476 5919", "943-476-5919", " 9434765919 ", "943\u00a0476\u00a05919", "9434765919",
])
def test_separators_are_taken_off(text):
    assert nhs.normalise(text) == "9434765919"


@pytest.mark.parametrize("text", [
    None, "", "943476591", "94347659190", "943476591a", "９４３４７６５９１９", "9.43477E+09", "٩٤٣٤٧٦٥٩١٩",
    "943.476.5919",
    *(str(d) * 10 for d in range(10)),
])
def test_what_is_no_number_is_none(text):
    assert nhs.normalise(text) is None


def test_the_published_example():
    """NHS Data Dictionary's own example: 943 476 5919; and a first nine that has no check digit."""
    assert nhs.check_digit("943476591") == 9
    assert any(nhs.check_digit(f"{n:09d}") is None for n in range(100))
