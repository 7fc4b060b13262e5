"""Every block beside a literal transcription of its definition, and beside timm's module.

Run by `make bench`. The table in blocks/README.md is written anew by

    BLOCK_SPEED_README=1 python -m pytest -m benchmark -s tests/benchmarks/test_block_speed.py
"""

import os
from pathlib import Path

import pytest
import timm
import torch
from literal import transcribed
from race import ROUNDS, keep_memory, processor, race
from timm.layers import EcaModule, SEModule
from timm.layers.cbam import CbamModule
from timm.layers.coord_attn import CoordAttn

from blocks import registry
from blocks.errors import SiteError
from blocks.options import MapShape, coordinate_width

README = Path(__file__).parents[2] / "blocks" / "README.md"
MARKS = ("<!-- speed: start -->\n", "<!-- speed: end -->\n")
SHAPES = [(8, 64, 32, 32), (8, 256, 14, 14), (128, 64, 8, 8), (2, 64, 7, 7)]
COMPILED_SHAPE = SHAPES[0]
MODES = ("forward", "training")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
ALLOWED = 1.05
BLOCKS = [
    *((spec.name, {}) for spec in registry.specs() if not spec.code),
    ("fca", {"frequency": "top1"}),
    ("fca", {"frequency": "low16"}),
]
TIMM = {
    "se": lambda c: SEModule(c, rd_channels=max(1, c // 16), bias=False),
    "eca": lambda c: EcaModule(c),
    "cbam": lambda c: CbamModule(c, mlp_bias=True),
    "coord": lambda c: CoordAttn(c, rd_channels=coordinate_width(c, 32), bias=True),
}
ROWS = []


def label(name, options):
    return " ".join((name, *map(str, options.values())))


def contenders(name, options, shape):
    """Our block, its transcription with the same weights, and timm's module."""
    _, channels, height, width = shape
    row = registry.spec(name)
    complete = {**row.in_use(options, MapShape(channels, height, width)), **options}
    ours = registry.create(name, channels, **complete)
    complete["residual"] = row.complete(complete)["residual"]
    literal = transcribed(name, channels, (height, width), **complete)
    literal.load_state_dict(ours.state_dict())
    modules = {"ours": ours, "literal": literal}
    if name in TIMM:
        modules["timm"] = TIMM[name](channels)
    return modules


def step(module, mode, x, gradient):
    """One forward pass, or a forward and a backward pass with all gradients."""
    if mode == "forward":
        return lambda: torch.no_grad()(module)(x)
    wanted = [x, *module.parameters()]
    return lambda: torch.autograd.grad(module(x), wanted, gradient, allow_unused=True)


def copying(x):
    """One copy of a map from memory to memory: a ring of maps larger than the caches."""
    source = x.detach()
    ring = [source.clone() for _ in range(1 + 2**26 // source.nbytes)]
    state = {"at": 0}

    def copy():
        at = state["at"] = (state["at"] + 1) % len(ring)
        ring[at].copy_(ring[at - 1])

    return copy


def measure(name, options, shape, mode, device, compiled):
    """Times of the contenders and of a copy of the map."""
    torch.manual_seed(0)
    x = torch.randn(shape, device=device, requires_grad=True)
    gradient = torch.randn(shape, device=device)
    steps = {}
    for contender, module in contenders(name, options, shape).items():
        module = module.to(device).train()
        module = torch.compile(module, fullgraph=True) if compiled else module
        steps[contender] = step(module, mode, x, gradient)
    return race({**steps, "copy": copying(x)}, device)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_memory()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", autouse=True)
def report():
    """Print the table at the end; with BLOCK_SPEED_README=1, write it into blocks/README.md."""
    yield
    table = "\n".join(lines(ROWS)) + "\n"
    print("\n" + table)
    if os.environ.get("BLOCK_SPEED_README"):
        text = README.read_text(encoding="utf-8")
        before, rest = text.split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        README.write_text(before + MARKS[0] + table + MARKS[1] + after, encoding="utf-8")


def lines(rows):
    """The table as Markdown; one row per block and device, one column per shape and mode."""
    devices = [processor() + ", one thread"]
    if "cuda" in DEVICES:
        devices.append(torch.cuda.get_device_name())
    yield f"Measured on {'; '.join(devices)}; torch {torch.__version__}, timm {timm.__version__};"
    yield f"float32, {ROUNDS} interleaved rounds."
    for device, compiled in dict.fromkeys((row[0], row[1]) for row in rows):
        these = [row[2:] for row in rows if row[:2] == (device, compiled)]
        columns = list(dict.fromkeys((shape, mode) for _, shape, mode, _ in these))
        heads = [f"{'x'.join(map(str, shape))} {mode}" for shape, mode in columns]
        yield ""
        yield f"| {device}{', compiled' if compiled else ', eager'} | " + " | ".join(heads) + " |"
        yield "|---" * (len(columns) + 1) + "|"
        for block in dict.fromkeys(row[0] for row in these):
            cells = {row[1:3]: cell(row[3]) for row in these if row[0] == block}
            yield f"| {block} | " + " | ".join(cells.get(c, "-") for c in columns) + " |"


def cell(times):
    first, middle, third = times["ours"].ratio_to(times["literal"])
    copies = times["ours"].median / times["copy"].median
    text = f"{middle:.2f} ({first:.2f}-{third:.2f}), {copies:.1f}"
    if "timm" in times:
        text += f"; {times['ours'].ratio_to(times['timm'])[1]:.2f}"
    return text


def skip_where_refused(name, shape):
    try:
        registry.spec(name).in_use({}, MapShape(*shape[1:]))
    except SiteError as refusal:
        pytest.skip(str(refusal))


@pytest.mark.benchmark
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "options"), BLOCKS)
def test_is_no_slower_than_its_transcription(name, options, shape, mode, device):
    skip_where_refused(name, shape)
    times = measure(name, options, shape, mode, device, compiled=False)
    if times["ours"].ratio_to(times["literal"])[1] > ALLOWED:  # once more: other programs run too
        times = measure(name, options, shape, mode, device, compiled=False)
    ROWS.append((device, False, label(name, options), shape, mode, times))
    assert times["ours"].ratio_to(times["literal"])[1] <= ALLOWED


@pytest.mark.benchmark
@pytest.mark.timeout(900)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [name for name, options in BLOCKS if not options])
def test_compiled(name, mode, device):
    shape = (8, 256, 14, 14) if name == "rgse" else COMPILED_SHAPE
    torch.compiler.reset()
    times = measure(name, {}, shape, mode, device, compiled=True)
    ROWS.append((device, True, label(name, {}), shape, mode, times))
    assert times["ours"].median < 3 * times["literal"].median  # the graph is not broken
