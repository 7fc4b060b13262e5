import os
import sys
import time
from dataclasses import replace

import pytest
import torch

from blocks.errors import StudyError
from search import devices, workers
from search.devices import (
    TUNABLES,
    available_memory,
    environment_of,
    gpus_of,
    prepare_torch,
    read_gpus,
    settle_gpus,
)
from search.plan import make_plan
from search.workers import Worker

TELL = "import json, os; print(json.dumps({'say': 'environment', **os.environ}), flush=True)"


def test_gpus_are_numbers_or_names():
    assert read_gpus(" 0, 3 ") == ("0", "3")
    names = "GPU-5d3c6a1e-0000-1111-2222-333344445555,MIG-41f0c2b7,MIG-GPU-5d3c/1/0"
    assert read_gpus(names) == tuple(names.split(","))
    assert read_gpus("") == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0,,1", "'0,,1' has an empty entry; write numbers or names"),
        ("0,1,", "empty entry"),
        ("1,0,1", "names 1 twice; name each GPU once: --workers"),
        ("0;1", "has the entry '0;1'"),
        ("-1", "has the entry '-1'"),
    ],
)
def test_a_wrong_list_of_gpus_says_what_is_wrong(text, words):
    with pytest.raises(StudyError, match=words):
        read_gpus(text)


def test_numbers_count_what_is_visible(monkeypatch):
    monkeypatch.setattr(devices, "gpu_count", lambda: 2)
    assert settle_gpus((), "cpu", {}) == ()
    assert settle_gpus((), "cuda", {}) == ("0", "1")
    assert settle_gpus(("1",), "cuda", {}) == ("1",)
    shown = {"CUDA_VISIBLE_DEVICES": "4,GPU-5d"}
    assert settle_gpus((), "cuda", shown) == ("4", "GPU-5d")
    assert settle_gpus(("1", "MIG-7"), "cuda", shown) == ("GPU-5d", "MIG-7")
    with pytest.raises(
        StudyError, match=r"--gpus 0,2: there is no GPU 2; torch sees 2 .*=4,GPU-5d"
    ):
        settle_gpus(("0", "2"), "cuda", shown)


def test_workers_are_spread_evenly():
    assert [gpus_of(index, ("0", "1")) for index in range(4)] == [("0",), ("1",), ("0",), ("1",)]
    assert [gpus_of(index, ("a", "b", "c", "d"), 2) for index in range(2)] == [
        ("a", "b"),
        ("c", "d"),
    ]
    assert gpus_of(3, ()) == ()


@pytest.fixture
def plan(storage):
    return make_plan("smoke", storage=storage, workers=4)


def told(worker):
    """What a worker says of its environment."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        messages, _ = worker.messages()
        if messages:
            return messages[0]
        time.sleep(0.01)
    raise AssertionError("the worker says nothing")


def environments(plan, monkeypatch):
    monkeypatch.setattr(workers, "_command", lambda plan, index: [sys.executable, "-c", TELL])
    started = [Worker(plan, index) for index in range(plan.workers)]
    try:
        return [told(worker) for worker in started]
    finally:
        for worker in started:
            worker.close(at_once=True)


def test_four_workers_on_two_gpus_see_one_each(plan, monkeypatch):
    on_gpus = replace(plan, device="cuda", gpus=("0", "GPU-5d"), threads=2, deterministic=True)
    found = environments(on_gpus, monkeypatch)
    assert [each["CUDA_VISIBLE_DEVICES"] for each in found] == ["0", "GPU-5d", "0", "GPU-5d"]
    assert {each["OMP_NUM_THREADS"] + each["MKL_NUM_THREADS"] for each in found} == {"22"}
    assert {each["CUBLAS_WORKSPACE_CONFIG"] for each in found} == {":4096:8"}


def test_workers_on_the_processor_see_no_gpu(plan, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    (found, *_) = environments(replace(plan, deterministic=True), monkeypatch)
    assert found["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUBLAS_WORKSPACE_CONFIG" not in found


def test_each_process_of_a_trial_gets_a_gpu_of_its_own(plan):
    together = replace(plan, device="cuda", gpus=("0", "1", "2", "3"), processes=2, workers=2)
    commands = [workers._command(together, index) for index in range(2)]
    assert [command[command.index("--gpus") + 1] for command in commands] == ["0,1", "2,3"]
    firsts = [workers._environment(together, index) for index in range(2)]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in firsts] == ["0", "2"]


def test_an_environment_keeps_the_rest(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    assert environment_of("1", "cuda", 1)["TZ"] == "UTC"
    assert "CUBLAS_WORKSPACE_CONFIG" not in environment_of("1", "cuda", 1) or (
        "CUBLAS_WORKSPACE_CONFIG" in os.environ
    )


def test_a_process_that_trains_keeps_its_memory_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert "glibc.malloc.mmap_threshold=33554432:" in environment_of(None, "cpu", 1)[TUNABLES]
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    assert environment_of(None, "cpu", 1)[TUNABLES] == "glibc.malloc.check=1"


def test_available_memory_is_the_least_of_machine_and_group(monkeypatch):
    files = {"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    4096 kB\n"}
    monkeypatch.setattr(devices, "_text", lambda path: _read(files, path))
    assert available_memory() == 4096 * 1024
    files |= dict(zip(devices.MEMORY_FILES, ("max\n", "5\n"), strict=True))
    assert available_memory() == 4096 * 1024
    files |= dict(zip(devices.MEMORY_FILES, ("3000\n", "1000\n"), strict=True))
    assert available_memory() == 2000
    files.clear()
    assert available_memory() is None


def _read(files, path):
    if path not in files:
        raise FileNotFoundError(path)
    return files[path]


@pytest.fixture
def settings(monkeypatch):
    """What is asked of torch, in place of doing it."""
    asked = {}
    monkeypatch.setattr(torch, "set_num_threads", lambda n: asked.update(threads=n))
    monkeypatch.setattr(torch, "set_num_interop_threads", lambda n: asked.update(interop=n))
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on: asked.update(repeats=on))
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda w: asked.update(products=w))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    return asked


def test_a_gpu_is_fast_or_repeats(settings):
    prepare_torch("cuda", 3, deterministic=False)
    assert settings == {"threads": 3, "interop": 1, "products": "high"}
    assert torch.backends.cudnn.benchmark
    settings.clear()
    prepare_torch("cuda", 3, deterministic=True)
    assert settings == {"threads": 3, "interop": 1, "repeats": True}
    assert not torch.backends.cudnn.benchmark


def test_on_a_processor_deterministic_changes_nothing(settings):
    before = torch.backends.cudnn.benchmark
    prepare_torch("cpu", 1, deterministic=True)
    assert settings == {"threads": 1, "interop": 1}
    assert torch.backends.cudnn.benchmark == before
