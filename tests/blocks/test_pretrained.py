"""Trained weights of backbones: kept bit for bit, with blocks that start as the identity around."""

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import _registry as timm_registry
from torch import nn

from blocks import build
from blocks.architecture import Architecture, Placement
from blocks.backbone import backbone, site_table
from blocks.build import MadeFor, build_network
from blocks.errors import CheckpointError
from blocks.pretrained import (
    classifier_tensors,
    fit,
    load_backbone,
    read_identified,
    read_weights,
    timm_tag,
)
from blocks.weight_source import file_identity

SIZE = (32, 32)


def trained(name, *, classes=10, channels=3, seed=7):
    """A backbone whose every tensor is of chance, running statistics and gammas too."""
    torch.manual_seed(seed)
    network = backbone(name).build(classes, channels, SIZE)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.num_batches_tracked.fill_(11)
    return network.eval()


def images(channels=3):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, channels, *SIZE, generator=generator)


def places(name):
    sites = site_table(name, (3, *SIZE), 10)
    return [("stem",), ("stage",), *((f"in-block.{p}",) for p in sites.positions)]


def without_host(name):
    return name.replace(".host.", ".")


@pytest.fixture
def registered(monkeypatch, tmp_path):
    """Let timm find the weights of a tag in a file, where it would download them."""

    def register(model, state, tag="a1_in1k"):
        path = tmp_path / f"{model}.{tag}.safetensors"
        save_file(state, path)
        known = timm_registry._model_pretrained_cfgs[f"{model}.{tag}"]
        there = replace(known, file=str(path), url=None, hf_hub_id=None)
        monkeypatch.setitem(timm_registry._model_pretrained_cfgs, f"{model}.{tag}", there)

    return register


@pytest.mark.parametrize("name", ["resnet20", "resnet20-b", "resnet18"])
def test_with_identity_start_everywhere_the_network_is_the_trained_backbone(name, tmp_path):
    plain = trained(name)
    save_file(plain.state_dict(), tmp_path / "w.safetensors")
    every = ["stem", "stage", *(p for (p,) in places(name)[2:])]
    chosen = [(place,) for place in every] + [tuple(every)]
    for group in chosen:
        sites = {s.name for p in group for s in site_table(name, (3, *SIZE), 10).expand(p)}
        placements = tuple(Placement(s, "cbam", {}, identity_start=True) for s in sorted(sites))
        network = build_network(
            Architecture(name, placements, SIZE), seed=0, pretrained=str(tmp_path / "w.safetensors")
        ).eval()
        assert sum(hasattr(m, "attention_site") for m in network.modules()) == len(sites)
        with torch.no_grad():
            assert torch.equal(network(images()), plain(images())), group
        kept = {without_host(n): t for n, t in network.state_dict().items()}
        for key, tensor in plain.state_dict().items():
            assert torch.equal(kept[key], tensor), (group, key)


def test_the_baseline_starts_from_the_same_weights():
    plain = trained("resnet20")
    network = build_network(Architecture("resnet20"), seed=0, pretrained=plain.state_dict())
    for name, tensor in plain.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name


def test_without_trained_weights_nothing_changes():
    one = build_network(Architecture("resnet20"), seed=0).state_dict()
    two = build_network(Architecture("resnet20"), seed=0, pretrained=False).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    start = trained("resnet20").state_dict()
    assert not torch.equal(one["conv1.weight"], start["conv1.weight"])


@pytest.mark.parametrize("name", ["resnet20", "resnet18"])
def test_a_classifier_of_another_size_is_drawn_as_it_is_without_trained_weights(name):
    state = trained(name, classes=17).state_dict()
    network = build_network(Architecture(name), seed=5, pretrained=state).state_dict()
    drawn = build_network(Architecture(name), seed=5).state_dict()
    for key, tensor in network.items():
        expected = drawn if key.startswith("fc.") else state
        assert torch.equal(tensor, expected[key]), key


