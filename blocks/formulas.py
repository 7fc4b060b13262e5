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
sigmoid (negate, exp, add, divide)                             4 per output
mean over n numbers (n - 1 additions, 1 division)              n per output
sum or maximum over n numbers                                  n - 1 per output
batch normalisation, in evaluation                             2 per output
=============================================================  ==========================

All figures are for one image. ``macs`` leave FcaNet's DCT out, as the papers do; ``flops`` hold it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any

from blocks.options import MapShape, OptionValue, bottleneck_width, dct_shape, eca_kernel_size

SIGMOID_FLOPS = 4
BATCH_NORM_FLOPS = 2


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
    return reduce(Cost.__add__, costs, Cost())


def _cost(params: int, macs: int, other_flops: int) -> Cost:
    return Cost(params, params, macs, 2 * macs + other_flops)


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
    around = _cost(0, 0, mean + SIGMOID_FLOPS * channels + scale)
    return _two_layers(channels, hidden, bias=bool(options["bias"])) + around


def efficient_channel(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """Mean, one convolution over the channel axis, sigmoid, scale: k parameters."""
    channels, pixels = shape.channels, shape.height * shape.width
    kernel = options["kernel_size"]
    size = eca_kernel_size(channels) if kernel == "auto" else int(kernel)
    return _cost(size, channels * size, 2 * channels * pixels + SIGMOID_FLOPS * channels)


def frequency_channel(shape: MapShape, options: Mapping[str, OptionValue]) -> Cost:
    """SE with a DCT coefficient in the mean's place: 2 n - 1 operations a channel of n pixels."""
    channels, pixels = shape.channels, shape.height * shape.width
    hidden = bottleneck_width(channels, int(options["reduction"]))
    height, width = dct_shape(shape, options["dct_size"])
    pooling = 0
    if (height, width) != (shape.height, shape.width):
        rows = _adaptive_window_sum(shape.height, height)
        pooling = channels * rows * _adaptive_window_sum(shape.width, width)
    coefficient = channels * (2 * height * width - 1)
    scale = channels * pixels
    around = _cost(0, 0, pooling + coefficient + SIGMOID_FLOPS * channels + scale)
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
