"""Checks of the conformance suite that trace a block: compile, export, inductor, ONNX."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import torch
from torch import Tensor, nn

from blocks.checks.judging import require_close
from blocks.subject import ConformanceError, NotCheckedError, Size, Subject, words_of

TOLERANCE = 1e-5
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@contextmanager
def _clean_compiler() -> Iterator[None]:
    """Nothing that was compiled before is taken, and nothing of this is kept."""
    torch.compiler.reset()
    try:
        yield
    finally:
        torch.compiler.reset()


def _compiled_output(subject: Subject, size: Size, backend: str, *, training: bool) -> Tensor:
    block = subject.built(size).train(training)
    compiled = torch.compile(block, backend=backend, fullgraph=True)
    where = f"{subject.at(2, size)}, torch.compile(backend={backend!r}, fullgraph=True)"
    try:
        output: Tensor = compiled(subject.maps(2, size))
    except Exception as error:
        raise ConformanceError(f"{where}: stops with {words_of(error)}") from error
    return output


def compiles(subject: Subject) -> str:
    """One graph in evaluation and in training, with the numbers of the plain run."""
    size = subject.map_size((7, 7))
    with _clean_compiler():
        for training in (False, True):
            out = _compiled_output(subject, size, "eager", training=training)
            expected = subject.built(size).train(training)(subject.maps(2, size))
            where = f"{subject.at(2, size)}, compiled as one graph"
            require_close(where, out, expected, TOLERANCE)
    return ""


def compiles_to_machine_code(subject: Subject) -> str:
    """Inductor, in evaluation."""
    if not any(shutil.which(c) for c in (os.environ.get("CXX", "g++"), "g++", "clang++")):
        raise NotCheckedError("no C++ compiler; install g++, or set CXX")
    size = subject.map_size((7, 7))
    with _clean_compiler(), torch.no_grad():
        out = _compiled_output(subject, size, "inductor", training=False)
        expected = subject.built(size)(subject.maps(2, size))
    require_close(f"{subject.at(2, size)}, inductor", out, expected, TOLERANCE)
    return ""


def exports(subject: Subject) -> str:
    """Export a block that has never run, and compare; exporting must leave the block as it was."""
    size = subject.map_size((7, 7))
    block, x = subject.built(size), subject.maps(2, size)
    where = f"{subject.at(2, size)}, torch.export"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            exported = torch.export.export(block, (x.clone(),)).module()
        except Exception as error:
            raise ConformanceError(f"{where}: stops with {words_of(error)}") from error
    for warning in said:
        if warning.category is UserWarning:
            text = str(warning.message).splitlines()[0]
            raise ConformanceError(f"{where}: warns {text!r}; needed: no warning")
    expected = subject.built(size)(x.clone())
    require_close(where, exported(x.clone()), expected, TOLERANCE)
    require_close(f"{where}, the block afterwards", block(x.clone()), expected, TOLERANCE)
    return ""


def exports_to_onnx(subject: Subject) -> str:
    """Export to ONNX and run it in onnxruntime."""
    if not all(importlib.util.find_spec(package) for package in ONNX_PACKAGES):
        raise NotCheckedError("install attention-search[export]")
    size = subject.map_size((7, 7))
    x = subject.maps(2, size)
    where = f"{subject.at(2, size)}, ONNX"
    try:
        out = _run_in_onnxruntime(subject.built(size), x.clone())
    except Exception as error:
        raise ConformanceError(f"{where}: stops with {words_of(error)}") from error
    require_close(where, out, subject.built(size)(x.clone()), 10 * TOLERANCE)
    return ""


def _run_in_onnxruntime(block: nn.Module, x_BCHW: Tensor) -> Tensor:
    import onnxruntime

    silent = io.StringIO()
    with redirect_stdout(silent), redirect_stderr(silent), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(block, (x_BCHW,), dynamo=True, verbose=False)
    assert program is not None
    stored = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(stored, providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in session.get_inputs())
    (output,) = session.run(None, {name: x_BCHW.numpy()})
    return torch.from_numpy(output)
