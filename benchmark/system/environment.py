"""Reproducibility metadata of a result: versions, device, commit. Contains no user or host names."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which
from typing import Any

REPORTED_PACKAGES = (
    "adapterbench", "torch", "lightning", "transformers", "tokenizers", "torchmetrics", "datasets", "numpy", "peft",
)  # fmt: skip
ROOT = Path(__file__).parents[2]


@cache
def collect_environment(device: str) -> dict[str, Any]:
    """Collect package versions, Python version, operating system, device name and git commit."""
    return {
        "packages": {name: number for name in REPORTED_PACKAGES if (number := get_installed_version(name))},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": get_device_name(device),
        **get_git_commit(),
    }


def get_installed_version(name: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def get_device_name(device: str) -> str:
    """Model name of the GPU, or of the CPU as `cpu: NAME`."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"cpu: {models[0] if models else platform.processor()}"


def get_git_commit() -> dict[str, Any]:
    """Return the commit of this checkout and whether it has uncommitted changes; None outside of a git checkout."""
    if not (ROOT / ".git").exists() or which("git") is None:
        return {"commit": None, "dirty": None}
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False)
    commit = head.stdout.strip() or None  # empty if git refuses, as in a checkout that another user owns
    return {"commit": commit, "dirty": bool(status.stdout.strip()) if commit else None}
