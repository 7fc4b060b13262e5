"""What every block of the table must do: the shipped suite, and what it leaves to these tests."""

import warnings
from dataclasses import replace

import pytest
import torch
from literal import LITERAL
from torch import nn

from blocks import registry
from blocks.conformance import CHECKS, FAILED, SKIPPED, checks, run_check, undisturbed
from blocks.errors import BlockError, SiteError
from blocks.facts import FACTS, Facts
from blocks.options import MapShape
from blocks.subject import Subject, subject_of, subject_of_class

CHANNELS = 32
NAMES = registry.names()[1:]
EVERY_BLOCK = pytest.mark.parametrize("name", NAMES)
SIZES = [(1, 1), (1, 5), (2, 2), (3, 3), (4, 6), (5, 5), (7, 7), (9, 6), (14, 14)]
SLOW = [check for check in CHECKS if check.slow]


def by_name(check):
    return check.name


def judge(check, name):
    finding = run_check(check, subject_of(name))
    if finding.state == SKIPPED:
        pytest.skip(finding.detail)
    assert finding.state != FAILED, f"{finding.detail}\ncure: {finding.cure}"


@EVERY_BLOCK
@pytest.mark.parametrize("check", checks(), ids=by_name)
def test_passes(check, name):
    judge(check, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.adapted_names())
@pytest.mark.parametrize("check", checks(), ids=by_name)
def test_timms_modules_pass(check, name):
    judge(check, name)


@pytest.mark.slow
@EVERY_BLOCK
@pytest.mark.parametrize("check", SLOW, ids=by_name)
def test_passes_slow(check, name):
    judge(check, name)


# What the suite leaves open to users' blocks, ours must do --------------------------------------


@EVERY_BLOCK
@pytest.mark.parametrize("size", SIZES)
def test_maps_are_changed_or_refused_by_the_blocks_name(name, size):
    subject = subject_of(name)
    row, shape = registry.spec(name), MapShape(CHANNELS, *size)
    if row.requirement(shape, row.complete({})) is not None:
        with pytest.raises(SiteError, match=f"^{name}: .+"):
            row.in_use({}, shape)
        return
    x = subject.maps(3, size)
    assert not torch.equal(subject.built(size)(x), x)


@EVERY_BLOCK
@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_number_of_the_input(name, training):
    subject = subject_of(name)
    size = subject.map_size((6, 5))
    x = subject.maps(4, size, dtype=torch.float64).requires_grad_()
    weights = subject.maps(4, size, seed=2, dtype=torch.float64)
    (subject.built(size).double().train(training)(x) * weights).sum().backward()
    assert (x.grad != 0).all()


@EVERY_BLOCK
@pytest.mark.parametrize("channels", [16, 48, 64])
def test_takes_the_channels_of_every_stage(name, channels):
    subject = subject_of(name)
    size = subject.map_size(channels=channels)
    x = subject.maps(2, size, channels=channels)
    assert subject.built(size, channels=channels)(x).shape == x.shape


ONE_PIXEL_OF_TWO_IMAGES = ("cbam", "spse", "triplet", "tripse1", "tripse2", "tripse3", "tripse4")


@pytest.mark.parametrize("name", ONE_PIXEL_OF_TWO_IMAGES)
def test_a_norm_of_one_number_is_refused_by_the_blocks_name(name):
    block = registry.create(name, CHANNELS).train()
    words = f"^{name}: in training its batch norm needs more than one number per channel, .*eval()"
    with pytest.raises(SiteError, match=words):
        block(torch.randn(1, CHANNELS, 1, 1))
    assert block(torch.randn(2, CHANNELS, 1, 1)).shape == (2, CHANNELS, 1, 1)
    assert block.eval()(torch.randn(1, CHANNELS, 1, 1)).shape == (1, CHANNELS, 1, 1)


@EVERY_BLOCK
def test_says_what_it_is(name):
    block = registry.create(name, CHANNELS)
    assert isinstance(block, nn.Module)
    stated, options = block.attention_block
    assert stated == name
    assert dict(options) == registry.spec(name).complete({})


# The tables -------------------------------------------------------------------------------------


