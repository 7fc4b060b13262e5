"""What made a number: versions, code, hardware and settings, kept with every attempt."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CHUNK = 2**20
PACKAGES = (
    *("attention-search", "torch", "torchvision", "timm", "optuna", "ray"),
    *("numpy", "scikit-learn", "pillow", "sqlalchemy"),
)


def checksum(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@cache
def code_version() -> dict[str, Any]:
    """The git commit of this tool where it runs from a checkout, and whether it was changed."""
    folder = Path(__file__).parent.parent
    if not (folder / ".git").exists():
        return {}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {}


@cache
def cpu_name() -> str:
    """The processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """System, processor and cores."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
    }


def worker_provenance(
    device: str, threads: int, *, processes: int = 1, deterministic: bool = False
) -> dict[str, Any]:
    """What a worker knows of where and how it trains; imports torch.

    Args:
        device: "cpu" or "cuda".
        threads: Of each process.
        processes: That train one trial together.
        deterministic: Whether it is to repeat bit for bit on a GPU too.
    """
    import torch

    content = {
        "versions": versions(),
        "code": code_version(),
        "machine": machine(),
        "device": device,
        "threads": threads,
        "processes": processes,
        "deterministic": deterministic,
        "dtype": "float32",
    }
    if device.startswith("cuda"):
        content["gpu"] = torch.cuda.get_device_name(0)
        content["cuda"] = torch.version.cuda
    return content


def command_line() -> list[str]:
    """The command that was given, without the path of the program."""
    return [os.path.basename(sys.argv[0]), *sys.argv[1:]]
