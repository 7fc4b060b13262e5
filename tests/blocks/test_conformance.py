"""What every block of the table must do, built-in or not."""

import copy
import pickle

import pytest
import torch
from torch import nn

from blocks import registry
from blocks.errors import SiteError
from blocks.options import MapShape

CHANNELS = 32
SIZES = [(1, 1), (1, 5), (2, 2), (3, 3), (4, 6), (5, 5), (7, 7), (9, 6), (14, 14)]
EVERY_BLOCK = pytest.mark.parametrize("name", registry.names()[1:])
EVERY_VALUE = pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        (spec.name, option.name, value)
        for spec in registry.specs()
        for option in spec.options
        for value in option.values
    ],
)


SET_BY_THE_MAP = ("grid", "axis")

# What a gradient cannot reach, by mathematics: adding one number to all similarities of a pixel
# leaves its softmax as it is, and a norm in training takes away what is added to a whole channel.
NO_GRADIENT = {
    ("selfatt", "key.bias", True),
    ("selfatt", "key.bias", False),
    ("mha", "key.bias", True),
    ("mha", "key.bias", False),
    ("spse", "fuse.0.bias", True),
    ("spse", "fuse.1.bias", True),
    ("spse", "fuse.2.bias", True),
    ("coord", "squeeze.bias", True),
    ("parallel", "members.0.squeeze.bias", True),  # coord is first of the branches
    ("sequential", "members.1.squeeze.bias", True),
}


def size_for(name, size, channels=CHANNELS, **options):
    """This size of a map, or 7 x 7 where the block refuses it."""
    row = registry.spec(name)
    refusal = row.requirement(MapShape(channels, *size), row.complete(options))
    return size if refusal is None else (7, 7)


def skip_where_refused(name, size):
    row, shape = registry.spec(name), MapShape(CHANNELS, *size)
    if row.requirement(shape, row.complete({})) is not None:
        with pytest.raises(SiteError, match=f"^{name}: .+"):
            row.in_use({}, shape)
        pytest.skip(f"{name} refuses maps of {size}")


def make(name, size=(7, 7), channels=CHANNELS, seed=0, **options):
    """A block for a map, with all of its numbers drawn anew: CBAM's norm starts with scale 0."""
    generator = torch.Generator().manual_seed(seed)
    at_the_map = registry.spec(name).in_use(options, MapShape(channels, *size))
    literal = {option: value for option, value in options.items() if option not in SET_BY_THE_MAP}
    block = registry.create(name, channels, **{**at_the_map, **literal})
    with torch.no_grad():
        for key, tensor in block.state_dict().items():
            if tensor.is_floating_point():
                low = 0.5 if key.endswith(("norm.weight", "running_var")) else -0.5
                tensor.copy_(low + torch.rand(tensor.shape, generator=generator))
    return block


def maps(batch, size, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, CHANNELS, *size, dtype=dtype, generator=generator)


@EVERY_BLOCK
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_keeps_the_shape_and_changes_the_numbers(name, size, batch):
    skip_where_refused(name, size)
    x = maps(batch, size)
    kept = x.clone()
    out = make(name, size).eval()(x)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert torch.isfinite(out).all()
    assert not torch.equal(out, x)
    assert torch.equal(x, kept), "the input was written to"


@EVERY_BLOCK
@pytest.mark.parametrize("size", SIZES)
def test_trains_on_every_size(name, size):
    skip_where_refused(name, size)
    block = make(name, size).train()
    x = maps(3, size).requires_grad_()
    block(x).square().sum().backward()
    for tensor in (x, *block.parameters()):
        assert torch.isfinite(tensor.grad).all()


@EVERY_VALUE
def test_every_option_value_runs(name, option, value):
    size = size_for(name, (7, 5), **{option: value})
    if option == "grid":
        size = (7 * value, 7 * value)
    out = make(name, size, **{option: value}).eval()(maps(2, size))
    assert torch.isfinite(out).all()


@EVERY_BLOCK
@pytest.mark.parametrize("channels", [16, 48, 64])
def test_takes_other_numbers_of_channels(name, channels):
    size = size_for(name, (6, 6), channels)
    x = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0))
    assert make(name, size, channels).eval()(x).shape == x.shape


