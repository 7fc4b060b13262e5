import itertools
import random
from dataclasses import replace

import pytest

from blocks.architecture import architecture_cost
from blocks.backbone import site_table
from blocks.errors import SiteError, SpaceError
from blocks.formulas import Cost
from blocks.frequency import FREQUENCY_SETS
from blocks.options import MapShape
from blocks.site import Site, SiteTable
from spaces.candidate import DataFacts
from spaces.caps import violated
from spaces.drawing import (
    baseline_candidates,
    check_possible,
    distinct_candidates,
    draw,
    enumerate_proposals,
    propose,
)
from spaces.parameters import Choice, Range
from spaces.space import load_space, parse_space
from spaces.training import Training

AT_14 = DataFacts("digits", (1, 14, 14), 10, "split-1", (1257, 270, 270))
AT_8 = DataFacts("digits", (1, 8, 8), 10, "split-1", (1257, 270, 270))

# The maps of resnet20, (channels, side): one after the stem, three stages of three units. A stage
# begins with a stride of 2 and padding of 1, so 14 becomes 7 and 7 becomes 4.
MAPS = {AT_14: [(16, 14), (32, 7), (64, 4)], AT_8: [(16, 8), (32, 4), (64, 2)]}
BOTH_SIZES = pytest.mark.parametrize("data", [AT_14, AT_8], ids=["14x14", "8x8"])


def space_of(attention, rest="", backbone="resnet20"):
    return parse_space(f"backbone: {backbone}\nattention: {attention}\n{rest}", source="s.yaml")


def chooser(asked, **answers):
    """Answers by name ('.' as '_'), else the default; notes what was asked."""

    def choose(name, domain):
        asked[name] = domain
        return answers.get(name.replace(".", "_"), domain.default)

    return choose


def drawn(space, data=AT_14, **answers):
    return draw(propose(space, chooser({}, **answers), data), data)


# What is asked. ---------------------------------------------------------------------------------


def test_only_what_matters_is_asked():
    space = load_space("attention")
    for block, options in [
        ("none", []),
        ("eca", []),
        ("simam", []),
        ("se", ["reduction"]),
        ("cbam", ["reduction"]),
        ("fca", ["frequency", "reduction"]),
    ]:
        asked = {}
        proposal = propose(space, chooser(asked, type=block), AT_14)
        wanted = ["type", *(["placement"] if block != "none" else []), *options]
        assert sorted(asked) == sorted(wanted)
        assert sorted(proposal.values) == sorted(wanted)
        assert proposal.values["type"] == block


def test_settings_with_one_value_are_not_asked():
    space = space_of("{type: se, placement: stage, reduction: [8]}")
    asked = {}
    proposal = propose(space, chooser(asked), AT_14)
    assert asked == {}
    assert proposal.values == {}
    assert proposal.label == "se stage r=8"
    assert proposal.training == Training()


def test_training_settings_are_asked_and_used():
    rest = (
        "training: {batch_size: {low: 16, high: 64}, momentum: [0.5, 0.9],"
        " learning_rate: {low: 0.01, high: 1.0, log: true}}"
    )
    space = space_of("{type: [none, se]}", rest)
    asked = {}
    answers = {"type": "none", "batch_size": 17, "learning_rate": 0.02, "momentum": 0.9}
    proposal = propose(space, chooser(asked, **answers), AT_14)
    assert asked == {
        "type": Choice(("none", "se")),
        "batch_size": Range(16, 64),
        "learning_rate": Range(0.01, 1.0, log=True),
        "momentum": Choice((0.5, 0.9)),
    }
    assert proposal.values == answers
    assert proposal.training == Training(12, 17, 0.02, 0.9)


def test_a_rate_of_attention_is_asked_where_there_is_attention():
    space = space_of(
        "{type: [none, se], placement: stage, reduction: 4}",
        "training: {attention_learning_rate: [10, 1], freeze: none}",
    )
    asked = {}
    proposal = propose(space, chooser(asked, type="none"), AT_14)
    assert list(asked) == ["type"]
    assert proposal.training == Training()
    proposal = propose(space, chooser(asked, type="se"), AT_14)
    assert list(asked) == ["type", "attention_learning_rate"]
    assert proposal.training == Training(attention_learning_rate=10)
    assert len(distinct_candidates(space, AT_14)) == 3
    ((baseline, values),) = baseline_candidates(space, AT_14)
    assert baseline.training == Training()
    assert values == {"type": "none"}