def test_what_is_left_out_or_adapted_is_said():
    made_for = MadeFor("resnet20", 10, (1, *SIZE))
    network = backbone("resnet20").build(10, 1, SIZE)
    state = trained("resnet20", classes=17).state_dict()
    del state["bn1.num_batches_tracked"]
    fitted = load_backbone(network, state, made_for)
    assert fitted.left_out == {"fc.weight": (17, 64), "fc.bias": (17,)}
    assert fitted.adapted == {"conv1.weight": (16, 3, 3, 3)}
    assert fitted.counters == 1
    words = " | ".join(fitted.notes)
    assert "the classifier" in words
    assert "fc.bias (17,)" in words
    assert "conv1.weight (16, 3, 3, 3)" in words
    assert torch.equal(network.conv1.weight, state["conv1.weight"].sum(1, keepdim=True))
    assert int(network.bn1.num_batches_tracked) == 0
    whole = fit(network, trained("resnet20", channels=1).state_dict(), made_for)
    assert whole.notes == ()


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "ghostnet_050"])
def test_a_plain_backbone_takes_the_weights_of_the_whole_one(name):
    state = trained(name).state_dict()
    plain = backbone(f"{name}-plain").build(10, 3, SIZE)
    fitted = load_backbone(plain, state, MadeFor(f"{name}-plain", 10, (3, *SIZE)))
    kept = plain.state_dict()
    assert all(torch.equal(kept[key], state[key]) for key in kept)
    assert {*kept, *fitted.taken_out} == set(state)
    assert fitted.notes == (
        f"left out: the attention that was taken out, {len(fitted.taken_out)} tensors",
    )
    with pytest.raises(CheckpointError, match="blocks"):
        fit(backbone(name).build(10, 3, SIZE), kept, MadeFor(name, 10, (3, *SIZE)))


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_a_file_is_adapted_to_channels_as_timm_adapts_its_own(channels, registered):
    state = trained("resnet18", classes=1000).state_dict()
    registered("resnet18", state)
    theirs = timm.create_model("resnet18.a1_in1k", pretrained=True, in_chans=channels)
    for source in (state, "a1_in1k"):
        ours = build_network(
            Architecture("resnet18"), num_classes=1000, in_channels=channels, pretrained=source
        )
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], tensor), name


def test_weights_of_timm_are_loaded_by_their_tag_or_as_the_default(registered):
    state = trained("resnet18", classes=1000).state_dict()
    registered("resnet18", state)
    before = torch.random.get_rng_state()
    for source in (True, "a1_in1k"):
        network = build_network(Architecture("resnet18"), seed=2, pretrained=source).state_dict()
        for name, tensor in network.items():
            if not name.startswith("fc."):
                assert torch.equal(tensor, state[name]), name
    assert torch.equal(torch.random.get_rng_state(), before)
    made_for = MadeFor("resnet18", 10, (3, *SIZE))
    assert timm_tag(True, made_for) == "a1_in1k"
    found = read_identified("timm:a1_in1k", "", made_for)
    assert torch.equal(found["conv1.weight"], state["conv1.weight"])


def test_weights_that_timm_does_not_have_are_refused():
    made_for = MadeFor("resnet18", 10, (3, *SIZE))
    with pytest.raises(CheckpointError, match=r"no weights 'a1_in2k' for resnet18\. Did you mean"):
        timm_tag("a1_in2k", made_for)
    with pytest.raises(CheckpointError, match=r"resnet20 is none of timm's models; give a checkp"):
        read_weights(True, MadeFor("resnet20", 10, (3, *SIZE)))


def test_a_model_without_weights_is_refused(monkeypatch):
    monkeypatch.setattr(timm.models, "list_pretrained", lambda pattern: [])
    with pytest.raises(CheckpointError, match=r"timm has no weights for resnet18; give a checkp"):
        timm_tag(True, MadeFor("resnet18", 10, (3, *SIZE)))


def test_without_a_network_the_cure_is_said(monkeypatch):
    def create_model(*arguments, pretrained, **settings):
        assert pretrained
        raise FileNotFoundError("the hub cannot be reached\nmore lines")

    made_for = MadeFor("resnet18", 10, (3, *SIZE))
    monkeypatch.setattr("blocks.pretrained._timm_model", lambda made_for: "resnet18")
    monkeypatch.setattr("timm.create_model", create_model)
    monkeypatch.setattr("blocks.pretrained.meta_network", lambda made_for: None)
    with pytest.raises(CheckpointError) as refusal:
        read_identified("timm:a1_in1k", "", made_for)
    words = str(refusal.value)
    assert "resnet18.a1_in1k cannot be had (FileNotFoundError: the hub cannot be reached)" in words
    assert "HF_HOME" in words
    assert "more lines" not in words


