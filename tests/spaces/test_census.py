from dataclasses import replace

import pytest

from blocks.backbone import site_table
from spaces import census as module
from spaces.candidate import DataFacts
from spaces.census import ESTIMATED, LISTED, PRODUCT, take_census
from spaces.drawing import distinct_candidates
from spaces.parts import regions_of
from spaces.space import load_space, parse_space

DATA = DataFacts("digits", (1, 14, 14), 10, "0" * 8, (1077, 360, 360))

SMALL = """
backbone: resnet20
attention:
  type: [none, se]
  placement: [stem, stage]
  reduction: [4, 16]
training: {epochs: 1}
"""
# Stages of 16, 32 and 64 channels. r = 16 and 32 are 1 and 1, 2 and 1, 4 and 2 wide.
STAGES = """
backbone: resnet20
attention: {type: [none, se], placement: stage, reduction: [16, 32], per_stage: true}
training: {epochs: 1}
"""


def counts(space, **more):
    found = take_census(parse_space(space), DATA, **more)
    return found.proposals.value, found.architectures.value, found.candidates.value


def test_a_small_space_is_counted_by_hand():
    # none; se at two places with two reductions.
    found = take_census(parse_space(SMALL), DATA)
    assert found.how == LISTED
    assert (found.proposals.value, found.candidates.value) == (5, 5)
    assert found.proposals.exact
    assert len(found.found) == 5


def test_stages_that_decide_for_themselves_by_hand():
    # Three ways each: 27 proposals. Distinct: 2 in the first stage, 3 in the others: 18.
    assert counts(STAGES) == (27, 18, 18)
    assert counts(STAGES, limit=1) == (27, 18, 18)
    assert take_census(parse_space(STAGES), DATA, limit=1).how == PRODUCT


def test_training_multiplies_what_has_a_say():
    # Momentum is without a say for adamw: 2 of sgd and 1 of adamw. A rate of attention doubles
    # them where there is attention: 17 * 6 + 1 * 3.
    space = STAGES.replace(
        "{epochs: 1}",
        "{epochs: 1, optimizer: [sgd, adamw], momentum: [0.8, 0.9],"
        " attention_learning_rate: [1.0, 2.0]}",
    )
    listed = counts(space)
    assert listed == (26 * 8 + 4, 18, 17 * 6 + 3)
    assert counts(space, limit=1) == listed


@pytest.mark.parametrize(
    "attention",
    [
        "{type: [none, se, eca], placement: [stem, stage, in-block], reduction: [4, 32],"
        " per_stage: true}",
        "{type: [se, eca], placement: [stem, stage], reduction: [4, 32], per_stage: true}",
        "{type: [none, fca], placement: [stem, stage], frequency: [top16, top32], per_stage: true}",
        "{type: [none, simam, se], placement: [stem, stem + stage, in-block], reduction: [4, 8],"
        " position: [standard, pre]}",
        "{type: {none: {}, se: {reduction: [4, 8]}}, placement: stage, stages: [all, 1, [2, 3]]}",
        "{type: se, placement: [stem, stage], reduction: [4, 8], per_stage: true}",
    ],
)
def test_a_product_is_what_listing_gives(attention):
    space = parse_space(f"backbone: resnet20\nattention: {attention}\ntraining: {{epochs: 1}}\n")
    listed = take_census(space, DATA)
    product = take_census(space, DATA, limit=1)
    assert (listed.how, product.how) == (LISTED, PRODUCT)
    for name in ("proposals", "architectures", "candidates"):
        assert getattr(product, name).value == getattr(listed, name).value, name
    assert product.impossible.value == pytest.approx(listed.impossible.value)
    digests = {candidate.digest for candidate in listed.found}
    assert {candidate.digest for candidate in product.found} <= digests
    assert digests == set(distinct_candidates(space, DATA))


def test_several_backbones_add_up():
    space = STAGES.replace("backbone: resnet20", "backbone: [resnet20, resnet20-b]")
    assert counts(space, limit=1) == (54, 36, 36)


def test_candidates_of_a_product_are_drawn_evenly():
    drawn = take_census(parse_space(STAGES), DATA, limit=1, draws=600)
    assert len(drawn.found) == 18
    (region,) = regions_of(parse_space(STAGES), DATA)
    assert region.candidates == 18