def test_trained_weights_have_an_identity_once_they_are_read():
    space = space_of(
        "{type: [none, se], placement: stage, reduction: 4}",
        "training: {pretrained: [w.pth, a1_in1k, false]}",
        backbone="[resnet20, resnet20-b]",
    )
    with pytest.raises(SpaceError, match=r"'w.pth' for resnet20 have not been read.*make a plan"):
        propose(space, chooser({}, type="none"), AT_14)
    identities = {
        (name, given): f"{name} {given}"
        for name in ("resnet20", "resnet20-b")
        for given in ("w.pth", "a1_in1k")
    }
    ready = replace(space, weights=identities)
    asked = {}
    proposal = propose(ready, chooser(asked, type="none", backbone="resnet20-b"), AT_14)
    assert proposal.training.pretrained == "resnet20-b w.pth"
    assert asked["pretrained"] == Choice(("w.pth", "a1_in1k", False))
    assert propose(ready, chooser({}, pretrained=False), AT_14).training == Training()
    assert len(distinct_candidates(ready, AT_14)) == 2 * 2 * 3
    same = replace(space, weights=dict.fromkeys(identities, "sha256:00"))
    assert len(distinct_candidates(same, AT_14)) == 2 * 2 * 2
    check_possible(space, AT_14)  # asks about networks alone


def test_a_backbone_is_asked_first():
    space = space_of("{type: [none, se]}", backbone="[resnet20, resnet20-b]")
    asked = {}
    proposal = propose(space, chooser(asked, backbone="resnet20-b", type="se"), AT_14)
    assert list(asked) == ["backbone", "type"]
    assert proposal.architecture.backbone == "resnet20-b"


def test_every_stage_is_asked_for_itself():
    attention = "{type: [none, se], placement: [stem, stage, in-block], reduction: [4, 8]"
    space = space_of(attention + ", per_stage: true}")
    asked = {}
    answers = {"stem_type": "se", "stem_reduction": 8, "stage2_type": "se", "stage3_type": "se"}
    answers |= {"stage2_placement": "in-block", "stage3_placement": "stage"}
    proposal = propose(space, chooser(asked, **answers), AT_14)
    # At the stem there is one placement, and where there is no attention nothing else is asked.
    assert sorted(asked) == [
        "stage1.type",
        *("stage2.placement", "stage2.reduction", "stage2.type"),
        *("stage3.placement", "stage3.reduction", "stage3.type"),
        *("stem.reduction", "stem.type"),
    ]
    assert asked["stage2.placement"] == Choice(("stage", "in-block"))
    placed = draw(proposal, AT_14).architecture.placements
    assert {p.site: dict(p.options)["reduction"] for p in placed} == {
        "stage2.unit1.standard": 4,
        "stage2.unit2.standard": 4,
        "stage2.unit3.standard": 4,
        "stage3": 4,
        "stem": 8,
    }


def test_rotated_branches_are_drawn_for_the_maps_of_their_sites():
    space = space_of("{type: {tripse2: {axis: [channels, rotated]}}, placement: stage}")
    drawn = [draw(proposal, AT_14) for proposal in enumerate_proposals(space, AT_14)]
    axes = [
        [dict(p.options).get("axis") for p in candidate.architecture.placements]
        for candidate in drawn
    ]
    assert axes == [[None] * 3, ["rotated:14x14", "rotated:7x7", "rotated:4x4"]]
    sites = site_table("resnet20", (1, 14, 14), 10)
    plain, rotated = (architecture_cost(one.architecture, sites).params for one in drawn)
    # SE of 14 rows, 14 columns; of 7 and 7; of 4 and 4, all 1 wide, in place of 16, 32 and 64.
    assert plain - rotated == 2 * 2 * (16 * 1 + 32 * 2 + 64 * 4) - 2 * 2 * (14 + 7 + 4)


def test_options_of_one_block_carry_its_name():
    space = space_of("{type: {se: {reduction: [4, 8]}, eca: {kernel_size: [auto, 3]}, none: {}}}")
    proposals = [dict(p.values) for p in enumerate_proposals(space, AT_14)]
    assert proposals == [
        {"type": "se", "se.reduction": 4},
        {"type": "se", "se.reduction": 8},
        {"type": "eca", "eca.kernel_size": "auto"},
        {"type": "eca", "eca.kernel_size": 3},
        {"type": "none"},
    ]
    # On 16, 32 and 64 channels ECA's formula gives 3, so auto and 3 are one network.
    assert len(distinct_candidates(space, AT_14)) == 4


