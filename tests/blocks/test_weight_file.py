import pickle

import authors
import pytest
import torch
from safetensors.torch import save_file

from blocks.checkpoint import load_published
from blocks.errors import CheckpointError
from blocks.weight_file import open_network, read_state, write_network


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return authors.SmallResNet(squeezed=True).state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("key", ["state_dict", "model", "net"])
def test_states_are_read_from_under_the_usual_keys(tmp_path, state, key):
    torch.save({"epoch": 3, key: state, "optimizer": {"lr": 0.1}}, tmp_path / "a.pth.tar")
    assert same(read_state(tmp_path / "a.pth.tar"), state)


def test_plain_states_and_those_of_parallel_training_are_read(tmp_path, state):
    torch.save(state, tmp_path / "plain.pth")
    torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "parallel.pth")
    save_file(dict(state), tmp_path / "a.safetensors")
    for name in ("plain.pth", "parallel.pth", "a.safetensors"):
        assert same(read_state(tmp_path / name), state)


def test_files_of_the_oldest_form_are_read(tmp_path, state):
    torch.save(state, tmp_path / "old.pkl", _use_new_zipfile_serialization=False)
    assert same(read_state(tmp_path / "old.pkl"), state)


class Harmful:
    def __reduce__(self):
        return print, ("run",)


def test_nothing_in_a_file_is_run(tmp_path, capsys):
    (tmp_path / "harmful.pth").write_bytes(pickle.dumps(Harmful()))
    torch.save({"state_dict": Harmful()}, tmp_path / "inside.pth")
    for name in ("harmful.pth", "inside.pth"):
        with pytest.raises(CheckpointError, match=r"nothing but tensors is read .*If you trust it"):
            read_state(tmp_path / name)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut short", bytes(100)])
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}: .*damaged"):
        read_state(tmp_path / name)


def test_a_file_that_is_cut_short_is_named(tmp_path, state):
    torch.save(state, tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"cut\.pth: .*damaged"):
        read_state(tmp_path / "cut.pth")


def test_files_without_tensors_say_what_they_hold(tmp_path):
    torch.save({"epoch": 3, "best": 0.5}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"no tensors by name in it.*it holds: epoch, best"):
        read_state(tmp_path / "a.pth")
    torch.save(torch.zeros(3), tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match="it holds: Tensor"):
        read_state(tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=r"c\.pth: there is no such file"):
        read_state(tmp_path / "c.pth")


# Our own files -----------------------------------------------------------------------------------


def test_a_written_network_is_the_same_when_it_is_opened(tmp_path, state):
    loaded = load_published(state, "se")
    write_network(loaded, tmp_path / "a.safetensors")
    opened = open_network(tmp_path / "a.safetensors")
    assert same(opened.state_dict(), loaded.network.state_dict())
    assert not opened.training
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(opened(x), loaded.network(x))


def test_files_that_are_no_networks_of_ours_are_refused(tmp_path, state):
    save_file(dict(state), tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"no architecture in it .*--output"):
        open_network(tmp_path / "other.safetensors")
    about = {"architecture": '{"backbone": "resnet20-b"}', "num_classes": "ten", "in_channels": "3"}
    save_file(dict(state), tmp_path / "ten.safetensors", metadata=about)
    with pytest.raises(CheckpointError, match=r"no architecture in it \(.*'ten'\)"):
        open_network(tmp_path / "ten.safetensors")
    with pytest.raises(CheckpointError, match="damaged"):
        open_network(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match=r"must end in \.safetensors"):
        write_network(load_published(state, "se"), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_network(load_published(state, "se"), tmp_path / "no" / "a.safetensors")
