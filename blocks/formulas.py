"""What a block costs at a feature map, by closed formula: exact, before anything is built.

The stated table of operations (``blocks.cost`` counts other layers by the same one):

=============================================================  ==========================
operation                                                      floating-point operations
=============================================================  ==========================
one multiply-accumulate of a convolution, linear or matrix     2
product (also counted in ``macs``)
a bias                                                         1 per output
add, subtract, multiply, divide, compare, negate               1 per output
exp, log, sqrt, tanh, erf, power                               1 per output
sigmoid (negate, exp, add, divide); hard sigmoid               4 per output
hard-swish (add, compare twice, multiply, divide)              5 per output
mean over n numbers (n - 1 additions, 1 division)              n per output
sum or maximum over n numbers                                  n - 1 per output
batch normalisation, in evaluation                             2 per output
softmax (largest, subtract, exp, sum, divide)                  5 per output
=============================================================  ==========================

All figures are for one image. ``macs`` leave FcaNet's DCT out, as the papers do; ``flops`` hold it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from blocks.frequency import GRID, learnt_groups
from blocks.options import (
    CHANNELS_AXIS,
    GRID_WINDOW,
    MapShape,
    OptionValue,
    bottleneck_width,
    coordinate_width,
    dct_shape,
    eca_kernel_size,
    squeezed_sizes,
)

SIGMOID_FLOPS = 4
GATE_FLOPS = {"sigmoid": SIGMOID_FLOPS, "hardsigmoid": 4, "tanh": 1, "relu": 1}
BATCH_NORM_FLOPS = 2
HARD_SWISH_FLOPS = 5
SOFTMAX_FLOPS = 5


@dataclass(frozen=True)
class Cost:
    """What a network or a part of it costs, for one image.

    Args:
        params: All parameters; buffers are not counted.
        trainable_params: Those that receive gradients.
        macs: Multiply-accumulates of convolutions, linear layers and matrix products.
        flops: Every floating-point operation; a multiply-accumulate is two.
    """

    params: int = 0
    trainable_params: int = 0
    macs: int = 0
    flops: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.params + other.params,
            self.trainable_params + other.trainable_params,
            self.macs + other.macs,
            self.flops + other.flops,
        )

    def to_json(self) -> dict[str, int]:
        """As plain data."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cost:
        """Read what ``to_json`` wrote."""
        return cls(**{field.name: int(data[field.name]) for field in fields(cls)})


def total(costs: list[Cost]) -> Cost:
    """Add up costs."""
    return Cost(
        sum([cost.params for cost in costs]),
        sum([cost.trainable_params for cost in costs]),
        sum([cost.macs for cost in costs]),
        sum([cost.flops for cost in costs]),
    )


def _cost(params: int, macs: int, other_flops: int) -> Cost:
    return Cost(params, params, macs, 2 * macs + other_flops)


def _gate(options: Mapping[str, OptionValue]) -> int:
    """Operations of the gate function, per number."""
    return GATE_FLOPS[str(options["gate"])]


def _two_layers(channels: int, hidden: int, *, bias: bool) -> Cost:
    """Squeeze to ``hidden``, ReLU, excite back to ``channels``; no gate function."""
    biases = hidden + channels if bias else 0
    macs = 2 * channels * hidden
    return _cost(macs + biases, macs, hidden + biases)