def test_labels_for_people():
    space = load_space("attention")
    answers = {"type": "fca", "placement": "in-block", "reduction": 16, "frequency": "low2"}
    label = propose(space, chooser({}, **answers), AT_14).label
    assert sorted(label.split()) == ["fca", "in-block", "low2", "r=16"]
    assert label.startswith("fca in-block ")
    assert propose(space, chooser({}, type="none"), AT_14).label == "none"
    per_stage = space_of("{type: [none, eca], per_stage: true}")
    answers = {"stage1_type": "eca", "stage3_type": "eca"}
    label = propose(per_stage, chooser({}, **answers), AT_14).label
    assert label == "eca stage1.in-block + eca stage3.in-block"


def test_labels_say_how_a_network_is_trained_where_that_varies():
    rest = (
        "training: {batch_size: [32, 64], learning_rate: {low: 0.01, high: 0.1}, epochs: 3,"
        " attention_learning_rate: [1, 10]}"
    )
    space = space_of("{type: [none, se], placement: stage, reduction: 4}", rest)
    label = propose(space, chooser({}, type="se", learning_rate=0.03125), AT_14).label
    head, _, settings = label.removesuffix("]").partition(" [")
    assert head == "se stage r=4"
    assert sorted(settings.split(", ")) == [
        "attention_learning_rate=1",
        "batch_size=32",
        "learning_rate=0.0312",
    ]
    ((baseline, _),) = baseline_candidates(space, AT_14)
    assert baseline.label == drawn(space, type="none").label
    assert sorted(baseline.label.split()) == ["[batch_size=32,", "learning_rate=0.055]", "none"]
    whole = space_of("{type: [none, se]}", "training: {epochs: 3}")
    assert drawn(whole, type="none").label == "none"


# How many there are. ----------------------------------------------------------------------------


