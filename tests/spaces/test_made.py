"""Spaces made in Python, without a file."""

import pytest

from blocks.errors import SpaceError
from spaces.candidate import DataFacts
from spaces.document import read_yaml
from spaces.drawing import check_possible
from spaces.space import Space, load_space, make_space, parse_space, shipped_spaces

FACTS = DataFacts("digits", (1, 14, 14), 10, "split", (1257, 270, 270))
CONTENT = {
    "backbone": "resnet20",
    "attention": {"type": ["none", "se", "fca"], "placement": ("stem", "stage"), "reduction": [4]},
    "training": {"epochs": 1, "learning_rate": {"low": 1e-5, "high": 0.1, "log": True}},
    "constraints": {"params": "1.05x baseline"},
    "forbid": [{"type": "fca", "placement": "stem"}],
}
TEXT = """
backbone: resnet20
attention: {type: [none, se, fca], placement: [stem, stage], reduction: [4]}
training: {epochs: 1, learning_rate: {low: 1e-5, high: 0.1, log: true}}
constraints: {params: 1.05x baseline}
forbid: [{type: fca, placement: stem}]
"""


def test_a_made_space_is_the_one_that_a_file_gives():
    made, read = make_space(CONTENT, name="mine"), parse_space(TEXT)
    assert made.digest == read.digest
    assert made.content == read.content
    assert (made.attention, made.training) == (read.attention, read.training)
    assert [str(rule) for rule in made.rules.forbidden] == ["type fca, placement stem"]
    assert (made.name, made.source) == ("mine", "space 'mine'")
    assert Space.of(name="mine", **CONTENT).digest == read.digest


@pytest.mark.parametrize("name", shipped_spaces())
def test_every_shipped_space_can_be_made_of_its_data(name):
    path = shipped_spaces()[name]
    made = make_space(read_yaml(path.read_text(encoding="utf-8")).data, name=name)
    shipped = load_space(name)
    assert made.digest == shipped.digest
    assert (made.name, made.question, made.study) == (name, shipped.question, shipped.study)
    again = parse_space(made.text, name=name)
    assert again.digest == shipped.digest, "what is stored of it can be run as a file"


def test_its_mistakes_speak_of_keys():
    wrong = {"backbone": "resnet20", "attention": {"type": "triplett", "placment": "stem"}}
    with pytest.raises(SpaceError) as refused:
        make_space(wrong, name="mine")
    head, *lines = str(refused.value).splitlines()
    assert head == "space 'mine' has 2 problems"
    assert lines[0].startswith(
        "  space 'mine': attention.type: unknown block 'triplett'. Did you mean"
    )
    assert lines[1].startswith("  space 'mine': attention: unknown key 'placment'. Did you mean")
    with pytest.raises(SpaceError, match="^space 'mine': forbid, item 1: the space has no setting"):
        make_space({**CONTENT, "forbid": [{"typ": "se"}]}, name="mine")
    with pytest.raises(SpaceError, match="^space 'mine': attention.type holds a set; only mapp"):
        make_space({"backbone": "resnet20", "attention": {"type": {"se"}}}, name="mine")


def test_what_no_site_can_take_is_named_without_a_line():
    made = Space.of(
        name="mine",
        backbone="resnet20",
        attention={"type": ["none", "fca"], "placement": "stem", "frequency": ["top1", "top32"]},
    )
    with pytest.raises(SpaceError, match="^space 'mine': no site can take frequency 'top32'"):
        check_possible(made, FACTS)


def test_a_made_space_is_changed_as_a_file_is():
    made = make_space({**CONTENT, "study": {"trials": 3}, "question": "Why?"}, name="mine")
    changed = load_space(made, overrides=["attention.reduction=[4, 8]", "training.epochs=2"])
    assert changed.attention.shared["reduction"].values == (4, 8)
    assert (changed.epochs, changed.name, changed.study) == (2, "mine", {"trials": 3})
    assert changed.question == "Why?"
    assert load_space(made) is made
    with pytest.raises(SpaceError, match="^--set attention.type=triplett: attention.type: unknown"):
        load_space(made, overrides=["attention.type=triplett"])
