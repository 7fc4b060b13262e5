import math

import pytest

from spaces.parameters import Choice, Range, fixed


def test_one_value_is_fixed_and_its_own_default():
    assert fixed(12) == Choice((12,))
    assert fixed(12).is_fixed
    assert fixed(12).default == 12


def test_the_first_of_several_is_the_default():
    choice = Choice(("auto", 3, 5))
    assert not choice.is_fixed
    assert choice.default == "auto"


@pytest.mark.parametrize(
    ("domain", "default"),
    [
        (Range(0.1, 0.5), 0.3),  # (0.1 + 0.5) / 2
        (Range(0.01, 1.0, log=True), 0.1),  # sqrt(0.01 * 1)
        (Range(1e-4, 1e-2, log=True), 1e-3),
        (Range(16, 64), 40),
        (Range(16, 256, log=True), 64),  # sqrt(4096)
        (Range(16, 19), 18),  # 17.5, rounded to even
        (Range(2, 9, log=True), 4),  # sqrt(18) = 4.24
        (Range(0.1, 0.5, declared=0.4), 0.4),
        (Range(16, 256, log=True, declared=32), 32),
        (Range(0.0, 0.5, declared=0.0), 0.0),  # zero is a declared value, not a missing one
    ],
)
def test_the_default_of_a_range(domain, default):
    assert domain.default == pytest.approx(default)
    assert isinstance(domain.default, int) == isinstance(default, int)


def test_the_middle_of_a_range_of_proportions_is_equally_far_from_both_ends():
    middle = Range(0.003, 0.7, log=True).default
    assert middle / 0.003 == pytest.approx(0.7 / middle)


@pytest.mark.parametrize(
    ("low", "high", "whole"), [(1, 2, True), (1.0, 2, False), (1, 2.0, False), (0.5, 1.5, False)]
)
def test_a_range_is_whole_where_both_ends_are_written_so(low, high, whole):
    assert Range(low, high).is_integer is whole


def test_a_range_is_never_fixed():
    assert not Range(1, 2).is_fixed
    assert not Range(0.1, math.nextafter(0.1, 1)).is_fixed


def test_parameters_are_values():
    assert Choice((1, 2)) == Choice((1, 2))
    assert hash(Choice((1, 2))) == hash(Choice((1, 2)))
    assert Choice((1, 2)) != Choice((2, 1))
    assert Range(1, 2) != Range(1, 2, log=True)
    with pytest.raises(AttributeError):
        Range(1, 2).low = 0