@pytest.mark.parametrize("form", ["safetensors", "pth", "wrapped", "parallel"])
def test_files_are_read_in_their_usual_forms(form, tmp_path):
    state = trained("resnet20").state_dict()
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(state, path)
    else:
        forms = {
            "pth": state,
            "wrapped": {"model": state, "epoch": 3},
            "parallel": {"state_dict": {f"module.{n}": t for n, t in state.items()}},
        }
        torch.save(forms[form], path)
    network = build_network(Architecture("resnet20"), pretrained=str(path))
    assert all(torch.equal(t, state[n]) for n, t in network.state_dict().items())


def change(state, how):
    if how == "missing":
        del state["layer2.1.conv1.weight"]
    elif how == "left over":
        state["layer2.1.conv3.weight"] = torch.zeros(3)
    elif how == "of another shape":
        state["layer2.1.conv1.weight"] = torch.zeros(4, 32, 3, 3)
    elif how == "no classifier":
        del state["fc.weight"]
    return state


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", r"1 missing.*missing: layer2.1.conv1.weight \(32, 32, 3, 3\)"),
        ("left over", r"1 left over.*left over: layer2.1.conv3.weight \(3,\)"),
        ("of another shape", r"layer2.1.conv1.weight is \(4, 32, 3, 3\), and \(32, 32, 3, 3\)"),
        ("no classifier", r"missing: fc.weight \(10, 64\)"),
    ],
)
def test_any_other_difference_is_an_error_that_names_the_tensor(how, words):
    state = change(trained("resnet20").state_dict(), how)
    with pytest.raises(CheckpointError, match=f"(?s){words}"):
        build_network(Architecture("resnet20"), pretrained=state)


def test_of_two_classifier_tensors_with_one_of_another_size_none_is_kept():
    state = trained("resnet20").state_dict()
    state["fc.weight"] = torch.zeros(17, 64)
    network = build_network(Architecture("resnet20"), seed=1, pretrained=state)
    drawn = build_network(Architecture("resnet20"), seed=1)
    assert torch.equal(network.fc.weight, drawn.fc.weight)
    assert torch.equal(network.fc.bias, drawn.fc.bias)


def test_a_first_convolution_that_no_rule_adapts_is_refused():
    state = trained("resnet20").state_dict()
    state["conv1.weight"] = torch.zeros(16, 3, 5, 5)
    for channels in (1, 3):
        with pytest.raises(CheckpointError, match=r"conv1.weight is \(16, 3, 5, 5\), and \(16, "):
            build_network(Architecture("resnet20"), in_channels=channels, pretrained=state)


def test_numbers_that_would_be_rounded_are_refused_and_others_are_converted():
    state = trained("resnet20").state_dict()
    half = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    network = build_network(Architecture("resnet20"), pretrained=half)
    assert torch.equal(network.conv1.weight.detach(), half["conv1.weight"].float())
    double = {n: t.double() + 1e-12 if n == "fc.bias" else t for n, t in state.items()}
    with pytest.raises(CheckpointError, match=r"fc.bias is torch.float64 and would be rounded"):
        build_network(Architecture("resnet20"), pretrained=double)


def test_a_file_that_has_changed_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    made_for = MadeFor("resnet20", 10, (3, *SIZE))
    save_file(trained("resnet20").state_dict(), path)
    identity = file_identity(path)
    assert "conv1.weight" in read_identified(identity, str(path), made_for)
    save_file(trained("resnet20", seed=8).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"w.safetensors has changed since .* put the former"):
        read_identified(identity, str(path), made_for)
    with pytest.raises(CheckpointError, match="of which the space names no file"):
        read_identified(identity, "", made_for)


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no such file .*the tag alone"):
        file_identity(tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="is a folder; a checkpoint is a file"):
        file_identity(tmp_path)


@pytest.mark.parametrize("name", ["resnet20", "resnet18"])
def test_the_classifier_is_found_by_its_shape(name):
    assert classifier_tensors(MadeFor(name, 10, (3, *SIZE))) == {"fc.weight", "fc.bias"}


def test_a_network_says_what_it_was_built_for():
    network = build_network(Architecture("resnet20"), num_classes=7, in_channels=1, input_size=14)
    assert network.made_for == build.MadeFor("resnet20", 7, (1, 14, 14))
