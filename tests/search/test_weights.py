import pytest

from blocks.errors import StudyError
from search.weights import parse_options


def test_options_are_read_as_what_they_look_like():
    given = ["heads=4", "energy_lambda=0.1", "bias=true", "frequency = low2", "norm=false"]
    assert parse_options(given) == {
        "heads": 4,
        "energy_lambda": 0.1,
        "bias": True,
        "frequency": "low2",
        "norm": False,
    }
    assert isinstance(parse_options(["heads=4"])["heads"], int)
    assert parse_options(["frequency=0,0+6,0"]) == {"frequency": "0,0+6,0"}


@pytest.mark.parametrize("setting", ["heads", "heads=", "=4", "", " = 3"])
def test_settings_without_a_name_or_a_value_are_refused(setting):
    with pytest.raises(StudyError, match="write OPTION=VALUE, such as heads=4"):
        parse_options([setting])
