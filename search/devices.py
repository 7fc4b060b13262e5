"""What this machine can train on: cores, memory, GPUs by name, and which worker sees which.

Nothing here makes a CUDA context in this process: workers alone do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from blocks.errors import StudyError

CPU, CUDA = "cpu", "cuda"
VISIBLE = "CUDA_VISIBLE_DEVICES"
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
# Freed memory is kept, where every map of a step would else be asked from the system anew, and is
# taken in large pages: a step of a small network is 5 to 10 % faster. Only glibc reads it.
TUNABLES = "GLIBC_TUNABLES"
KEEP_MEMORY = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        "mmap_threshold": 32 * 2**20,
        "trim_threshold": 4 * 2**30,
        "hugetlb": 1,
    }.items()
)
MEMORY_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current")
EVALUATION_BATCH = 512
EVALUATION_PIXELS = 2**23
GPU_NAME = re.compile(r"\d+|(GPU|MIG)-[0-9A-Za-z/-]+")


def read_gpus(text: str) -> tuple[str, ...]:
    """The GPUs that ``--gpus`` names; none where it is empty.

    Args:
        text: Numbers, as torch counts them, or names such as GPU-5d... and MIG-5d..., with commas.

    Raises:
        StudyError: An entry is empty, repeated, or neither a number nor a name.
    """
    if not text.strip():
        return ()
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not GPU_NAME.fullmatch(name):
            what = "an empty entry" if not name else f"the entry {name!r}"
            raise StudyError(
                f"--gpus {text!r} has {what}; write numbers or names with commas between:"
                " --gpus 0,1 or --gpus GPU-5d3c6a1e,MIG-41f0c2b7"
            )
        if names.count(name) > 1:
            raise StudyError(
                f"--gpus {text!r} names {name} twice; name each GPU once: --workers says how many"
                " trials share them"
            )
    return tuple(names)


def gpu_count() -> int:
    """How many GPUs torch can see here; asked without a CUDA context."""
    import torch

    return torch.cuda.device_count()


def settle_gpus(
    given: Sequence[str], device: str, environment: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """The GPUs over which workers are spread, as ``CUDA_VISIBLE_DEVICES`` takes them.

    Numbers count the GPUs that this process may see: under CUDA_VISIBLE_DEVICES=4,5 the number 1
    is GPU 5.

    Args:
        given: As ``read_gpus`` gives them; empty: all that are visible.
        device: "cpu" has none.
        environment: Of this process.

    Raises:
        StudyError: There is no such GPU.
    """
    given = read_gpus(",".join(given))
    if device != CUDA:
        return ()
    count = gpu_count()
    shown = (os.environ if environment is None else environment).get(VISIBLE)
    visible = [str(number) for number in range(count)]
    if shown is not None:
        visible = [name.strip() for name in shown.split(",")][:count]
    for name in given:
        if name.isdigit() and int(name) >= len(visible):
            where = f" ({VISIBLE}={shown})" if shown is not None else ""
            raise StudyError(
                f"--gpus {','.join(given)}: there is no GPU {name}; torch sees {len(visible)} of"
                f" them{where}, numbered from 0"
            )
    return tuple(visible[int(n)] if n.isdigit() else n for n in given) or tuple(visible)


def gpus_of(index: int, gpus: Sequence[str], processes: int = 1) -> tuple[str, ...]:
    """The GPU of each process of a worker: workers are spread evenly, one after another.

    Args:
        index: The worker's place, from 0.
        gpus: All of them; may be empty.
        processes: Of one trial.
    """
    if not gpus:
        return ()
    first = index * processes
    return tuple(gpus[(first + rank) % len(gpus)] for rank in range(processes))


def environment_of(
    gpu: str | None, device: str, threads: int, *, deterministic: bool = False
) -> dict[str, str]:
    """The environment of a process that trains.

    Args:
        gpu: The only one that it sees; None: those that this process sees.
        device: "cpu" hides all GPUs.
        threads: Of its own.
        deterministic: Whether cuBLAS is to repeat itself.
    """
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    environment.setdefault(TUNABLES, KEEP_MEMORY)
    if device == CPU:
        environment[VISIBLE] = ""
    elif gpu is not None:
        environment[VISIBLE] = gpu
    if deterministic and device == CUDA:
        environment[WORKSPACE] = ":4096:8"
    return environment


def usable_cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory() -> int | None:
    """Bytes of main memory that could be taken now; None where the system does not say."""
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    except OSError:
        return None
    if found is None:
        return None
    free = int(found[1]) * 1024
    try:
        limit, taken = (_text(path).strip() for path in MEMORY_FILES)
    except OSError:
        return free
    return min(free, int(limit) - int(taken)) if limit.isdigit() else free


def evaluation_batch(height: int, width: int) -> int:
    """How many images of a size are evaluated at once."""
    return max(1, min(EVALUATION_BATCH, EVALUATION_PIXELS // (height * width)))


def _text(path: str) -> str:
    return Path(path).read_text(encoding="ascii")


def prepare_torch(device: str, threads: int, *, deterministic: bool) -> None:
    """Set torch up in a process that trains: threads, and on a GPU speed or repeatability.

    On a processor trainings repeat as they are; ``deterministic`` changes nothing there.
    """
    import torch

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    if device != CUDA:
        return
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        torch.use_deterministic_algorithms(True)
    else:
        torch.set_float32_matmul_precision("high")
