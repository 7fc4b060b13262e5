"""``when`` and ``forbid``: what is asked, what is no candidate, and what mistakes are named."""

import random

import pytest

from blocks.errors import ForbiddenError, SiteError, SpaceError
from spaces.candidate import DataFacts
from spaces.document import json_schema
from spaces.drawing import (
    baseline_candidates,
    check_possible,
    distinct_candidates,
    draw,
    enumerate_proposals,
    propose,
    usual_candidates,
)
from spaces.parameters import Choice
from spaces.rules import Condition
from spaces.space import differences, parse_space

FACTS = DataFacts("digits", (1, 14, 14), 10, "split", (1257, 270, 270))
SMALL = "{type: [none, se, eca], placement: [stem, stage], reduction: [4, 8]}"


def space_of(attention=SMALL, rest="", backbone="resnet20", **more):
    text = f"backbone: {backbone}\nattention: {attention}\n{rest}"
    return parse_space(text, source="s.yaml", **more)


def values_of(space):
    return [dict(proposal.values) for proposal in enumerate_proposals(space, FACTS)]


def answers(**given):
    def choose(name, domain):
        return given.get(name.replace(".", "_"), domain.default)

    return choose


# What is forbidden. -----------------------------------------------------------------------------


def test_forbidden_combinations_are_left_out():
    # none; se at 2 placements x 2 reductions; eca at 2 placements: 7 without rules.
    assert len(values_of(space_of())) == 7
    rules = "forbid:\n- {type: eca, placement: stem}\n- {type: se, placement: stage, reduction: 8}"
    assert values_of(space_of(rest=rules)) == [
        {"type": "none"},
        {"type": "se", "placement": "stem", "reduction": 4},
        {"type": "se", "placement": "stem", "reduction": 8},
        {"type": "se", "placement": "stage", "reduction": 4},
        {"type": "eca", "placement": "stage"},
    ]
    assert len(distinct_candidates(space_of(rest=rules), FACTS)) == 5


def test_a_forbidden_proposal_says_the_rule_and_is_no_candidate():
    space = space_of(rest="forbid: [{type: [eca, se], placement: stem}]")
    proposal = propose(space, answers(type="se", placement="stem"), FACTS)
    assert proposal.forbidden == "type eca or se, placement stem"
    with pytest.raises(ForbiddenError, match=r"^the space forbids it \(type eca or se, placement"):
        draw(proposal, FACTS)
    assert issubclass(ForbiddenError, SiteError), "whoever passes over impossible ones passes these"
    assert propose(space, answers(type="se", placement="stage"), FACTS).forbidden == ""


def test_numbers_above_and_below_a_bound():
    rest = (
        "training: {optimizer: [sgd, adamw], learning_rate: {low: 0.001, high: 0.5, default: 0.1}}"
        "\nforbid: [{training.optimizer: adamw, training.learning_rate: {above: 0.01}}]"
    )
    space = space_of(rest=rest)

    def forbidden(optimizer, rate):
        chosen = answers(type="se", optimizer=optimizer, learning_rate=rate)
        return bool(propose(space, chosen, FACTS).forbidden)

    assert forbidden("adamw", 0.02)
    assert not forbidden("adamw", 0.01), "the bound itself is neither above nor below"
    assert not forbidden("adamw", 0.005)
    assert not forbidden("sgd", 0.02)
    between = Condition("x", above=1, below=2)
    assert [between.accepts(v) for v in (1, 1.5, 2, True, "1.5")] == [False, True, False] + 2 * [
        False
    ]


def test_one_decision_must_fulfil_all_that_a_rule_says_of_attention():
    attention = (
        "{type: [none, se, eca], placement: [stage, in-block], reduction: 4, per_stage: true}"
    )
    # Each stage: none, or 2 blocks x 2 placements: 5. Without se at a stage's end: 4.
    assert len(values_of(space_of(attention))) == 5**3
    space = space_of(attention, "forbid: [{type: se, placement: stage}]")
    assert len(values_of(space)) == 4**3
    mixed = answers(
        stage1_type="se",
        stage1_placement="in-block",
        stage2_type="eca",
        stage2_placement="stage",
        stage3_type="none",
    )
    assert propose(space, mixed, FACTS).forbidden == ""


