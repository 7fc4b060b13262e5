"""Where blocks go, as spaces say it: positions, stages, several placements, units alone."""

import pytest

from blocks.errors import SpaceError
from spaces.candidate import DataFacts
from spaces.document import json_schema
from spaces.drawing import (
    check_possible,
    distinct_candidates,
    draw,
    enumerate_proposals,
    propose,
)
from spaces.space import parse_space

FACTS = DataFacts("digits", (1, 14, 14), 10, "split", (1, 1, 1))


def space_of(attention, backbone="resnet20", **overrides):
    return parse_space(f"backbone: {backbone}\nattention: {attention}\n", **overrides)


def networks(attention, backbone="resnet20"):
    """Label -> names of the sites that have a block."""
    found = distinct_candidates(space_of(attention, backbone), FACTS)
    return {
        candidate.label: [placement.site for placement in candidate.architecture.placements]
        for candidate, _ in found.values()
    }


def units(position, stages=(1, 2, 3)):
    return [f"stage{s}.unit{u}.{position}" for s in stages for u in (1, 2, 3)]


def test_positions_are_choices_where_units_have_blocks():
    found = networks("{type: [none, eca], position: [standard, pre, identity, inner]}")
    assert found == {
        "none": [],
        "eca in-block": units("standard"),
        "eca in-block.pre": units("pre"),
        "eca in-block.identity": units("identity"),
        "eca in-block.inner": units("inner"),
    }


def test_post_of_the_last_units_is_the_stage():
    found = networks("{type: eca, position: post}")
    last = {f"stage{s}.unit3.post": f"stage{s}" for s in (1, 2, 3)}
    assert found == {"eca in-block.post": sorted(last.get(u, u) for u in units("post"))}


def test_positions_are_asked_for_only_where_they_matter():
    space = space_of("{type: [none, eca], placement: [stem, in-block], position: [standard, pre]}")
    values = [dict(proposal.values) for proposal in enumerate_proposals(space, FACTS)]
    assert values == [
        {"type": "none"},
        {"type": "eca", "placement": "stem"},
        {"type": "eca", "placement": "in-block", "position": "standard"},
        {"type": "eca", "placement": "in-block", "position": "pre"},
    ]


@pytest.mark.parametrize(
    ("stages", "labels"),
    [
        ("3", {"eca stage 3": ["stage3"]}),
        ("[1, 3]", {"eca stage 1": ["stage1"], "eca stage 3": ["stage3"]}),
        ("[[3, 2]]", {"eca stage 2+3": ["stage2", "stage3"]}),
        ("['3 + 2', 1]", {"eca stage 2+3": ["stage2", "stage3"], "eca stage 1": ["stage1"]}),
        ("[all, '2+3+1']", {"eca stage": ["stage1", "stage2", "stage3"]}),
    ],
)
def test_stages_that_get_blocks(stages, labels):
    assert networks(f"{{type: eca, placement: stage, stages: {stages}}}") == labels


def test_stages_hold_for_units_too_and_not_for_the_stem():
    found = networks("{type: eca, placement: 'stem + in-block', position: pre, stages: 2}")
    assert found == {
        "eca stem + in-block.pre 2": ["stage2." + u[7:] for u in units("pre", [2])] + ["stem"]
    }


@pytest.mark.parametrize("written", ["'stage+stem'", "[[stage, stem]]", "['stem + stage']"])
def test_several_placements_at_once(written):
    found = networks(f"{{type: eca, placement: {written}}}")
    assert found == {"eca stem + stage": ["stage1", "stage2", "stage3", "stem"]}


def test_every_unit_decides_for_itself():
    space = space_of("{type: [none, eca], per_unit: true, stages: all}")
    assert sum(1 for _ in enumerate_proposals(space, FACTS)) == 2**9
    assert len(distinct_candidates(space, FACTS)) == 2**9
    first, second = list(enumerate_proposals(space, FACTS))[:2]
    assert set(first.values) == {f"stage{s}.unit{u}.type" for s in (1, 2, 3) for u in (1, 2, 3)}
    assert second.label == "eca stage3.unit3.in-block"


def test_every_unit_with_positions_and_the_stem():
    space = space_of(
        "{type: [none, eca], per_unit: true, placement: [stem, in-block],"
        " position: [standard, pre]}"
    )
    # The stem: with or without; each of nine units: none, or at one of two positions.
    assert sum(1 for _ in enumerate_proposals(space, FACTS)) == 2 * 3**9