def squeeze_excite(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """Mean, two layers, sigmoid, scale: 2 C h parameters (and h + C biases)."""
    channels, pixels = shape.channels, shape.height * shape.width
    hidden = bottleneck_width(channels, int(options["reduction"]))
    mean = channels * pixels
    scale = channels * pixels
    around = _cost(0, 0, mean + _gate(options) * channels + scale)
    return _two_layers(channels, hidden, bias=bool(options["bias"])) + around


def efficient_channel(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """Mean, one convolution over the channel axis, sigmoid, scale: k parameters."""
    channels, pixels = shape.channels, shape.height * shape.width
    kernel = options["kernel_size"]
    size = eca_kernel_size(channels) if kernel == "auto" else int(kernel)
    return _cost(size, channels * size, 2 * channels * pixels + _gate(options) * channels)


def frequency_channel(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """SE with a DCT coefficient in the mean's place: 2 n - 1 operations a channel of n pixels.

    Learnt frequencies have 49 weights a group: a softmax of them, and their mean of the bases,
    which is the product of three matrices (H, 7), (7, 7) and (7, W).
    """
    channels, pixels = shape.channels, shape.height * shape.width
    hidden = bottleneck_width(channels, int(options["reduction"]))
    height, width = dct_shape(shape, options["dct_size"])
    pooling = 0
    if (height, width) != (shape.height, shape.width):
        rows = _adaptive_window_sum(shape.height, height)
        pooling = channels * rows * _adaptive_window_sum(shape.width, width)
    coefficient = channels * (2 * height * width - 1)
    scale = channels * pixels
    groups = learnt_groups(str(options["frequency"])) or 0
    choices = GRID**2
    mixing = 2 * choices * height + 2 * GRID * height * width
    learning = _cost(groups * choices, 0, groups * (SOFTMAX_FLOPS * choices + mixing))
    around = _cost(0, 0, pooling + coefficient + _gate(options) * channels + scale) + learning
    return _two_layers(channels, hidden, bias=False) + around


def _adaptive_window_sum(size: int, parts: int) -> int:
    """Lengths of all windows of adaptive pooling from ``size`` to ``parts``, added up."""
    return sum(-(-(i + 1) * size // parts) - i * size // parts for i in range(parts))


def energy(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """SimAM: no parameters, eleven operations a number and a variance per channel.

    Per number: mean, subtract, square, sum, divide, add 0.5, sigmoid (4), scale; per channel the
    sum's saved addition, a division, lambda and the factor 4. A map of one pixel is scaled alone.
    """
    pixels = shape.height * shape.width
    per_channel = 11 * pixels + 2 if pixels > 1 else 1
    return _cost(0, 0, shape.channels * per_channel)


def convolutional_block(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """CBAM: 2 C h + h + C parameters for channels, 2 k^2 (+ 2 for the norm) for pixels."""
    channels, pixels = shape.channels, shape.height * shape.width
    hidden = bottleneck_width(channels, int(options["reduction"]))
    layers = _two_layers(channels, hidden, bias=True)
    twice = Cost(layers.params, layers.trainable_params, 2 * layers.macs, 2 * layers.flops)
    mean_and_max = channels * pixels + channels * (pixels - 1)
    channel_gate = _cost(
        0, 0, mean_and_max + channels + SIGMOID_FLOPS * channels + channels * pixels
    )
    taps = 2 * int(options["kernel_size"]) ** 2
    norm = _cost(2, 0, BATCH_NORM_FLOPS * pixels) if options["norm"] else Cost()
    mean_and_max = channels * pixels + (channels - 1) * pixels
    spatial_gate = _cost(taps, taps * pixels, mean_and_max + SIGMOID_FLOPS * pixels)
    return twice + channel_gate + spatial_gate + norm + _cost(0, 0, channels * pixels)


def channel_squeeze_excite(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """SE with biases (cSE): 2 C h + h + C parameters."""
    return squeeze_excite(shape, {**options, "bias": True})


def spatial_squeeze_excite(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """One weighted sum of channels a pixel, gate, scale (sSE): C + 1 parameters."""
    channels, pixels = shape.channels, shape.height * shape.width
    bias_and_gate = pixels + _gate(options) * pixels
    return _cost(channels + 1, channels * pixels, bias_and_gate + channels * pixels)


def concurrent_squeeze_excite(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """Both cSE and sSE, and one operation a number to join them (scSE)."""
    both = channel_squeeze_excite(shape, options) + spatial_squeeze_excite(shape, options)
    return both + _cost(0, 0, shape.channels * shape.height * shape.width)


def _normed_layers(shape: MapShape, options: Mapping[str, OptionValue], *, norm: bool) -> Cost:
    """From a description of each channel to the scaled map: norm, ReLU, two layers, gate, scale."""
    channels, pixels = shape.channels, shape.height * shape.width
    hidden = bottleneck_width(channels, int(options["reduction"]))
    normed = _cost(2 * channels, 0, BATCH_NORM_FLOPS * channels) if norm else Cost()
    around = _cost(0, 0, channels + _gate(options) * channels + channels * pixels)
    return normed + _two_layers(channels, hidden, bias=True) + around


def pyramid_squeeze_excite(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """SPSE: 26 C parameters and SE's 2 C h + h + C; three poolings of the map."""
    channels, sides = shape.channels, (1, 2, 4)
    pooling = sum(
        _adaptive_window_sum(shape.height, side) * _adaptive_window_sum(shape.width, side)
        for side in sides
    )
    taps = channels * sum(side**2 for side in sides)
    biases, sums = channels * len(sides), channels * (len(sides) - 1)
    described = _cost(taps + biases, taps, channels * pooling + biases + sums)
    return described + _normed_layers(shape, options, norm=True)


def grid_squeeze_excite(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """RGSE: (g^2 + 2) C parameters for a grid of g > 1 windows a side, and SE's 2 C h + h + C.

    The map decides the grid, whatever ``options`` say.
    """
    channels, grid = shape.channels, max(1, shape.height // GRID_WINDOW)
    pooling = _cost(0, 0, channels * (GRID_WINDOW * grid) ** 2)
    taps = channels * grid**2 if grid > 1 else 0
    return pooling + _cost(taps, taps, 0) + _normed_layers(shape, options, norm=grid > 1)


def self_attention(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """3 (C^2 + C) + 1 parameters; all pairs of pixels, twice C products each."""
    scalings = 1 if options["scale"] else 0
    return _attention(shape, projections=3, heads=1, scalings=scalings)


def multi_head_attention(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """4 (C^2 + C) + 1 parameters; the same products, a softmax for each head."""
    return _attention(shape, projections=4, heads=int(options["heads"]), scalings=1)


def _attention(shape: MapShape, *, projections: int, heads: int, scalings: int) -> Cost:
    """1x1 convolutions with biases, attention among all pixels, gamma."""
    channels, pixels = shape.channels, shape.height * shape.width
    params = projections * (channels**2 + channels) + 1
    macs = projections * channels**2 * pixels + 2 * channels * pixels**2
    biases = projections * channels * pixels
    softmax = (SOFTMAX_FLOPS + scalings) * heads * pixels**2
    return _cost(params, macs, biases + softmax + channels * pixels)


def identity_cost(shape: MapShape) -> Cost:
    """The start as the identity, x + g (y - x): one parameter, three operations a number."""
    return _cost(1, 0, 3 * shape.channels * shape.height * shape.width)


def coordinate(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """Coordinate attention: 3 C m + 3 m + 2 C parameters; layers on H + W means a channel."""
    channels, pixels = shape.channels, shape.height * shape.width
    lines = shape.height + shape.width
    width = coordinate_width(channels, int(options["reduction"]))
    params = 3 * channels * width + 3 * width + 2 * channels
    macs = 2 * channels * width * lines
    squeezed = (1 + BATCH_NORM_FLOPS + HARD_SWISH_FLOPS) * width * lines
    excited = (1 + SIGMOID_FLOPS) * channels * lines
    means, scales = 2 * channels * pixels, 2 * channels * pixels
    return _cost(params, macs, means + squeezed + excited + scales)


def triplet(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """2 k^2 + 2 parameters a branch; every branch scales the map, and their maps are joined."""
    kernel, third = int(options["kernel_size"]), bool(options["spatial"])
    branches = _plane_gates(shape, kernel, spatial=third)
    return branches + _joined(shape, 3 if third else 2, combine="mean")


def _plane_gates(shape: MapShape, kernel: int = 7, *, spatial: bool = True) -> Cost:
    """Branches of triplet attention, each up to the scaled map."""
    gates = [_plane_gate(shape, plane, kernel) for plane in _planes(shape)]
    return total(gates if spatial else gates[:2])


def _planes(shape: MapShape) -> list[int]:
    """Sizes of the planes (C, W), (H, C) and (H, W)."""
    channels, height, width = shape.channels, shape.height, shape.width
    return [channels * width, height * channels, height * width]


def _plane_gate(shape: MapShape, plane: int, kernel: int) -> Cost:
    """Maximum and mean, one convolution, norm, sigmoid, scale."""
    numbers, taps = shape.channels * shape.height * shape.width, 2 * kernel**2
    pooled, scale = (numbers - plane) + numbers, numbers
    gate = (BATCH_NORM_FLOPS + SIGMOID_FLOPS) * plane
    return _cost(taps + 2, taps * plane, pooled + gate + scale)


def _joined(shape: MapShape, branches: int, *, combine: str) -> Cost:
    """The maps of the branches are added, and for the mean scaled."""
    operations = branches - 1 + (1 if combine == "mean" else 0)
    return _cost(0, 0, operations * shape.channels * shape.height * shape.width)


def triplet_then_squeeze(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """TripSE1: 300 + 2 C h parameters."""
    joined = _joined(shape, 3, combine=str(options["combine"]))
    squeeze = squeeze_excite(shape, {**options, "bias": False, "gate": "sigmoid"})
    return _plane_gates(shape) + joined + squeeze


def triplet_of_squeezed(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """TripSE2 and TripSE3: an SE at one end of every branch, 2 n h parameters for n numbers.

    n = C: 300 + 6 C h parameters; rotated n = H, W, C: 300 + 2 (H h_H + W h_W + C h_C).
    """
    joined = _joined(shape, 3, combine=str(options["combine"]))
    numbers = shape.channels * shape.height * shape.width
    mean_and_scale = _cost(0, 0, 2 * numbers)
    squeezes = [
        _squeezed(size, options) + _cost(0, 0, SIGMOID_FLOPS * size) + mean_and_scale
        for size in squeezed_sizes(shape, options["axis"])
    ]
    return _plane_gates(shape) + joined + total(squeezes)


def _squeezed(size: int, options: Mapping[str, OptionValue]) -> Cost:
    """SE's two layers over this many numbers, without biases."""
    return _two_layers(size, bottleneck_width(size, int(options["reduction"])), bias=False)


def triplet_plus_squeeze(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """TripSE4: parameters as TripSE2; where SE's part is added, a plane's gate becomes a map's.

    Over the channels that is the (H, W) gate's alone, rotated that of all three.
    """
    channels, height, width = shape.channels, shape.height, shape.width
    numbers = channels * height * width
    planes = [height * width] if options["axis"] == CHANNELS_AXIS else _planes(shape)
    kept = sum(_planes(shape)) - sum(planes)
    added = kept + len(planes) * numbers
    grown = SIGMOID_FLOPS * (len(planes) * numbers - sum(planes))
    own_sigmoid = SIGMOID_FLOPS if options["weights"] else 0
    squeezes = [
        _squeezed(size, options) + _cost(0, 0, numbers + own_sigmoid * size)
        for size in squeezed_sizes(shape, options["axis"])
    ]
    joined = _joined(shape, 3, combine=str(options["combine"]))
    return _plane_gates(shape) + joined + total(squeezes) + _cost(0, 0, added + grown)