def test_units_are_decisions_too():
    space = space_of(
        "{type: [none, eca], position: [standard, pre], per_unit: true}",
        "forbid: [{position: pre}]",
    )
    assert propose(space, answers(stage3_unit3_type="eca"), FACTS).forbidden == ""
    pre = answers(stage3_unit3_type="eca", stage3_unit3_position="pre")
    assert propose(space, pre, FACTS).forbidden == "position pre"


def test_rules_range_over_backbones_options_and_training():
    rest = (
        "training: {label_smoothing: [0, 0.1]}\n"
        "forbid:\n"
        "- {se.reduction: 4, backbone: resnet20-b}\n"
        "- {reduction: 8, training.label_smoothing: 0.1}\n"
    )
    space = space_of(
        "{type: {none: {}, se: {reduction: [4, 8]}, cbam: {reduction: [8, 16]}}}",
        rest,
        backbone="[resnet20, resnet20-b]",
    )
    # 2 backbones x (none, se 4, se 8, cbam 8, cbam 16) x 2: 20. Out: se 4 on the second x 2, and se
    # 8 and cbam 8 at 0.1 on both.
    assert len(values_of(space)) == 20 - 2 - 4


def test_a_set_of_frequencies_and_placements_at_once_are_single_values():
    space = space_of(
        "{type: [fca], placement: [stem, stem + stage], frequency: [singles, low2]}",
        "forbid: [{frequency: singles, placement: [[stage, stem]]}]",
    )
    values = values_of(space)
    assert len(values) == 49 + 2
    assert {v["frequency"] for v in values if v["placement"] == "stem + stage"} == {"low2"}


def test_true_is_not_the_number_one():
    space = space_of(
        "{type: [none, eca], identity_start: [false, true]}", "forbid: [{identity_start: true}]"
    )
    assert [v.get("identity_start") for v in values_of(space)] == [None, False]
    with pytest.raises(SpaceError, match="the space has no identity_start 1"):
        space_of("{type: eca, identity_start: [false, true]}", "forbid: [{identity_start: 1}]")


# What is left out. ------------------------------------------------------------------------------


def test_a_setting_is_asked_about_only_where_its_condition_holds():
    attention = "{type: [none, se, cbam], placement: stem, reduction: [8, 4]}"
    space = space_of(attention, "when: {reduction: {type: se}}")
    assert values_of(space) == [
        {"type": "none"},
        {"type": "se", "reduction": 8},
        {"type": "se", "reduction": 4},
        {"type": "cbam"},
    ]
    (cbam,) = [c for c, _ in distinct_candidates(space, FACTS).values() if "cbam" in c.label]
    assert dict(cbam.architecture.placements[0].options)["reduction"] == 8  # the first value
    assert cbam.label == "cbam stem r=8"


def test_what_is_left_out_has_its_else():
    attention = "{type: [none, se, cbam], placement: stem, reduction: [8, 4]}"
    space = space_of(attention, "when: {reduction: {type: se, else: 4}}")
    plain = space_of("{type: cbam, placement: stem, reduction: 4}")
    (here,) = [c for c, _ in distinct_candidates(space, FACTS).values() if "cbam" in c.label]
    assert here.digest in distinct_candidates(plain, FACTS)


