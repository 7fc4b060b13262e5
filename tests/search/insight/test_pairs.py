import pytest

from search.insight.pairs import PairShare, by_pair


def group(u, v, share, energy):
    return {"u": u, "v": v, "share": share, "energy": energy}


def test_groups_of_one_pair_count_by_their_energy():
    first, second = by_pair([group(0, 1, 0.2, 0.75), group(3, 0, 0.5, 0.2), group(0, 1, 0.6, 0.25)])
    assert first == PairShare("3,0", 1, pytest.approx(0.5))
    assert second == PairShare("0,1", 2, pytest.approx(0.2 * 0.75 + 0.6 * 0.25))


def test_groups_without_energy_pick_up_nothing():
    assert by_pair([group(0, 0, None, 0.0)]) == [PairShare("0,0", 1, 0.0)]