def test_facts_are_stated_of_blocks_and_options_that_there_are():
    for name, facts in FACTS.items():
        row = registry.spec(name)
        for alias in facts.aliases:
            for value in alias.values:
                row.option(alias.option).checked(value, block=name)
            assert len(alias.values) > 1
            assert alias.why
        names = [n.removeprefix("block.") for n, _ in registry.create(name, 64).named_parameters()]
        for fact in facts.unreachable:
            assert any(fact.covers(name, training=True) for name in names)


def test_a_cost_that_is_not_counted_here_is_counted_in_its_literal_form():
    by_definition = {name for name, facts in FACTS.items() if facts.counted}
    assert by_definition == {*LITERAL, "selfatt", "mha"}  # those two in test_self_attention


def test_an_excuse_must_be_needed():
    (check,) = (check for check in CHECKS if check.name == "gradients")
    excused = Facts(excused=(("gradients", "a softmax follows"),))
    plain = without_facts("mha")
    finding = run_check(check, replace(plain, facts=excused))
    assert finding.state == SKIPPED
    assert finding.detail.startswith("a softmax follows (mha at 4 x 32 x 6 x 5, training: the")
    finding = run_check(check, replace(subject_of("se"), facts=excused))
    assert finding.state == FAILED
    assert finding.detail == "se: is excused (a softmax follows), and passes"


def test_every_check_has_a_name_of_its_own_and_says_what_it_proves():
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.proves for check in CHECKS)
    assert [check.name for check in SLOW] == ["inductor", "onnx"]
    assert all(check.cure for check in CHECKS if check.name != "deterministic")


def without_facts(name):
    row = subject_of(name)
    return Subject(row.row, row.make)


@pytest.mark.parametrize(
    ("name", "check", "words"),
    [
        (
            "fca",
            "options-differ",
            "fca.frequency: 'top2' and 'low2' at 64 x 14 x 14 build the same",
        ),
        ("eca", "options-differ", "eca.kernel_size: 'auto' and 3 at 64 x 14 x 14 build the same"),
        ("spse", "gradients", "training: the gradient of fuse.0.bias, fuse.1.bias"),
        ("mha", "gradients", "the gradient of block.key.bias is 0; needed: one that reaches it"),
        ("triplet", "cost", "triplet at 1 x 32 x 7 x 7: declares 118,713 flops, and"),
    ],
)
def test_what_is_stated_is_needed(name, check, words):
    (row,) = (row for row in CHECKS if row.name == check)
    finding = run_check(row, without_facts(name))
    assert finding.state == FAILED
    assert words in finding.detail


# What a check leaves behind ---------------------------------------------------------------------


def test_no_check_leaves_a_trace():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with torch.no_grad():
        for check in checks():
            run_check(check, subject_of("cbam"))
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_default_dtype() == torch.float32
    assert not torch.are_deterministic_algorithms_enabled()


def test_modes_come_back_after_an_error():
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with pytest.raises(KeyError), undisturbed():
            assert not torch.are_deterministic_algorithms_enabled()
            torch.set_default_dtype(torch.float64)
            warnings.simplefilter("ignore")
            raise KeyError
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.get_default_dtype() == torch.float32
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_class_that_is_checked_is_not_registered():
    class Shift(nn.Module):
        def __init__(self, channels, *, start=0.0):
            super().__init__()
            self.shift = nn.Parameter(torch.full((1, channels, 1, 1), start))

        def forward(self, x):
            return x + self.shift

    subject = subject_of_class(Shift, channels=8)
    assert subject.row.name == "Shift"
    assert [option.name for option in subject.row.options] == ["start", "residual"]
    assert subject.built((3, 3))(subject.maps(1, (3, 3))).shape == (1, 8, 3, 3)
    assert "Shift" not in registry.names()


def test_a_registered_class_is_checked_by_its_row(monkeypatch):
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    subject = subject_of_class(registry.block_class("eca"))
    assert subject.row is registry.spec("eca")
    assert subject.facts == FACTS["eca"]


def test_fewer_than_one_channel_is_refused():
    with pytest.raises(BlockError, match="0 channels; a map has 1 or more"):
        subject_of("se", channels=0)
