import numpy as np
import pytest

from blocks.errors import StudyError
from search.insight.choosing import chosen_images, parse_images


def test_a_number_is_how_many_and_a_list_is_which():
    assert parse_images(None) == 8
    assert parse_images("5") == 5
    assert parse_images("5,") == (5,)
    assert parse_images("9, 0,9") == (9, 0)


@pytest.mark.parametrize("text", ["", "no", "-1", "0", "33", "1,-2", "1.5"])
def test_anything_else_is_refused(text):
    with pytest.raises(StudyError, match=r"--images .*how many \(8; at most 32\).*0,5,9"):
        parse_images(text)


def test_images_in_dispute_come_first():
    first = np.array([True, True, False, False, True])
    second = np.array([True, False, False, True, True])
    assert chosen_images(4, [first, second], 5, "validation") == [1, 3, 0, 2]
    assert chosen_images(9, [first, second], 5, "validation") == [1, 3, 0, 2, 4]
    assert chosen_images(2, [first], 5, "validation") == [0, 1]


def test_images_that_are_named_are_taken_as_they_are():
    right = [np.zeros(5, dtype=bool)]
    assert chosen_images((4, 0), right, 5, "test") == [4, 0]
    with pytest.raises(StudyError, match="--images 5: the test split has images 0 to 4"):
        chosen_images((4, 5), right, 5, "test")
