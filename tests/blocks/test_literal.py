"""Every built-in block is put to its literal transcription: outputs, gradients, statistics."""

import pytest
import torch
from literal import TRANSCRIBED, assert_equal_to_the_letter, drawn, transcribed
from torch.utils.checkpoint import checkpoint

from blocks import fca, passes, registry
from blocks.options import MapShape
from blocks.passes import PlaneConv2d, maximum, mean, rescale
from blocks.self_attention import few_pixels

CHANNELS = 16
NAMES = [spec.name for spec in registry.specs() if not spec.code]
EVERY_BLOCK = pytest.mark.parametrize("name", NAMES)
# torch's fused attention has no second derivative and is not vectorised.
TWICE = pytest.mark.parametrize("name", [n for n in NAMES if n not in ("selfatt", "mha")])
OTHERS = [
    ("se", {"bias": True, "gate": "tanh"}),
    ("fca", {"frequency": "low8"}),
    ("scse", {"combine": "add"}),
    ("scse", {"combine": "mul"}),
    ("cbam", {"norm": False, "kernel_size": 3}),
]


@pytest.fixture(autouse=True)
def gradients_of_our_own(monkeypatch):
    """On the small maps of these tests too, where torch's are as fast and the default."""
    monkeypatch.setattr(passes, "PAYS_FROM", dict.fromkeys(passes.PAYS_FROM, 0))


def pair(name, size, channels=CHANNELS, **given):
    """A block with its numbers drawn anew, and its transcription."""
    at_the_map = registry.spec(name).in_use(given, MapShape(channels, *size))
    options = {**at_the_map, **given}
    residual = registry.spec(name).complete(options)["residual"]
    written = transcribed(name, channels, size, **{**options, "residual": residual})
    return drawn(registry.create(name, channels, **options)), written


def maps(size, dtype=torch.float64, batch=3):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, CHANNELS, *size, dtype=dtype, generator=generator)


def test_every_built_in_block_is_transcribed():
    assert set(NAMES) == set(TRANSCRIBED)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(7, 7), (14, 14), (5, 9), (2, 3)])
@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in NAMES), *OTHERS])
def test_equals_its_transcription(name, options, size, training):
    if name == "rgse" and size not in [(7, 7), (14, 14)]:
        size = (28, 28)
    block, written = pair(name, size, **options)
    if name == "fca":
        block, written = block.double(), written.double()
        written.basis = block.bases(maps(size))  # theirs is made in float32
    assert_equal_to_the_letter(block.train(training), written, maps(size))


@TWICE
def test_second_derivatives_are_those_of_the_transcription(name):
    found = []
    for module in pair(name, (7, 7)):
        module.load_state_dict(drawn(module).state_dict())
        x = maps((7, 7), batch=2).requires_grad_()
        (first,) = torch.autograd.grad(module.double()(x).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), x)[0])
    tolerance = 1e-5 if name == "fca" else 1e-8  # its transcription's bases are float32
    torch.testing.assert_close(*found, rtol=tolerance, atol=tolerance)


@EVERY_BLOCK
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_in_half_precision_are_close(name, dtype):
    block, _ = pair(name, (7, 7))
    gradients = []
    for kind in (torch.float64, dtype):
        x = maps((7, 7), dtype).to(kind).requires_grad_()
        block.to(kind)(x).square().sum().backward()
        gradients.append(x.grad.double())
    off = (gradients[1] - gradients[0]).abs() / gradients[0].abs().max()
    assert (off < 0.1).double().mean() > 0.99  # rounded, another number can be the maximum


@EVERY_BLOCK
def test_gradients_do_not_depend_on_the_memory_layout(name):
    block, _ = pair(name, (7, 7))
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        x = maps((7, 7)).to(memory_format=layout).requires_grad_()
        block(x).square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)


@EVERY_BLOCK
def test_gradients_under_autocast_are_close(name):
    block, _ = pair(name, (7, 7))
    gradients = []
    for enabled in (False, True):
        x = maps((7, 7)).float().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = block.float()(x)
        out.float().square().sum().backward()
        gradients.append(x.grad)
    scale = gradients[0].abs().max()
    torch.testing.assert_close(gradients[1] / scale, gradients[0] / scale, rtol=0, atol=0.1)