@pytest.mark.parametrize(
    ("attention", "words"),
    [
        ("{type: se, position: middle}", "unknown position 'middle'. Allowed: standard, pre, post"),
        (
            "{type: se, placement: 'stem + stgae'}",
            "unknown placement 'stgae'. Did you mean 'stage'",
        ),
        ("{type: se, placement: stem + stem}", "names one twice"),
        ("{type: se, stages: 0}", "0 is no choice of stages: all, 4, '3 \\+ 4'"),
        ("{type: se, stages: [[1, 1]]}", "names a stage twice"),
        ("{type: se, stages: true}", "True is no choice of stages"),
        (
            "{type: se, per_unit: true, per_stage: true}",
            "per_unit and attention.per_stage are both",
        ),
        ("{type: se, per_unit: true, placement: stage}", "attention.placement has stage"),
        ("{type: se, placement: stage, position: pre}", "position changes nothing"),
        ("{type: se, placement: stem, stages: 3}", "stages changes nothing"),
        ("{type: se, per_stage: true, stages: 3}", "per_stage lets each decide"),
    ],
)
def test_mistakes_are_named(attention, words):
    with pytest.raises(SpaceError, match=f"^space:2: .*{words}"):
        space_of(attention)


def test_positions_and_stages_that_a_backbone_lacks_are_refused_at_the_start():
    with pytest.raises(SpaceError, match="no site can take position 'expanded': resnet20 has no"):
        check_possible(space_of("{type: eca, position: [standard, expanded]}"), FACTS)
    with pytest.raises(SpaceError, match="resnet20 has no site 'stage4.in-block'"):
        check_possible(space_of("{type: eca, stages: [3, 4]}"), FACTS)


def test_narrowing_placements_from_the_command_line_leaves_the_rest():
    text = "{type: se, placement: [stem, in-block], position: [standard, pre], stages: [all, 3]}"
    space = space_of(text, overrides=["attention.placement=stem"])
    assert [p.label for p in enumerate_proposals(space, FACTS)] == ["se stem"]


def test_the_schema_knows_them():
    properties = json_schema()["$defs"]["AttentionSection"]["properties"]
    assert {"position", "stages", "per_unit", "identity_start"} <= set(properties)


def test_stages_decide_with_options_of_their_own_and_several_placements():
    space = space_of(
        "{type: {none: {}, se: {reduction: [4, 8]}, parallel: {blocks: [[eca, simam]]}},"
        " placement: [stem, in-block, stage + in-block], per_stage: true}"
    )
    # Stem: none, se at 2 reductions, the composition: 4. Stages: none, se at 2 reductions x 2
    # places, the composition at 2 places: 7.
    assert sum(1 for _ in enumerate_proposals(space, FACTS)) == 4 * 7**3
    answers = {
        "stem.type": "parallel",
        "stage1.type": "none",
        "stage2.type": "se",
        "stage2.placement": "stage + in-block",
        "stage2.se.reduction": 8,
        "stage3.type": "parallel",
        "stage3.placement": "in-block",
    }
    proposal = propose(space, lambda name, _: answers[name], FACTS)
    placed = {p.site: p.block for p in draw(proposal, FACTS).architecture.placements}
    assert placed == {
        "stem": "parallel",
        "stage2": "se",
        **{f"stage2.unit{unit}.standard": "se" for unit in (1, 2, 3)},
        **{f"stage3.unit{unit}.standard": "parallel" for unit in (1, 2, 3)},
    }
    check_possible(space, FACTS)


def test_units_decide_with_masks_of_options_and_backbones():
    space = space_of(
        "{type: {none: {}, eca: {kernel_size: [3, 7]}}, per_unit: true}", "[resnet20, resnet32]"
    )
    first = next(iter(enumerate_proposals(space, FACTS)))
    assert len([name for name in first.values if name.endswith(".type")]) == 9  # 3 units a stage

    def choose(name, domain):
        return "resnet32" if name == "backbone" else domain.values[-1]

    proposal = propose(space, choose, FACTS)
    assert len(draw(proposal, FACTS).architecture.placements) == 15  # 5 units a stage
    assert {v for n, v in proposal.values.items() if n.endswith("kernel_size")} == {7}


@pytest.mark.parametrize("each", ["per_stage", "per_unit"])
def test_the_stem_is_not_joined_to_what_decides_for_itself(each):
    with pytest.raises(SpaceError, match=rf"'stem \+ in-block', but with {each} the stem decides"):
        space_of(f"{{type: [none, eca], placement: [stem + in-block], {each}: true}}")
