import itertools

import pytest

from blocks.errors import BlockError
from blocks.frequency import (
    FREQUENCY_SETS,
    SINGLES,
    frequency_name,
    frequency_text,
    parse_frequency,
    representative_index,
    scaled_index,
    shortest_equal,
    sorted_frequency,
)

# The authors' sets, (u, v) with u the vertical frequency, in their order of 32.
PUBLISHED = {
    "top": [
        *[(0, 0), (0, 1), (6, 0), (0, 5), (0, 2), (1, 0), (1, 2), (4, 0)],
        *[(5, 0), (1, 6), (3, 0), (0, 4), (0, 6), (0, 3), (3, 5), (2, 2)],
        *[(4, 6), (6, 3), (3, 3), (5, 3), (5, 5), (2, 1), (6, 1), (5, 2)],
        *[(5, 4), (3, 2), (3, 1), (4, 1), (2, 3), (2, 0), (6, 5), (1, 3)],
    ],
    "low": [
        *[(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2, 1), (1, 2)],
        *[(2, 2), (0, 3), (3, 0), (4, 0), (0, 4), (1, 3), (3, 1), (0, 5)],
        *[(1, 4), (2, 3), (3, 2), (4, 1), (5, 0), (0, 6), (1, 5), (2, 4)],
        *[(3, 3), (4, 2), (5, 1), (6, 0), (1, 6), (2, 5), (3, 4), (4, 3)],
    ],
    "bot": [
        *[(6, 6), (1, 4), (3, 4), (3, 6), (2, 6), (4, 3), (1, 1), (2, 4)],
        *[(4, 4), (4, 5), (5, 6), (1, 5), (4, 2), (6, 2), (2, 5), (5, 1)],
        *[(6, 4), (1, 3), (6, 5), (2, 0), (2, 3), (4, 1), (3, 1), (3, 2)],
        *[(5, 4), (5, 2), (6, 1), (2, 1), (5, 5), (5, 3), (3, 3), (6, 3)],
    ],
}
ALL_PAIRS = set(itertools.product(range(7), repeat=2))


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("ranking", PUBLISHED)
def test_sets_are_the_published_ones(ranking, size):
    assert parse_frequency(f"{ranking}{size}") == tuple(PUBLISHED[ranking][:size])


def test_there_are_no_other_sets():
    sizes = (1, 2, 4, 8, 16, 32)
    assert set(FREQUENCY_SETS) == {f"{ranking}{size}" for ranking in PUBLISHED for size in sizes}


def test_thirty_two_pairs_are_distinct_and_top_and_bot_cover_the_grid():
    for ranking in PUBLISHED:
        assert len(set(parse_frequency(f"{ranking}32"))) == 32
    assert set(parse_frequency("top32")) | set(parse_frequency("bot32")) == ALL_PAIRS


def test_singles_are_the_whole_grid():
    assert [parse_frequency(text) for text in SINGLES] == [(pair,) for pair in sorted(ALL_PAIRS)]


# Worked out by hand: min(N - 1, round(u N / 7)); 6 * 3 / 7 = 2.57, cut to 2.
BELOW_SEVEN = {
    1: [0, 0, 0, 0, 0, 0, 0],
    2: [0, 0, 1, 1, 1, 1, 1],
    3: [0, 0, 1, 1, 2, 2, 2],
    4: [0, 1, 1, 2, 2, 3, 3],
    5: [0, 1, 1, 2, 3, 4, 4],
    6: [0, 1, 2, 3, 3, 4, 5],
}


@pytest.mark.parametrize("size", BELOW_SEVEN)
def test_scaling_below_seven_pixels(size):
    assert [scaled_index(u, size) for u in range(7)] == BELOW_SEVEN[size]
    assert [scaled_index(u, size, authors=True) for u in range(7)] == [0] * 7


@pytest.mark.parametrize("authors", [False, True])
@pytest.mark.parametrize(
    ("size", "factor"),
    [(7, 1), (8, 1), (13, 1), (14, 2), (15, 2), (20, 2), (21, 3), (28, 4), (32, 4), (56, 8)],
)
def test_scaling_from_seven_pixels_is_the_authors_integer_rule(size, factor, authors):
    assert [scaled_index(u, size, authors=authors) for u in range(7)] == [
        u * factor for u in range(7)
    ]


@pytest.mark.parametrize("size", range(1, 64))
def test_no_frequency_leaves_the_map(size):
    assert all(0 <= scaled_index(u, size) < size for u in range(7))


@pytest.mark.parametrize("authors", [False, True])
@pytest.mark.parametrize("size", range(1, 30))
def test_representative_is_the_smallest_frequency_with_the_same_index(size, authors):
    for u in range(7):
        index = scaled_index(u, size, authors=authors)
        same = [other for other in range(7) if scaled_index(other, size) == index]
        assert representative_index(u, size, authors=authors) == min(same)


def test_pairs_are_read_in_the_order_written():
    assert parse_frequency("6,0+0,0") == ((6, 0), (0, 0))
    assert parse_frequency(" 6, 0 + 0,0 ") == ((6, 0), (0, 0))
    assert frequency_text(((6, 0), (0, 0))) == "6,0+0,0"


@pytest.mark.parametrize("text", ["", "top3", "7,0", "0,7", "-1,0", "0", "0,0+", "0,0,0", "0.5,0"])
def test_other_texts_are_refused(text):
    with pytest.raises(BlockError, match=r"unknown frequency .*Allowed: top1, .*pairs of 0 to 6"):
        parse_frequency(text)


def test_refusal_names_the_nearest_set():
    with pytest.raises(BlockError, match=r"unknown frequency 'topp16'\. Did you mean 'top16'\?"):
        parse_frequency("topp16")


def test_explicit_lists_are_sorted_and_sets_are_not():
    assert sorted_frequency("6,0+0,5+0,0") == "0,0+0,5+6,0"
    assert sorted_frequency("top16") == "top16"
    with pytest.raises(BlockError, match=r"'0,0\+1,0\+0,0' names a pair twice"):
        sorted_frequency("0,0+1,0+0,0")


@pytest.mark.parametrize(
    ("letters", "shortest"),
    [
        ("a", "a"),
        ("aa", "a"),
        ("ab", "ab"),
        ("aabb", "ab"),
        ("abab", "abab"),
        ("aab", "aab"),
        ("aaabbb", "ab"),
        ("aabbcc", "abc"),
        ("aaaabb", "aab"),
        ("aaaaaaaa", "a"),
        ("aaaaaaab", "aaaaaaab"),
    ],
)
def test_shortest_equal_assigns_every_channel_the_same(letters, shortest):
    pairs = {"a": (0, 0), "b": (0, 1), "c": (1, 0)}
    assert shortest_equal(tuple(pairs[x] for x in letters)) == tuple(pairs[x] for x in shortest)


def test_names_are_found_again():
    assert frequency_name("0,0") == "top1"
    assert frequency_name("0,0+0,1+6,0+0,5") == "top4"
    assert frequency_name("0,0+6,0") == "0,0+6,0"
    assert frequency_name(frequency_text(FREQUENCY_SETS["bot16"])) == "bot16"
