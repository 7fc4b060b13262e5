import pytest

from blocks.architecture import Architecture, architecture_cost
from blocks.build import build_network
from blocks.memory import measure_kept
from spaces.candidate import DataFacts
from spaces.caps import baseline_value, cap_of, memory_of, still_stands, violated
from spaces.drawing import distinct_candidates, sites_of
from spaces.space import Constraint, parse_space

DATA = DataFacts("digits", (1, 14, 14), 10, "split-1", (1077, 360, 360))
SPACE = """
backbone: resnet20
attention: {type: [none, se, simam], placement: [stage, in-block], reduction: 16}
"""


def candidates(space):
    return [candidate for candidate, _ in distinct_candidates(space, DATA).values()]


def kept(architecture):
    network = build_network(architecture, num_classes=10, in_channels=1)
    return measure_kept(network, DATA.input_shape)


def test_memory_is_what_the_built_network_keeps():
    for candidate in candidates(parse_space(SPACE)):
        assert memory_of(candidate.architecture, DATA) == kept(candidate.architecture)


def test_a_cap_on_memory_is_absolute_or_a_share_of_the_backbones():
    bare = kept(Architecture("resnet20", (), (14, 14)))
    assert baseline_value("memory", "resnet20", DATA) == bare
    assert cap_of(Constraint("memory", "1.5x baseline"), "resnet20", DATA) == 1.5 * bare
    found = {c.label: kept(c.architecture) for c in candidates(parse_space(SPACE))}
    between = sorted(found.values())[2]
    for text in (str(between), f"{between / bare:.12f}x baseline"):
        space = parse_space(SPACE + f"constraints: {{memory: {text}}}\n")
        for candidate in candidates(space):
            cost = architecture_cost(candidate.architecture, sites_of("resnet20", DATA))
            over = violated(space, candidate, cost)
            if found[candidate.label] <= between:
                assert over == []
            else:
                value = f"memory {found[candidate.label]:,} is over {between:,} ({text})"
                assert over == [value]


def test_a_latency_is_a_multiple_of_the_baselines_and_no_exact_cap():
    for text in ("1.2", "1.2x baseline"):
        assert cap_of(Constraint("latency_ratio", text), "resnet20", DATA) == pytest.approx(1.2)
    space = parse_space(SPACE + "constraints: {latency_ratio: 0.001}\n")
    for candidate in candidates(space):
        cost = architecture_cost(candidate.architecture, sites_of("resnet20", DATA))
        assert violated(space, candidate, cost) == []


def test_a_rejection_stands_as_long_as_its_cap_does():
    reason = "params 280,186 is over 270,000 (270000)"
    for text, stands in (("270000", True), ("280000", False)):
        space = parse_space(SPACE + f"constraints: {{macs: 270000, params: {text}}}\n")
        assert still_stands(space, reason) == stands
    assert not still_stands(parse_space(SPACE), reason)