@EVERY_BLOCK
@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_parameter_and_the_input(name, training):
    size = size_for(name, (6, 5))
    block = make(name, size).double().train(training)
    x = maps(4, size, dtype=torch.float64).requires_grad_()
    weights = maps(4, size, seed=2, dtype=torch.float64)
    (block(x) * weights).sum().backward()
    assert (x.grad != 0).all()
    for key, parameter in block.named_parameters():
        assert parameter.grad is not None, key
        reached = (name, key.removeprefix("block."), training) not in NO_GRADIENT
        assert (parameter.grad.abs().max() > 1e-9) == reached, key


@EVERY_BLOCK
def test_gradient_of_the_input_is_the_finite_difference(name):
    size = size_for(name, (4, 3))
    block = make(name, size).double().eval()
    x = maps(2, size, dtype=torch.float64)
    direction = maps(2, size, seed=3, dtype=torch.float64)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(block(x).sum(), x)
    step = 1e-6
    with torch.no_grad():
        ahead, behind = block(x + step * direction).sum(), block(x - step * direction).sum()
    slope = (ahead - behind) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-6, atol=1e-6)


@EVERY_BLOCK
def test_is_deterministic(name):
    x = maps(2, (7, 7))
    block = make(name).eval()
    assert torch.equal(block(x), block(x))
    assert torch.equal(block(x), make(name).eval()(x))
    starts = []
    for _ in range(2):
        torch.manual_seed(5)
        starts.append(registry.create(name, CHANNELS).train()(x))
    assert torch.equal(*starts)


@EVERY_BLOCK
def test_evaluation_does_not_depend_on_the_batch(name):
    size = size_for(name, (6, 7))
    block = make(name, size).double().eval()
    x = maps(3, size, dtype=torch.float64)
    alone = torch.cat([block(image[None]) for image in x])
    torch.testing.assert_close(block(x), alone, rtol=1e-12, atol=1e-14)


@EVERY_BLOCK
def test_evaluation_changes_no_state(name):
    size = size_for(name, (6, 7))
    block = make(name, size).eval()
    before = copy.deepcopy(block.state_dict())
    block(maps(3, size))
    after = block.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@EVERY_BLOCK
def test_state_moves_to_another_block(name):
    x = maps(2, (7, 7))
    trained = make(name)
    trained.train()(x)
    fresh = registry.create(name, CHANNELS)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh.eval()(x), trained.eval()(x))


@EVERY_BLOCK
def test_can_be_copied_and_pickled_after_a_run(name):
    x = maps(2, (7, 7))
    block = make(name).eval()
    expected = block(x)
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(other(x), expected)


@EVERY_BLOCK
def test_bfloat16_autocast_is_close(name):
    x = maps(2, (7, 7))
    block = make(name).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = block(x)
    # Eight bits of mantissa: a few hundredths of a gate between 0 and 1.
    torch.testing.assert_close(out.float(), block(x), rtol=0, atol=0.03 * x.abs().max().item())


@EVERY_BLOCK
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_runs_in_other_types(name, dtype):
    x = maps(2, (7, 7))
    expected = make(name).eval()(x)
    out = make(name).to(dtype).eval()(x.to(dtype))
    assert out.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float64 else 0.05 * x.abs().max().item()
    torch.testing.assert_close(out.float(), expected, rtol=0, atol=tolerance)


@EVERY_BLOCK
def test_memory_layout_does_not_matter(name):
    size = size_for(name, (6, 7))
    x = maps(2, size)
    block = make(name, size).eval()
    out = block(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(out, block(x), rtol=1e-5, atol=1e-6)


@EVERY_BLOCK
def test_is_one_graph_for_the_compiler(name):
    block = make(name).eval()
    x = maps(2, (7, 7))
    torch.compiler.reset()
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), block(x))


@EVERY_BLOCK
def test_is_exported_with_the_same_numbers(name):
    block = make(name).eval()
    x = maps(2, (7, 7))
    expected = block(x)  # first: FcaNet makes its bases once, outside of the graph
    exported = torch.export.export(block, (x,)).module()
    torch.testing.assert_close(exported(x), expected)
    torch.testing.assert_close(block(x), expected)


@EVERY_BLOCK
def test_runs_on_the_meta_device(name):
    block = registry.create(name, CHANNELS).to("meta").eval()
    shape = (1, CHANNELS, *size_for(name, (9, 5)))
    out = block(torch.empty(shape, device="meta"))
    assert out.is_meta
    assert tuple(out.shape) == shape


@EVERY_BLOCK
def test_says_what_it_is(name):
    block = registry.create(name, CHANNELS)
    assert isinstance(block, nn.Module)
    stated, options = block.attention_block
    assert stated == name
    assert dict(options) == registry.spec(name).complete({})