def network_of(block, placement, options, maps):
    """What decides a network of this block, from first principles: one entry a map."""
    if block == "none":
        return ("none",)
    seen = maps[:1] if placement == "stem" else maps
    parts = []
    for channels, side in seen:
        part = []
        if "reduction" in options:
            narrowest = 8 if block == "coord" else 1
            part.append(max(narrowest, channels // options["reduction"]))
        if "frequency" in options:
            pairs = FREQUENCY_SETS[options["frequency"]]
            width = channels // len(pairs)
            indexes = [index_at(u, side) + side * index_at(v, side) for u, v in pairs]
            part.append(tuple(indexes[channel // width] for channel in range(channels)))
        parts.append(tuple(part))
    return (block, placement, *parts)


def index_at(index, side):
    """The paper's integer rule from 7 pixels on, and proportional below."""
    return index * (side // 7) if side >= 7 else min(side - 1, round(index * side / 7))


def networks_of_attention_yaml(maps):
    reductions = (4, 8, 16, 32)
    frequencies = ("top1", "top2", "top4", "top8", "top16", "low2", "low16")
    yield network_of("none", None, {}, maps)
    for placement in ("stem", "stage", "in-block"):
        for block in ("eca", "simam", "triplet"):
            yield network_of(block, placement, {}, maps)
        for r in reductions:
            for block in ("se", "coord", "cbam", "scse", "tripse1", "tripse4"):
                yield network_of(block, placement, {"reduction": r}, maps)
            for f in frequencies:
                yield network_of("fca", placement, {"reduction": r, "frequency": f}, maps)


@BOTH_SIZES
def test_the_size_of_the_shipped_space(data):
    space = load_space("attention")
    # none 1; se, coord, cbam, scse, tripse1 and tripse4 3 placements x 4 reductions each; eca,
    # simam and triplet 3 placements each; fca 3 placements x 4 reductions x 7 frequencies.
    raw = 1 + 6 * 3 * 4 + 3 * 3 + 3 * 4 * 7
    assert raw == 166
    proposals = list(enumerate_proposals(space, data))
    assert len(proposals) == raw
    assert len({tuple(sorted(p.values.items())) for p in proposals}) == raw

    # At the stem's 16 channels r = 16 and r = 32 are both one wide: 3 reductions, else 4 (stages
    # have 16, 32 and 64 channels). top2 and low2 are the same pairs: 6 frequencies. coord is never
    # under 8 wide: one at the stem, and at stages and in units r = 4 (16 of 64 channels) or not. So
    # se, cbam, scse, tripse1 and tripse4 3 + 4 + 4 each, coord 1 + 2 + 2, eca, simam and triplet 3
    # each, fca (3 + 4 + 4) x 6, and none.
    distinct = 5 * 11 + 5 + 3 * 3 + 11 * 6 + 1
    assert distinct == 136
    assert len(set(networks_of_attention_yaml(MAPS[data]))) == distinct
    assert len(distinct_candidates(space, data)) == distinct


@BOTH_SIZES
def test_maps_are_as_worked_out_by_hand(data):
    sites = site_table("resnet20", data.input_shape, 10).sites
    standard = [site for site in sites if site.position in ("", "standard", "post")]
    shapes = {site.name: (site.shape.channels, site.shape.height) for site in standard}
    assert shapes["stem"] == MAPS[data][0]
    for stage, expected in enumerate(MAPS[data], start=1):
        names = [f"stage{stage}", *(f"stage{stage}.unit{u}.standard" for u in (1, 2, 3))]
        names += [f"stage{stage}.unit{u}.post" for u in (1, 2)]
        assert {shapes.pop(name) for name in names} == {expected}
    assert list(shapes) == ["stem"]


def test_proposals_are_one_network_exactly_where_their_effect_is():
    data = AT_14
    groups = {}
    for proposal in enumerate_proposals(load_space("attention"), data):
        values = dict(proposal.values)
        block, placement = values.pop("type"), values.pop("placement", None)
        expected = network_of(block, placement, values, MAPS[data])
        groups.setdefault(expected, set()).add(draw(proposal, data).digest)
    assert all(len(digests) == 1 for digests in groups.values())
    assert len(set.union(*groups.values())) == len(groups)


def test_a_space_where_every_stage_decides():
    attention = "{type: [none, se], placement: [stem, stage, in-block], reduction: [4, 8]"
    space = space_of(attention + ", per_stage: true}")
    # Stem: none, or se at 2 reductions: 3. Each stage: none, or 2 placements x 2 reductions: 5.
    assert sum(1 for _ in enumerate_proposals(space, AT_14)) == 3 * 5**3
    # All widths differ: 4 and 2 of 16 channels, 8 and 4 of 32, 16 and 8 of 64.
    assert len(distinct_candidates(space, AT_14)) == 375


def test_frequencies_that_a_small_map_cannot_tell_apart():
    space = space_of("{type: fca, per_stage: true, frequency: ['0,0', '0,3', '0,6', '3,3']}")
    assert sum(1 for _ in enumerate_proposals(space, AT_8)) == 4**3
    # On 8x8 and 4x4 all four differ (0, 3, 6 and 0, 2, 3); on 2x2 3 and 6 are both 1.
    assert len(distinct_candidates(space, AT_8)) == 4 * 4 * 3
    # On 14x14, 7x7 and 4x4 none is lost.
    assert len(distinct_candidates(space, AT_14)) == 64


def test_placements_without_the_stem_and_with_it_alone():
    stem = space_of("{type: [none, se, eca], placement: stem, reduction: [4], per_stage: true}")
    assert [dict(p.values) for p in enumerate_proposals(stem, AT_14)] == [
        {"stem.type": "none"},
        {"stem.type": "se"},
        {"stem.type": "eca"},
    ]
    inside = space_of("{type: [none, eca], placement: [stage, in-block], per_stage: true}")
    assert sum(1 for _ in enumerate_proposals(inside, AT_14)) == 3**3


def test_singles_are_the_49_frequencies():
    space = space_of("{type: fca, frequency: singles}")
    values = [p.values["frequency"] for p in enumerate_proposals(space, AT_14)]
    assert values == [f"{u},{v}" for u, v in itertools.product(range(7), repeat=2)]
    assert len(distinct_candidates(space, AT_14)) == 49


def test_the_order_of_the_walk_is_fixed():
    first = [p.values for p in enumerate_proposals(load_space("attention"), AT_14)]
    assert first == [p.values for p in enumerate_proposals(load_space("attention"), AT_14)]
    assert first[0] == {"type": "none"}


def test_training_choices_multiply():
    rest = "training: {momentum: [0.5, 0.9], label_smoothing: [0, 0.1, 0.2]}"
    space = space_of("{type: [none, eca]}", rest)
    assert sum(1 for _ in enumerate_proposals(space, AT_14)) == 12
    assert len(distinct_candidates(space, AT_14)) == 12


def test_a_range_cannot_be_enumerated():
    space = space_of("{type: [none, eca]}", "training: {learning_rate: {low: 0.01, high: 1}}")
    with pytest.raises(SpaceError, match=r"^s\.yaml: learning_rate is a range.*list of values"):
        list(enumerate_proposals(space, AT_14))
    assert distinct_candidates(space, AT_14) is None


def test_a_space_too_large_to_list():
    space = load_space("attention")
    assert distinct_candidates(space, AT_14, limit=165) is None
    assert len(distinct_candidates(space, AT_14, limit=166)) == 136


def test_distinct_candidates_come_with_the_first_proposal_of_each():
    space = space_of("{type: se, placement: stem, reduction: [16, 32]}")
    ((digest, (candidate, proposal)),) = distinct_candidates(space, AT_14).items()
    assert digest == candidate.digest
    assert proposal.values == {"reduction": 16}


def test_random_answers_are_always_among_the_enumerated():
    space = load_space("attention")
    known = distinct_candidates(space, AT_14)
    chance = random.Random(0)
    seen = set()
    for _ in range(1500):
        proposal = propose(space, lambda name, domain: chance.choice(domain.values), AT_14)
        seen.add(draw(proposal, AT_14).digest)
    # 1500 draws leave out a point of probability 1/6 * 1/3 * 1/4 * 1/7 = 1/504 one time in 20.
    assert seen <= set(known)
    assert len(seen) > 80


# Candidates. ------------------------------------------------------------------------------------


def test_the_same_candidate_of_two_spaces_has_one_digest():
    wide = load_space("attention")
    narrow = space_of("{type: {se: {reduction: 8}}, placement: stage}", "study: {seed: 9}")
    answers = {"type": "se", "placement": "stage", "reduction": 8}
    one, other = drawn(wide, **answers), drawn(narrow)
    assert one.digest == other.digest
    assert one.architecture_digest == other.architecture_digest


def test_the_digest_of_a_drawn_candidate():
    # Results are kept under it: should this fail, stored studies are no longer recognised.
    space = load_space("attention")
    candidate = drawn(space, type="se", placement="stem", reduction=8)
    assert candidate.digest == "c1-15bac1624bdb7bd607fc215278316ae5"


def test_a_reduction_that_takes_no_further_effect_is_the_same_candidate():
    space = load_space("attention")
    one = drawn(space, type="se", placement="stem", reduction=16)
    other = drawn(space, type="se", placement="stem", reduction=32)
    assert one.digest == other.digest
    assert dict(one.architecture.placements[0].options) == {"reduction": 16}
    assert drawn(space, type="se", placement="stage", reduction=32).digest != one.digest


def test_seeds_and_studies_are_not_part_of_a_candidate():
    plain = space_of("{type: se}")
    other = space_of("{type: se}", "study: {trials: 9, seed: 3, seeds: 4, sampler: tpe}\nname: x")
    assert drawn(plain).digest == drawn(other).digest


@pytest.mark.parametrize(
    "rest",
    [
        "training: {epochs: 13}",
        "training: {learning_rate: 0.2}",
        "training: {batch_size: 32}",
        "training: {label_smoothing: 0.1}",
    ],
)
def test_training_is_part_of_a_candidate(rest):
    assert drawn(space_of("{type: se}", rest)).digest != drawn(space_of("{type: se}")).digest


def test_training_spelt_out_is_the_same_candidate():
    rest = "training: {epochs: 12, learning_rate: 1e-1, weight_decay: 5e-4, label_smoothing: 0}"
    assert drawn(space_of("{type: se}", rest)).digest == drawn(space_of("{type: se}")).digest


def test_a_whole_number_from_a_range_is_the_number_that_is_written():
    ranged = space_of("{type: se}", "training: {learning_rate: {low: 1, high: 4}}")
    written = space_of("{type: se}", "training: {learning_rate: 3}")
    assert drawn(ranged, learning_rate=3).digest == drawn(written).digest


def test_the_data_are_part_of_a_candidate():
    space = space_of("{type: se}")
    assert drawn(space).digest != drawn(space, AT_8).digest


def test_a_block_that_cannot_stand_at_a_site_is_named():
    # 32 frequencies cannot share the 16 channels of the stem.
    with pytest.raises(SiteError, match=r"16 channels .* 32 equal .* site stem of resnet20"):
        drawn(space_of("{type: fca, placement: stem, frequency: top32}"))


# The baseline. ----------------------------------------------------------------------------------


def test_one_baseline_for_each_backbone():
    space = space_of("{type: [none, se]}", backbone="[resnet20, resnet20-b]")
    found = baseline_candidates(space, AT_14)
    assert [candidate.architecture.backbone for candidate, _ in found] == ["resnet20", "resnet20-b"]
    assert all(candidate.is_baseline for candidate, _ in found)
    assert [candidate.label for candidate, _ in found] == ["resnet20 none", "resnet20-b none"]
    assert [values for _, values in found] == [
        {"backbone": "resnet20", "type": "none"},
        {"backbone": "resnet20-b", "type": "none"},
    ]
    assert len({candidate.digest for candidate, _ in found}) == 2


def test_searched_settings_of_the_baseline():
    rest = (
        "training: {learning_rate: {low: 0.01, high: 1.0, log: true}, momentum: [0.5, 0.9],"
        " weight_decay: {low: 0.0, high: 0.1},"
        " label_smoothing: {low: 0.0, high: 0.4, default: 0.1},"
        " batch_size: {low: 16, high: 256, log: true}}"
    )
    ((candidate, values),) = baseline_candidates(space_of("{type: [se, none]}", rest), AT_14)
    training = candidate.training
    assert training.learning_rate == pytest.approx(0.1)  # sqrt(0.01 * 1)
    assert training.momentum == 0.5  # the first choice
    assert training.weight_decay == pytest.approx(0.05)  # the middle
    assert training.label_smoothing == 0.1  # declared
    assert training.batch_size == 64  # sqrt(16 * 256)
    assert values.pop("type") == "none"
    assert set(values) == {
        *("learning_rate", "momentum", "weight_decay", "label_smoothing", "batch_size")
    }
    assert all(getattr(training, name) == value for name, value in values.items())


def test_a_baseline_is_the_candidate_that_its_proposal_gives():
    space = space_of("{type: [se, none], per_stage: true}", "training: {momentum: [0.5, 0.9]}")
    ((candidate, values),) = baseline_candidates(space, AT_14)
    assert values == {
        "stage1.type": "none",
        "stage2.type": "none",
        "stage3.type": "none",
        "momentum": 0.5,
    }
    assert (
        draw(propose(space, lambda name, _: values[name], AT_14), AT_14).digest == candidate.digest
    )


def test_a_space_without_none_still_has_its_baseline():
    ((candidate, values),) = baseline_candidates(space_of("{type: [se, eca]}"), AT_14)
    assert candidate.is_baseline
    assert values == {}


# Values that cannot be. -------------------------------------------------------------------------


def test_a_value_that_no_site_can_take_is_named():
    space = space_of("{type: [none, fca], placement: stem, frequency: [top16, top32]}")
    with pytest.raises(SpaceError) as refused:
        check_possible(space, AT_14)
    assert str(refused.value) == (
        "s.yaml:2: no site can take frequency 'top32': fca: 16 channels cannot be split into 32"
        " equal frequency groups at site stem of resnet20; take it out"
    )


@pytest.mark.parametrize(
    "attention",
    [
        # Stages 2 and 3 have 32 and 64 channels.
        "{type: [none, fca], frequency: [top16, top32], per_stage: true}",
        "{type: [none, fca], placement: stem, frequency: top16}",
        "{type: [none]}",
    ],
)
def test_a_value_that_works_somewhere_is_allowed(attention):
    check_possible(space_of(attention), AT_14)


def test_a_value_that_works_in_one_backbone_is_allowed(monkeypatch):
    # resnet18's stem has 64 channels; its table is made by hand, so that timm is not loaded.
    stem = Site("stem", "stem", 0, 0, "", "maxpool", shape=MapShape(64, 4, 4))
    tables = {
        "resnet18": SiteTable("resnet18", AT_14.input_shape, 10, (stem,), Cost()),
        "resnet20": site_table("resnet20", AT_14.input_shape, 10),
    }
    monkeypatch.setattr("spaces.drawing.sites_of", lambda name, data: tables[name])
    attention = "{type: [none, fca], placement: stem, frequency: [top16, top32]}"
    check_possible(space_of(attention, backbone="[resnet20, resnet18]"), AT_14)
    with pytest.raises(SpaceError, match="frequency 'top32'"):
        check_possible(space_of(attention, backbone="resnet20"), AT_14)


def test_fixed_values_that_leave_nothing():
    space = space_of("{type: fca, placement: stem, frequency: top32}")
    with pytest.raises(
        SpaceError, match=r"no network of this space can be built: fca: 16 channels"
    ):
        check_possible(space, AT_14)


def test_ranges_do_not_hide_impossible_values():
    space = space_of(
        "{type: [none, fca], placement: stem, frequency: [top1, top32]}",
        "training: {learning_rate: {low: 0.01, high: 1}}",
    )
    with pytest.raises(SpaceError, match="frequency 'top32'"):
        check_possible(space, AT_14)


@BOTH_SIZES
@pytest.mark.parametrize("name", ["attention", "smoke"])
def test_shipped_spaces_are_possible(name, data):
    check_possible(load_space(name), data)


# Caps. ------------------------------------------------------------------------------------------


def test_a_cap_is_inclusive_and_says_what_is_over():
    space = space_of("{type: [none, se]}", "constraints: {params: 1000, macs: 2k, flops: 1M}")
    candidate = drawn(space)
    assert violated(space, candidate, Cost(1000, 1000, 2000, 1_000_000)) == []
    assert violated(space, candidate, Cost(1001, 1001, 2000, 1_000_000)) == [
        "params 1,001 is over 1,000 (1000)"
    ]
    assert violated(space, candidate, Cost(2000, 2000, 3000, 1_000_000)) == [
        "params 2,000 is over 1,000 (1000)",
        "macs 3,000 is over 2,000 (2k)",
    ]


def test_a_share_is_of_the_same_backbone():
    space = space_of(
        "{type: [none, se]}",
        "constraints: {params: 1.002x baseline}",
        backbone="[resnet20, resnet20-b]",
    )
    # resnet20 on one grey channel and 10 classes has 269,434 parameters; 1.002 times: 269,972.9.
    # Projections add 16 x 32 + 32 x 64 weights and two norms of 2 x 32 and 2 x 64: 2,752.
    plain = drawn(space, backbone="resnet20")
    other = drawn(space, backbone="resnet20-b")
    assert site_table("resnet20", (1, 14, 14), 10).cost.params == 269_434
    assert violated(space, plain, Cost(269_972, 0, 0, 0)) == []
    # The cap is shown rounded down: 269,973 is not "over 269,973".
    assert violated(space, plain, Cost(269_973, 0, 0, 0)) == [
        "params 269,973 is over 269,972 (1.002x baseline)"
    ]
    assert violated(space, other, Cost(269_434 + 2_752, 0, 0, 0)) == []
    assert violated(space, plain, Cost(269_434 + 2_752, 0, 0, 0)) != []


def test_no_cap_is_never_over():
    space = space_of("{type: se}")
    assert violated(space, drawn(space), Cost(10**12, 0, 10**15, 10**15)) == []


# Own attention. ---------------------------------------------------------------------------------


def test_a_backbone_with_attention_of_its_own_is_no_baseline():
    space = space_of(
        "{type: [none, eca]}", backbone="[resnet18, mobilenetv3_small_050, seresnet18]"
    )
    with pytest.raises(SpaceError) as refused:
        check_possible(space, AT_14)
    first, second = str(refused.value).splitlines()
    assert first == (
        "s.yaml:1: mobilenetv3_small_050 has attention of its own (9 modules), so that it is no"
        " baseline without attention; write mobilenetv3_small_050-plain, which is"
        " mobilenetv3_small_050 without, and 'position: own' to put blocks where its own stood"
    )
    assert second.startswith("s.yaml:1: seresnet18 has attention of its own (8 modules)")


def test_attention_that_cannot_be_taken_out_is_not_offered_without():
    space = space_of("{type: [none, eca]}", backbone="resnest14d")
    with pytest.raises(SpaceError, match="part of its convolutions .*choose a backbone without$"):
        check_possible(space, AT_14)


def test_blocks_take_the_place_of_a_backbones_own_attention():
    attention = "{type: [none, eca], placement: in-block, position: own}"
    space = space_of(attention, backbone="mobilenetv3_small_050-plain")
    check_possible(space, AT_14)
    placements = drawn(space, type="eca").architecture.placements
    sites = site_table("mobilenetv3_small_050-plain", AT_14.input_shape, AT_14.classes)
    assert len(placements) == 9
    assert {p.site for p in placements} == {site.name for site in sites.sites if site.own}
