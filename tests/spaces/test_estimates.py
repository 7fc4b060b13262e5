import random
from collections import Counter

import pytest

from spaces.estimates import Amount, Share, distinct_kinds, leaves, wilson


def test_wilsons_interval_is_the_published_one():
    assert wilson(10, 100) == pytest.approx((0.0552, 0.1744), abs=5e-5)
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10)[1] == 1
    assert wilson(0, 0) == (0, 1)


def test_what_was_counted_has_no_interval():
    assert Share(3, 12).interval == (0.25, 0.25)
    low, high = Share(3, 12, exact=False).interval
    assert low < 0.25 < high
    assert Amount.counted(7).to_json() == {
        "value": 7,
        "low": 7,
        "high": 7,
        "exact": True,
        "how": "",
    }


def test_kinds_that_were_not_seen_by_hand():
    # Six kinds seen, three of them once, two twice: 3 * 2 / (2 * (2 + 1)) = 1 more.
    found = distinct_kinds([1, 1, 1, 2, 2, 5])
    assert found.value == 7
    assert 6 <= found.low <= 7 <= found.high
    assert not found.exact


def test_where_every_kind_was_seen_often_there_are_no_more():
    assert distinct_kinds([9, 4, 7]) == Amount(3, 3, 3, exact=False)


@pytest.mark.parametrize("kinds", [50, 400, 3000])
def test_the_interval_of_kinds_holds_the_truth_in_most_cases(kinds):
    held = 0
    for seed in range(40):
        chance = random.Random(seed)
        found = distinct_kinds(Counter(chance.randrange(kinds) for _ in range(1000)).values())
        held += found.low <= kinds <= found.high
    assert held >= 34  # 95 % of 40 are 38; fewer than 34 would be one in a hundred


def test_ways_through_a_tree():
    # Left a leaf; right two leaves: ways 2 or 4, evenly, in the mean the 3 leaves.
    assert leaves([2, 4] * 50).value == 3
    assert leaves([6, 6, 6]) == Amount(6, 6, 6, exact=False)