def test_training_settings_are_left_out_whatever_their_order():
    # momentum and learning_rate are asked before optimizer, where no rule says otherwise.
    rest = (
        "training: {optimizer: [sgd, adamw], learning_rate: [0.1, 0.001], momentum: [0.9, 0.5]}\n"
        "when:\n"
        "  training.momentum: {training.optimizer: sgd}\n"
        "  training.learning_rate: {training.optimizer: adamw, else: 0.1}\n"
    )
    space = space_of("{type: [none]}", rest)
    assert values_of(space) == [
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "sgd", "momentum": 0.5},
        {"optimizer": "adamw", "learning_rate": 0.1},
        {"optimizer": "adamw", "learning_rate": 0.001},
    ]
    order = list(space.rules.in_order(["momentum", "optimizer", "epochs"]))
    assert order == ["optimizer", "momentum", "epochs"]


def test_training_may_depend_on_attention_and_attention_on_the_backbone():
    rest = (
        "training: {attention_learning_rate: [1, 10]}\n"
        "when:\n"
        "  training.attention_learning_rate: {type: se}\n"
        "  type: {backbone: resnet20, else: eca}\n"
    )
    space = space_of("{type: [se, eca], placement: stem}", rest, "[resnet20, resnet20-b]")
    assert values_of(space) == [
        {"backbone": "resnet20", "type": "se", "attention_learning_rate": 1},
        {"backbone": "resnet20", "type": "se", "attention_learning_rate": 10},
        {"backbone": "resnet20", "type": "eca"},
        {"backbone": "resnet20-b"},
    ]


def test_each_stage_is_asked_by_its_own_condition():
    space = space_of(
        "{type: [none, se, cbam], placement: stage, reduction: [4, 8], per_stage: true}",
        "when: {reduction: {type: se}}",
    )
    # Each stage: none, se at 2 reductions, cbam at the first: 4.
    assert len(values_of(space)) == 4**3


def test_the_baseline_has_the_value_of_what_is_left_out():
    rest = (
        "training: {momentum: [0.9, 0.5], label_smoothing: [0, 0.1]}\n"
        "when: {training.momentum: {type: se, else: 0.5}}"
    )
    ((baseline, values),) = baseline_candidates(space_of(rest=rest), FACTS)
    assert baseline.training.momentum == 0.5
    assert values == {"type": "none", "label_smoothing": 0}


# Identity. --------------------------------------------------------------------------------------


def test_rules_are_part_of_the_space_and_not_of_a_candidate():
    plain, ruled = space_of(), space_of(rest="forbid: [{type: eca, placement: stem}]")
    assert plain.digest != ruled.digest
    assert differences(plain.content, ruled.content) == [
        "+forbid: [{'type': 'eca', 'placement': 'stem'}]"
    ]
    allowed = set(distinct_candidates(ruled, FACTS))
    assert allowed < set(distinct_candidates(plain, FACTS))


def test_random_proposals_are_as_before_where_there_are_no_rules():
    # The order in which settings are asked about is the order of a sampler's random numbers.
    rest = "training: {momentum: [0.5, 0.9], optimizer: [sgd, adam], batch_size: [32, 64]}"
    asked = []

    def choose(name, domain):
        asked.append(name)
        return domain.default if name != "type" else "se"

    propose(space_of("{type: [none, se], reduction: [4, 8]}", rest), choose, FACTS)
    assert asked == ["type", "reduction", "batch_size", "momentum", "optimizer"]


# Mistakes. --------------------------------------------------------------------------------------