def test_every_unit_for_itself_is_exact_beyond_all_listing():
    space = STAGES.replace("per_stage", "per_unit").replace(
        "placement: stage", "placement: in-block"
    )
    found = take_census(parse_space(space), DATA, limit=1)
    # Three units a stage: 3^9 proposals, (2^3)(3^3)(3^3) architectures.
    assert found.proposals.value == 3**9
    assert found.architectures.value == 8 * 27 * 27
    huge = space.replace("[16, 32]", "[2, 4, 8, 16]")
    found = take_census(parse_space(huge), DATA)
    assert found.how == PRODUCT
    assert found.proposals.value == 5**9
    assert found.architectures.exact


def test_ranges_leave_the_architectures_countable():
    space = SMALL.replace("{epochs: 1}", "{epochs: 1, learning_rate: {low: 0.01, high: 1}}")
    found = take_census(parse_space(space), DATA)
    assert found.ranges == ("learning_rate",)
    assert found.architectures.value == 5
    assert found.to_json()["candidates"] is None


def test_what_fits_no_site_is_counted_with_its_reason():
    space = parse_space(
        "backbone: resnet20\nattention: {type: [none, fca], placement: [stem, stage],"
        " frequency: [top16, top32], per_stage: true}\ntraining: {epochs: 1}\n"
    )
    # 16 channels cannot be cut into 32 groups: at the stem and in the first stage one of three
    # ways fits no site. 1 - (2/3)(2/3) = 5/9 of the proposals.
    found = take_census(space, DATA)
    assert found.impossible.value == pytest.approx(5 / 9)
    assert "32 equal" in found.reasons[0][0]


def test_parts_that_depend_on_each_other_are_no_product(monkeypatch):
    """As soon as one stage's answers change another's questions, nothing is multiplied."""
    from spaces import parts

    space = parse_space(STAGES)
    assert regions_of(space, DATA) is not None
    original = parts.draw

    def draw(proposal, data):
        placements = proposal.architecture.placements
        first = [p for p in placements if p.site == "stage1.stage"]
        second = [p for p in placements if p.site == "stage2.stage"]
        if first and second:
            raise parts.SiteError("not both")
        return original(proposal, data)

    monkeypatch.setattr(parts, "draw", draw)
    assert regions_of(space, DATA) is None


def estimated(monkeypatch, space, **more):
    monkeypatch.setattr(module, "regions_of", lambda *arguments, **flags: None)
    return take_census(space, DATA, limit=1, **more)


@pytest.mark.parametrize("seed", range(4))
def test_an_estimate_holds_the_truth(monkeypatch, seed):
    space = load_space("attention")
    truth = take_census(space, DATA)
    found = estimated(monkeypatch, space, seed=seed)
    assert found.how == ESTIMATED
    assert not found.proposals.exact
    for name in ("proposals", "architectures"):
        estimate, true = getattr(found, name), getattr(truth, name).value
        assert 0.8 * estimate.low <= true <= 1.2 * estimate.high, name
    assert "estimated from 2,000" in found.proposals.how


def test_the_same_seed_gives_the_same_census():
    space = parse_space(STAGES)
    first, second = (take_census(space, DATA, limit=1, seed=3) for _ in range(2))
    assert [c.digest for c in first.found] == [c.digest for c in second.found]


def test_a_product_may_have_more_candidates_than_a_float_can_count():
    space = parse_space(
        "backbone: resnet56\nattention: {type: [none, se, eca, simam], placement: in-block,"
        " reduction: [2, 4, 8, 16], per_unit: true}\ntraining: {epochs: 1}\n"
    )
    units = sum(site_table("resnet56", (1, 14, 14), 10).units(stage) for stage in (1, 2, 3))
    found = take_census(space, replace(DATA), draws=3)
    assert found.proposals.value == 7**units  # none, four of se, eca, simam
    assert len(found.found) == 3


def test_what_rules_forbid_is_no_proposal(monkeypatch):
    # none, and se at two places with two reductions, without 16 at the stem.
    space = parse_space(SMALL + "forbid:\n  - {placement: stem, reduction: 16}\n")
    assert take_census(space, DATA).proposals.value == 4
    assert take_census(space, DATA, limit=1).proposals.value == 4
    monkeypatch.setattr(module, "regions_of", lambda *arguments, **flags: None)
    found = take_census(space, DATA, limit=1)
    assert found.proposals.low <= 4 <= found.proposals.high
    assert found.candidates.value == 4
    assert found.impossible.count == 0


@pytest.mark.parametrize("name", ["placement", "se-stages", "tripse", "per-stage"])
def test_shipped_spaces_are_counted_the_same_either_way(name):
    space = load_space(name)
    listed = take_census(space, DATA, limit=3000)
    product = take_census(space, DATA, limit=1)
    if listed.how == LISTED and product.how == PRODUCT:
        assert product.candidates.value == listed.candidates.value
        assert product.proposals.value == listed.proposals.value