@EVERY_BLOCK
def test_is_exported_before_it_ever_ran(name):
    block, _ = pair(name, (7, 7))
    block = block.eval()
    x = maps((7, 7))
    exported = torch.export.export(block, (x,)).module()  # a warning would be an error
    torch.testing.assert_close(exported(x), block(x))


@EVERY_BLOCK
def test_trains_under_checkpointing(name):
    block, _ = pair(name, (7, 7))
    block = block.eval()
    gradients = []
    for run in (block, lambda x, block=block: checkpoint(block, x, use_reentrant=False)):
        x = maps((7, 7)).requires_grad_()
        run(x).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)


@TWICE
def test_gradients_per_image_by_function_transforms(name):
    block, _ = pair(name, (7, 7))
    block = block.eval()
    x = maps((7, 7))
    each = torch.func.vmap(torch.func.grad(lambda image: block(image[None]).square().sum()))(x)
    given = x.clone().requires_grad_()
    block(given).square().sum().backward()
    torch.testing.assert_close(each, given.grad)


@EVERY_BLOCK
def test_runs_in_a_function_transform_without_gradients(name):
    block, _ = pair(name, (7, 7))
    block, x = block.eval(), maps((7, 7))
    with torch.no_grad():
        each = torch.func.vmap(lambda image: block(image[None])[0])(x)
        torch.testing.assert_close(each, block(x))


@pytest.mark.parametrize("images", [1, 2, 3])
def test_coefficients_of_a_map_beyond_the_caches_are_the_same(monkeypatch, images):
    block, x = registry.create("fca", CHANNELS).double(), maps((9, 7))
    expected = block(x)
    monkeypatch.setattr(fca, "LARGE_MAP", 0)
    monkeypatch.setattr(fca, "PIECE", images * x[0].nbytes)
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected)
    given, copied = (x.clone().requires_grad_() for _ in range(2))
    block(given).square().sum().backward()
    monkeypatch.undo()
    block(copied).square().sum().backward()
    torch.testing.assert_close(given.grad, copied.grad)


def test_few_pixels_take_plain_products_and_many_the_fused_kernel():
    cpu, other = torch.device("cpu"), torch.device("meta")
    assert [few_pixels(width, cpu) for width in (8, 16, 64, 256)] == [256, 128, 256, 1024]
    assert few_pixels(64, other) == 64


@pytest.mark.parametrize("name", ["selfatt", "mha"])
def test_plain_products_equal_the_fused_kernel(name, monkeypatch):
    block = drawn(registry.create(name, CHANNELS)).double()
    outputs = []
    for few in (0, 10**6):
        monkeypatch.setattr("blocks.self_attention.few_pixels", lambda *_, few=few: few)
        outputs.append(block(maps((5, 9))))
    torch.testing.assert_close(*outputs)


def test_a_mean_of_many_large_halves_is_finite():
    x = torch.full((1, 1, 64, 64), 100.0, dtype=torch.float16, requires_grad=True)
    assert mean(x, (2, 3)).item() == 100.0  # their sum is beyond 65504


def test_tied_maxima_share_the_gradient():
    x = torch.tensor([[1.0, 3.0, 3.0]], requires_grad=True)
    maximum(x, 1).sum().backward()
    assert x.grad.tolist() == [[0.0, 0.5, 0.5]]


@pytest.mark.parametrize("operator", ["mean", "maximum", "rescale", "convolution"])
def test_gradients_are_finite_differences_twice(operator):
    torch.manual_seed(0)
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    gate = torch.randn(2, 2, 1, 5, dtype=torch.float64, requires_grad=True)
    convolution = PlaneConv2d(2, 3).double()
    run, inputs = {
        "mean": (lambda x: mean(x, (1, 3)), (x,)),
        "maximum": (lambda x: maximum(x, 2), (x,)),
        "rescale": (rescale, (x, gate)),
        "convolution": (
            lambda x, w: torch.func.functional_call(convolution, {"weight": w}, (x,)),
            (x, convolution.weight),
        ),
    }[operator]
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)