MISTAKES = {
    "forbid: [{typ: se}]": "forbid, item 1: the space has no setting 'typ'. Did you mean 'type'?",
    "forbid: [{type: triplet}]": "the space has no type 'triplet'. It has: none, se, eca",
    "forbid: [{type: sse}]": "the space has no type 'sse'. Did you mean 'se'?",
    "forbid: [{type: se, reduction: 16}]": "the space has no reduction 16. It has: 4, 8",
    "forbid: [{optimizer: adam}]": "no setting 'optimizer'. Did you mean 'training.optimizer'?",
    "forbid: [{training.epochs: 3}]": "training.epochs is the same for all candidates",
    "forbid: [{type: eca, reduction: 4}]": (
        "forbid, item 1 forbids nothing: no candidate has type eca, reduction 4"
    ),
    "forbid: [{placement: [stem, stage]}]": (
        "forbid, item 1 forbids everything but no attention: every candidate has placement"
    ),
    "forbid: [{placement: stem}, {placement: stage}]": (
        "forbid: together its items leave nothing but no attention"
    ),
    "forbid: [{type: none}]": r"forbid, item 1 forbids the baseline \(resnet20, no attention",
    "forbid: [{training.momentum: {above: 0.5}}]": "forbids the baseline",
    "forbid: [{training.weight_decay: 0.001}]": "is a range; write {above: ...}, {below: ...}",
    "forbid: [{type: se, training.weight_decay: {above: 0.1}}]": (
        "the space has no value of training.weight_decay above 0.1; it has 0.0001 to 0.01"
    ),
    "forbid: [{type: se, training.weight_decay: {over: 0.1}}]": (
        "forbid.training.weight_decay, item 1: unknown key 'over'. .*Allowed: above, below"
    ),
    "forbid: [{type: se, training.weight_decay: {}}]": "an empty range; write {above: 0.01}",
    "forbid: [se]": "forbid, item 1 is the text 'se'; a mapping of keys to values is needed",
    "forbid: []": "forbid is empty",
    "forbid: [{}]": "forbid, item 1 is empty",
    "forbid: [{placement: stme}]": "forbid, item 1: unknown placement 'stme'. Did you mean 'stem'",
    "when: {reductoin: {type: se}}": "no setting 'reductoin'. Did you mean 'reduction'?",
    "when: {reduction: {type: [se, cbam]}}": "the space has no type 'cbam'",
    "when: {reduction: {type: se}}": "when.reduction changes nothing: type se holds wherever",
    "when: {placement: {reduction: 4}}": (
        "when.placement: reduction is decided with or after placement"
    ),
    "when: {type: {training.momentum: 0.5}}": "training.momentum is decided with or after type",
    "when: {backbone: {type: se}}": "when.backbone: backbone is asked first",
    "when: {position: {type: se}}": "when.position changes nothing: the space has one value of it",
    "when: {placement: {type: se, else: in-block}}": (
        "when.placement.else must be one of the values of placement: stem, stage"
    ),
    "when: {placement: {else: stem}}": "when.placement gives no condition",
    "when: {placement: {placement: stem}}": "placement is decided with or after placement",
    "when: {training.momentum: {training.optimizer: adam}, training.optimizer: "
    "{training.momentum: 0.5}}": "its conditions come back to training.momentum itself",
    "when: {training.momentum: {type: se, placement: stem, training.weight_decay: {below: 0.001},"
    " training.optimizer: sgd}, reduction: {placement: stem, type: eca}}": (
        "when.reduction: placement stem, type eca holds nowhere, so that reduction is never asked"
    ),
}
TRAINING = (
    "training: {optimizer: [sgd, adam], momentum: [0.9, 0.5],"
    " weight_decay: {low: 0.0001, high: 0.01}}\n"
)


@pytest.mark.parametrize("rule", MISTAKES)
def test_mistakes_are_named_with_their_line(rule):
    with pytest.raises(SpaceError, match=rf"(?s)^s\.yaml(:5| has).*{MISTAKES[rule]}"):
        space_of(rest=f"{TRAINING}objectives: {{accuracy: max}}\n{rule}\n")


def test_all_mistakes_of_the_rules_come_together_in_the_order_of_lines():
    rules = "forbid:\n- {type: se, placement: stme}\n- {typ: se}\nwhen:\n  place: {type: se}\n"
    with pytest.raises(SpaceError) as refused:
        space_of(rest=rules)
    head, *lines = str(refused.value).splitlines()
    assert head == "s.yaml has 3 problems"
    assert [line.strip().split(":")[1] for line in lines] == ["4", "5", "7"]


