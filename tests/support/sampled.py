"""Random architectures: any blocks, options and compositions at any sites of several backbones."""

import random
from contextlib import contextmanager
from unittest import mock

import torch

from blocks import registry
from blocks.architecture import Architecture, Placement, resolve
from blocks.backbone import site_table
from blocks.build import build_network
from blocks.errors import ToolError

# backbone, its images, how often it is drawn
NETWORKS = (
    ("resnet20", ((3, 32, 32), (1, 28, 28), (3, 17, 40)), 12),
    ("resnet20-b", ((3, 32, 32), (3, 14, 14)), 4),
    ("resnet18", ((3, 64, 64), (3, 56, 80)), 3),
    ("resnet50", ((3, 64, 64), (3, 224, 224)), 1),
)


def drawn_options(rng, spec):
    return {
        option.name: rng.choice(option.values)
        for option in spec.options
        if option.values and rng.random() < 0.5
    }


def drawn_placement(rng, sites):
    spec = rng.choice(registry.specs())
    options = drawn_options(rng, spec)
    if spec.parts(spec.complete({})) and rng.random() < 0.7:
        members = rng.choices([one for one in registry.specs() if one.code == ""], k=2)
        options["blocks"] = " + ".join(one.name for one in members)
    return Placement(rng.choice(sites.sites).name, spec.name, options, rng.random() < 0.3)


def drawn(rng):
    """A resolved architecture and its sites; what cannot be is drawn again."""
    name, shapes, _ = rng.choices(NETWORKS, weights=[row[2] for row in NETWORKS])[0]
    sites = site_table(name, rng.choice(shapes), 10)
    placed = {}
    for _ in range(rng.randint(0, 5)):
        placement = drawn_placement(rng, sites)
        try:
            resolve(Architecture(name, (placement,)), sites)
        except ToolError:
            continue
        placed[placement.site] = placement
    return resolve(Architecture(name, tuple(placed.values())), sites), sites


def sample(seed, count):
    """As many architectures, all different."""
    rng = random.Random(seed)
    found = {}
    while len(found) < count:
        architecture, sites = drawn(rng)
        found.setdefault((architecture.digest, sites.input_shape), (architecture, sites))
    return list(found.values())


@contextmanager
def _no_first_weights():
    """Filling tensors that have no numbers would be most of the time of building."""
    names = ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_", "trunc_normal_")
    with mock.patch.multiple(torch.nn.init, **dict.fromkeys(names, lambda tensor, *a, **k: tensor)):
        yield


def built_on_meta(architecture, sites):
    with torch.device("meta"), _no_first_weights():
        return build_network(
            architecture, num_classes=sites.classes, in_channels=sites.input_shape[0]
        )
