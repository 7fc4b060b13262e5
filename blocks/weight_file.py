"""Files of weights: those of others, read without running anything in them, and our own.

Our own are safetensors with the architecture in the metadata, so that a file is a whole network.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from blocks.build import build_network
from blocks.checkpoint import Loaded, check_names
from blocks.errors import CheckpointError, listing

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "state", "params")
SAFETENSORS = ".safetensors"
UNFINISHED = ".part"  # at the end of a name: is being written


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, by name; nothing in the file is run.

    Args:
        path: A file of ``torch.save`` (a state, or a checkpoint with one) or of safetensors.

    Raises:
        CheckpointError: There is no such file, or it does not hold a state.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    content = _read_safetensors(file) if file.suffix == SAFETENSORS else _read_pickle(file)
    state = _unwrapped(content, file)
    while state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def _read_safetensors(file: Path) -> object:
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{file}: not a file of safetensors, or a damaged one: {error}"
        ) from None


def _damaged(file: str | Path, error: Exception) -> str:
    return f"{file}: not a file of safetensors, or a damaged one: {error}"


def _read_pickle(file: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of old forms of files; they are read, or refused below
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
        raise CheckpointError(
            f"{file}: damaged, or it holds more than tensors, and nothing but tensors is read"
            f" ({reason[1] if reason else 'no pickle'}). If you trust it, save its state alone:"
            " torch.save(torch.load(FILE, weights_only=False)['state_dict'], OTHER)"
        ) from None
    except Exception as error:  # torch raises many kinds where a file is cut short or not its own
        raise CheckpointError(
            f"{file}: not a file of torch.save, or a damaged one ({type(error).__name__})"
        ) from None


def _unwrapped(content: object, file: Path) -> dict[str, Tensor]:
    """The state in what a file holds: itself, or under one of the usual keys."""
    found = content
    if isinstance(content, Mapping):
        inner = (content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping))
        found = next(inner, content)
    if isinstance(found, Mapping) and found and all(map(_is_named_tensor, found.items())):
        return dict(found)
    held = listing(list(content)[:8]) if isinstance(content, Mapping) else type(content).__name__
    raise CheckpointError(
        f"{file}: no tensors by name in it, nor under one of {listing(WRAPPERS)}; it holds: {held}"
    )


def _is_named_tensor(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def write_network(loaded: Loaded, path: str | Path) -> None:
    """Write a network as safetensors, with its architecture in the metadata.

    Raises:
        CheckpointError: The file cannot be written, or its name does not end in .safetensors.
    """
    if Path(path).suffix != SAFETENSORS:
        raise CheckpointError(f"{path}: the name must end in .safetensors")
    about = {
        "architecture": json.dumps(loaded.architecture.to_json()),
        "num_classes": str(loaded.num_classes),
        "in_channels": str(loaded.in_channels),
        "source": f"{loaded.published.title}, {loaded.published.source}",
    }
    state = {name: tensor.contiguous() for name, tensor in loaded.network.state_dict().items()}
    try:
        save_file(state, path, metadata=about)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be written: {error}") from None


def write_trained(network: nn.Module, path: str | Path, about: Mapping[str, str]) -> None:
    """Write a network's state as safetensors, whole or not at all.

    It is written beside its place and moved there, so that a file under its name is complete.
    Tensors are kept bit for bit, in the usual order of dimensions, on the processor.

    Args:
        network: As ``build_network`` gives it.
        path: The file; its folder is made where there is none.
        about: What the file says of itself; ``architecture``, ``num_classes`` and ``in_channels``
            make it one that ``open_network`` opens.

    Raises:
        OSError: The file cannot be written.
    """
    state = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f"{file.name}{UNFINISHED}")
    try:
        # save_file would make a file that its owner alone can read, whatever the umask
        beside.write_bytes(save(state, metadata=dict(about)))
        os.replace(beside, file)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def open_network(path: str | Path) -> nn.Module:
    """Build the network that ``write_network`` wrote, with its weights, in evaluation mode.

    Raises:
        CheckpointError: The file cannot be read or has no architecture in it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a file of safetensors, or a damaged one: {error}"
        ) from None
    try:
        with torch.device("meta"):
            network = build_network(
                about["architecture"],
                num_classes=int(about["num_classes"]),
                in_channels=int(about["in_channels"]),
            )
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: no architecture in it ({error}); `search blocks --load FILE --as BLOCK"
            " --output OTHER` writes one"
        ) from None
    check_names({n: tuple(t.shape) for n, t in network.state_dict().items()}, state, {})
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()