@pytest.mark.parametrize("key", ["when", "forbid"])
def test_rules_in_the_wrong_place_are_sent_to_the_right_one(key):
    rule = "{reduction: {type: se}}" if key == "when" else "[{type: se}]"
    with pytest.raises(SpaceError, match=f"'{key}' stands at the top of the file, beside"):
        space_of(f"{{type: [none, se], {key}: {rule}}}")


def test_a_value_that_rules_never_allow_is_named():
    space = space_of(rest="forbid: [{type: eca, placement: stem}, {type: eca, placement: stage}]")
    with pytest.raises(SpaceError) as refused:
        check_possible(space, FACTS)
    assert str(refused.value) == (
        "s.yaml:2: no site can take type 'eca': the space forbids it (type eca, placement stem);"
        " take it out"
    )


def test_rules_about_training_make_no_value_impossible():
    rest = "training: {optimizer: [sgd, adamw]}\nforbid: [{type: eca, training.optimizer: sgd}]"
    check_possible(space_of(rest=rest), FACTS)
    assert {"type": "eca", "placement": "stem", "optimizer": "adamw"} in values_of(
        space_of(rest=rest)
    )


# From the command line. -------------------------------------------------------------------------


def test_narrowing_from_the_command_line_leaves_rules_without_an_object():
    rules = "forbid: [{type: eca, placement: stem}]\nwhen: {reduction: {placement: stem}}"
    space = space_of(rest=rules, overrides=["attention.type=[none, se]"])
    assert len(values_of(space)) == 4  # none; se at the stem at 2 reductions, at the stages at one
    with pytest.raises(SpaceError, match="^s.yaml:3: forbid, item 1 forbids everything but"):
        space_of(rest=rules, overrides=["attention.type=[none, eca]", "attention.placement=[stem]"])


def test_rules_can_be_set_from_the_command_line():
    space = space_of(overrides=["forbid=[{type: eca, placement: stem}]"])
    assert len(values_of(space)) == 6
    with pytest.raises(SpaceError, match=r"^--set forbid=.*: forbid, item 1: the space has no typ"):
        space_of(overrides=["forbid=[{type: triplet}]"])
    later = space_of(overrides=["when.reduction={placement: stem}"])
    assert len(values_of(later)) == 6


# Elsewhere. -------------------------------------------------------------------------------------


def test_the_schema_knows_both_keys():
    schema = json_schema()
    assert {"when", "forbid"} <= set(schema["properties"])
    bounds = schema["$defs"]["Bounds"]
    assert set(bounds["properties"]) == {"above", "below"}
    assert bounds["additionalProperties"] is False


def test_candidates_that_stand_for_a_space_are_allowed_ones():
    rest = (
        "training: {learning_rate: {low: 0.001, high: 0.5, default: 0.005}}\n"
        "forbid: [{training.learning_rate: {above: 0.01}}]"
    )
    found = list(usual_candidates(space_of(rest=rest), FACTS))
    assert found
    assert {candidate.training.learning_rate for candidate in found} == {0.005}


def test_random_answers_are_always_among_the_enumerated():
    attention = (
        "{type: [none, se, eca, cbam], placement: [stem, stage, in-block], reduction: [4, 8],"
        " position: [standard, pre]}"
    )
    rules = (
        "when: {position: {type: [se, cbam], else: pre}, reduction: {placement: in-block}}\n"
        "forbid: [{type: cbam, position: pre}, {type: eca, placement: stage}]"
    )
    space = space_of(attention, rules)
    check_possible(space, FACTS)
    known = {tuple(sorted(values.items())) for values in values_of(space)}
    chance = random.Random(0)
    seen = set()
    for _ in range(600):
        proposal = propose(space, lambda name, domain: chance.choice(domain.values), FACTS)
        if not proposal.forbidden:
            seen.add(tuple(sorted(proposal.values.items())))
    assert seen == known
    assert isinstance(space.attention.positions, Choice)
