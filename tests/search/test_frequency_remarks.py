from search.frequency_remarks import frequency_remarks
from spaces.candidate import DataFacts
from spaces.drawing import usual_candidates
from spaces.space import make_space

DIGITS = DataFacts("made", (1, 14, 14), 10, "", (60, 20, 20))  # resnet20: 14, 7 and 4 pixels
LARGE = DataFacts("made", (3, 32, 32), 10, "", (60, 20, 20))  # 32, 16 and 8


def remarks(data=DIGITS, **attention):
    content = {"backbone": "resnet20", "attention": {"placement": "stage", **attention}}
    space = make_space(content)
    return frequency_remarks(space, list(usual_candidates(space, data)))


def test_frequencies_that_coincide_on_a_small_map_are_named():
    # Index u of the 7-grid is round(4 u / 7) on 4 pixels, at most 3: 0 1 1 2 2 3 3.
    (words,) = remarks(type=["se", "fca"], frequency=["0,1", "0,2", "0,3"])
    assert words.startswith("on maps of 4 x 4 frequencies coincide (1 = 2, 3 = 4, 5 = 6);")
    assert "different ones" not in words  # no set has two of them


def test_what_is_left_of_a_set_is_counted():
    # (0,1), (0,2), (3,0) and (6,6) are (0,1), (0,1), (2,0) and (3,3).
    sets = ["0,1+0,2+3,0+6,6", "0,1+3,0"]
    (words,) = remarks(type={"fca": {"frequency": sets}}, reduction=16)
    assert "; 0,1+0,2+3,0+6,6 has 3 different ones of 4; choices" in words


def test_only_the_first_sets_are_named():
    sets = [f"0,1+0,2+{u},{v}+6,0" for u, v in ((0, 0), (0, 3), (3, 0), (3, 3), (5, 5))]
    (words,) = remarks(type="fca", frequency=sets)
    assert words.count("different ones of") == 4
    assert "and 1 more sets repeat some" in words


def test_nothing_is_said_where_nothing_coincides():
    assert remarks(type="fca", frequency=["0,1", "0,3", "0,5", "nas"]) == ()
    assert remarks(LARGE, type="fca", frequency=["0,1", "0,2"]) == ()
    assert remarks(type="se", reduction=[4, 8]) == ()
    assert remarks(type={"fca": {"frequency": ["0,1", "0,2"], "dct_size": 7}}) == ()


def test_blocks_that_never_see_the_small_maps_are_left_in_peace():
    content = {"type": "fca", "frequency": ["0,1", "0,2"]}
    assert remarks(**content | {"placement": "stem"}) == ()
